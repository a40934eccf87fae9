"""What the pages of sweeps and pipelines share: their trials or steps, wherever these ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from azml_dist.page.plots import MOST_PLOTS, MOST_SERIES, Points, curve
from azml_dist.page.sheet import Bar, Group, Member, Plot, Row
from azml_dist.show import Row as CardRow
from azml_dist.show import Table
from azml_dist.status import RunStatus
from azml_dist.words import took_text, value_text

_BARS = {RunStatus.COMPLETED: "good", RunStatus.FAILED: "bad", RunStatus.CANCELED: "warn"}


class Part(Protocol):
    """A trial or a step."""

    @property
    def label(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def error(self) -> str | None: ...

    @property
    def started_at(self) -> float | None: ...

    @property
    def ended_at(self) -> float | None: ...

    @property
    def values(self) -> Mapping[str, Any]: ...

    @property
    def metric(self) -> float | None: ...


def group_of(
    kind: str, parts: Sequence[Part], best: str | None, metric: str | None, links: Iterable[Sequence[str]] = ()
) -> Group:
    """The trials or steps as a page has them; each link is a step, its output, a step and its input."""
    members = [
        Member(
            label=part.label,
            number=int(end) if (end := _last_word(part.label)).isdecimal() else number,
            name=part.name,
            status=str(part.status),
            took=took_of(part),
            values={name: _scalar(value) for name, value in part.values.items()},
            metric=part.metric,
            best=part.name == best,
            error=part.error and _brief(part.error),
        )
        for number, part in enumerate(parts)
    ]
    named = [dict(zip(("from", "output", "to", "input"), link, strict=True)) for link in links]
    return Group(kind, members, names_of(parts), metric, links=named)


def _brief(error: str) -> str:
    """A long error without its middle: it ends with the exception, where the service quotes a traceback."""
    return error if len(error) <= 160 else f"{error[:60]} … {error[-95:]}"


def objective_of(details: Mapping[str, Any]) -> str:
    """What a sweep looks for, and how, as in a title; nothing for a pipeline."""
    if not details.get("primary_metric"):
        return ""
    seed = f", seed {details['seed']}" if details.get("seed") is not None else ""
    return f"{details['goal']} {details['primary_metric']} ({details['sampling']}{seed})"


def search_of(details: Mapping[str, Any]) -> str:
    """The same in words, and which value of a trial counts."""
    if not details.get("primary_metric"):
        return ""
    seed = f" with seed {details['seed']}" if details.get("seed") is not None else ""
    how = f"{details['sampling']} sampling{seed}, each trial with the best value that it logged"
    return f"{details['goal']} {details['primary_metric']}, {how}"


def names_of(parts: Iterable[Part]) -> list[str]:
    """The hyperparameters."""
    return list(dict.fromkeys(name for part in parts for name in part.values))


def row_of(part: Part, began: float, now: float, log: int | None = None) -> Row:
    """A row of the timeline, which began at `began` and has lasted `now` seconds."""
    start = None if part.started_at is None else max(0.0, part.started_at - began)
    end = None if part.ended_at is None else max(0.0, part.ended_at - began)
    status = RunStatus(part.status)
    bars = [] if start is None else [Bar(_BARS.get(status, "live"), start, now if end is None else end)]
    ended = str(part.status) + (f": {part.error}" if part.error else "")
    return Row(part.label, ended, bars, start, end=end, failed=end if status == RunStatus.FAILED else None, log=log)


def plots_of(curves: Iterable[tuple[str, Mapping[str, Points]]], best: str | None) -> list[Plot]:
    """A plot for each metric, with a curve for each member; of many, with that of the `best` one and the first ones."""
    found: dict[str, Plot] = {}
    for label, metrics in curves:
        for name, points in metrics.items():
            plot = found.setdefault(name, Plot(name, []))
            plot.series = [*plot.series, curve(label, points, 200)]
    for plot in found.values():
        if len(plot.series) > MOST_SERIES:
            plot.note = f"{MOST_SERIES} of {len(plot.series)}"
            plot.series = sorted(plot.series, key=lambda one: one.label != best)[:MOST_SERIES]
    return [found[name] for name in sorted(found)[:MOST_PLOTS]]


def table_of(parts: Sequence[Part], best: str | None, metric: str | None) -> Table:
    """The trials, if there is a metric to compare them by, or the steps, as text."""
    names = names_of(parts)
    rows: list[Sequence[str] | None] = []
    for part in parts:
        values = [value_text(part.values.get(name, "")) for name in names]
        value = value_text(part.metric) if part.metric is not None else "-"
        how = [str(part.status), took_text(took_of(part)), part.name]
        mark = "best" if part.name == best else ""
        rows.append([_last_word(part.label), *values, value, mark, *how] if metric else [part.label, *how])
    return Table([*(["trial", *names, metric, ""] if metric else ["step"]), "status", "took", "run"], rows)


def best_row(parts: Iterable[Part], best: str | None) -> list[CardRow]:
    """The best trial, for a card."""
    return [CardRow("best", f"{part.label}, as run {part.name}") for part in parts if best and part.name == best]


def _last_word(label: str) -> str:
    """The number of a trial."""
    return label.rpartition(" ")[2]


def took_of(part: Part) -> float | None:
    """The seconds from its start to its end; None if it has not had both."""
    return part.ended_at - part.started_at if part.ended_at and part.started_at else None


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else str(value)
