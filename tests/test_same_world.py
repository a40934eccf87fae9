"""The same-world law: what a plan says == what processes see here == what they see where the request is carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator
from emulator.fixtures import SDK_WARNINGS
from submitting import job, workspace_of

from azml_dist import AzureML, Job, Local, PyTorch
from azml_dist.local.executor import Launcher

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

SAID = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "AZUREML_NODE_COUNT", "AZUREML_CR_NODE_RANK"),
    *("AZUREML_PROCESS_NAME", "AZUREML_PARAMETER_lr", "MINE"),
)
"""Variables whose values the law is about; what else a plan sets are ids, addresses and paths of the place."""
UNSAID = ("LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK")

Seen = dict[str, dict[str, str]]
"""The environment of each process, by the name of its log."""


@pytest.mark.parametrize("launcher", ["direct", "torchrun"])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_pytorch(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, nodes: int, processes: int, launcher: Launcher
) -> None:
    if launcher == "torchrun":
        pytest.importorskip("torch")
    world: dict[str, Any] = {"node_count": nodes, "distribution": PyTorch(process_count_per_node=processes)}

    check(emulator, tmp_path, job(**world, **REST), launcher)


def test_a_single_process(emulator: Emulator, azure_sdk: None, tmp_path: Path) -> None:
    check(emulator, tmp_path, job(**REST), None)


REST: dict[str, Any] = {
    "command": "env; echo lr is ${{inputs.lr}}",
    "inputs": {"lr": 1e-5},
    "environment_variables": {"MINE": "a b"},
}


def check(emulator: Emulator, root: Path, one: Job, launcher: Launcher | None) -> None:
    planned = {process.log: process.env for process in one.plan().processes}

    here, there = seen_here(one, root, launcher), seen_there(one, emulator)

    assert said(planned) == said(here) == said(there)
    for seen in (here, there):
        for log, env in seen.items():
            assert planned[log].keys() - env.keys() == set()
            assert env["printed"] == "lr is 1e-05"
            assert not env.keys() & set(UNSAID)


def seen_here(one: Job, root: Path, launcher: Launcher | None) -> Seen:
    run = Local(root=root, launcher=launcher).submit(one)
    run.wait(timeout=60)
    logs = (run.folder / "user_logs").iterdir()
    return {f"user_logs/{log.name}": environment_in(log.read_text()) for log in logs}


def seen_there(one: Job, emulator: Emulator) -> Seen:
    emulator.assets.add_environment("torch")
    run = AzureML(workspace_of(emulator)).submit(one)
    ran = emulator.run(run.name)
    assert ran.job.status == "Completed"
    return {log: environment_in(ran.job.log(log)) for log in ran.job.log_names() if log.startswith("user_logs/")}


def environment_in(text: str) -> dict[str, str]:
    *lines, printed = text.splitlines()
    return {**dict(line.split("=", 1) for line in lines if "=" in line), "printed": printed}


def said(seen: Seen) -> Seen:
    return {log: {name: env[name] for name in SAID if name in env} for log, env in seen.items()}
