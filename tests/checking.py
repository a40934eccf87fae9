"""What tests of a check share: a workspace in which one job would start at once, and that job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from submitting import code_in, workspace_of

from azml_dist import Input, Job, PyTorch, Workspace
from azml_dist.emulator import Cluster, Emulator

NCCL = 'import torch.distributed as dist\n\ndist.init_process_group("nccl")  # resumes from its checkpoint\n'


@pytest.fixture
def workspace(emulator: Emulator, azure_sdk: None) -> Workspace:
    """A workspace in which the job below would start at once."""
    emulator.assets.add_environment("torch")
    emulator.assets.add_data("digits", "1", {"a.txt": b"1"})
    return workspace_of(emulator)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Two nodes of the workspace's cluster, with a process for each GPU."""
    return Job(
        command="python train.py --data ${{inputs.data}}",
        code=str(code_in(tmp_path / "code", {"train.py": NCCL, "other.py": "print(1)\n"})),
        inputs={"data": Input(path="azureml:digits:1")},
        environment="azureml:torch:1",
        compute="gpu-cluster",
        node_count=2,
        distribution=PyTorch(process_count_per_node=8),
        shm_size="900g",
    )


def compute(emulator: Emulator, **fields: Any) -> None:
    """The workspace's cluster, as another one."""
    emulator.workspace.computes["gpu-cluster"] = Cluster(**fields)
