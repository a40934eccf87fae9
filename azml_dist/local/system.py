"""What the processes of a local run used, from the samples in its folder."""

from __future__ import annotations

from pathlib import Path

from azml_dist.local import figures
from azml_dist.local.state import RunState
from azml_dist.runs.system import System, Used


def system_of(run: Path, state: RunState) -> System | None:
    """What the processes of the last attempt used so far; None if nothing was sampled: the run is short, or old."""
    samples = figures.read_samples(run, state.retry)
    if not samples:
        return None
    serving = {process.rank for process in state.processes if process.serves}
    used = [_used(samples, process.rank) for process in state.processes]
    return System(used, figures.findings(samples, serving))


def _used(samples: list[figures.Sample], rank: int) -> Used:
    def points(figure: str, times: float = 1.0) -> list[tuple[float, float]]:
        return [(at, value * times) for at, value in figures.values(samples, figure, rank)]

    totals = [total for _, total in points(figures.GPU_TOTAL) if total > 0]
    full = points(figures.GPU_MEMORY, 100 / totals[-1]) if totals else []
    return Used(f"rank {rank}", points(figures.CPU), points(figures.MEMORY, 1e6), points(figures.GPU), full)
