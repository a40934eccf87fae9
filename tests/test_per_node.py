"""One process a node, and a launcher of the user's own in the command: it starts the rest, here as on Azure ML."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import await_, call, cli, find, lines_of, living, run_here, write_job

from azml_dist import Job, PyTorch, runtime

SCRIPTS = Path(__file__).parent / "scripts"
TORCHRUN = (
    "torchrun --nnodes $AZUREML_NODE_COUNT --node_rank $NODE_RANK --master_addr $MASTER_ADDR"
    " --master_port $MASTER_PORT --nproc-per-node 2"
)
ACCELERATE = (
    "accelerate launch --multi_gpu --num_machines=$AZUREML_NODE_COUNT --num_processes=4 --machine_rank=$NODE_RANK"
    " --main_process_ip=$MASTER_ADDR --main_process_port=$MASTER_PORT --mixed_precision=no"
)
DEEPSPEED = (
    "for i in 0 1; do echo worker-$i slots=2; done > hostfile; deepspeed --hostfile hostfile --no_ssh"
    " --node_rank $NODE_RANK --master_addr $MASTER_ADDR --master_port $MASTER_PORT"
)
CPU = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}


def per_node(command: str, **fields: Any) -> Job:
    options: dict[str, Any] = {"node_count": 2, "environment_variables": CPU, **fields}
    return Job(command=command, distribution=PyTorch(), **options)


def said(job: Job, word: str) -> list[str]:
    run = run_here(job, timeout=300)
    assert run.status == "Completed", "\n".join(lines_of(run)[-40:])
    return sorted(line.partition("] ")[2] for line in lines_of(run) if f"] {word}" in line)


@needs("torch")
def test_torchrun_in_the_command_makes_one_world(tmp_path: Path) -> None:
    shutil.copy(SCRIPTS / "runtime" / "sum.py", tmp_path)
    shutil.copy(runtime.__file__, tmp_path)

    assert said(per_node(f"{TORCHRUN} sum.py", code=str(tmp_path)), "rank ") == [
        f"rank {rank} of 4 on cpu with gloo: 6" for rank in range(4)
    ]


@needs("accelerate", "torch")
def test_accelerate_launch_in_the_command_makes_one_world() -> None:
    job = per_node(f"{ACCELERATE} accelerated.py", code=str(SCRIPTS / "libraries"))

    assert said(job, "accelerate: ") == [
        f"accelerate: rank {rank} of 4, local {rank % 2} on node {rank // 2}, with [0, 1, 2, 3], y = 3.0 x + 2.0"
        for rank in range(4)
    ]


@needs("deepspeed", "torch")
def test_the_launcher_of_deepspeed_in_the_command_makes_one_world(torch_extensions: str) -> None:
    variables = CPU | {"TORCH_EXTENSIONS_DIR": torch_extensions}
    job = per_node(f"{DEEPSPEED} zero.py --stage 1", code=str(SCRIPTS / "libraries"), environment_variables=variables)

    assert said(job, "deepspeed: ") == [
        f"deepspeed: rank {rank} of 4, local {rank % 2}, ZeRO 1, y = 3.0 x + 2.0" for rank in range(4)
    ]


@pytest.mark.parametrize("launcher", ["torchrun", "direct"])
def test_nothing_listens_on_the_master_port(launcher: Any) -> None:
    bind = "import os, socket; socket.create_server(('', int(os.environ['MASTER_PORT']))); print('it is free')"

    run = run_here(per_node(f'python -c "{bind}"', node_count=1), launcher=launcher)

    assert lines_of(run)[0].endswith("it is free")


SLEEPS = (
    "touch here-$RANK; setsid sleep 300 & [ $RANK = 3 ] && { until [ -e fail ]; do sleep 0.05; done; exit 7; }; wait"
)
"""Each process under torchrun has a child in a session of its own; rank 3 fails once it is told to."""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path, f"{TORCHRUN} --no-python bash -c '{SLEEPS}'", nodes=2, environment_variables=CPU)


@needs("torch")
def test_nothing_that_torchrun_started_outlives_a_killed_run(job: Path) -> None:
    with cli("run", job, mark="killed") as process:
        name = named(process)
        await_(lambda: len(started(name)) == 4, 120)
        os.kill(process.pid, signal.SIGKILL)

        await_(lambda: not living("killed"), 60)


@needs("torch")
def test_a_process_that_fails_under_torchrun_ends_the_run_and_its_node_is_named(job: Path) -> None:
    """Left alone, the torchrun of the other node would wait for minutes."""
    with cli("run", job, mark="failed") as process:
        name = named(process)
        await_(lambda: len(started(name)) == 4, 120)
        for file in started(name):
            (file.parent / "fail").touch()

        assert process.wait(60) == 1
        await_(lambda: not living("failed"), 60)
    assert "rank 1" in call("status", name).stdout.partition("error")[2]


def named(process: Any) -> str:
    return str(process.stderr.readline().split()[1].rstrip(":"))


def started(name: str) -> list[Path]:
    """The files that the processes have left in the working directories of their nodes."""
    return list(find(name).folder.rglob("here-*"))


# What Lightning 2.6 logs before its processes meet.
MEETS = "echo GLOBAL_RANK: $RANK, MEMBER: $((RANK + 1))/{}; sleep 300"


@pytest.mark.parametrize(("members", "hint"), [(4, "Lightning waits for 4 processes, and the job starts 2"), (2, None)])
def test_lightning_that_waits_for_more_processes_than_there_are_is_told_so(members: int, hint: str | None) -> None:
    """As with `devices=2` in a job of one process a node."""
    state = run_here(per_node(MEETS.format(members), timeout=1), launcher="direct").state()

    assert state.status == "Canceled"
    assert (state.hint or "").startswith(hint) if hint else state.hint is None
