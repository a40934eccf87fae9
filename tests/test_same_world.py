"""The same-world law: what a plan says == what processes see here == what they see where the request is carried out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from submitting import job, workspace_of

from azml_dist import AzureML, Job, Local, Mpi, Output, PyTorch, Ray, TensorFlow
from azml_dist.emulator import Emulator
from azml_dist.local.options import Launcher
from azml_dist.local.tools import HERE

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

LAUNCH = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"),
    *(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "NODE_RANK")),
    *("TF_CONFIG", "RAY_ADDRESS"),
    *(f"AZ_BATCH_{name}" for name in ("MASTER_NODE", "HOST_LIST", "NODE_LIST", "IS_CURRENT_NODE_MASTER")),
    *(f"AZ_BATCHAI_{name}" for name in ("MPI_MASTER_NODE", "JOB_MASTER_NODE_IP", "NODE_IP", "TASK_INDEX")),
    *("AZ_BATCHAI_IS_CURRENT_NODE_MASTER", "AZUREML_CR_DISTRIBUTED_CONFIG"),
)
"""Variables that tell a process its place: those of the plan have its values, the others are not there at all."""
SAID = (
    *LAUNCH,
    *("AZUREML_NODE_COUNT", "AZUREML_CR_NODE_RANK", "AZUREML_PROCESS_NAME", "AZUREML_PARAMETER_lr", "MINE"),
)
"""Variables whose values the law is about; what else a plan sets are ids, addresses and paths of the place."""
OF_THE_COMPUTE = "AZUREML_CR_COMPUTE_CONTEXT"
"""JSON whose keys the law is about; its values are of the machine."""
IN_THE_WORKING_DIR = {
    f"AZUREML_CR_HT_CAP_{name.replace('-', '_')}_PATH": name
    for name in ("outputs", "logs", "user_logs", "azureml-logs")
}
"""Folders that are there when a process starts."""
UNSAID = (
    *("LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "OMP_NUM_THREADS"),
)
"""What a launcher sets, and Azure ML does not."""

WORLDS: dict[str, dict[str, Any]] = {
    "a single process": {},
    **{
        f"{name} {nodes}x{processes}": {"node_count": nodes, "distribution": kind(process_count_per_node=processes)}
        for name, kind in (("pytorch", PyTorch), ("mpi", Mpi))
        for nodes in (1, 2)
        for processes in (1, 2)
    },
    "mpi without a count": {"node_count": 2, "distribution": Mpi()},
    # A worker on each node, and one parameter server at most.
    **{
        f"tensorflow on {nodes} with {servers} ps": {
            "node_count": nodes,
            "distribution": TensorFlow(parameter_server_count=servers),
        }
        for nodes, servers in ((1, 0), (2, 0), (1, 1), (2, 1), (2, 2))
    },
    **{f"ray on {nodes}": {"node_count": nodes, "distribution": Ray()} for nodes in (1, 2)},
}

THERE = f"for name in {' '.join(IN_THE_WORKING_DIR)}; do [ -d ${{!name}} ] || exit 9; done"
PRINT = f"echo lr is ${{{{inputs.lr}}}}; env; {THERE}"
REST: dict[str, Any] = {
    "command": PRINT,
    "inputs": {"lr": 1e-5},
    "environment_variables": {"MINE": "a b"},
}

Seen = dict[str, dict[str, str]]
"""The environment of each process, by the name of its log."""


NEEDS = {"mpi": "mpirun", "ray": "ray"}
"""What a distribution needs of the machine to run here."""


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(world, id=name, marks=[needs(NEEDS[kind]) for kind in NEEDS if name.startswith(kind)])
        for name, world in WORLDS.items()
    ],
)
def test_every_process_sees_the_planned_world(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, world: dict[str, Any]
) -> None:
    one = together(job(**world, **REST))
    legs = [seen_there(one, emulator)]
    if one.plan().world.distribution in HERE:
        legs.append(seen_here(one, tmp_path))

    check(one, *legs)


@needs("torch")
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_torchrun_adds_nothing_to_it(tmp_path: Path, nodes: int, processes: int) -> None:
    one = job(node_count=nodes, distribution=PyTorch(process_count_per_node=processes), **REST)

    check(one, seen_here(one, tmp_path, launcher="torchrun"))


@needs("torch")
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_torchrun_in_the_command_makes_the_same_world(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, nodes: int, processes: int
) -> None:
    """Launched once a node, as by those who bring a launcher of their own."""
    inner = f"""
        torchrun --nnodes $AZUREML_NODE_COUNT --node_rank $NODE_RANK --nproc_per_node {processes} \
            --master_addr $MASTER_ADDR --master_port $MASTER_PORT --no-python bash -c \
            'echo inner $RANK of $WORLD_SIZE, $LOCAL_RANK of $LOCAL_WORLD_SIZE on $GROUP_RANK' 2>&1 | grep ^inner
        """
    one = job(node_count=nodes, distribution=PyTorch(), **{**REST, "command": f"{PRINT}; {inner}"})
    there, here = seen_there(one, emulator), seen_here(one, tmp_path)

    check(one, there, here)

    for seen in (there, here):
        for node, env in enumerate(seen[log] for log in sorted(seen)):
            expected = [
                f"inner {node * processes + local} of {nodes * processes}, {local} of {processes} on {node}"
                for local in range(processes)
            ]
            assert sorted(env["inner"].splitlines()) == expected


def together(one: Job) -> Job:
    """The job, of which no process ends before all have written: a parameter server is stopped with the last worker."""
    up, all_of_them = "${{outputs.up}}", one.plan().world.world_size
    wait = f"mktemp -q -p {up} > /dev/null; until [ $(ls {up} | wc -l) = {all_of_them} ]; do sleep 0.02; done"
    return one.with_(command=f"{one.command}; {wait}", outputs={"up": Output()})


def check(one: Job, *legs: Seen) -> None:
    planned = {process.log: process.env for process in one.plan().processes}
    for seen in legs:
        assert said(planned) == said(seen)
        for log, env in seen.items():
            assert planned[log].keys() - env.keys() == set()
            assert env["printed"] == "lr is 1e-05"
            assert json.loads(env[OF_THE_COMPUTE]).keys() == json.loads(planned[log][OF_THE_COMPUTE]).keys()
            for name, folder in IN_THE_WORKING_DIR.items():
                assert env[name] == f"{env['AZUREML_CR_EXECUTION_WORKING_DIR_PATH']}/{folder}"
            assert not env.keys() & {*UNSAID, *LAUNCH} - planned[log].keys()


def seen_here(one: Job, root: Path, launcher: Launcher | None = None) -> Seen:
    run = Local(root=root, launcher=launcher).submit(one)
    run.wait(timeout=120)
    logs = (run.folder / "user_logs").glob("std_log*")
    return {f"user_logs/{log.name}": environment_in(log.read_text()) for log in logs}


def seen_there(one: Job, emulator: Emulator) -> Seen:
    emulator.assets.add_environment("torch")
    run = AzureML(workspace_of(emulator)).submit(one)
    ran = emulator.run(run.name, timeout=120)
    assert ran.job.status == "Completed", ran.job.error
    logs = [log for log in ran.job.log_names() if log.startswith("user_logs/std_log")]
    return {log: environment_in(ran.job.log(log)) for log in logs}


def environment_in(text: str) -> dict[str, str]:
    printed, *lines = text.splitlines()
    inner = "\n".join(line for line in lines if line.startswith("inner "))
    return {**dict(line.split("=", 1) for line in lines if "=" in line), "printed": printed, "inner": inner}


def said(seen: Seen) -> Seen:
    return {log: {name: shape(env, name) for name in SAID if name in env} for log, env in seen.items()}


def shape(env: dict[str, str], name: str) -> str:
    """A value with its addresses as the numbers of their nodes, and without ports, which belong to the place."""
    value, first = env[name], int(env["AZ_BATCHAI_JOB_MASTER_NODE_IP"].rpartition(".")[2].rstrip(">").split()[-1])
    numbered = re.sub(r"<address of node (\d+)>", r"host \1", value)
    hosts = re.sub(r"127\.0\.0\.(\d+)", lambda match: f"host {int(match[1]) - first}", numbered)
    return re.sub(r"(host \d+):\d+", r"\1:port", hosts)
