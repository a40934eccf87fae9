"""The GPUs, memory and InfiniBand of VM sizes. The data is in `vmsizes.csv` next to this file, with a source per row.

It covers only sizes with GPUs. `az ml compute list-sizes` shows what a region and a subscription offer.
"""

from __future__ import annotations

import datetime
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

_DATA = Path(__file__).with_suffix(".csv")


class VmSize(NamedTuple):
    """A VM size with GPUs."""

    name: str
    series: str
    gpu: str
    """The model, such as `NVIDIA H100 SXM5`."""
    gpus: Fraction
    """How many GPUs; a fraction if VMs share one."""
    gpu_memory_gib: int
    """Memory of one GPU, or of the fraction that the VM gets, in GiB."""
    vcpus: int
    memory_gib: int | None
    """Memory of the VM in GiB, as in the documentation; None if it is not documented."""
    infiniband_gbps: int
    """Bandwidth of the whole VM, in Gbit/s; 0 without InfiniBand."""
    gpu_link: str
    """What connects the GPUs of the VM: `NVLink`, `NVLink in pairs`, `Infinity Fabric`; empty for PCIe only."""
    status: str
    """`current`, `preview`, `restricted` (only for customers who already have capacity) or `retired`."""
    retired: datetime.date | None
    """The retirement date in Azure's documentation."""
    note: str
    """What the other fields do not cover, and which of them does not come from the page."""
    source: str
    """The page of Azure's documentation with the figures."""

    @property
    def gpu_count(self) -> int:
        """How many GPUs a process sees; a fraction counts as one."""
        return max(1, int(self.gpus))

    @property
    def has_infiniband(self) -> bool:
        """Whether nodes of this size communicate over InfiniBand: those with an `r` in their name do."""
        return self.infiniband_gbps > 0


def vm_size(name: str) -> VmSize | None:
    """The size with this name, in upper or lower case, such as `Standard_ND96isr_H100_v5`; None if it is not listed."""
    return _by_name().get(name.lower()) if name else None


def vm_sizes() -> list[VmSize]:
    """Every listed size: the strongest series first, retired ones last."""
    return list(_by_name().values())


@cache
def _by_name() -> dict[str, VmSize]:
    import csv  # half a millisecond; many jobs name no size

    with _DATA.open(encoding="utf-8", newline="") as file:
        return {row["name"].lower(): _size(row) for row in csv.DictReader(file)}


def _size(row: dict[str, str]) -> VmSize:
    return VmSize(
        name=row["name"],
        series=row["series"],
        gpu=row["gpu"],
        gpus=Fraction(row["gpus"]),
        gpu_memory_gib=int(row["gpu_memory_gib"]),
        vcpus=int(row["vcpus"]),
        memory_gib=int(row["memory_gib"]) if row["memory_gib"] else None,
        infiniband_gbps=int(row["infiniband_gbps"]),
        gpu_link=row["gpu_link"],
        status=row["status"],
        retired=datetime.date.fromisoformat(row["retired"]) if row["retired"] else None,
        note=row["note"],
        source=row["source"],
    )
