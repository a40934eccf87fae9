"""The GPUs of this machine, divided among the emulated nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.vmsizes import vm_size
from azml_dist.words import plural

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use: those in `CUDA_VISIBLE_DEVICES`, or every NVIDIA device of the machine."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [d.strip() for d in environment["CUDA_VISIBLE_DEVICES"].split(",") if d.strip() not in ("", "-1")]
    devices = (match[1] for d in Path("/dev").glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", d.name)))
    return sorted(devices, key=int)


def no_gpu_here(job: JobFields, gpus: list[str]) -> str | None:
    """A finding if the job's nodes have GPUs, as far as is known, and this machine has none to use."""
    size = vm_size(job.instance_type or "")
    if gpus:
        return None
    # The backend is torch's; a job without a distribution may use torch too.
    uses = "it uses the CPU" + (
        ", and `gloo`" if job.distribution is None or job.distribution.type == "pytorch" else ""
    )
    if size and size.gpu_count:
        return f"this run has no GPU; {size.name} has {plural(size.gpu_count, 'GPU')}: {uses}"
    if re.search(r"gpu", job.compute or "", re.IGNORECASE):
        return f"this run has no GPU, and `{job.compute}` seems to have some: {uses}"
    return None


NVIDIA_SMI = re.compile(rb"\bnvidia-smi\b")


def counted_by_nvidia_smi(used_by: str | None, gpus: list[str], slices: list[dict[str, str]]) -> str | None:
    """A finding if the job uses `nvidia-smi`, which shows all GPUs of the machine on every emulated node."""
    shared = slices[0].get("CUDA_VISIBLE_DEVICES")
    if not used_by or not shared or len(slices) == 1:
        return None
    each = len(shared.split(","))
    return (
        f"{used_by} uses `nvidia-smi`, which shows all {len(gpus)} GPUs of this machine on each node, not the node's"
        f" {each}; on Azure ML it shows those of the node"
    )


def gpus_of_a_node(node_count: int, process_count: int) -> int:
    """How many GPUs the processes of a node would see in a run that starts now."""
    gpus = visible_gpus(os.environ)
    slices, _ = share(gpus, node_count, process_count)
    seen = slices[0].get("CUDA_VISIBLE_DEVICES")
    return len(gpus) if seen is None else len(list(filter(None, seen.split(","))))


def share(gpus: list[str], node_count: int, process_count: int) -> tuple[list[dict[str, str]], str | None]:
    """The `CUDA_VISIBLE_DEVICES` of each node, and a finding if there are fewer GPUs than processes.

    On Azure ML every process sees all GPUs of its node and takes the one with its `LOCAL_RANK`. An emulated node sees
    its share of the GPUs, so this index works the same way.
    """
    if not gpus or (node_count == 1 and process_count <= len(gpus)):
        return [{} for _ in range(node_count)], None
    per_node = len(gpus) // node_count
    if per_node < process_count:
        finding = f"{node_count * process_count} processes on {len(gpus)} GPU(s): this run uses the CPU"
        return [{"CUDA_VISIBLE_DEVICES": ""} for _ in range(node_count)], finding
    slices = (gpus[node * per_node : (node + 1) * per_node] for node in range(node_count))
    return [{"CUDA_VISIBLE_DEVICES": ",".join(s)} for s in slices], None
