"""Plots at a terminal, drawn by plotext, which is optional."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from azml_dist.words import visible

_WIDTH, _NARROW, _HEIGHT = 100, 20, 14
_HUGE = 1e300
_COLOURS = ("blue", "orange", "green", "magenta", "cyan", "red", "yellow", "white")
_MARKS = ("hd", "*", "o", "x", "+", "#", "=", "~")
"""Without colours, each run has its own mark."""

Curve = tuple[list[float], list[float]]


def plotext_missing() -> str | None:
    """What to install for plots; None if it is there. Version 6 of plotext has another interface."""
    try:
        plotext = import_module("plotext")
    except ImportError:
        return "for plots at the terminal, `pip install 'plotext<6'`"
    return None if hasattr(plotext, "plotsize") else "plots at the terminal need plotext 5: `pip install 'plotext<6'`"


def chart(title: str, curves: Mapping[str, Curve], columns: int, *, colour: bool) -> str:
    """One metric of some runs as text, no wider than the terminal; runs without values are left out."""
    plt: Any = import_module("plotext")
    plt.clear_figure()
    plt.theme("clear")
    plt.limit_size(False, False)
    plt.plotsize(max(_NARROW, min(columns, _WIDTH)), _HEIGHT)
    plt.title(visible(title))
    given = {run: drawn for run, curve in curves.items() if (drawn := _drawable(curve))[1]}
    for number, (run, (x, y)) in enumerate(given.items()):
        label = visible(run) if len(given) > 1 else None
        mark = _MARKS[0] if colour or len(given) == 1 else _MARKS[number % len(_MARKS)]
        plt.plot(x, y, label=label, marker=mark, color=_COLOURS[number % len(_COLOURS)])
    try:
        text: str = plt.build()
    except (ValueError, ArithmeticError):  # plotext divides the range of the values into steps that it cannot write
        return f"{visible(title)}: these values cannot be plotted"
    return "\n".join(line.rstrip() for line in (text if colour else plt.uncolorize(text)).splitlines())


def _drawable(curve: Curve) -> Curve:
    """The curve without values whose differences are not finite."""
    pairs = [(x, y) for x, y in zip(*curve, strict=True) if abs(y) < _HUGE]
    return [x for x, _ in pairs], [y for _, y in pairs]
