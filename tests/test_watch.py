"""The watch of a local run: it says which rank hangs and where, and nothing of a run that is only slow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import await_, call, cli, find, log_of, without_py_spy, write_job

from azml_dist import Job, JobError, Local, Mpi, PyTorch, Ray, RunFailed
from azml_dist.local.run import LocalRun
from azml_dist.verdict.hang import AT_ITS_END

HANG = """\
import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
for step in range(1000):
    if dist.get_rank() == 2 and step == 5:
        time.sleep(3600)
    dist.all_reduce(torch.ones(4))
    if dist.get_rank() == 0:
        print("step", step, flush=True)
"""


@needs("torch", "py-spy")
def test_the_rank_that_has_not_entered_a_collective_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "hang.py").write_text(HANG)
    job = write_job(tmp_path, "python hang.py", 2, 2, code=str(tmp_path), name="hang")

    ended = call("run", job, "--json", "--stall-after", "4", "--stall-timeout", "12")

    said = "rank 2 has not entered all_reduce #6, in which ranks 0, 1 and 3 wait"
    assert ended.returncode == 1
    assert f" s: {said} (rank 2 is at hang.py:9, ranks 0, 1 and 3 at hang.py:10)" in ended.stderr
    assert "hang.py:9  time.sleep(3600)" in ended.stderr
    state = json.loads(ended.stdout)
    assert (state["status"], state["exit_code"], state["failed_rank"]) == ("Failed", 1, 2)
    verdict = state["verdict"]
    assert (verdict["kind"], verdict["certainty"], verdict["rank"], verdict["ranks"]) == ("hang", "certain", 2, [2])
    assert (verdict["file"], verdict["line"], verdict["source"]) == ("hang.py", 9, "time.sleep(3600)")
    assert (verdict["node"], verdict["followers"]) == (1, [0, 1, 3])
    assert json.loads(call("why", "hang", "--json").stdout)["verdict"] == verdict
    last = json.loads(call("stacks", "hang", "--json").stdout)
    assert [(one["ranks"], one["line"]) for one in last["groups"]] == [([2], 9), ([0, 1, 3], 10)]
    assert (last["odd_ranks"], last["collective"]["number"], last["collective"]["op"]) == ([2], 6, "all_reduce")
    assert [one["ranks"] for one in find("hang").stacks(rank=1).groups] == [[0, 1, 3]]


LOCKED = """\
import os, threading
lock = threading.Lock()
lock.acquire()
if os.environ["RANK"] == "1":
    os.mkfifo("pipe")
    open("pipe").read()
lock.acquire()
"""
"""Rank 1 waits for a pipe into which nobody writes, the others for a lock that they hold themselves."""


def started(tmp_path: Path, script: str, processes: int = 3, **local: Any) -> LocalRun:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(script)
    job = Job(command="python train.py", code=str(code), distribution=PyTorch(process_count_per_node=processes))
    return Local(**{"launcher": "direct", "stall_after": 1.5, **local}).submit(job)


def ended(run: LocalRun) -> LocalRun:
    with contextlib.suppress(RunFailed):
        run.wait(timeout=60)
    return run


@needs("py-spy")
def test_a_run_that_hangs_has_a_verdict_while_it_does(tmp_path: Path) -> None:
    run = started(tmp_path, LOCKED)
    verdict = await_(run.verdict)

    assert (verdict.kind, verdict.ranks, verdict.file, verdict.line) == ("hang", [1], "train.py", 6)
    assert verdict.certainty == "likely"
    assert run.describe()["verdict"]["rank"] == 1
    assert f"hangs  {verdict.summary}" in " ".join(call("status", run.name).stdout.split(" "))
    run.cancel()
    ended(run)
    assert run.status == "Canceled"
    assert run.verdict() == verdict


def test_without_py_spy_the_signal_tells_who_hangs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LOCKED)
    job = write_job(tmp_path, "python train.py", 1, 3, code=str(tmp_path), name="bare")
    options = ["--launcher", "direct", "--stall-after", "2", "--stall-timeout", "5", "--json"]
    with without_py_spy(tmp_path / "other") as (command, env):
        done = subprocess.run(
            [*command, "run", str(job), *options], env=env, capture_output=True, text=True, check=False
        )

    state = json.loads(done.stdout)
    assert (done.returncode, state["status"]) == (1, "Failed")
    assert (state["verdict"]["rank"], state["verdict"]["line"]) == (1, 6)
    assert state["verdict"]["source"] == 'open("pipe").read()'
    assert json.loads(call("stacks", "bare", "--json").stdout)["by"] == "signal"


@needs("py-spy")
def test_a_run_that_ends_by_its_timeout_while_it_hangs_says_so(tmp_path: Path) -> None:
    """With an hour until a note: it is looked at before it is ended."""
    run = ended(started(tmp_path, LOCKED, stall_after=3600, timeout=6))
    verdict = run.verdict()

    assert (run.status, run.state().error) == ("Canceled", "it ran for longer than its timeout of 6 s")
    assert verdict
    assert (verdict.kind, verdict.rank, verdict.line) == ("hang", 1, 6)
    assert f"  again    azml-dist logs {run.name} --rank 1" in str(run)


ENDLESS = """\
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
print("ready", flush=True)
while dist.get_rank() == 1:
    pass
dist.all_reduce(torch.ones(4))
"""


@needs("torch", "py-spy")
def test_a_timeout_says_who_waits_for_a_rank_that_computes(tmp_path: Path) -> None:
    """A rank that computes is no hang: it may be slow. Nevertheless it tells whom the others wait for."""
    run = ended(started(tmp_path, ENDLESS, timeout=20))
    verdict = run.verdict()

    assert (run.status, run.state().error) == ("Canceled", "it ran for longer than its timeout of 20 s")
    assert verdict
    assert (verdict.kind, verdict.rank) == ("timeout", None)
    said = "seen just before it was ended: rank 1 has not entered all_reduce #1, in which ranks 0 and 2 wait"
    hint = run.state().hint or ""
    assert hint.startswith(said)
    assert re.search(r"\(rank 1 is at train\.py:[67], ranks 0 and 2 at train\.py:8\)$", hint)
    assert said in " ".join(str(run).split())


@needs("py-spy")
def test_a_timeout_says_nothing_of_ranks_that_wait_for_none(tmp_path: Path) -> None:
    run = ended(started(tmp_path, "while True:\n    pass\n", timeout=6))

    assert run.state().hint is None


@needs("py-spy")
def test_ctrl_c_while_it_hangs_keeps_the_diagnosis(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LOCKED)
    job = write_job(tmp_path, "python train.py", 1, 3, code=str(tmp_path), name="stuck")
    with cli("run", job, "--launcher", "direct", "--stall-after", "1.5", "--json") as process:
        await_(lambda: (find("stuck").folder / "hang.json").exists() if _is_there("stuck") else False)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 130
    state = json.loads(stdout)
    assert (state["status"], state["error"]) == ("Canceled", "cancelled with Ctrl-C")
    assert (state["verdict"]["kind"], state["verdict"]["rank"], state["verdict"]["line"]) == ("hang", 1, 6)
    assert f"why {state['verdict']['summary']}" in " ".join(stderr.split())


def _is_there(name: str) -> bool:
    return (Path(os.environ["AZML_DIST_ROOT"]) / name / "run.json").exists()


@needs("py-spy")
def test_a_run_that_moves_again_hangs_no_more(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os\nos.mkfifo('pipe')\nprint(open('pipe').read(), flush=True)\n")
    job = write_job(tmp_path, "python train.py", 1, 1, code=str(tmp_path), name="again")
    with cli("run", job, "--launcher", "direct", "--stall-after", "1.5") as process:
        await_(lambda: _is_there("again") and (find("again").folder / "hang.json").exists())
        await_(lambda: _says(process, "nothing has moved for"))
        with open(find("again").folder / "nodes/0/pipe", "w") as pipe:
            pipe.write("on")
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert find("again").verdict() is None
    assert not (find("again").folder / "hang.json").exists()


def _says(process: Any, words: str) -> bool:
    return words in process.stderr.readline()


SPINNING = """\
import time
from mpi4py import MPI

comm = MPI.COMM_WORLD
comm.Barrier()
if comm.rank == 1:
    time.sleep(3600)
comm.Barrier()
"""


@needs("mpirun", "mpi4py", "py-spy")
def test_ranks_that_poll_for_a_message_do_not_move(tmp_path: Path) -> None:
    """Open MPI takes a whole core for each of them."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SPINNING)
    job = Job(command="python train.py", code=str(code), distribution=Mpi(process_count_per_node=3))
    run = Local(stall_after=4).submit(job)
    verdict = await_(run.verdict, 60)
    run.kill()
    ended(run)

    assert (verdict.kind, verdict.rank, verdict.line, verdict.followers) == ("hang", 1, 7, [0, 2])
    assert verdict.summary == "ranks 0 and 2 wait in comm.Barrier (train.py:8), and rank 1 is at train.py:7"


RAISING = """\
from mpi4py import MPI

print("step 1", flush=True)
if MPI.COMM_WORLD.rank == 1:
    raise KeyError("labels")
MPI.COMM_WORLD.Barrier()
"""


@needs("mpirun", "mpi4py", "py-spy")
@pytest.mark.parametrize("processes", [2, 3])
def test_a_rank_that_raised_and_waits_in_mpi_finalize_is_to_blame(tmp_path: Path, processes: int) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(RAISING)
    job = Job(command="python train.py", code=str(code), distribution=Mpi(process_count_per_node=processes))
    run = Local(stall_after=4).submit(job)
    verdict = await_(run.verdict, 60)
    run.kill()
    ended(run)

    assert (verdict.kind, verdict.certainty, verdict.rank, verdict.exception) == ("hang", "likely", 1, "KeyError")
    assert (verdict.file, verdict.line, verdict.source) == ("train.py", 5, 'raise KeyError("labels")')
    assert verdict.summary.startswith("rank 1: KeyError: 'labels'; after that, ")
    assert verdict.followers == [rank for rank in range(processes) if rank != 1]
    assert "`python -m mpi4py train.py`" in str(run)
    page = run.page().save(tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'"text":"{AT_ITS_END}"' in page


THREAD = """\
import threading, time
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
if dist.get_rank() == 1:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    raise ValueError("no labels")
dist.all_reduce(torch.ones(4))
"""


@needs("torch", "py-spy")
def test_a_rank_that_raised_and_that_a_thread_keeps_alive_is_to_blame(tmp_path: Path) -> None:
    run = started(tmp_path, THREAD, 2)
    verdict = await_(run.verdict, 60)
    run.kill()
    ended(run)

    assert (verdict.kind, verdict.rank, verdict.exception, verdict.line) == ("hang", 1, "ValueError", 8)
    assert "`daemon=True`" in str(run)


TALKING = """\
import time
from mpi4py import MPI

end = 2 * MPI.COMM_WORLD.bcast(time.time() + 6)
for step in range(10**9):
    if MPI.COMM_WORLD.allreduce(time.time()) > end: break
"""


@needs("mpirun", "mpi4py", "py-spy")
def test_ranks_that_make_one_call_of_mpi_after_another_move(tmp_path: Path) -> None:
    """All of them are in the same line whenever somebody looks."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(TALKING)
    job = Job(command="python train.py", code=str(code), distribution=Mpi(process_count_per_node=2))
    run = ended(Local(stall_after=1.5).submit(job))

    assert run.status == "Completed", log_of(run, 0)
    assert run.verdict() is None


@needs("py-spy")
def test_a_stopped_rank_is_named(tmp_path: Path) -> None:
    run = started(tmp_path, "import time\nwhile True: time.sleep(0.2)\n", 2, stall_after=1.5)
    try:
        pid = await_(lambda: run.state().processes[1].pid)
        os.kill(pid, signal.SIGSTOP)
        verdict = await_(run.verdict)
    finally:
        run.kill()
        ended(run)

    assert (verdict.kind, verdict.certainty, verdict.ranks) == ("hang", "certain", [1])
    assert verdict.hint == f"`kill -CONT {pid}` lets it continue"


ALIVE = {
    "computes": "while time.time() < end: sum(range(10_000))",
    "a child computes": "subprocess.run(['timeout', '5', 'yes'], stdout=subprocess.DEVNULL)",
    "a slow loader that moves": "for batch in range(10):\n    time.sleep(0.5)",
    "writes much": "f = open('big', 'wb')\nwhile time.time() < end: f.write(bytes(500_000)), time.sleep(0.3)",
    "rank 0 sleeps while another computes": (
        "time.sleep(5) if os.environ['RANK'] == '0' else None\nwhile time.time() < end: sum(range(10_000))"
    ),
    "starts processes": "for _ in range(12): subprocess.run(['sleep', '0.4'])",
}


@needs("py-spy")
@pytest.mark.parametrize("how", ALIVE)
def test_a_run_that_is_slow_and_moves_is_not_said_to_hang(tmp_path: Path, how: str) -> None:
    (tmp_path / "train.py").write_text(f"import os, subprocess, sys, time\nend = time.time() + 5\n{ALIVE[how]}\n")
    job = write_job(tmp_path, "python train.py", 1, 2, code=str(tmp_path), name="alive")
    done = call("run", job, "--launcher", "direct", "--stall-after", "2")

    assert done.returncode == 0, done.stderr
    assert "moved" not in done.stderr
    assert not (find("alive").folder / "system_logs/watch.txt").exists()


POLLING = """\
import socket, time
for step in range(3):
    if step == 1:
        while True:
            try:
                socket.create_connection(("127.0.0.1", 1), timeout=1).close()
            except OSError:
                time.sleep(0.01)
"""
"""A port that is never opened: most of the time it sleeps, at some looks it connects."""


@needs("py-spy")
def test_a_rank_that_polls_for_what_does_not_come_hangs(tmp_path: Path) -> None:
    """It wakes as a slow loop does, and there is nothing in its loop that changes."""
    run = started(tmp_path, POLLING, 1)
    verdict = await_(run.verdict)
    run.kill()
    ended(run)

    assert (verdict.kind, verdict.rank) == ("hang", 0)
    assert verdict.line in range(5, 10)


def test_a_ray_job_is_not_watched_and_says_so() -> None:
    """Its command waits for what Ray's daemons do."""
    run = ended(Local(stall_timeout=1).submit(Job(command="sleep 4", distribution=Ray(address="127.0.0.1:1"))))

    assert run.status == "Completed"
    assert "Ray jobs are not watched for hangs: `--stall-timeout` does nothing" in run.state().findings


@pytest.mark.parametrize("off", [{"stall_after": 0}, {"watch": False}])
def test_the_watch_can_be_turned_off(tmp_path: Path, off: dict[str, Any]) -> None:
    run = ended(started(tmp_path, LOCKED, timeout=4, **off))

    assert run.status == "Canceled"
    assert not (run.folder / "hang.json").exists()
    assert (run.folder / ".watch").exists() == ("watch" not in off)
    assert log_of(run, 0) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stall_after": -1}, "`stall_after` must be 0 or more, not -1"),
        ({"stall_timeout": 0}, "`stall_timeout` must be greater than 0"),
        ({"stall_timeout": 5, "watch": False}, "`stall_timeout` needs the watch, which is off"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        Local(**options)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"verdict": {"kind": "hang"}, "stacks": {"groups": 3}}', '{"verdict": 3, "stacks": []}']
)
def test_a_file_of_somebody_else_in_its_place_says_nothing(tmp_path: Path, text: str) -> None:
    run = ended(started(tmp_path, "raise SystemExit(3)", 1))
    (run.folder / "hang.json").write_text(text)
    verdict = run.verdict()

    assert verdict
    assert verdict.kind == "exit-code"
    assert call("stacks", run.name).returncode == 2
