"""VM sizes: what is known of them, and what a plan says of a job that does not suit its size."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from azml_dist import Job, Mpi, PyTorch, Ray, TensorFlow
from azml_dist.errors import Finding
from azml_dist.plan.findings import size_findings
from azml_dist.vmsizes import VmSize, vm_size, vm_sizes

REPOSITORY = Path(__file__).parents[1]
EIGHT, FOUR, PCIE, ONE = (
    "Standard_ND96isr_H100_v5",
    "Standard_NC24s_v3",
    "Standard_NC80adis_H100_v5",
    "Standard_NC4as_T4_v3",
)


def known(name: str) -> VmSize:
    size = vm_size(name)
    assert size
    return size


def findings(size: str, distribution: Any = None, nodes: int = 1, **fields: Any) -> dict[str, Finding]:
    """The findings about the size, by the field that they are about."""
    fields = {"shm_size": "64g", "command": "python train.py", "environment": "azureml:any@latest"} | fields
    job = Job(node_count=nodes, distribution=distribution, instance_type=size, **fields)
    return {str(finding.where): finding for finding in job.plan().findings}


def test_a_size_is_found_by_its_name_in_any_case() -> None:
    size = known("STANDARD_nd96ISR_h100_V5")

    assert (size.name, size.gpu_count, size.gpu_memory_gib, size.infiniband_gbps) == (EIGHT, 8, 80, 3200)


@pytest.mark.parametrize("name", ["Standard_D4s_v5", "my-kubernetes-type", ""])
def test_of_what_is_not_a_gpu_size_nothing_is_claimed(name: str) -> None:
    assert vm_size(name) is None


def test_a_part_of_a_gpu_is_one_gpu_to_a_process() -> None:
    size = known("Standard_NV6ads_A10_v5")

    assert (str(size.gpus), size.gpu_count) == ("1/6", 1)


@pytest.mark.parametrize("size", vm_sizes(), ids=lambda size: size.name)
def test_a_row_agrees_with_azures_naming_and_has_a_source(size: VmSize) -> None:
    """`r` in the additive features is RDMA, the number behind the family is that of the vCPUs; retired ones have a day.

    From "Azure virtual machine sizes naming conventions" and "Distributed GPU training guide".
    """
    name = re.fullmatch(r"Standard_N[A-Z]+(\d+)([a-z]*)\w*", size.name)
    assert name
    vcpus, features = name.groups()

    assert size.has_infiniband == ("r" in features)
    assert size.vcpus == int(vcpus)
    assert (size.status == "retired") == (size.retired is not None)
    assert size.status in ("current", "preview", "restricted", "retired")
    assert size.source.startswith(("https://learn.microsoft.com/", "https://github.com/MicrosoftDocs/"))


def test_more_processes_than_gpus_do_not_fit() -> None:
    finding = findings(FOUR, PyTorch(process_count_per_node=8), nodes=2)["distribution"]

    assert finding.message == "2 nodes x 8 processes do not fit on Standard_NC24s_v3, which has 4 GPUs"
    assert finding.hint == "set `distribution.process_count_per_node` to 4, or use an 8-GPU size"


def test_a_cluster_is_named_with_its_size() -> None:
    """What submission says once it has asked which size the cluster has."""
    job = Job(command="x", node_count=2, distribution=Mpi(process_count_per_node=8), compute="gpu-cluster")

    messages = {f.where: f.message for f in size_findings(job, known(FOUR), "gpu-cluster")}

    assert messages["distribution"] == (
        "2 nodes x 8 processes do not fit on `gpu-cluster`: Standard_NC24s_v3 has 4 GPUs"
    )
    assert "compute" in messages


@pytest.mark.parametrize("distribution", [PyTorch(), Mpi(process_count_per_node=1), None])
def test_gpus_that_no_process_takes_are_pointed_out(distribution: Any) -> None:
    finding = findings(EIGHT, distribution)["distribution"]

    assert "1 process on a node, but Standard_ND96isr_H100_v5 has 8 GPUs" in finding.message
    assert "process_count_per_node" in str(finding.hint)
    assert "8" in str(finding.hint)


@pytest.mark.parametrize(
    ("size", "distribution", "command"),
    [
        (EIGHT, PyTorch(process_count_per_node=8), "python train.py"),
        (EIGHT, PyTorch(), "torchrun --nproc-per-node 8 train.py"),
        (EIGHT, None, "accelerate launch train.py"),
        (EIGHT, TensorFlow(), "python train.py"),
        (EIGHT, Ray(), "python train.py"),
        (ONE, None, "python train.py"),
        ("Standard_D4s_v5", PyTorch(process_count_per_node=4), "python train.py"),
    ],
)
def test_a_job_that_suits_its_size_is_left_alone(size: str, distribution: Any, command: str) -> None:
    found = findings(size, distribution, command=command)

    assert not found.keys() & {"instance_type", "shm_size"}
    assert "GPU" not in str(found.get("distribution", ""))


def test_a_retired_size_is_named_with_its_day() -> None:
    finding = findings("standard_nc24rs_v3", PyTorch(process_count_per_node=4))["instance_type"]

    assert finding.message == "Azure retired Standard_NC24rs_v3 on 2025-09-30"


def test_several_nodes_without_infiniband_are_pointed_out() -> None:
    finding = findings(PCIE, PyTorch(process_count_per_node=2), nodes=2)["instance_type"]

    assert "has no InfiniBand: 2 nodes" in finding.message
    assert "instance_type" not in findings(PCIE, PyTorch(process_count_per_node=2))
    assert "instance_type" not in findings(EIGHT, PyTorch(process_count_per_node=8), nodes=2)


@pytest.mark.parametrize(
    ("distribution", "command", "shm", "said"),
    [
        (PyTorch(process_count_per_node=8), "python train.py", None, True),
        (None, "torchrun --nproc-per-node 8 train.py", None, True),
        (PyTorch(process_count_per_node=8), "python train.py", "8g", False),
        (TensorFlow(), "python train.py", None, False),
    ],
)
def test_the_small_shared_memory_is_pointed_out(distribution: Any, command: str, shm: str | None, said: bool) -> None:
    found = findings(EIGHT, distribution, command=command, shm_size=shm)

    assert ("shm_size" in found) is said
    assert not said or found["shm_size"].hint == "write `shm_size: 950g`, half of the node's memory"


def test_the_data_is_in_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    assert "azml_dist/vmsizes.csv" in zipfile.ZipFile(wheel).namelist()
