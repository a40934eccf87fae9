"""Further attempts of a run: after a failure, or when its nodes are taken away; what is new, and what is kept."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from owners import Victim, the_guard, the_supervisor, the_warden
from running import await_, call, children, cli, find, launchers, living, pytorch, run_here, together, write_job

from azml_dist import Job, JobError, Local, Mpi, Output, Ray, RunFailed, TensorFlow

ONCE = "[ -e ${{outputs.seen}}/$RANK ] || { touch ${{outputs.seen}}/$RANK; %s; }"
"""What is done in the first attempt alone: named outputs outlive it."""
SEEN = {"seen": Output()}


def failing_once(command: str = "true", fails: str = "exit 3", **world: Any) -> Job:
    return pytorch(f"{command}; {ONCE % fails}", outputs=SEEN, **world)


@launchers
def test_a_run_that_failed_is_started_again_under_its_name(launcher: str) -> None:
    run = run_here(failing_once("echo $AZUREML_RUN_ID"), launcher=launcher, retries=1)

    state = run.state()
    [first] = state.earlier
    assert (state.status, state.exit_code, state.retry) == ("Completed", 0, 1)
    assert (first.status, first.exit_code, first.failed_rank) == ("Failed", 3, 0)
    assert first.error == "rank 0 failed with exit code 3"
    assert list(run.logs(rank=0)) == [run.name, "-- attempt 2 --", run.name]


def test_the_logs_of_a_further_attempt_are_where_azure_ml_has_them() -> None:
    run = run_here(failing_once("echo $RANK", processes=2), launcher="direct", retries=1)

    logs = {str(file.relative_to(run.folder / "user_logs")) for file in run.folder.glob("user_logs/**/*.txt")}
    assert logs == {f"{folder}std_log_process_{rank}.txt" for folder in ("", "retry_001/") for rank in (0, 1)}
    assert [p.log for p in run.state().processes] == [f"user_logs/retry_001/std_log_process_{r}.txt" for r in (0, 1)]


def test_a_run_fails_with_its_last_attempt() -> None:
    run = run_here(pytorch("echo $RANK; exit $((4 + RANK))"), launcher="direct", retries=2)

    state = run.state()
    assert (state.status, state.exit_code, len(state.earlier)) == ("Failed", 4, 2)
    assert (run.folder / "user_logs" / "retry_002" / "std_log_process_0.txt").exists()


@launchers
def test_each_attempt_has_a_master_port_of_its_own(launcher: str) -> None:
    job = pytorch(f"echo $MASTER_PORT; {ONCE % together('exit 3')}", 2, outputs=SEEN | {"up": Output()})

    run = run_here(job, launcher=launcher, retries=1)

    first, _, second = run.logs(rank=1)
    assert first != second


def test_each_tensorflow_attempt_has_ports_of_its_own() -> None:
    once = ONCE.replace("$RANK", "$AZUREML_CR_NODE_RANK") % "sleep 0.2; exit 1"
    job = Job(command=f"echo $TF_CONFIG; {once}", node_count=2, distribution=TensorFlow(), outputs=SEEN)

    run = run_here(job, retries=1)

    first, _, second = run.logs(rank=0)
    addresses = [set(json.loads(text)["cluster"]["worker"]) for text in (first, second)]
    assert not addresses[0] & addresses[1]


def test_working_directories_are_fresh_and_the_code_is_that_of_the_start(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "data.txt").write_text("as it was")
    (code / "run.sh").write_text("#!/bin/sh\ncat data.txt; echo; ls outputs; echo changed > data.txt\n")
    (code / "run.sh").chmod(0o755)
    changed = f"echo new > {code}/data.txt; touch outputs/mine"

    run = run_here(failing_once("./run.sh", f"{changed}; exit 1", code=code), launcher="direct", retries=1)

    assert list(run.logs(rank=0)) == ["as it was", "-- attempt 2 --", "as it was"]
    assert (code / "data.txt").read_text() == "new\n"


def test_what_an_attempt_wrote_to_outputs_is_kept_apart() -> None:
    run = run_here(failing_once("echo $RANK > outputs/result"), launcher="direct", retries=1)

    kept = run.folder / "artifacts" / "outputs"
    assert sorted(str(file.relative_to(kept)) for file in kept.rglob("*") if file.is_file()) == [
        "result",
        "retry_001/result",
    ]


def test_a_failure_that_azure_ml_would_not_repeat_is_noted() -> None:
    [finding] = run_here(failing_once(), launcher="direct", retries=1).state().findings

    assert finding.startswith("attempt 1 failed and was followed by another: Azure ML restarts a job if its nodes")


@launchers
def test_nodes_that_are_taken_away_end_an_attempt_without_a_word_and_another_begins(launcher: str) -> None:
    command = f"trap 'echo warned' TERM; echo up; {ONCE % 'while true; do sleep 0.05; done'}"

    run = run_here(pytorch(command, 2, outputs=SEEN), launcher=launcher, preempt_after=1)

    state = run.state()
    assert (state.status, state.findings) == ("Completed", [])
    assert [(a.status, a.error) for a in state.earlier] == [("Preempted", "its nodes were evicted after 1 s")]
    assert [(p.signal, p.stopped) for p in state.earlier[0].processes] == [(signal.SIGKILL, True)] * 2
    assert list(run.logs(rank=0)) == ["up", "-- attempt 2 --", "up"]


TASK = """$(grep -o 'type":"..' <<< "$TF_CONFIG" | tail -c 3)"""
"""`wo` or `ps`."""


@pytest.mark.parametrize(
    ("distribution", "place"),
    [
        pytest.param(Mpi(process_count_per_node=2), "$OMPI_COMM_WORLD_RANK", marks=needs("mpirun")),
        pytest.param(TensorFlow(parameter_server_count=1), f"$AZUREML_CR_NODE_RANK{TASK}", id="tensorflow"),
        pytest.param(Ray(include_dashboard=False), "head", marks=needs("ray")),
    ],
)
def test_nodes_of_every_distribution_can_be_taken_away(distribution: Mpi | TensorFlow | Ray, place: str) -> None:
    command = f"{ONCE.replace('$RANK', place) % 'sleep 600'}; echo again; sleep 0.2"
    job = Job(command=command, node_count=2, distribution=distribution, outputs=SEEN)

    run = run_here(job, timeout=240, preempt_after=1)

    assert [attempt.status for attempt in run.state().earlier] == ["Preempted"]
    assert (run.status, list(run.logs(rank=0))) == ("Completed", ["again"])


def test_an_attempt_after_a_preemption_does_not_count_as_one_after_a_failure() -> None:
    twice = ONCE % "sleep 60" + "; [ -e ${{outputs.seen}}/x ] || { touch ${{outputs.seen}}/x; exit 1; }"

    run = run_here(pytorch(twice, outputs=SEEN), launcher="direct", preempt_after=1, retries=1)

    assert [a.status for a in run.state().earlier] == ["Preempted", "Failed"]
    assert run.status == "Completed"


def test_a_run_that_ends_before_its_preemption_says_so() -> None:
    state = run_here(pytorch("true"), launcher="direct", preempt_after=60).state()

    assert (state.status, state.earlier) == ("Completed", [])
    assert state.findings == ["it finished before the simulated eviction after 60 s"]


def test_a_run_that_is_canceled_is_not_started_again(tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo up; sleep 300", name="tired")

    with cli("run", job, "--launcher", "direct", "--retries", "3") as process:
        assert process.stdout
        process.stdout.readline()
        find("tired").cancel()
        process.communicate(timeout=30)

    assert (find("tired").status, find("tired").state().earlier) == ("Canceled", [])


def test_the_timeout_is_that_of_the_whole_run() -> None:
    run = Local(launcher="direct", retries=500, timeout=4).submit(pytorch("exit 1"))

    with pytest.raises(RunFailed, match=r"it ran for longer than its timeout of 4 s"):
        run.wait(timeout=60)

    assert run.status == "Canceled"
    assert 0 < len(run.state().earlier) < 500


@pytest.mark.parametrize("victim", [the_supervisor, the_guard])
def test_nothing_is_left_when_a_process_of_a_further_attempt_is_killed(victim: Victim, tmp_path: Path) -> None:
    command = f"{ONCE % 'exit 1'}; (setsid sleep 300 &); echo again; sleep 300"
    job = write_job(tmp_path, command, 1, 1, name="second", outputs={"seen": {"type": "uri_folder"}})

    with cli("run", job, "--launcher", "direct", "--retries", "1", mark="second") as process:
        out = process.stdout
        assert out
        await_(lambda: "again" in out.readline())
        os.kill(victim(process), signal.SIGKILL)
        await_(lambda: not living("second"))
        state = await_(lambda: (s := find("second").state()).is_final() and s)

    assert (state.status, state.retry) == ("Failed", 1)


def test_each_attempt_begins_when_the_one_before_has_ended() -> None:
    state = run_here(pytorch("sleep 0.2; exit 1"), launcher="direct", retries=3).state()

    assert len(state.earlier) == 3
    assert state.earlier[0].started_at == state.started_at
    for before, after in itertools.pairwise(state.earlier):
        assert after.started_at == before.ended_at
        assert after.ended_at - (after.started_at or 0) >= 0.2


def test_without_torch_a_further_attempt_is_started_directly_as_well(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)

    state = run_here(failing_once(), python=str(tmp_path / "bare/bin/python"), retries=1).state()

    assert (state.status, state.retry, state.launcher) == ("Completed", 1, "direct")
    assert len([finding for finding in state.findings if "has no torch" in finding]) == 1


@pytest.mark.parametrize("who", ["warden", "guard"])
def test_a_signal_between_two_attempts_cancels_the_run(who: str, tmp_path: Path) -> None:
    command = f"{ONCE % 'echo up; while [ ! -e ${{outputs.seen}}/go ]; do sleep 0.02; done; exit 1'}; sleep 300"
    job = write_job(tmp_path, command, name="between", outputs={"seen": {"type": "uri_folder"}})

    with cli("run", job, "--launcher", "direct", "--retries", "1", mark="between") as process:
        assert process.stdout
        process.stdout.readline()
        warden, guard = the_warden(process), the_guard(process)
        os.kill(guard, signal.SIGSTOP)  # it starts no second attempt
        (find("between").folder / "outputs" / "seen" / "go").touch()
        await_(lambda: find("between").state().retry == 1 and not children(guard, "supervisor"))
        os.kill(guard if who == "guard" else warden, signal.SIGTERM)
        os.kill(guard, signal.SIGCONT)
        process.communicate(timeout=30)

    state = find("between").state()
    assert (state.status, state.retry) == ("Canceled", 1), state.error
    assert living("between") == []


def test_no_attempt_leaves_a_file_open_in_what_outlives_it() -> None:
    count = "guard=$(awk '{print $4}' /proc/$PPID/stat); ls /proc/$guard/fd | wc -l; ls /proc/$PPID/fd | wc -l; exit 1"

    run = run_here(pytorch(count), launcher="direct", retries=3)

    told = [line for line in run.logs(rank=0) if not line.startswith("--")]
    assert told[2:4] == told[4:6] == told[6:8]


@launchers
def test_no_run_leaves_a_file_open_in_what_started_it(launcher: str) -> None:
    def run_and_count() -> int:
        run_here(failing_once(processes=2), launcher=launcher, retries=1)
        return len(os.listdir("/proc/self/fd"))

    first = run_and_count()

    assert run_and_count() == first


def test_the_command_line_takes_nodes_away_and_tells_of_it(tmp_path: Path) -> None:
    job = write_job(tmp_path, ONCE % "echo up; sleep 60", name="spot", outputs={"seen": {"type": "uri_folder"}})

    ran = call("run", job, "--launcher", "direct", "--preempt-after", "1")

    assert (ran.returncode, ran.stdout) == (0, "[node0 rank0] up\n")
    assert "attempt 1: Preempted, its nodes were evicted after 1 s" in ran.stderr.splitlines()
    assert "attempt 1  Preempted: its nodes were evicted after 1 s" in call("status", "spot").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "`retries` must be 0 or more"),
        ({"preempt_after": 0}, "`preempt_after` must be greater than 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        Local(**options)


TRAINING = Path(__file__).parent / "scripts" / "resume"
CHECKPOINT: dict[str, Any] = {"code": TRAINING, "outputs": {"checkpoint": Output()}}


@needs("torch")
def test_a_training_goes_on_in_the_next_attempt_where_its_checkpoint_is() -> None:
    run = run_here(pytorch("python resuming.py ${{outputs.checkpoint}}", 2, **CHECKPOINT), timeout=180, retries=1)

    assert run.status == "Completed", "\n".join(run.logs())
    assert run.state().earlier[0].failed_rank == 1
    assert list(run.logs(rank=1)) == [
        "rank 1 of 2 begins at step 0",
        "-- attempt 2 --",
        "rank 1 of 2 begins at step 20",
        "rank 1 has done 40 steps: y = 3 x + 2",
    ]


PER_NODE = "torchrun --nnodes $AZUREML_NODE_COUNT --nproc-per-node 2 --max-restarts 1"
C10D = "--rdzv-backend c10d --rdzv-endpoint $MASTER_ADDR:$MASTER_PORT --rdzv-id $AZUREML_RUN_ID"
STATIC = "--node-rank $NODE_RANK --master-addr $MASTER_ADDR --master-port $MASTER_PORT"
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@needs("torch")
def test_a_torchrun_of_the_users_own_restarts_and_goes_on_where_the_checkpoint_is() -> None:
    command = f"{PER_NODE} {C10D} resuming.py ${{{{outputs.checkpoint}}}}"

    run = run_here(pytorch(command, 2, environment_variables=OWN_STORE, **CHECKPOINT), timeout=300)

    told = [line.split("] ", 1)[1] for line in run.logs() if "] rank " in line]
    assert run.status == "Completed", "\n".join(run.logs())
    assert sorted(told) == sorted(
        line
        for rank in range(4)
        for line in (
            f"rank {rank} of 4 begins at step 0",
            f"rank {rank} of 4 begins at step 20",
            f"rank {rank} has done 40 steps: y = 3 x + 2",
        )
    )
    assert run.state().earlier == []


@pytest.mark.parametrize(
    ("command", "variables", "said"),
    [
        (f"{PER_NODE} {C10D} train.py", OWN_STORE, None),
        (f"{PER_NODE} {C10D} train.py", {}, "share its store with the previous ones"),
        (f"{PER_NODE} {STATIC} train.py", OWN_STORE, "do not find each other again at a fixed `--master-port`"),
        (f"{PER_NODE} train.py".replace("restarts 1", "restarts=0"), {}, None),
        (f"python train.py {PER_NODE}", {}, None),
    ],
)
def test_a_plan_warns_of_restarts_that_do_not_work(command: str, variables: dict[str, str], said: str | None) -> None:
    plan = pytorch(command, 2, environment_variables=variables, outputs={}).plan()

    found = [str(finding) for finding in plan.findings if finding.code.startswith("restarts-")]
    assert [said in one for one in found if said] == [True] * (said is not None)
    assert len(found) == (said is not None)
