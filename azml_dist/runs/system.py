"""`System`: what a run used of its machines, rank by rank here, node by node on Azure ML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from azml_dist.show import Block, Page, Shown, Table, Told, abbreviated
from azml_dist.words import mean_over_time

Points = Sequence[tuple[float, float]]
"""Times in seconds since 1970, and values."""


@dataclass(frozen=True)
class Used:
    """What one rank, node or GPU used."""

    who: str
    """`rank 3`, or on Azure ML `node 1` or `node 1 GPU 0`."""
    cpu: Points = ()
    """Per cent of a core (more than 100 with several threads); on Azure ML, of the node."""
    memory: Points = ()
    """Bytes of resident memory; on Azure ML, of the node."""
    gpu: Points = ()
    """Per cent of the time in which the GPU was busy."""
    gpu_memory: Points = ()
    """Per cent of the GPU's memory."""

    def to_dict(self) -> dict[str, Any]:
        """The mean and the highest value of each figure; null if it is unknown."""
        return {"who": self.who} | {name: _ends(getattr(self, name)) for name in FIGURES}

    def curves(self) -> dict[str, Any]:
        """All values as JSON values."""
        shown = {name: getattr(self, name) for name in FIGURES}
        return {"who": self.who} | {
            name: {"times": [at for at, _ in points], "values": [value for _, value in points]}
            for name, points in shown.items()
            if points
        }


FIGURES = ("cpu", "memory", "gpu", "gpu_memory")
"""What is known of each, by the names of its fields."""
HEADINGS = {"cpu": "cpu", "memory": "memory", "gpu": "gpu", "gpu_memory": "gpu memory"}


@dataclass(frozen=True)
class System(Shown):
    """What a run used of its machines so far. At the end of a notebook cell, a table."""

    used: Sequence[Used]
    findings: Sequence[str] = field(default_factory=tuple)
    """What is odd about it: `rank 3 used 12 % of a core, the others 98 %`."""
    source: str = "sampled on this machine"
    cpu_of: str = "core"
    """What 100 % of `cpu` are: a `core`, or a `node`."""

    def to_dict(self) -> dict[str, Any]:
        """As `azml-dist status --json` prints it."""
        return {
            "source": self.source,
            "cpu_of": self.cpu_of,
            "used": [one.to_dict() for one in self.used],
            "findings": list(self.findings),
        }

    def summary(self) -> str:
        """On one line: `cpu 12 to 98 % of a core, memory up to 310 MB`; empty if nothing is known."""
        means = [mean_over_time(one.cpu) for one in self.used if one.cpu]
        parts = [f"cpu {_range(means)} of a {self.cpu_of}"] if means else []
        parts += [f"memory up to {bytes_text(most)}"] if (most := self._most("memory")) is not None else []
        busy = [mean_over_time(one.gpu) for one in self.used if one.gpu]
        parts += [f"gpu {_range(busy)} busy"] if busy else []
        parts += [f"gpu memory up to {most:.0f} %"] if (most := self._most("gpu_memory")) is not None else []
        return ", ".join(parts)

    def _most(self, figure: str) -> float | None:
        return max((value for one in self.used for _, value in getattr(one, figure)), default=None)

    def _page(self) -> Page:
        known = [name for name in FIGURES if any(getattr(one, name) for one in self.used)]
        rows: list[Sequence[str] | None] = [
            (one.who, *(_cell(name, getattr(one, name)) for name in known)) if one else None
            for one in abbreviated(self.used)
        ]
        headings = [f"{HEADINGS[name]} {'(most)' if 'memory' in name else '(mean)'}" for name in known]
        blocks: list[Block] = [Table(("", *headings), rows)] if known else []
        return Page([self.source], [*blocks, Told([("note", finding) for finding in self.findings])])


def figures_of(system: System) -> list[tuple[str, dict[str, Points]]]:
    """All values of each rank or node, by the names of the figures."""
    return [(one.who, {name: getattr(one, name) for name in FIGURES}) for one in system.used]


def bytes_text(count: float) -> str:
    """`310 MB`, `1.2 GB`."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{high} %" if low == high else f"{low} to {high} %"


def _cell(figure: str, points: Points) -> str:
    if not points:
        return ""
    most = max(value for _, value in points)
    if figure == "memory":
        return bytes_text(most)
    return f"{most if figure == 'gpu_memory' else mean_over_time(points):.0f} %"


def _ends(points: Points) -> dict[str, float] | None:
    if not points:
        return None
    return {"mean": round(mean_over_time(points), 1), "most": max(value for _, value in points), "last": points[-1][1]}
