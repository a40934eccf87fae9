"""`azml_dist.runtime`: a process knows its place, whatever has started it, and torch.distributed works from that."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import lines_of, run_here

from azml_dist import Job, Mpi, PyTorch, Ray, TensorFlow, runtime
from azml_dist.plan.world import Place
from azml_dist.runtime import ContextError, context

FILE = Path(runtime.__file__)
SCRIPTS = Path(__file__).parent / "scripts" / "runtime"

WORLDS: list[Any] = [
    Job(command="true"),
    Job(command="true", node_count=2, distribution=Ray()),
    *(
        Job(command="true", node_count=nodes, distribution=distribution)
        for nodes in (1, 2)
        for distribution in (
            *(kind(process_count_per_node=count) for kind in (PyTorch, Mpi) for count in (1, 2)),
            *(TensorFlow(parameter_server_count=servers) for servers in range(nodes + 1)),
        )
    ),
]


@pytest.mark.parametrize("job", WORLDS, ids=lambda job: str(job.plan().world))
def test_every_planned_process_knows_its_place(job: Job) -> None:
    plan = job.plan().at(Place(run_id="mine", addresses=["10.0.0.4", "10.0.0.5"], master_port="6105"))

    for process in plan.processes:
        found = context(process.env)

        place = (found.rank, found.local_rank, found.node_rank, found.role, found.run_id)
        assert place == (process.rank, process.local_rank, process.node_rank, process.role, "mine")
        assert (found.world_size, found.node_count) == (plan.world.world_size, job.node_count)
        assert found.is_main == (process.rank == 0)
        beside = [one for one in plan.processes if one.node_rank == process.node_rank]
        assert found.local_world_size == len(beside)


def test_rank_0_listens_on_node_0() -> None:
    place = Place(addresses=["10.0.0.4", "10.0.0.5"], master_port="6105")

    def master(distribution: Any, nodes: int = 2) -> tuple[str | None, int | None]:
        job = Job(command="true", node_count=nodes, distribution=distribution)
        found = context(job.plan().at(place).processes[-1].env)
        return found.master_addr, found.master_port

    assert master(PyTorch()) == ("10.0.0.4", 6105)
    assert master(Mpi()) == ("10.0.0.4", runtime.SEVERAL_NODES_PORT)
    assert master(Mpi(), nodes=1) == ("10.0.0.4", runtime.ONE_NODE_PORT)
    assert master(TensorFlow()) == ("10.0.0.4", 2222)


OMPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
TORCH = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "NODE_RANK": "1"}


def test_open_mpis_node_rank_is_never_taken_for_a_node() -> None:
    assert context({**OMPI, "OMPI_COMM_WORLD_NODE_RANK": "7"}).node_rank == 1


def test_the_variables_of_intel_mpi_tell_the_rank() -> None:
    found = context({"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"})

    assert (found.rank, found.world_size, found.local_rank, found.node_rank) == (3, 4, 1, 1)
    assert found.launcher == "mpirun"


def test_intel_mpi_that_sets_no_local_rank_on_azure_ml() -> None:
    found = context({"PMI_RANK": "3", "PMI_SIZE": "4", "AZUREML_NODE_COUNT": "2"})

    assert (found.local_rank, found.node_rank) == (1, 1)


def test_torchrun_inside_a_job_of_one_process_a_node_is_what_counts() -> None:
    elastic = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "2", "LOCAL_WORLD_SIZE": "2"}
    outer = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}

    found = context({**outer, **TORCH, **elastic, "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"})

    assert (found.launcher, found.rank, found.node_rank, found.restart_count) == ("torchrun", 3, 1, 2)


def test_variables_that_a_script_has_copied_from_mpis_are_no_contradiction() -> None:
    assert context({**OMPI, **TORCH}).launcher == "mpirun"


def test_what_nothing_tells_is_unknown() -> None:
    found = context({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})

    assert (found.node_rank, found.node_count, found.local_world_size, found.master_addr) == (None,) * 4


TF = '{"cluster":{"worker":["a:1","b:1"]},"task":{"type":"worker","index":%s}}'


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "1"}, "RANK=1, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK is not set"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0, but RANK is not set"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "RANK=1, WORLD_SIZE=2, but LOCAL_RANK is not set"),
        ({**TORCH, "RANK": "4"}, "RANK=4 must be less than WORLD_SIZE=4"),
        ({**TORCH, "RANK": "one"}, "RANK='one' is not a whole number"),
        ({**TORCH, "RANK": "-1"}, "RANK='-1' is not a whole number"),
        ({**TORCH, "RANK": ""}, "RANK='' is not a whole number"),
        ({**TORCH, "MASTER_PORT": "tcp"}, "MASTER_PORT='tcp' is not a whole number"),
        ({**TORCH, "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK=1 must be less than LOCAL_WORLD_SIZE=1"),
        ({**TORCH, "AZUREML_NODE_COUNT": "1"}, "NODE_RANK=1 must be less than AZUREML_NODE_COUNT=1"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4, but OMPI_COMM_WORLD_RANK is not set"),
        (
            {**OMPI, **TORCH, "RANK": "0"},
            "OMPI_COMM_WORLD_RANK=3, OMPI_COMM_WORLD_SIZE=4, OMPI_COMM_WORLD_LOCAL_RANK=1 means rank 3 of 4; "
            "RANK=0, WORLD_SIZE=4, LOCAL_RANK=1 means rank 0 of 4",
        ),
        ({"TORCHELASTIC_RUN_ID": "none"}, "TORCHELASTIC_RUN_ID=none, but RANK is not set"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG={ cannot be read"),
        ({"TF_CONFIG": "{}"}, "TF_CONFIG={} cannot be read"),
        (
            {"TF_CONFIG": TF % 2},
            'the task in TF_CONFIG, worker 2, is not in its cluster: {"worker": ["a:1", "b:1"]}',
        ),
        (
            {"TF_CONFIG": TF % 1, **TORCH},
            "TF_CONFIG means rank 1 of 2; RANK=3, WORLD_SIZE=4, LOCAL_RANK=1 means rank 3 of 4",
        ),
        ({"AZUREML_NODE_COUNT": "2"}, "AZUREML_NODE_COUNT=2, but no variable tells this process its rank"),
    ],
)
def test_a_wrong_environment_stops_with_its_values(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ContextError) as stop:
        context(environ)

    assert stop.value.message == message
    assert stop.value.hint


# The file on its own


def test_it_needs_the_standard_library_alone_and_an_old_python() -> None:
    done = ask("-I", "-S", FILE)

    assert (
        done.stdout.splitlines()[0] == "rank 0 of 1 on node 0 of 1, local rank 0 (main, started by nothing but python)"
    )
    ast.parse(FILE.read_text(), feature_version=(3, 8))


def test_python_m_prints_it_as_json() -> None:
    found = json.loads(ask("-m", "azml_dist.runtime", "--json", **TORCH).stdout)

    assert (found["rank"], found["world_size"], found["node_rank"], found["is_main"]) == (3, 4, 1, False)


def test_python_m_says_what_is_wrong_and_what_to_do() -> None:
    done = ask("-m", "azml_dist.runtime", RANK="1")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: RANK=1, but WORLD_SIZE is not set",
        "hint: set all of RANK, WORLD_SIZE and LOCAL_RANK, or none of them",
    ]


def ask(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)


# Real launchers


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of scripts with a copy of the file beside them."""
    shutil.copytree(SCRIPTS, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(FILE, tmp_path / "code")
    return tmp_path / "code"


@needs("torch")
@pytest.mark.parametrize(
    "world",
    [
        {"node_count": 2, "distribution": PyTorch(process_count_per_node=2)},
        {"node_count": 2, "distribution": TensorFlow()},
        {},
    ],
    ids=["pytorch", "tensorflow", "python"],
)
def test_ranks_add_up(code: Path, world: dict[str, Any]) -> None:
    job = Job(command="python sum.py", code=str(code), **world)
    run = run_here(job, timeout=120)

    assert run.status == "Completed", lines_of(run)
    size = job.plan().world.world_size
    assert sorted(line.partition("] ")[2] or line for line in lines_of(run)) == added_up(size)


@needs("torch", "mpirun")
def test_ranks_add_up_under_mpirun(code: Path) -> None:
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = ["mpirun", "-np", "2", "--oversubscribe", sys.executable, "sum.py"]
    done = subprocess.run(command, cwd=code, env=os.environ | root, capture_output=True, text=True, timeout=120)

    assert sorted(done.stdout.splitlines()) == added_up(2), done.stderr


@needs("torch")
def test_ranks_add_up_under_torchrun(code: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "sum.py"]
    done = subprocess.run(command, cwd=code, capture_output=True, text=True, timeout=120)

    assert sorted(done.stdout.splitlines()) == added_up(2), done.stderr


def added_up(size: int) -> list[str]:
    return [f"rank {rank} of {size} on cpu with gloo: {sum(range(size))}" for rank in range(size)]


@needs("torch")
def test_a_process_ends_though_its_model_outlives_the_group(code: Path) -> None:
    """With torch's own `destroy_process_group`, one process in seven hangs here."""
    done = subprocess.run(
        [sys.executable, "held_model.py", "10"], cwd=code, capture_output=True, text=True, timeout=150
    )

    assert done.stdout == "{0: 20}\n", done.stderr


@needs("torch")
def test_a_collective_that_a_rank_does_not_join_ends_after_the_timeout(code: Path) -> None:
    (code / "late.py").write_text(
        "import os, time, torch, torch.distributed as dist\n"
        "from runtime import process_group\n"
        "with process_group(timeout=2) as ctx:\n"
        "    dist.barrier()\n"
        "    if ctx.rank == 1:\n"
        "        while not os.path.exists('gave-up'): time.sleep(0.05)\n"
        "    else:\n"
        "        try: dist.all_reduce(torch.ones(1))\n"
        "        except RuntimeError as error: print('gave up:', 'imed out' in str(error))\n"
        "        open('gave-up', 'w').close()\n"
    )
    run = run_here(Job(command="python late.py", code=str(code), distribution=PyTorch(process_count_per_node=2)))

    assert any(line.endswith("gave up: True") for line in lines_of(run)), lines_of(run)


@needs("torch")
def test_a_taken_port_is_named(code: Path) -> None:
    (code / "taken.py").write_text(
        "import os, socket, runtime\n"
        "s = socket.create_server(('127.0.0.1', 0)); port = s.getsockname()[1]\n"
        "os.environ |= dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))\n"
        "try: runtime.process_group(timeout=5).__enter__()\n"
        "except runtime.ContextError as error: print(str(error).replace(str(port), 'PORT'))\n"
    )
    done = subprocess.run([sys.executable, "taken.py"], cwd=code, capture_output=True, text=True, timeout=60)

    assert (
        "port PORT, on which rank 0 should listen, is in use\n\nhint: stop the program that uses it" in done.stdout
    ), done.stderr


@needs("torch")
def test_several_processes_without_an_address_are_stopped(code: Path) -> None:
    environ = os.environ | {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    done = subprocess.run([sys.executable, "sum.py"], cwd=code, env=environ, capture_output=True, text=True, timeout=60)

    assert "MASTER_ADDR is not set: rank 0 of 2 does not know where to find rank 0" in done.stderr


@needs("torch")
def test_a_group_that_is_there_already_is_used_and_left(code: Path) -> None:
    (code / "nested.py").write_text(
        "import torch.distributed as dist\n"
        "from runtime import process_group\n"
        "with process_group():\n"
        "    with process_group() as ctx: pass\n"
        "    print(dist.is_initialized(), ctx.rank)\n"
        "print(dist.is_initialized())\n"
        "with process_group(): print('again')\n"
    )
    done = subprocess.run([sys.executable, "nested.py"], cwd=code, capture_output=True, text=True, timeout=60)

    assert done.stdout.split("\n") == ["True 0", "False", "again", ""], done.stderr


@pytest.mark.gpu
@needs("torch")
def test_a_process_with_a_gpu_has_nccl_and_that_device(code: Path) -> None:
    done = subprocess.run([sys.executable, "sum.py"], cwd=code, capture_output=True, text=True, timeout=120)

    assert done.stdout == "rank 0 of 1 on cuda:0 with nccl: 0\n", done.stderr
