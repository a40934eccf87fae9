"""`Metrics`: what a run logged with MLflow, the same for runs on this machine and on Azure ML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from azml_dist.show import Page, Shown, Table

_BARS = "▁▂▃▄▅▆▇█"
_MOST = 1 << 63
"""MLflow's steps have 64 bits."""
_TREND = 16
"""How many characters a trend has at most."""


class Point(NamedTuple):
    """One logged value."""

    step: int
    """0 if the script gave none."""
    value: float
    """May be NaN or infinite."""
    time: float
    """When it was logged, in seconds since 1970; 0 if unknown."""


class Metrics(Shown, dict[str, float]):
    """The last value of each metric by name, and on request all its values. At the end of a notebook cell, a table."""

    def __init__(self, last: Mapping[str, float], read: Callable[[str], Sequence[Point]], run: str = "") -> None:
        """`read` returns all values of a metric; it is called once for each that is asked for."""
        super().__init__(last)
        self._read, self._known, self.run = read, dict[str, list[Point]](), run

    def history(self, name: str) -> list[Point]:
        """All values of a metric in the order in which they were logged; raises `KeyError` if there is none."""
        if name not in self:
            raise KeyError(name)
        if name not in self._known:
            self._known[name] = list(self._read(name))
        return self._known[name]

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """What to plot: the steps and the finite values, ordered by step; numbered if the script gave no steps."""
        points = self.history(name)
        if len(points) == 1 or len({point.step for point in points}) > 1:
            points = sorted(points, key=lambda point: point.step)
            pairs = [(float(point.step), point.value) for point in points]
        else:
            pairs = [(float(number), point.value) for number, point in enumerate(points)]
        pairs = [pair for pair in pairs if math.isfinite(pair[1])]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def to_dict(self) -> dict[str, object]:
        """Each metric as JSON values: its last value, and all `steps`, `values` and `times`."""
        return {name: {"last": last, **_columns(self.history(name))} for name, last in self.items()}

    def _page(self) -> Page:
        rows = [_row(name, last, self.history(name)) for name, last in self.items()]
        return Page([], [Table(("metric", "last", "lowest", "highest", "values", "step", "trend"), rows)], self.run)


def trend(values: Sequence[float]) -> str:
    """Values as small bars, up to 16 of them; nothing for fewer than two finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    shown = [finite[round(i * (len(finite) - 1) / (_TREND - 1))] for i in range(_TREND)]
    return "".join(_bar(value, low, high) for value in (finite if len(finite) <= _TREND else shown))


def figure(value: float) -> str:
    """A value of a metric for people: four digits, or the whole number."""
    return f"{value:.0f}" if math.isfinite(value) and value == round(value) and abs(value) < 1e6 else f"{value:.4g}"


def points_of(lines: Iterable[str]) -> list[Point]:
    """The values in a file of MLflow's store, a line each: time in ms, value, step; other lines are left out."""
    found = []
    for line in lines:
        words = line.split()
        try:
            point = Point(int(words[2]) if len(words) > 2 else 0, float(words[1]), int(words[0]) / 1000)
        except (ValueError, IndexError, OverflowError):
            continue
        if abs(point.step) < _MOST:
            found.append(point)
    return found


def _bar(value: float, low: float, high: float) -> str:
    part = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0  # halves: their difference is finite
    return _BARS[min(len(_BARS) - 1, int(part * len(_BARS)))]


def _columns(points: Sequence[Point]) -> dict[str, list[float]]:
    return {
        "steps": [point.step for point in points],
        "values": [point.value for point in points],
        "times": [point.time for point in points],
    }


def _row(name: str, last: float, points: Sequence[Point]) -> tuple[str, ...]:
    values = [point.value for point in points]
    finite = [value for value in values if math.isfinite(value)]
    ends = (figure(min(finite)), figure(max(finite))) if finite else ("", "")
    step = str(points[-1].step) if any(point.step for point in points) else ""
    return (name, figure(last), *ends, f"{len(values):,}", step, trend(values))
