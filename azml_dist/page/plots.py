"""Curves for a page: few enough points that a browser draws them at once, and no peak left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from azml_dist.page.sheet import Plot, Series
from azml_dist.words import plural

MOST_POINTS = 400
MOST_PLOTS = 48
MOST_SERIES = 16

Points = Sequence[tuple[float, float]]
Logged = tuple[int, float, float]
"""A step, a value, and the time when it was logged."""
Figures = Sequence[tuple[str, Mapping[str, Points]]]
"""For each rank or node, its figures by name, over seconds since 1970."""
_SYSTEM = (
    ("cpu", "CPU", "% of a {}", 1.0),
    ("memory", "resident memory", "MB", 1e-6),
    ("gpu", "GPU", "%", 1.0),
    ("gpu_memory", "GPU memory", "%", 1.0),
)


def curve(label: str, points: Points, most: int = MOST_POINTS) -> Series:
    """A series of at most so many points. A value that is not finite is a gap."""
    kept = thinned([(x, y if math.isfinite(y) else None) for x, y in points if math.isfinite(x)], most)
    return Series(label, kept)


def thinned(points: Sequence[tuple[float, float | None]], most: int) -> list[tuple[float, float | None]]:
    """Of each part of a long series its lowest and its highest point, and every first gap."""
    if len(points) <= most:
        return list(points)
    parts = max(1, most // 2)
    found: list[tuple[float, float | None]] = []
    for part in range(parts):
        some = range(part * len(points) // parts, (part + 1) * len(points) // parts)
        known = [(value, place) for place in some if (value := points[place][1]) is not None]
        gap = next((place for place in some if points[place][1] is None), None)
        kept = {min(known)[1], max(known)[1]} if known else set()
        found += [points[place] for place in sorted(kept | ({gap} if gap is not None else set()))]
    return found


def not_finite(points: Points) -> str | None:
    """A sentence about the first value that is not a number, or infinite."""
    odd = [(x, y) for x, y in points if not math.isfinite(y)]
    if not odd:
        return None
    first = f"{odd[0][1]} at step {odd[0][0]:g}".replace("nan", "NaN").replace("inf", "infinity")
    return first if len(odd) == 1 else f"{first}, and {plural(len(odd) - 1, 'more value')} like it"


def metric_plots(histories: Mapping[str, Sequence[Logged]]) -> list[Plot]:
    """A plot for each metric."""
    found = []
    for name in sorted(histories)[:MOST_PLOTS]:
        points = by_step(histories[name])
        found.append(Plot(name, [curve(name, points)], note=not_finite(points)))
    return found


def by_step(history: Sequence[Logged]) -> Points:
    """The values over their steps; numbered if the script gave no steps."""
    if len(history) == 1 or len({step for step, _, _ in history}) > 1:
        return sorted(((float(step), value) for step, value, _ in history), key=lambda point: point[0])
    return [(float(number), value) for number, (_, value, _) in enumerate(history)]


def together(title: str, unit: str, series: Iterable[tuple[str, Points]], x: str = "s") -> Plot:
    """Several series in one plot; of more than a few, those that are highest and lowest at some time stay."""
    known = [(label, points) for label, points in series if points]
    shown, note = known, None
    if len(known) > MOST_SERIES:
        by_mean = sorted(known, key=lambda one: sum(y for _, y in one[1]) / len(one[1]))
        half = MOST_SERIES // 2
        shown = [*by_mean[:half], *by_mean[-half:]]
        note = f"the {half} lowest and the {half} highest of {len(known)}"
    return Plot(title, [curve(label, points, MOST_POINTS // 2) for label, points in shown], x, unit, note)


def system_plots(figures: Figures, began: float, cpu_of: str) -> list[Plot]:
    """A plot for each figure of the system, with a curve for each rank or node."""
    found = []
    for name, title, unit, factor in _SYSTEM:
        series = [(who, [(at - began, value * factor) for at, value in known.get(name, ())]) for who, known in figures]
        if any(points for _, points in series):
            found.append(together(title, unit.format(cpu_of), series))
    return found
