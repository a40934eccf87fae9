"""The page of a single run on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from azml_dist.errors import DistError
from azml_dist.local.ending import duration_text
from azml_dist.local.page import timeline
from azml_dist.local.page.files import environments, inputs, mapping, outputs, plan_of, secrets_of, variables
from azml_dist.local.page.logs import Written, clock, texts
from azml_dist.local.page.source import RunHere
from azml_dist.local.pages import came, run_page
from azml_dist.local.state import RunState
from azml_dist.page.plots import metric_plots, system_plots
from azml_dist.page.sheet import Evidence, Sheet
from azml_dist.plan.world import World
from azml_dist.runs.system import figures_of
from azml_dist.show import Card, page_text
from azml_dist.status import RunStatus
from azml_dist.verdict.verdict import Verdict
from azml_dist.version import __version__
from azml_dist.words import plural

_PLACES = ("logs", "output", "again", "next", "studio")
"""Rows of a card that the page has elsewhere."""
_IMPORTANT = 8
"""How many logs get more room than others."""


def sheet_of(run: RunHere, budget: int) -> Sheet:
    """Everything that the page of a run shows, with so many bytes of logs."""
    state, folder = run.state(), run.folder
    verdict = run.verdict()
    card = run._ending(verdict, in_full=True)
    written = Written.of(folder, state)
    plan = plan_of(folder)
    found = environments(plan)
    secrets = secrets_of(found)
    now = max(0.0, (state.ended_at or time.time()) - written.began)
    failed = timeline.failures(state, written, verdict)
    first = _first(state, verdict)
    rows = timeline.ranks(state, written, now, failed)
    logs = texts(written, budget, _important(state, verdict), _bad(verdict), secrets)
    places = {log.path: place for place, log in enumerate(logs)}
    for row in rows:
        row.log = places.get(state.processes[row.rank].log)
        row.blame = _blame(row.rank, first, verdict) if row.failed is not None or _hangs(verdict) else None
        row.bars = timeline.with_silence(row) if _hangs(verdict) else row.bars
    at = next((row.failed for row in rows if row.rank == first), None)
    metrics, system = run.metrics(), run.system()
    sheet = base_sheet(state, verdict, card)
    sheet.evidence = _evidence(verdict, places)
    sheet.stacks = _stacks(run, state, verdict)
    sheet.text = page_text(run_page(state, card if state.is_final() else None))
    sheet.world = world_text(state)
    sheet.command = plan.get("command") if isinstance(plan.get("command"), str) else None
    sheet.ranks, sheet.span = rows, now
    recovery = run.recovery()
    after = [f"after that, the run {recovery.summary}"] if recovery else []
    sheet.notes = [*state.findings, *map(came, state.faults), *after, *_left_out(state, rows)]
    sheet.first_failure, sheet.told = at, timeline.in_words(rows, first, len(failed))
    sheet.moments = timeline.moments(state, written, first, at)
    if not any(row.start is not None for row in rows):
        sheet.no_timeline = _no_times(state)
    sheet.plots = metric_plots({name: metrics.history(name) for name in metrics})
    if system:
        sheet.system = system_plots(figures_of(system), written.began, system.cpu_of)
        sheet.notes = [*sheet.notes, *(one for one in system.findings if one not in sheet.notes)]
    sheet.no_plots = "This run has logged no metrics with MLflow."
    sheet.logs, sheet.clock = logs, clock(written, logs)
    sheet.no_logs = "No process has written a log."
    blamed = next((row.log for row in rows if row.blame), None)
    sheet.log_first = blamed if first is None else places.get(state.processes[first].log)
    sheet.inputs = inputs(plan, found[0] if found else {}, secrets)
    sheet.outputs = outputs(run.outputs)
    sheet.variables = variables(found, secrets)
    sheet.facts = facts(state, folder, plan)
    sheet.next = next_commands(state)
    return sheet


def base_sheet(state: RunState, verdict: Verdict | None, card: Card) -> Sheet:
    """What every page of a run on this machine begins with."""
    status = RunStatus(state.status)
    good = {RunStatus.COMPLETED: "good", RunStatus.FAILED: "bad", RunStatus.CANCELED: ""}.get(status, "live")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started_at or state.created_at))
    took = duration_text(state)
    line = [
        state.display_name,
        world_text(state),
        f"on this machine, {when}",
        took if status.is_final else f"for {took}",
    ]
    why = verdict.summary if verdict else state.error
    rows = [(row.name, row.text, list(row.quoted)) for row in card.rows if row.name not in (*_PLACES, "why")]
    if not status.is_final and verdict and verdict.kind == "hang":
        rows = [("cause", f"hang ({verdict.certainty})", []), ("hint", verdict.hint or "", [])]
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    state_of = "" if status.is_final else f" The run was {status} then: make the page again to see how it went on."
    return Sheet(
        name=state.name,
        status=str(status),
        tone=good,
        line=" · ".join(filter(None, line)),
        why=why,
        said=(state.error or "").removesuffix(why or "").removesuffix(": ") or None,
        ending=[row for row in rows if row[1] or row[2]] if why else [],
        foot=f"Written by azml_dist {__version__} at {now}.{state_of} Times are seconds since the run started.",
    )


def world_text(state: RunState) -> str:
    """`2 nodes x 2 processes = 4`."""
    return str(World(**state.world)) if state.world else plural(len(state.processes), "process", "processes")


def _first(state: RunState, verdict: Verdict | None) -> int | None:
    """The rank that failed first; None if that is unknown."""
    if not state.is_final() or state.status != RunStatus.FAILED:
        return None
    if verdict:
        return verdict.rank if verdict.rank is not None and verdict.rank < len(state.processes) else None
    return state.failed_rank


def _hangs(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.kind == "hang"


def _blame(rank: int, first: int | None, verdict: Verdict | None) -> str | None:
    if verdict and verdict.kind == "hang":
        return "keeps the others waiting" if rank == verdict.rank or rank in verdict.ranks else None
    return "failed first" if rank == first else None


def _important(state: RunState, verdict: Verdict | None) -> list[int]:
    blamed = [] if verdict is None else [*filter(lambda one: one is not None, [verdict.rank]), *verdict.ranks]
    ranks = [*blamed, state.failed_rank, 0]
    return [rank for rank in dict.fromkeys(ranks) if rank is not None][:_IMPORTANT]


def _bad(verdict: Verdict | None) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in verdict.evidence if verdict else ():
        if one.line:
            found.setdefault(one.log, []).append(one.line)
    return found


def _evidence(verdict: Verdict | None, places: Mapping[str, int]) -> list[Evidence]:
    found = []
    for one in verdict.evidence if verdict else ():
        place = ", ".join(filter(None, (None if one.rank is None else f"rank {one.rank}", one.log)))
        number = f":{one.line}" if one.line else ""
        found.append(Evidence(place + number, one.text, places.get(one.log) if one.line else None, one.line))
    return found


def _stacks(run: RunHere, state: RunState, verdict: Verdict | None) -> list[Mapping[str, str]]:
    """Where all processes stood, of a run that hangs or hung."""
    if verdict is None or verdict.kind not in ("hang", "timeout", "canceled"):
        return []
    try:
        groups = run.stacks().groups if state.is_final() or verdict.kind == "hang" else []
    except DistError:
        return []
    return [
        {
            "who": str(one.get("who", "")),
            "text": "\n".join(map(str, one.get("stack") or (one.get("problem") or "no frame",))),
        }
        for one in groups
    ]


def _left_out(state: RunState, rows: Sequence[Any]) -> list[str]:
    left = len(state.processes) - len(rows)
    return (
        [f"the page shows {len(rows):,} of {len(state.processes):,} ranks; `azml-dist status` has all"] if left else []
    )


def _no_times(state: RunState) -> str:
    if not any(process.pid for process in state.processes):
        return "No process has started."
    return "This run was made by a version of azml_dist that did not record times."


def facts(state: RunState, folder: Path, plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the processes ran in."""
    properties = mapping(plan, "request", "properties")
    code = mapping(plan, "code")
    files, root = code.get("files"), code.get("root")
    rows = [
        ("folder", str(folder)),
        ("code", f"{root} ({plural(files, 'file')})" if isinstance(files, int) and root else ""),
        ("launcher", " ".join(filter(None, (state.launcher, state.launcher_version)))),
        ("environment on Azure ML", str(properties.get("environmentId") or "")),
        ("compute on Azure ML", str(properties.get("computeId") or "")),
        ("experiment", str(properties.get("experimentName") or "")),
    ]
    return [row for row in rows if row[1]]


def next_commands(state: RunState) -> list[tuple[str, str]]:
    """What to type next, for a run in this state."""
    name, rank = state.name, state.failed_rank
    of_rank = f" --rank {rank}" if rank is not None and len(state.processes) > 1 else ""
    if not state.is_final():
        return [
            ("follow it", f"azml-dist logs {name} --follow"),
            ("where it is", f"azml-dist stacks {name}"),
            ("cancel it", f"azml-dist cancel {name}"),
        ]
    rows = [("its log", f"azml-dist logs {name}{of_rank}")]
    if state.status == RunStatus.FAILED:
        rows.insert(0, ("why it failed", f"azml-dist why {name}"))
    return [*rows, ("its files", f"azml-dist download {name} --to results")]
