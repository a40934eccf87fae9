"""How runs end: the first failure ends all, is named, and nothing outlives a run, whoever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import await_, call, children, cli, find, here, launchers, living, pytorch, run_here, together, write_job

from azml_dist import Local, RunFailed
from azml_dist.local.supervision import Supervision

SLEEPERS = "(setsid sleep 300 &) ; sleep 300 & echo up; wait"
"""Each rank leaves a child in a session of its own, as only a supervisor that adopts orphans can find."""


@launchers
def test_the_first_failure_stops_the_other_node_and_is_named(launcher: str) -> None:
    job = pytorch(together("if [ $RANK = 2 ]; then echo about to fail; exit 3; fi; sleep 300"), 2, 2)

    run = here(launcher).submit(job)
    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=30)

    error = failed.value
    assert (error.failed_rank, error.exit_codes) == (2, {0: None, 1: None, 2: 3, 3: None})
    assert "about to fail" in error.log_tail
    assert [p.stopped for p in run.state().processes] == [True, True, False, True]


@launchers
def test_a_rank_that_fails_because_another_did_is_not_blamed(launcher: str) -> None:
    waits = together("if [ $RANK = 1 ]; then exit 9; fi; while true; do sleep 0.02; done")
    job = pytorch(f"trap 'exit 4' TERM; {waits}", processes=3)

    state = run_here(job, launcher=launcher).state()

    assert (state.failed_rank, state.exit_code) == (1, 9)
    assert [p.exit_code for p in state.processes] == [4, 9, 4]


@launchers
def test_a_rank_that_ignores_the_request_to_end_is_killed(launcher: str) -> None:
    waits = together("if [ $RANK = 1 ]; then exit 5; fi; while true; do sleep 0.1; done")
    job = pytorch(f"trap '' TERM; {waits}", processes=2)

    state = run_here(job, launcher=launcher, grace=0.5).state()

    assert (state.processes[0].signal, state.processes[0].stopped) == (signal.SIGKILL, True)


@launchers
def test_a_rank_that_is_killed_ends_the_run_under_its_name(launcher: str) -> None:
    job = pytorch(together("if [ $RANK = 1 ]; then kill -9 $$; fi; sleep 300"), processes=2)

    state = run_here(job, launcher=launcher).state()

    assert (state.failed_rank, state.exit_code) == (1, 137)
    assert (state.processes[1].exit_code, state.processes[1].signal) == (None, 9)
    assert state.error == "rank 1 was ended by signal 9 (SIGKILL)"


def test_an_abort_at_exit_is_told_from_a_failure_of_the_work() -> None:
    script = "import os; os.write(2, b'terminate called without an active exception\\n'); os.abort()"

    state = run_here(pytorch(["python", "-c", script]), launcher="direct").state()

    assert state.status == "Failed"
    assert state.error == "rank 0 was aborted (SIGABRT) at the exit of its interpreter, after its work was done"
    assert "destroy_process_group" in (state.hint or "")


@launchers
def test_what_ranks_leave_running_ends_with_a_run_that_succeeded(launcher: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, "(setsid sleep 300 &); echo done", 2, 2)

    with cli("run", job, "--launcher", launcher, mark="success") as process:
        assert process.wait(timeout=60) == 0

    assert living("success") == []


def supervisor_of(process: subprocess.Popen[str]) -> int:
    [guard] = children(process.pid, "supervisor")
    [supervisor] = children(guard, "supervisor")
    return supervisor


def the_command_line(process: subprocess.Popen[str]) -> int:
    return process.pid


def the_guard(process: subprocess.Popen[str]) -> int:
    return children(process.pid, "supervisor")[0]


def the_torchrun_host(process: subprocess.Popen[str]) -> int:
    return children(supervisor_of(process), "torchrun_host")[0]


def a_torchrun_agent(process: subprocess.Popen[str]) -> int:
    return children(the_torchrun_host(process))[1]


def what_stands_before_a_rank(process: subprocess.Popen[str]) -> int:
    return children(a_torchrun_agent(process), "rank.pyc")[0]


Victim = Callable[[subprocess.Popen[str]], int]
EVERYWHERE: list[Victim] = [the_command_line, the_guard, supervisor_of]
UNDER_TORCHRUN: list[Victim] = [the_torchrun_host, a_torchrun_agent, what_stands_before_a_rank]


@pytest.mark.parametrize(
    ("launcher", "victim"),
    [("direct", v) for v in EVERYWHERE] + [("torchrun", v) for v in [*EVERYWHERE, *UNDER_TORCHRUN]],
)
def test_nothing_outlives_its_run_whoever_is_killed(launcher: str, victim: Victim, tmp_path: Path) -> None:
    job = write_job(tmp_path, SLEEPERS, 2, 2, name="victim")

    with cli("run", job, "--launcher", launcher, mark="killed") as process:
        assert process.stdout
        for _ in range(4):
            assert "up" in process.stdout.readline()
        os.kill(victim(process), signal.SIGKILL)
        await_(lambda: not living("killed"))
        state = await_(lambda: (s := find("victim").state()).is_final() and s)

    assert state.status == ("Canceled" if victim is the_command_line else "Failed")
    assert state.error


@launchers
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_the_run_and_says_so(launcher: str, signum: int, tmp_path: Path) -> None:
    job = write_job(tmp_path, SLEEPERS, 1, 2, name="interrupted")

    with cli("run", job, "--launcher", launcher, mark="interrupted") as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "stopping run interrupted" in err
    assert "run interrupted: Canceled" in err
    assert living("interrupted") == []


def test_a_second_interrupt_kills_what_takes_its_time(tmp_path: Path) -> None:
    job = write_job(tmp_path, "trap '' TERM; echo up; while true; do sleep 0.1; done", name="stubborn")

    with cli("run", job, "--launcher", "direct") as process:
        out, err_ = process.stdout, process.stderr
        assert out
        assert err_
        out.readline()
        process.send_signal(signal.SIGINT)
        await_(lambda: "stopping" in err_.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=2.5)  # less than the grace of 3 s

    assert process.returncode == 130
    assert find("stubborn").state().processes[0].signal == signal.SIGKILL


def test_a_run_is_followed_and_canceled_by_other_processes(tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo up $RANK; sleep 300", 1, 2, name="shared")

    with cli("run", job, "--launcher", "direct") as owner:
        assert owner.stdout
        owner.stdout.readline()
        with cli("logs", "shared", "--rank", "1", "--follow") as follower:
            assert follower.stdout
            assert follower.stdout.readline() == "[node0 rank1] up 1\n"
            assert json.loads(call("status", "shared", "--json").stdout)["status"] == "Running"

            canceled = call("cancel", "shared")

            assert (canceled.returncode, canceled.stderr) == (0, "run shared: Canceled\n")
            assert follower.wait(timeout=30) == 1
        assert owner.wait(timeout=30) == 1


def test_a_handle_made_later_waits_for_a_run_of_another_process(tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo up; sleep 1; exit 6", name="other")

    with cli("run", job, "--launcher", "direct") as owner:
        assert owner.stdout
        owner.stdout.readline()
        with pytest.raises(RunFailed, match="run other failed: rank 0 failed with exit code 6"):
            find("other").wait(timeout=30)


def test_waiting_for_longer_than_allowed_leaves_the_run_going_on() -> None:
    started = Local(launcher="direct").submit(pytorch("sleep 300"))

    with pytest.raises(TimeoutError, match=re.escape(f"run {started.name} is still Running after 0.2 s")):
        started.wait(timeout=0.2)

    assert started.status == "Running"
    started.cancel()
    with pytest.raises(RunFailed, match="was canceled"):
        started.wait(timeout=30)


def test_a_run_whose_processes_are_all_gone_has_failed(tmp_path: Path) -> None:
    """As after a restart of the machine: `run.json` still says `Running`."""
    finished = run_here(pytorch("true"), launcher="direct")
    file = finished.folder / "run.json"
    file.write_text(file.read_text().replace("Completed", "Running"))

    assert finished.status == "Failed"
    assert "were killed" in (finished.state().error or "")


def test_an_error_of_our_own_ends_the_run_and_is_named(tmp_path: Path) -> None:
    class Faulty(Supervision):
        def hand_over(self, spec: dict[str, Any], fds: list[int]) -> None:
            super().hand_over(spec | {"grace": "a while"}, fds)

    job = pytorch(f"echo $$ > {tmp_path}/$RANK; " + together("[ $RANK = 0 ] || exit 3; exec sleep 300"), processes=2)
    run = here("direct").submit(job, supervision=Faulty())
    with pytest.raises(RunFailed, match="an error in azml_dist ended the run: TypeError") as failed:
        run.wait(timeout=30)

    assert failed.value.hint == "please report it; supervisor.txt in system_logs tells more"
    assert "Traceback" in (run.folder / "system_logs" / "supervisor.txt").read_text()
    assert not [file for file in tmp_path.iterdir() if Path("/proc", file.read_text().strip()).exists()]
