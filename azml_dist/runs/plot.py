"""`plot`: the metrics of runs as a picture in a notebook, drawn by matplotlib, which is optional."""

from __future__ import annotations

import io
import math
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from azml_dist.errors import DistError, NotFound
from azml_dist.runs.metrics import Metrics
from azml_dist.words import nearest_or_all, visible

_BESIDE = 3
_SIZE = (4.6, 3.2)
"""Inches of one metric."""


class HasMetrics(Protocol):
    """A run, as far as it can be plotted."""

    name: str

    def metrics(self) -> Metrics: ...


class Plot:
    """A picture of metrics, shown at the end of a notebook cell; `save()` writes it to a file."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        """matplotlib's own figure, to change anything about it."""

    def save(self, file: str | Path) -> Path:
        """Write the picture to a file, in the format of its suffix (`.png`, `.svg`, `.pdf`), and return its path."""
        self.figure.savefig(file)
        return Path(file)

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.figure.savefig(picture, format="png", dpi=96)
        return picture.getvalue()


def plot(*runs: HasMetrics, metrics: Collection[str] | None = None) -> Plot:
    """The metrics of one or more runs, on this machine or on Azure ML: a picture for each metric, a line for each run.

    `metrics` chooses some by name. Raises `NotFound` if the runs logged none of them, and `DistError` if matplotlib
    is not installed.
    """
    logged = {run.name: run.metrics() for run in runs}
    known = list(dict.fromkeys(name for one in logged.values() for name in one))
    names = [name for name in known if metrics is None or name in metrics]
    if not names:
        hint = nearest_or_all(next(iter(metrics)), known) if metrics else None
        raise NotFound(f"nothing to plot: {', '.join(logged) or 'no runs'} logged no such metrics", hint=hint)
    beside = min(_BESIDE, len(names))
    beneath = math.ceil(len(names) / beside)
    figure = _new_figure(_SIZE[0] * beside, _SIZE[1] * beneath)
    for number, name in enumerate(names, 1):
        _draw(figure.add_subplot(beneath, beside, number), name, logged)
    return Plot(figure)


def _new_figure(width: float, height: float) -> Any:
    """A figure without pyplot: no window opens, and nothing is kept after it."""
    try:
        module = import_module("matplotlib.figure")
    except ImportError as error:
        raise DistError("plots need matplotlib", hint="`pip install matplotlib`, or `azml-dist metrics`") from error
    return module.Figure(figsize=(width, height), layout="constrained")


def _draw(axes: Any, metric: str, logged: dict[str, Metrics]) -> None:
    for run, one in logged.items():
        if metric in one:
            steps, values = one.curve(metric)
            # A dollar sign would begin a formula, which a name is not; a label with an underscore is left out.
            axes.plot(steps, values, label=f"\u200b{_plain(run)}", marker="." if len(steps) < 3 else None)
    axes.set_title(_plain(metric))
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if len(logged) > 1:
        axes.legend()


def _plain(text: str) -> str:
    return visible(text).replace("$", r"\$")
