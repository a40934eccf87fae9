"""The page of a run on Azure ML, from what the service says of it and the ends of its logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from azml_dist.azureml.children import Child, Children, curves_of, kind_of, which
from azml_dist.azureml.described import Submitted
from azml_dist.azureml.phases import Span
from azml_dist.azureml.stamps import seconds_of
from azml_dist.page.html import RunPage
from azml_dist.page.members import group_of, plots_of, row_of, search_of
from azml_dist.page.plots import Logged, metric_plots, system_plots
from azml_dist.page.sheet import Bar, Evidence, Output, Rank, Row, Sheet, Text
from azml_dist.page.text import shown_line
from azml_dist.runs.logs import Source
from azml_dist.runs.system import System, figures_of
from azml_dist.show import Card, Page, page_text
from azml_dist.status import RunStatus
from azml_dist.verdict.verdict import Verdict
from azml_dist.version import __version__
from azml_dist.words import plural

MOST_LOGS = 64
"""How many logs are read for a page: each is a request."""
LINES = 2000
LOG_BYTES = 200_000
"""The most lines and bytes of the end of each log."""
_MOST_RANKS = 1024
_PLACES = ("studio", "logs", "output", "next", "why")


class Contents(NamedTuple):
    """A run as the service describes it now."""

    described: Mapping[str, Any]
    """As `azml-dist status --json` prints it."""
    job: Submitted
    spans: Sequence[Span]
    page: Page
    ending: Card | None
    verdict: Verdict | None
    outputs: Mapping[str, str]
    histories: Mapping[str, Sequence[Logged]] | None
    """None if the metrics cannot be read."""
    system: System | None
    tails: Callable[[Iterable[int]], Sequence[Tail]]
    """The last lines of some ranks."""
    children: Children | None = None
    """The trials of a sweep or the steps of a pipeline; None if it is neither, or they cannot be listed."""
    member_tails: Sequence[Tail] = ()
    """The last lines of some of these."""
    without_logs: Sequence[str] = ()
    """Those whose logs were not read."""


class Tail(NamedTuple):
    """The end of the log of a rank."""

    rank: int
    label: str
    command: str
    """What shows all of it."""
    text: str
    is_cut: bool
    secrets: Sequence[str]
    member: str | None = None
    """The trial or step whose log it is, as the page calls it."""
    has_failed: bool = False
    """Its run has."""

    @classmethod
    def of(
        cls, name: str, source: Source, ranks: int, text: str, secrets: Sequence[str], member: str, most: int
    ) -> Tail:
        """The end of a log of the run of this name, with so many ranks, that was read up to `most` bytes."""
        command = f"azml-dist logs {name}" + (f" --rank {source.rank}" if ranks > 1 else "")
        rank = f"rank {source.rank}" + (f" ({source.role})" if source.role else "")
        label = ": ".join(filter(None, (member, rank if ranks > 1 or not member else "")))
        is_cut = len(text) >= most or text.count("\n") + 1 >= LINES
        return cls(source.rank, label, command, text, is_cut, secrets, member.partition("/")[0] or None)


def page_of(name: str, look: Callable[[], Contents]) -> RunPage:
    """The page of a run, as it is when it is asked for. The service is asked once, however small it has to become."""
    looks: list[tuple[Sheet, Sequence[Tail]]] = []

    def fill(budget: int) -> Sheet:
        if not looks:
            looks.append(_looked(look()))
        sheet, tails = looks[0]
        sheet.logs = _logs(tails, budget)
        return sheet

    return RunPage(name, fill)


def _looked(seen: Contents) -> tuple[Sheet, Sequence[Tail]]:
    found, job, verdict = seen.described, seen.job, seen.verdict
    status, failed, sources = RunStatus(found["status"]), found["failed_rank"], seen.job.sources
    named = {one["rank"] for one in found["processes"]}
    shown = [rank for rank in ranks_first(sources, failed, verdict, MOST_LOGS) if rank in named]
    tails = seen.tails(shown) if shown else []
    places = {tail.rank: place for place, tail in enumerate(tails)}
    sheet = Sheet(job.name, str(status), _tone(status), _line(found, _size(seen)))
    sheet.text = page_text(seen.page)
    sheet.why = verdict.summary if verdict else found["error"]
    sheet.said = found["error"] if found["error"] != sheet.why else None
    rows = [row for row in seen.ending.rows if row.name not in _PLACES] if seen.ending else []
    sheet.ending = [(row.name, row.text, list(row.quoted)) for row in rows] if sheet.why else []
    sheet.evidence = _evidence(verdict, places)
    sheet.world = _world(found, sources) if sources else ""
    sheet.command = job.command
    sheet.ranks = [_rank(one, status, failed, places) for one in sources[:_MOST_RANKS]]
    sheet.rows = _phases(seen.spans, status)
    sheet.span = sum(one.seconds for one in seen.spans)
    sheet.told = "Azure ML does not record what each rank did when: these are the run's phases."
    sheet.plots = metric_plots(seen.histories or {})
    if seen.system:
        began = seconds_of(found["started_at"]) or seconds_of(found["created_at"]) or 0.0
        sheet.system = system_plots(figures_of(seen.system), began, seen.system.cpu_of)
    nothing = "This run has logged no metrics with MLflow."
    sheet.no_plots = nothing if seen.histories is not None else "The metrics of this run cannot be read."
    sheet.no_logs = _no_logs(status)
    sheet.log_first = places.get(failed) if failed is not None else None
    sheet.inputs = list(job.inputs.items())
    sheet.outputs = [Output(name, uri, None, "on Azure ML") for name, uri in seen.outputs.items()]
    sheet.facts = _facts(found, job)
    sheet.notes = [*_left_out(sources, places), *(seen.system.findings if seen.system else ())]
    sheet.next = _next(seen, status)
    if job.is_group:
        _add_children(sheet, seen)
        tails = seen.member_tails
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    sheet.foot = f"Written by azml_dist {__version__} at {now}, from what Azure ML said then."
    return sheet, tails


def _add_children(sheet: Sheet, seen: Contents) -> None:
    """The trials or steps, in place of ranks."""
    found, job, sheet.told = seen.children, seen.job, None
    kind = kind_of(job)
    sheet.no_plots = f"No {kind} has logged metrics with MLflow, or they cannot be read."
    if found is None:
        sheet.no_timeline = sheet.no_logs = f"The {kind}s of this run cannot be listed; the studio has them."
        return
    began = seconds_of(seen.described["started_at"]) or seconds_of(seen.described["created_at"])
    ended = seconds_of(seen.described["ended_at"]) or time.time()
    times = [one for child in found.members for one in (child.started_at, child.ended_at) if one is not None]
    began = min([*times, *([began] if began else [])], default=ended)
    # The clock of this machine may be another one than the service's.
    now = max([*times, ended]) - began
    places: dict[str | None, int] = {}
    for place, tail in sorted(enumerate(seen.member_tails), key=lambda one: not one[1].has_failed):
        places.setdefault(tail.member, place)
    sheet.inputs = list(found.details.get("inputs", {}).items())
    sheet.group = group_of(job.kind, found.members, found.best, found.metric, found.details.get("links", ()))
    sheet.group.names, sheet.group.objective = found.names, search_of(found.details)
    sheet.rows = [row_of(child, began, now, places.get(child.label)) for child in found.members]
    sheet.span, first = now, _failed(seen)
    sheet.first_failure = min([row.failed for row in sheet.rows if row.failed is not None], default=None)
    sheet.log_first = places.get(first.label) if first else None
    best = next((child.label for child in found.members if child.name == found.best), None)
    sheet.plots = plots_of(curves_of(found), best) or sheet.plots
    sheet.notes = [*found.notes, *_without_logs(seen), *sheet.notes]
    example = first or next((child for child in found.members if child.has_run), None)
    logs = f": `azml-dist logs {example.name}` shows those of {example.label}." if example else "."
    sheet.no_logs = f"Each {kind} is a run of its own, with its own logs{logs}"


def _without_logs(seen: Contents) -> list[str]:
    """Which members are without their logs here, and how to see these."""
    if not seen.without_logs:
        return []
    names = {child.label: child.name for child in (seen.children.members if seen.children else ())}
    example = names.get(seen.without_logs[0].partition("/")[0])
    how = f": `azml-dist logs {example}`" + (" and so on" if seen.without_logs[1:] else "") if example else ""
    return [f"the page is without the logs of {which(seen.without_logs)}{how}"]


def _failed(seen: Contents) -> Child | None:
    """The first trial or step that failed."""
    members = seen.children.members if seen.children else ()
    return next((child for child in members if child.status == RunStatus.FAILED), None)


def _tone(status: RunStatus) -> str:
    return {RunStatus.COMPLETED: "good", RunStatus.FAILED: "bad", RunStatus.CANCELED: ""}.get(status, "live")


def _line(found: Mapping[str, Any], size: str) -> str:
    when = _stamp(found["created_at"])
    where = f"on Azure ML, submitted {when}" if when else "on Azure ML"
    title = found["display_name"] if found["display_name"] != found["name"] else None
    return " · ".join(filter(None, (title, size, where)))


def _size(seen: Contents) -> str:
    """How many processes, trials or steps."""
    job = seen.job
    if job.is_group:
        return plural(len(seen.children.members), kind_of(job)) if seen.children else ""
    return _world(seen.described, job.sources) if job.sources else ""


def _stamp(text: str | None) -> str:
    """A time stamp of the service without fractions of seconds."""
    return f"{text[:19].replace('T', ' ')} UTC" if text else ""


def _world(found: Mapping[str, Any], sources: Sequence[Source]) -> str:
    return f"{plural(found['world']['node_count'], 'node')}, {plural(len(sources), 'process', 'processes')}"


def _facts(found: Mapping[str, Any], job: Submitted) -> list[tuple[str, str]]:
    rows = [
        ("studio", str(found["url"])),
        ("environment", job.environment or ""),
        ("compute", job.compute or ("serverless" if job.instance_type else "")),
        ("VM size", job.instance_type or ""),
        *((name, _stamp(found[f"{name}_at"])) for name in ("created", "started", "ended")),
        ("best trial", job.best_trial or ""),
    ]
    return [row for row in rows if row[1]]


def _no_logs(status: RunStatus) -> str:
    return "No log of a process can be read." if status.is_final else "No log of a process can be read yet."


def ranks_first(sources: Sequence[Source], failed: int | None, verdict: Verdict | None, most: int) -> list[int]:
    """The ranks of which logs are read: those that a verdict names, then the first ones."""
    named = [failed, *([verdict.rank, *verdict.ranks] if verdict else [])]
    ranks = dict.fromkeys([*(rank for rank in named if rank is not None), *(one.rank for one in sources)])
    return sorted([rank for rank in ranks if rank < len(sources)][:most])


def _rank(source: Source, status: RunStatus, failed: int | None, places: Mapping[int, int]) -> Rank:
    outcome = {RunStatus.COMPLETED: "completed", RunStatus.RUNNING: "running"}.get(status, "waiting")
    words = {"completed": "the run completed", "running": "the run is running"}.get(outcome, f"the run is {status}")
    is_first = failed == source.rank and status == RunStatus.FAILED
    if status in (RunStatus.FAILED, RunStatus.CANCELED):
        outcome = "failed" if is_first else "unknown"
        words = "failed first" if is_first else "how it ended is not known"
    return Rank(
        f"rank {source.rank}" + (f" ({source.role})" if source.role else ""),
        words,
        rank=source.rank,
        node=source.node_rank,
        role=source.role or "worker",
        outcome=outcome,
        blame="failed first" if is_first else None,
        log=places.get(source.rank),
    )


def _phases(spans: Sequence[Span], status: RunStatus) -> list[Row]:
    rows, at = [], 0.0
    kinds = {RunStatus.COMPLETED: "good", RunStatus.FAILED: "bad", RunStatus.CANCELED: "warn"}
    for number, span in enumerate(spans):
        kind = kinds.get(status, "live") if number == len(spans) - 1 else "start"
        rows.append(Row(span.name, str(span), [Bar(kind, at, at + span.seconds)], start=at, end=at + span.seconds))
        at += span.seconds
    return rows


def _evidence(verdict: Verdict | None, places: Mapping[int, int]) -> list[Evidence]:
    found = []
    for one in verdict.evidence if verdict else ():
        place = f"{one.log}:{one.line}" if one.line else one.log or "the service"
        who = f"rank {one.rank}, " if one.rank is not None else ""
        log = places.get(one.rank) if one.rank is not None else None
        found.append(Evidence(who + place, one.text, log, None))
    return found


def _logs(tails: Sequence[Tail], budget: int) -> list[Text]:
    """The last lines of each log that was read; nobody counted the lines before them."""
    part = budget // max(1, len(tails))
    found = []
    for tail in tails:
        text = tail.text[-part:] if part else ""
        lines: list[str | None] = [shown_line(line.encode(), tail.secrets) for line in text.split("\n")]
        shown = [None, *lines] if tail.is_cut or len(text) < len(tail.text) else lines
        omitted = f"earlier lines are not here: {tail.command}"
        log = Text(tail.label, tail.command, None, None, "", shown, None, omitted=omitted, member=tail.member)
        found.append(log)
    return found


def _left_out(sources: Sequence[Source], places: Mapping[int, int]) -> list[str]:
    left = len(sources) - len(places)
    return [f"the page has the logs of {len(places)} of {len(sources)} processes"] if left > 0 and places else []


def _next(seen: Contents, status: RunStatus) -> list[tuple[str, str]]:
    name, files = seen.job.name, ("its files", f"azml-dist download {seen.job.name} --to results")
    if seen.job.is_group:
        failed, best = _failed(seen), seen.job.best_trial
        rows = [(f"why {failed.label} failed", f"azml-dist why {failed.name}")] if failed else []
        rows += [("the page of the best trial", f"azml-dist page {best}")] if best else []
        if status.is_final:
            return [*rows, files]
        return [*rows, ("wait for it", f"azml-dist wait {name}"), ("cancel it", f"azml-dist cancel {name}")]
    if not status.is_final:
        return [("follow it", f"azml-dist logs {name} --follow"), ("cancel it", f"azml-dist cancel {name}")]
    why = [("why it failed", f"azml-dist why {name}")] if status == RunStatus.FAILED else []
    return [*why, ("its logs", f"azml-dist logs {name}"), files]
