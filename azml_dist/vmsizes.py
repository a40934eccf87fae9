"""What a VM size has: GPUs, memory, InfiniBand. The data is `vmsizes.csv` beside this file, a source in each row.

Sizes with GPUs alone. What a region and a subscription have, `az ml compute list-sizes` says.
"""

from __future__ import annotations

import csv
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
    """The model, as `NVIDIA H100 SXM5`."""
    gpus: Fraction
    """How many; a part of one where VMs share a GPU."""
    gpu_memory_gib: int
    """Of one GPU, or of the part that the VM gets."""
    vcpus: int
    memory_gib: int | None
    """Of the machine, as the documentation prints it; None where it does not."""
    infiniband_gbps: int
    """Of the whole VM, in Gbit/s; 0 without InfiniBand."""
    gpu_link: str
    """What joins the GPUs of the VM: `NVLink`, `NVLink in pairs`, `Infinity Fabric`; empty for PCIe alone."""
    status: str
    """`current`, `preview`, `restricted` (capacity for those who have it) or `retired`."""
    retired: datetime.date | None
    """The day that Azure's documentation names for its retirement."""
    note: str
    """What the other fields do not say, and which of them is not from the page."""
    source: str
    """The page of Azure's documentation that the figures are from."""

    @property
    def gpu_count(self) -> int:
        """How many GPUs a process sees; a part of one is one."""
        return max(1, int(self.gpus))

    @property
    def has_infiniband(self) -> bool:
        """Whether nodes of this size talk over InfiniBand: sizes with an `r` in their name do."""
        return self.infiniband_gbps > 0


def vm_size(name: str) -> VmSize | None:
    """The size of that name, in any case, as `Standard_ND96isr_H100_v5`; None where it is not known here."""
    return _by_name().get(name.lower())


def vm_sizes() -> list[VmSize]:
    """Every size that is known here: the strongest series first, the retired ones last."""
    return list(_by_name().values())


@cache
def _by_name() -> dict[str, VmSize]:
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
