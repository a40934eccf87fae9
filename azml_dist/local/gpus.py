"""The GPUs of this machine, shared out among emulated nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """What this process may use: the caller's own `CUDA_VISIBLE_DEVICES`, or every NVIDIA device of the machine."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [d.strip() for d in environment["CUDA_VISIBLE_DEVICES"].split(",") if d.strip() not in ("", "-1")]
    devices = (match[1] for d in Path("/dev").glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", d.name)))
    return sorted(devices, key=int)


def share(gpus: list[str], node_count: int, process_count: int) -> tuple[list[dict[str, str]], str | None]:
    """Each node's `CUDA_VISIBLE_DEVICES`, and a finding where there are too few for one GPU a process.

    On Azure ML every process sees all GPUs of its node and takes the one of its `LOCAL_RANK`. A node that is emulated
    sees its slice, so that this index means the same here.
    """
    if not gpus or (node_count == 1 and process_count <= len(gpus)):
        return [{} for _ in range(node_count)], None
    per_node = len(gpus) // node_count
    if per_node < process_count:
        finding = f"{node_count * process_count} processes on {len(gpus)} GPU(s): this run uses the CPU"
        return [{"CUDA_VISIBLE_DEVICES": ""} for _ in range(node_count)], finding
    slices = (gpus[node * per_node : (node + 1) * per_node] for node in range(node_count))
    return [{"CUDA_VISIBLE_DEVICES": ",".join(s)} for s in slices], None
