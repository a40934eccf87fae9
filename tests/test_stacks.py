"""`azml-dist stacks`: where every process of a local run is, without harm to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import CLI, await_, call, log_of, pytorch, run_here, without_py_spy

from azml_dist import DistError, Job, Local, Mpi, Output, PyTorch, RunFailed
from azml_dist.errors import NotFound
from azml_dist.local.run import LocalRun
from azml_dist.words import plural

WAITING = """\
import os, threading, sys

lock = threading.Lock()
lock.acquire()

def mark():
    open(os.path.join(sys.argv[1], os.environ["RANK"]), "w").close()

def in_a_pipe():
    os.mkfifo("pipe")
    mark()
    open("pipe").read()

def in_a_lock():
    mark()
    lock.acquire()

in_a_pipe() if os.environ["RANK"] == "2" else in_a_lock()
"""
"""Rank 2 opens a pipe into which nobody writes, the others take a lock twice."""


COMMAND = "python wait.py ${{outputs.up}}"
UP = {"up": Output()}


@contextmanager
def going_on(
    tmp_path: Path, script: str, processes: int = 4, job: Job | None = None, **local: Any
) -> Iterator[LocalRun]:
    """A run of that script, once each of its ranks has made a file in its output `up`."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "wait.py").write_text(script)
    job = job or Job(command=COMMAND, outputs=UP, distribution=PyTorch(process_count_per_node=processes))
    run = Local(**{"launcher": "direct", **local}).submit(job.with_(code=str(code)))
    try:
        await_(lambda: len(list((run.folder / "outputs/up").iterdir())) == processes or run.status.is_final, 60)
        assert not run.status.is_final, log_of(run, 0)
        await_(lambda: all(process.pid for process in run.state().processes))
        yield run
    finally:
        run.kill()
        with contextlib.suppress(RunFailed):
            run.wait()


def stacks_by(command: list[str], env: dict[str, str], run: LocalRun) -> dict[str, Any]:
    done = subprocess.run([*command, "stacks", run.name, "--json"], env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def settled(run: LocalRun) -> Any:
    """Its stacks, once all ranks are in one of their two lines."""
    return await_(lambda: len((found := run.stacks()).groups) == 2 and found)


@needs("py-spy")
def test_equal_stacks_are_grouped_and_the_odd_one_comes_first(tmp_path: Path) -> None:
    with going_on(tmp_path, WAITING) as run:
        found = settled(run)
        odd, others = found.groups

        assert (odd["ranks"], odd["file"], odd["line"]) == ([2], "wait.py", 12)
        assert (others["ranks"], others["line"]) == ([0, 1, 3], 16)
        assert odd["frame"] == 'wait.py:12 in in_a_pipe: open("pipe").read()'
        assert found.odd_ranks == [2]
        text = call("stacks", run.name).stdout
        assert "ranks 0, 1 and 3" in text
        assert "wait.py:16 in in_a_lock: lock.acquire()" in text
        assert run.status == "Running"


def test_without_py_spy_a_signal_that_the_run_arranged_tells_the_same(tmp_path: Path) -> None:
    with going_on(tmp_path, WAITING) as run, without_py_spy(tmp_path) as (command, env):
        found = await_(lambda: len((one := stacks_by(command, env, run))["groups"]) == 2 and one)

        assert found["by"] == "signal"
        assert [(one["ranks"], one["line"]) for one in found["groups"]] == [([2], 12), ([0, 1, 3], 16)]
        assert found["groups"][0]["frame"] == 'wait.py:12 in in_a_pipe: open("pipe").read()'
        assert run.status == "Running"


def test_without_either_it_says_how_to_get_stacks(tmp_path: Path) -> None:
    with going_on(tmp_path, WAITING, watch=False) as run, without_py_spy(tmp_path) as (command, env):
        done = subprocess.run([*command, "stacks", run.name], env=env, capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout) == (2, "")
        assert "error: cannot read any stack: py-spy is not installed" in done.stderr
        assert "hint: `pip install 'azml-dist[debug]'`" in done.stderr


UNREADABLE = "import ctypes; ctypes.CDLL(None).prctl(4, 0)\n" + WAITING
"""A process whose memory only root may read: as where the system keeps processes from each other."""


@needs("py-spy", "setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="takes the right to read other processes from root")
def test_where_the_system_forbids_it_it_says_how_to_allow_it(tmp_path: Path) -> None:
    with going_on(tmp_path, UNREADABLE) as run:
        done = subprocess.run(
            ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", *CLI, "stacks", run.name],
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 2
        assert "error: cannot read any stack: py-spy may not read this process" in done.stderr
        assert "--cap-add SYS_PTRACE" in done.stderr


CHILDREN = """\
import multiprocessing, os, subprocess, sys, time

def child(up):
    open(os.path.join(up, os.environ["RANK"]), "w").close()
    time.sleep(100)

if __name__ == "__main__":
    worker = multiprocessing.get_context("fork").Process(target=child, args=(sys.argv[1],))
    worker.start()
    worker.join()
"""


def test_processes_that_a_rank_started_are_shown_apart(tmp_path: Path) -> None:
    with going_on(tmp_path, CHILDREN, 2) as run, without_py_spy(tmp_path) as (command, env):
        both = await_(lambda: len((one := stacks_by(command, env, run))["groups"]) == 2 and one)
        for groups in (both["groups"], await_(lambda: len(found := run.stacks().groups) == 2 and found)):
            own, children = groups
            assert (own["who"], own["frame"]) == ("ranks 0 and 1", "wait.py:10 in <module>: worker.join()")
            assert (children["who"], children["frame"]) == (
                "children of ranks 0 and 1",
                "wait.py:5 in child: time.sleep(100)",
            )


def test_a_program_that_is_no_python_is_named(tmp_path: Path) -> None:
    job = Job(command="touch ${{outputs.up}}/0; exec sleep 100", outputs=UP)
    with going_on(tmp_path, "", 1, job) as run:
        group = await_(lambda: (found := run.stacks().groups) and "sleep" in found[0]["process"] and found)[0]

        assert group["problem"] == "not a Python program: its stack is not shown"
        assert "sleep 100: not a Python program" in str(run.stacks())


RECEIVING = """\
import os, sys, time
from mpi4py import MPI

comm = MPI.COMM_WORLD
open(os.path.join(sys.argv[1], str(comm.rank)), "w").close()
if comm.rank == 1:
    time.sleep(100)
comm.Barrier()
"""


@needs("mpirun", "mpi4py", "py-spy")
def test_an_mpi_rank_that_does_not_come_is_named(tmp_path: Path) -> None:
    job = Job(command=COMMAND, outputs=UP, distribution=Mpi(process_count_per_node=3))
    with going_on(tmp_path, RECEIVING, 3, job, launcher=None) as run:
        found = settled(run)

        assert found.odd_ranks == [1]
        assert [(one["ranks"], one["line"]) for one in found.groups] == [([1], 7), ([0, 2], 8)]
        assert found.summary == "ranks 0 and 2 wait in comm.Barrier (wait.py:8), and rank 1 is at wait.py:7"


def test_a_rank_that_there_is_not_and_a_run_that_has_ended_are_refused(tmp_path: Path) -> None:
    with going_on(tmp_path, WAITING) as run:
        assert [one["ranks"] for one in run.stacks(rank=3).groups] == [[3]]
        with pytest.raises(NotFound, match="has no rank 7"):
            run.stacks(rank=7)
        assert call("stacks", run.name, "--rank", "7").returncode == 2
    ended = run_here(pytorch("true"), launcher="direct")

    with pytest.raises(DistError, match=r"has ended \(Completed\) and was not seen to hang"):
        ended.stacks()


INSIDE = """\
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
open(os.path.join(sys.argv[1], "0"), "w").close()
if dist.get_rank() == 1:
    time.sleep(100)
dist.all_reduce(torch.ones(2))
"""


@needs("torch", "py-spy")
def test_ranks_of_a_torchrun_in_the_command_are_told_apart(tmp_path: Path) -> None:
    """They are more than the run has processes, and counted by torchrun."""
    launched = "torchrun --nproc_per_node 3 --master_addr $MASTER_ADDR --master_port $MASTER_PORT " + COMMAND[7:]
    job = Job(command=launched, outputs=UP, distribution=PyTorch())
    with going_on(tmp_path, INSIDE, 1, job) as run:
        found = await_(lambda: (one := run.stacks()).odd_ranks == [1] and one, 60)

        assert found.summary.startswith(
            "rank 1 has not entered all_reduce #2, in which ranks 0 and 2 wait (rank 1 is at"
        )
        assert [(one["ranks"], one["line"]) for one in found.groups] == [([1], 6), ([0, 2], 7)]


TRAINING = """\
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
open(os.path.join(sys.argv[1], str(dist.get_rank())), "w").close()
for step in range(10**9):
    dist.all_reduce(torch.ones(2))
"""


@needs("torch", "py-spy")
def test_ranks_that_make_one_collective_after_another_wait_for_nobody(tmp_path: Path) -> None:
    """The rank that is asked last has always entered more of them."""
    with going_on(tmp_path, TRAINING, 2) as run:
        for _ in range(3):
            found = run.stacks()
            assert (found.summary, found.odd_ranks, found.collective) == (None, [], None)
            assert len(found.to_dict()["collectives"]) == 2


CLOSING = """\
import os, sys, time
os.closerange(3, 1000)
kept = [open("kept%d" % i, "w") for i in range(200)]
open(os.path.join(sys.argv[1], os.environ["RANK"]), "w").close()
time.sleep(100)
"""


def test_the_signal_is_not_sent_to_a_process_that_has_closed_its_file(tmp_path: Path) -> None:
    """What it would write would be in a file of the user's."""
    with going_on(tmp_path, CLOSING, 1) as run, without_py_spy(tmp_path) as (command, env):
        done = subprocess.run([*command, "stacks", run.name], env=env, capture_output=True, text=True, check=False)

        assert done.returncode == 2
        kept = list((run.folder / "nodes/0").glob("kept*"))
        assert (plural(len(kept), "file"), {file.read_text() for file in kept}) == ("200 files", {""})


TENSORFLOW = """\
import json, os, sys
import tensorflow as tf

task = json.loads(os.environ["TF_CONFIG"])["task"]
config = json.loads(os.environ["TF_CONFIG"])
config["cluster"].pop("ps", None)
os.environ["TF_CONFIG"] = json.dumps(config)
open(os.path.join(sys.argv[1], str(task["index"])), "w").close()
if task["index"] == 1:
    sys.stdin = os.fdopen(os.pipe()[0])
    input()
strategy = tf.distribute.MultiWorkerMirroredStrategy()
"""


@needs("tensorflow", "py-spy")
def test_a_tensorflow_task_that_does_not_come_is_named(tmp_path: Path) -> None:
    from azml_dist import TensorFlow

    job = Job(command=COMMAND, outputs=UP, node_count=2, distribution=TensorFlow())
    with going_on(tmp_path, TENSORFLOW, 2, job, launcher=None) as run:
        found = await_(lambda: (one := run.stacks()).odd_ranks == [1] and one)

        assert "wait.py:12" in found.summary
        assert "wait.py:11" in found.summary
