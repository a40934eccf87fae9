"""How runs end: the first failure ends all, is named, and nothing outlives a run, whoever is killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from needs import needs
from owners import Victim, the_command_line, the_guard, the_supervisor, the_warden
from running import await_, call, children, cli, find, here, launchers, living, pytorch, run_here, together, write_job
from sweeping import sweep_of

from azml_dist import JobError, Local, RunFailed
from azml_dist.local.spec import WholeSpec
from azml_dist.local.state import CancelRequest, RunFolder
from azml_dist.local.supervision import Supervision

SEEN: dict[str, Any] = {"outputs": {"seen": {"type": "uri_folder"}}}
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
    assert state.error == "rank 0 was aborted (SIGABRT) when its interpreter exited, after it had finished its work"
    assert "destroy_process_group" in (state.hint or "")


@launchers
def test_what_ranks_leave_running_ends_with_a_run_that_succeeded(launcher: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, "(setsid sleep 300 &); echo done", 2, 2)

    with cli("run", job, "--launcher", launcher, mark="success") as process:
        assert process.wait(timeout=60) == 0

    assert living("success") == []


def the_torchrun_host(process: subprocess.Popen[str]) -> int:
    return children(the_supervisor(process), "torchrun_host")[0]


def a_torchrun_agent(process: subprocess.Popen[str]) -> int:
    return children(the_torchrun_host(process))[1]


def what_stands_before_a_rank(process: subprocess.Popen[str]) -> int:
    return children(a_torchrun_agent(process), "rank.pyc")[0]


OWN: list[Victim] = [the_warden, the_guard, the_supervisor]
UNDER_TORCHRUN: list[Victim] = [the_torchrun_host, a_torchrun_agent, what_stands_before_a_rank]
PAIRS = [*itertools.combinations(OWN, 2), *((the_command_line, own) for own in OWN)]


def kill_at_once(pids: list[int]) -> None:
    """None of them sees another's end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # the kernel has ended it with the one that started it
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("launcher", "victims"),
    [
        *(("direct", victims) for victims in [*((v,) for v in [the_command_line, *OWN]), *PAIRS]),
        *(("torchrun", (v,)) for v in [the_command_line, *OWN, *UNDER_TORCHRUN]),
        ("torchrun", (the_guard, the_supervisor)),
        ("torchrun", (the_supervisor, the_torchrun_host)),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(v.__name__ for v in value),
)
def test_nothing_outlives_its_run_whoever_is_killed(launcher: str, victims: tuple[Victim, ...], tmp_path: Path) -> None:
    job = write_job(tmp_path, SLEEPERS, 2, 2, name="victim")

    with cli("run", job, "--launcher", launcher, mark="killed") as process:
        assert process.stdout
        for _ in range(4):
            assert "up" in process.stdout.readline()
        kill_at_once([victim(process) for victim in victims])
        await_(lambda: not living("killed"))
        state = await_(lambda: (s := find("victim").state()).is_final() and s)

    assert state.status in (["Canceled", "Failed"] if the_command_line in victims else ["Failed"])
    assert state.status == "Canceled" or victims != (the_command_line,)
    assert state.status != "Canceled" or state.error == "cancelled because the process that started it ended"
    assert state.error
    if what_stands_before_a_rank in victims:
        assert re.match(r"the wrapper process of rank \d was killed .SIGKILL., and the rank with", state.error)


@launchers
def test_a_rank_ends_with_all_that_watched_it(launcher: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, "sleep 300 & echo up; exec sleep 300", 2, 2, name="alone")

    with cli("run", job, "--launcher", launcher, mark="alone") as process:
        assert process.stdout
        for _ in range(4):
            assert "up" in process.stdout.readline()
        ranks = [p.pid for p in find("alone").state().processes]
        kill_at_once([process.pid, *(own(process) for own in OWN)])
        await_(lambda: not [pid for pid in ranks if pid in living("alone")])

    # A killed process may still be ending: until its lock is free, the run counts as running.
    assert await_(lambda: (s := find("alone").status).is_final and s) == "Failed"
    for pid in living("alone"):
        os.kill(pid, signal.SIGKILL)


OF_GLIBC = 0b11 << 31
"""Two signals that glibc keeps for itself, and ignores in what `posix_spawn` starts until it has threads."""


def with_odd_signals() -> None:
    """As `nohup`, a shell's `&` and some servers start what they start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)


@pytest.mark.parametrize("launcher", ["torchrun", "direct", pytest.param("mpirun", marks=needs("mpirun"))])
def test_ranks_begin_with_no_signal_blocked_or_ignored_and_no_file_open(launcher: str, tmp_path: Path) -> None:
    command = "sed -n '/^Sig\\(Blk\\|Ign\\):/s/.*\\t//p' /proc/self/status; ls /proc/self/fd; exit 3"
    distribution = {"type": "mpi" if launcher == "mpirun" else "pytorch", "process_count_per_instance": 1}
    job = write_job(tmp_path, command, name="plain", distribution=distribution)

    ran = call("run", job, *([] if launcher == "mpirun" else ["--launcher", launcher]), preexec_fn=with_odd_signals)

    blocked, ignored, *files = [line.removeprefix("[node0 rank0] ") for line in ran.stdout.splitlines()]
    assert (int(blocked, 16), int(ignored, 16) & ~OF_GLIBC) == (0, 0)
    assert files == ["0", "1", "2", "3"]  # the last is that of `ls` itself
    assert (ran.returncode, find("plain").state().exit_code) == (1, 3), ran.stderr


REASONS = {
    signal.SIGINT: "cancelled with Ctrl-C",
    signal.SIGTERM: "cancelled by SIGTERM",
    signal.SIGHUP: "cancelled because its terminal was closed (SIGHUP)",
}


@launchers
@pytest.mark.parametrize("signum", REASONS)
def test_an_interrupt_stops_the_run_and_says_so(launcher: str, signum: int, tmp_path: Path) -> None:
    job = write_job(tmp_path, SLEEPERS, 1, 2, name="interrupted")

    with cli("run", job, "--launcher", launcher, mark="interrupted") as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "stopping interrupted; press Ctrl-C again to kill it" in err
    assert f"error: {REASONS[signal.Signals(signum)]}\n" in err
    assert "run interrupted: Canceled" in err
    assert living("interrupted") == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(signum: int, tmp_path: Path) -> None:
    """As `nohup azml-dist run … &` has it, when the terminal is closed."""
    job = write_job(tmp_path, "echo up; while [ ! -e ${{outputs.seen}}/go ]; do sleep 0.02; done", name="on", **SEEN)

    with cli("run", job, "--launcher", "direct", preexec_fn=lambda: signal.signal(signum, signal.SIG_IGN)) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signum)
        (find("on").folder / "outputs" / "seen" / "go").touch()

        assert process.wait(timeout=30) == 0


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
        process.communicate(timeout=60)

    assert process.returncode == 130
    assert RunFolder(find("stubborn").folder).cancel_request() == CancelRequest(True, "cancelled with Ctrl-C")
    assert find("stubborn").state().processes[0].signal == signal.SIGKILL


def test_a_request_to_kill_replaces_one_to_cancel_and_is_not_replaced_by_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    folder.request_cancel("first")
    folder.request_cancel("second", kill=True)
    folder.request_cancel("third")

    assert folder.cancel_request() == CancelRequest(True, "second")


def test_a_run_that_is_killed_gives_its_processes_no_time_to_end() -> None:
    job = pytorch("trap '' TERM; " + together("echo up; while true; do sleep 0.1; done"), processes=2)
    run = Local(launcher="direct", grace=3600).submit(job)
    next(iter(run.logs(follow=True)))

    run.cancel()
    run.kill()

    with pytest.raises(RunFailed):
        run.wait(timeout=60)
    assert {process.signal for process in run.state().processes} == {signal.SIGKILL}


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
            assert find("shared").state().error == "cancelled with `azml-dist cancel`"
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
    await_(lambda: started.status == "Running")

    with pytest.raises(TimeoutError, match=re.escape(f"run {started.name} is still Running after 0.2 s")):
        started.wait(timeout=0.2)

    assert started.status == "Running"
    started.cancel()
    with pytest.raises(RunFailed, match=r"was cancelled by `run\.cancel\(\)`"):
        started.wait(timeout=30)


def test_a_run_whose_processes_are_all_gone_has_failed(tmp_path: Path) -> None:
    """As after a restart of the machine: `run.json` still says `Running`."""
    finished = run_here(pytorch("true"), launcher="direct")
    file = finished.folder / "run.json"
    file.write_text(file.read_text().replace("Completed", "Running"))

    assert finished.status == "Failed"
    assert "were killed" in (finished.state().error or "")


def test_a_run_whose_processes_are_all_gone_took_until_its_last_sign_of_life() -> None:
    finished = run_here(pytorch("true"), launcher="direct")
    file = finished.folder / "run.json"
    state = json.loads(file.read_text()) | {"status": "Running", "started_at": 1000.0, "ended_at": None}
    file.write_text(json.dumps(state))
    os.utime(file, (1060, 1060))

    assert finished.state().ended_at == 1060
    assert "60.0 s" in call("status", finished.name).stdout


def test_a_run_that_did_not_start_took_no_time() -> None:
    finished = run_here(pytorch("true"), launcher="direct")
    file = finished.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "Failed", "started_at": None}))

    assert not re.search(r"\d s\b", call("status", finished.name).stdout)


def test_a_supervisor_that_was_started_ahead_ends_if_a_sweep_cannot_start(tmp_path: Path) -> None:
    for executor in (Local(faults=["kill:rank=0@step=1"]), Local(inputs={"data": tmp_path})):
        supervision = Supervision()
        with pytest.raises(JobError):
            executor.submit(sweep_of(tmp_path, "true"), supervision=supervision)
        assert supervision.process.poll() is not None
        assert not os.path.exists(supervision.temp)


def test_an_error_of_our_own_ends_the_run_and_is_named(tmp_path: Path) -> None:
    class Faulty(Supervision):
        def hand_over(self, spec: WholeSpec, fds: list[int]) -> None:
            super().hand_over(cast(WholeSpec, spec | {"grace": "a while"}), fds)

    job = pytorch(f"echo $$ > {tmp_path}/$RANK; " + together("[ $RANK = 0 ] || exit 3; exec sleep 300"), processes=2)
    run = here("direct").submit(job, supervision=Faulty())
    with pytest.raises(RunFailed, match="a bug in azml_dist ended the run: TypeError") as failed:
        run.wait(timeout=30)

    assert failed.value.hint == "please report it, with supervisor.txt from system_logs"
    assert "Traceback" in (run.folder / "system_logs" / "supervisor.txt").read_text()
    assert not [file for file in tmp_path.iterdir() if Path("/proc", file.read_text().strip()).exists()]
