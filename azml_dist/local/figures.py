"""What the processes of a local run used of the machine: the samples in its folder, and what is odd about them.

Standard library only: the supervisor writes the file, and reads it at the end of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from azml_dist.regular import read_regular
from azml_dist.words import mean_over_time

FILE = "system.jsonl"
"""In the folder of a run: one line for each sample, with a list entry for each rank, or null."""
CPU, MEMORY, GPU, GPU_MEMORY, GPU_TOTAL = "cpu", "memory", "gpu", "gpu_memory", "gpu_total"
"""Per cent of one core, megabytes of resident memory, per cent of the time, megabytes, megabytes."""
FIGURES = (CPU, MEMORY, GPU, GPU_MEMORY, GPU_TOTAL)

_MOST_BYTES, _MOST = 64_000_000, 1e12
_LONG_ENOUGH = 30.0
"""Seconds that samples must cover before anything is said about them."""
_TIMES, _POINTS = 4.0, 25.0
"""How many times, and by how many per cent, one rank must differ from all others to be named."""
_ROOM = 50.0
"""Per cent of the GPU's memory below which a larger batch is suggested."""
_BUSY, _IDLE = 10.0, 1.0

Sample = Mapping[str, Any]


def read_samples(run: Path, attempt: int) -> list[Sample]:
    """The samples of an attempt of a run, oldest first; none for runs that were made before there were any."""
    try:
        text = read_regular(run / FILE, _MOST_BYTES)
    except OSError:
        return []
    found = [sample for line in text.splitlines() if (sample := _sample(line))]
    return [sample for sample in found if sample["attempt"] == attempt]


def values(samples: Sequence[Sample], figure: str, rank: int) -> list[tuple[float, float]]:
    """One figure of a rank: times in seconds since 1970, and values."""
    found = []
    for sample in samples:
        column = sample.get(figure) or []
        if rank < len(column) and column[rank] is not None:
            found.append((float(sample["at"]), float(column[rank])))
    return found


def findings(samples: Sequence[Sample], serving: Collection[int] = ()) -> list[str]:
    """What is odd about the ranks, without those that serve others; nothing about less than half a minute."""
    ranks = [rank for rank in range(_width(samples)) if rank not in serving]
    shared = [s for s in samples if all(rank < len(s[CPU]) and s[CPU][rank] is not None for rank in ranks)]
    if not ranks or len(shared) < 5 or shared[-1]["at"] - shared[0]["at"] < _LONG_ENOUGH:
        return []
    odd = _odd({rank: mean_over_time(values(shared, CPU, rank)) for rank in ranks}, _of_a_core)
    return list(filter(None, [odd, *_of_gpus(shared, ranks)]))


def _of_gpus(samples: Sequence[Sample], ranks: Sequence[int]) -> list[str | None]:
    busy = {rank: mean_over_time(points) for rank in ranks if len(points := values(samples, GPU, rank)) > 1}
    if len(busy) != len(ranks):
        return []
    if max(busy.values()) < _IDLE:
        return ["no rank used its GPU: the run may have used the CPU"]
    full = [most for rank in ranks if (most := fullest(samples, rank)) is not None]
    room = len(full) == len(ranks) and max(full) < _ROOM and min(busy.values()) >= _BUSY
    batch = f"GPU memory at {max(full):.0f} %: a larger batch may fit" if room else None
    return [_odd(busy, _of_the_time), batch]


def fullest(samples: Sequence[Sample], rank: int) -> float | None:
    """Per cent of a rank's GPU memory that were in use at most; None if unknown."""
    used, total = values(samples, GPU_MEMORY, rank), values(samples, GPU_TOTAL, rank)
    if not used or not total or total[-1][1] <= 0:
        return None
    return 100 * max(value for _, value in used) / total[-1][1]


def _odd(figures: Mapping[int, float], say: Callable[[str, str], str]) -> str | None:
    """The few ranks that used far less or far more than all others, in words."""
    order = sorted(figures, key=lambda rank: figures[rank])
    gaps = [(figures[b] / max(figures[a], 0.5), number) for number, (a, b) in enumerate(pairwise(order), 1)]
    if not gaps:
        return None
    times, number = max(gaps)
    low, high = order[:number], order[number:]
    if times < _TIMES or figures[high[0]] - figures[low[-1]] < _POINTS:
        return None
    few, others = (low, high) if len(low) <= len(high) else (high, low)
    if len(few) > max(1, len(order) // 4):
        return None
    rest = _names(others) if len(others) == 1 else "the others"
    return f"{say(_names(few), _range(figures, few))}, {rest} {_range(figures, others)}"


def _of_a_core(who: str, value: str) -> str:
    return f"{who} used {value} of a core"


def _of_the_time(who: str, value: str) -> str:
    return f"the GPU of {who} was busy {value} of the time"


def _names(ranks: Sequence[int]) -> str:
    shown = [str(rank) for rank in sorted(ranks)]
    return f"rank {shown[0]}" if len(shown) == 1 else f"ranks {', '.join(shown[:-1])} and {shown[-1]}"


def _range(figures: Mapping[int, float], ranks: Sequence[int]) -> str:
    low, high = min(figures[rank] for rank in ranks), max(figures[rank] for rank in ranks)
    return f"{high:.0f} %" if high - low < max(5.0, high / 20) else f"{low:.0f} to {high:.0f} %"


def _width(samples: Sequence[Sample]) -> int:
    return max((len(sample[CPU]) for sample in samples), default=0)


def _sample(line: bytes) -> Sample | None:
    """A line of the file, if it is one that the supervisor wrote."""
    try:
        found = json.loads(line)
        is_one = isinstance(found["at"], float) and isinstance(found["attempt"], int) and isinstance(found[CPU], list)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    columns = [found.get(figure) or [] for figure in FIGURES]
    plain = all(isinstance(c, list) and all(v is None or _is_figure(v) for v in c) for c in columns)
    return found if is_one and plain else None


def _is_figure(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST  # type: ignore[arg-type]
