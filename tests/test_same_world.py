"""The law: the plan, a local run, and the service that runs what was sent give every process the same world."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator
from emulator.fixtures import SDK_WARNINGS
from running import run_here
from submitting import code_in, workspace_of

from azml_dist import AzureML, Job, Output, PyTorch

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

CONTRACT = re.compile(
    r"(RANK|LOCAL_RANK|NODE_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|LOCAL_WORLD_SIZE|GROUP_.*|ROLE_.*|TORCHELASTIC_.*"
    r"|OMPI_.*|TF_CONFIG|AZUREML_(RUN_ID|ROOT_RUN_ID|NODE_COUNT|CR_NODE_RANK|PROCESS_NAME|PARAMETER_.*)"
    r"|AZURE_ML_(INPUT|OUTPUT)_.*|MLFLOW_RUN_ID|MINE)"
)
"""What a script may rely on; each of the three may know more."""
KNOWN_AT_THE_START = "<"
SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2)]


SAY = "env -0 > ${{outputs.seen}}/env-${RANK:-0}; echo ${{inputs.lr}} > ${{outputs.seen}}/said-${RANK:-0}; echo done"


def world_job(nodes: int, processes: int, distribution: Any, code: Path) -> Job:
    return Job(
        command=SAY,
        code=str(code),
        node_count=nodes,
        distribution=distribution,
        inputs={"lr": 1e-5},
        outputs={"seen": Output()},
        environment_variables={"MINE": "a b"},
        environment="azureml:torch:1",
        compute="gpu-cluster",
    )


def contract(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if CONTRACT.fullmatch(name)}


def environment_in(text: str) -> dict[str, str]:
    return contract(dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair))


CASES = [("single", 1, 1), *(("pytorch", nodes, processes) for nodes, processes in SHAPES)]


@pytest.mark.parametrize(("kind", "nodes", "processes"), CASES)
def test_plan_local_run_and_service_agree(
    kind: str, nodes: int, processes: int, emulator: Emulator, azure_sdk: None, tmp_path: Path
) -> None:
    emulator.assets.add_environment("torch")
    distribution = PyTorch(process_count_per_node=processes) if kind == "pytorch" else None
    job = world_job(nodes, processes, distribution, code_in(tmp_path / "code"))
    planned = {process.rank: contract(process.env) for process in job.plan().processes}

    here = run_here(job)
    run = AzureML(workspace_of(emulator)).submit(job)
    emulator.run(run.name)
    run.download(tmp_path / "got")
    there = next((tmp_path / "got").rglob("env-0")).parent

    for rank, env in planned.items():
        local = environment_in((here.outputs["seen"] / f"env-{rank}").read_text())
        remote = environment_in((there / f"env-{rank}").read_text())
        assert env.keys() == local.keys() == remote.keys()
        for name, value in env.items():
            if value.startswith(KNOWN_AT_THE_START):
                assert local[name]
                assert remote[name]
            else:
                assert (name, value) == (name, local[name]) == (name, remote[name])
        assert (here.outputs["seen"] / f"said-{rank}").read_text() == (there / f"said-{rank}").read_text()
    names = {process.log for process in job.plan().processes}
    assert names == {path.relative_to(here.folder).as_posix() for path in (here.folder / "user_logs").iterdir()}
    assert names == {name for name in emulator.job(run.name).log_names() if name.startswith("user_logs/")}
