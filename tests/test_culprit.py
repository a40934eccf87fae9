"""Who failed first: the rank whose own error arrived first, not the one whose process was the quickest to end."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from needs import needs
from running import launchers, run_here

from azml_dist import Job, Output, PyTorch
from azml_dist.local.state import RunState

BEGIN = """
import atexit, logging, os, signal, sys, time
# Each attempt has a port, and so a folder, of its own.
rank, up = int(os.environ["RANK"]), os.path.join(sys.argv[1], os.environ["MASTER_PORT"])
os.makedirs(up, exist_ok=True)

def say(word):
    open(f"{up}/{word}", "w").close()

def hear(*words):
    while not all(os.path.exists(f"{up}/{word}") for word in words):
        time.sleep(0.01)

with open(f"{up}/pid{rank}", "w") as file:
    file.write(str(os.getpid()))

def lose(other):
    # A dead process stays until somebody waits for it.
    pid = open(f"{up}/pid{other}").read()
    while True:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.001)

say(f"up{rank}")
hear("up0", "up1", "up2")
"""
SLOW_ERROR = """
    atexit.register(lambda: (say("gone"), time.sleep(60)))
    {}["labels"]
"""
"""Its traceback is there, and its process takes its time."""
LOST = 'hear("gone"); raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")'
TIMED_OUT = 'raise RuntimeError("Timed out waiting 1800000ms for recv operation to complete")'
ABORT = "os.write(2, b'terminate called without an active exception\\n'); os.abort()"


def job_of(folder: Path, ranks: dict[int, str], otherwise: str = "time.sleep(60)") -> Job:
    """Three ranks, each with its own lines."""
    branches = [f"if rank == {rank}:\n    {code.strip()}\n" for rank, code in ranks.items()]
    (folder / "train.py").write_text(BEGIN + "el".join(branches) + f"else:\n    {otherwise}\n")
    return Job(
        command="python train.py ${{outputs.up}}",
        code=str(folder),
        distribution=PyTorch(process_count_per_node=3),
        outputs={"up": Output()},
    )


def state_of(folder: Path, ranks: dict[int, str], launcher: str = "direct", **options: object) -> RunState:
    return run_here(job_of(folder, ranks, **options), launcher=launcher, grace=1).state()  # type: ignore[arg-type]


@launchers
def test_a_rank_whose_traceback_came_first_goes_before_one_whose_process_was_quicker(
    launcher: str, tmp_path: Path
) -> None:
    state = state_of(tmp_path, {2: SLOW_ERROR}, launcher, otherwise=LOST)

    assert (state.failed_rank, state.exit_code) == (2, 1)
    assert state.error == "rank 2 failed: KeyError: 'labels'"
    assert state.processes[2].stopped


def test_an_abort_after_the_loss_of_a_peer_is_not_the_cause(tmp_path: Path) -> None:
    """As gloo has it: the abort of an interpreter's end, in a rank that another has left alone."""
    lost = f'hear("gone"); sys.stderr.write("Connection reset by peer\\n"); {ABORT}'

    state = state_of(tmp_path, {2: SLOW_ERROR}, otherwise=lost)

    assert state.error == "rank 2 failed: KeyError: 'labels'"


@launchers
@pytest.mark.parametrize("ends", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
def test_a_rank_that_says_nothing_goes_before_the_tracebacks_of_those_that_lost_it(
    launcher: str, ends: str, tmp_path: Path
) -> None:
    state = state_of(tmp_path, {1: ends}, launcher, otherwise=LOST.replace('hear("gone")', "lose(1)"))

    assert state.failed_rank == 1


@pytest.mark.parametrize(("mark", "before", "first"), [("[rank2]: ", "", 2), ("", "", 2), ("", "ERROR: skipped\n", 0)])
def test_of_two_errors_the_first_counts_where_the_script_has_not_logged_it(
    mark: str, before: str, first: int, tmp_path: Path
) -> None:
    """An error in a log has been caught; what Python prints by itself ends a process, sooner or later."""
    lines = ["Traceback (most recent call last):", '  File "train.py", line 3', "KeyError: 'labels'", ""]
    text = before + "\n".join(mark + line if line else line for line in lines)
    ending = f'sys.stderr.write({text!r}); say("gone"); time.sleep(60)'

    state = state_of(tmp_path, {2: ending, 0: 'hear("gone"); time.sleep(0.2); raise ValueError("mine")'})

    assert state.failed_rank == first


def test_tracebacks_that_lead_to_one_another_count_from_the_first(tmp_path: Path) -> None:
    chained = """
    atexit.register(lambda: time.sleep(60))
    try:
        {}["labels"]
    except KeyError as error:
        atexit.register(lambda: say("gone"))
        raise ValueError("bad batch") from error
"""
    state = state_of(tmp_path, {2: chained}, otherwise=LOST)

    assert state.error == "rank 2 failed: KeyError: 'labels'", "the cause, and not what came of it"


HANDLED = 'try: {}["x"]\n    except KeyError: logging.exception("skipped a batch")\n    say("gone"); '


@pytest.mark.parametrize("then", ["print('going on', flush=True); time.sleep(60)", "time.sleep(60)"])
def test_a_traceback_that_was_handled_makes_nobody_the_cause(then: str, tmp_path: Path) -> None:
    state = state_of(tmp_path, {2: HANDLED + then, 0: 'hear("gone"); time.sleep(0.2); sys.exit(4)'})

    assert (state.failed_rank, state.error) == (0, "rank 0 failed with exit code 4")


def test_an_early_handled_traceback_of_a_rank_that_fails_late_does_not_count(tmp_path: Path) -> None:
    late = HANDLED + "\n    print(*range(30), sep='\\n', flush=True); hear('first'); time.sleep(0.5); sys.exit(1)"
    first = 'hear("gone"); atexit.register(lambda: say("first")); raise ValueError("mine")'

    state = state_of(tmp_path, {2: late, 0: first})

    assert state.failed_rank == 0


def test_a_rank_that_had_ended_well_is_named_where_another_lost_it(tmp_path: Path) -> None:
    state = state_of(tmp_path, {2: "pass", 0: "time.sleep(60)"}, otherwise=LOST.replace('hear("gone")', "lose(2)"))

    assert state.failed_rank == 1
    assert state.error == (
        "rank 1 failed with exit code 1; it lost or waited for another process: "
        "rank 2 had ended with exit code 0, rank 0 was still running"
    )


@launchers
def test_a_rank_that_was_still_running_is_named_where_another_waited_for_it(launcher: str, tmp_path: Path) -> None:
    state = state_of(tmp_path, {0: TIMED_OUT, 1: TIMED_OUT}, launcher)

    assert state.failed_rank in (0, 1)
    assert re.search(r"; it lost or waited for another process: .*2 w.* still", state.error or "")


def test_a_rank_that_a_script_only_speaks_of_is_not_named(tmp_path: Path) -> None:
    lines = ["Traceback (most recent call last):", '  File "train.py", line 3', "KeyError: 'labels'"]
    text = "".join(f"[rank9]: {line}\n" for line in lines)

    run = run_here(job_of(tmp_path, {1: f"sys.stderr.write({text!r}); sys.exit(4)"}), launcher="direct", grace=1)
    found = run.verdict()

    assert (run.state().failed_rank, run.state().error) == (1, "rank 1 failed with exit code 4")
    assert found
    assert (found.rank, found.exception) == (1, "KeyError")


def test_nobody_else_is_named_for_an_error_of_a_ranks_own(tmp_path: Path) -> None:
    state = state_of(tmp_path, {1: 'raise ValueError("mine")', 0: "pass"})

    assert state.error == "rank 1 failed with exit code 1"


def test_the_first_failure_of_a_further_attempt_is_found_in_its_own_logs(tmp_path: Path) -> None:
    job = job_of(tmp_path, {2: SLOW_ERROR}, otherwise=LOST)

    run = run_here(job, launcher="direct", retries=1, grace=1)

    state = run.state()
    assert [state.earlier[0].failed_rank, state.failed_rank] == [2, 2]


def test_an_abort_at_exit_after_a_traceback_is_no_end_of_work_that_was_done(tmp_path: Path) -> None:
    filler = "sys.stderr.write('x' * 100000 + '\\n'); "
    for between in ("", filler):
        code = f"sys.stderr.write('Traceback (most recent call last):\\n  ...\\nKeyError: 1\\n'); {between}{ABORT}"
        state = state_of(tmp_path, {1: code})

        assert state.error == "rank 1 was ended by signal 6 (SIGABRT)"
        assert state.hint is None


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTERM])
def test_only_a_kill_is_followed_by_a_hint_about_memory(signum: signal.Signals, tmp_path: Path) -> None:
    state = state_of(tmp_path, {1: f"os.kill(os.getpid(), {int(signum)})"})

    assert state.error == f"rank 1 was ended by signal {int(signum)} ({signum.name})"
    assert "memory" not in (state.hint or "")


CRASH = """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
for step in range(20):
    dist.all_reduce(torch.ones(4))
    if dist.get_rank() == 2 and step == 10:
        {}["labels"]
"""


@needs("torch")
@launchers
def test_the_rank_with_the_error_is_named_whatever_becomes_of_those_in_the_same_collective(
    launcher: str, tmp_path: Path
) -> None:
    (tmp_path / "crash.py").write_text(CRASH)
    world = PyTorch(process_count_per_node=2)
    job = Job(command="python crash.py", code=str(tmp_path), node_count=2, distribution=world)

    state = run_here(job, timeout=120, launcher=launcher).state()

    assert state.failed_rank == 2, state.error
    assert "after its work" not in (state.error or "")
