"""The page of a sweep or a pipeline on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from azml_dist.errors import NotFound
from azml_dist.local.page.files import environments, outputs, plan_of, secrets_of
from azml_dist.local.page.logs import Written, texts
from azml_dist.local.page.run import base_sheet
from azml_dist.local.page.source import RunHere
from azml_dist.local.pages import group_page
from azml_dist.local.state import MemberState, RunFolder, RunState
from azml_dist.page.members import group_of, plots_of, row_of, search_of
from azml_dist.page.plots import by_step
from azml_dist.page.sheet import Evidence, Group, Plot, Sheet, Text
from azml_dist.show import page_text
from azml_dist.status import RunStatus
from azml_dist.verdict.card import in_brief
from azml_dist.words import plural

_MOST_LOGS = 256
"""How many logs of members a page has."""
_MOST_VERDICTS = 32
"""How many members that failed are asked why: their logs are read for that."""


def group_sheet(run: RunHere, budget: int) -> Sheet:
    """Everything that the page of a sweep or pipeline shows, with so many bytes of logs."""
    state = run.state()
    began = state.started_at or state.created_at
    now = max(0.0, (state.ended_at or time.time()) - began)
    verdict = run.verdict() if state.status == RunStatus.FAILED else None
    card = run._ending(verdict, in_full=True)
    sheet = base_sheet(state, verdict, card)
    kind = "trial" if state.kind == "sweep" else "step"
    sheet.line = sheet.line.replace("0 processes", plural(len(state.members), kind))
    started = [member for member in state.members if member.started_at]
    sheet.logs = _logs(run, started, budget)
    places: dict[str | None, int] = {}
    for place, log in enumerate(sheet.logs):
        places.setdefault(log.member, place)
    sheet.text = page_text(group_page(state, card if state.is_final() else None))
    _say_why(run, state)
    sheet.group = _group(state)
    sheet.rows = [row_of(member, began, now, places.get(member.label)) for member in state.members]
    sheet.span, sheet.notes = now, list(state.findings)
    failed = [row.failed for row in sheet.rows if row.failed is not None]
    sheet.first_failure = min(failed) if failed else None
    if verdict:
        sheet.evidence = [Evidence(one.log, one.text, None, one.line) for one in verdict.evidence]
    sheet.log_first = places.get(_first_failed(state))
    sheet.plots = _plots(run, state)
    sheet.no_plots = f"No {kind} has logged metrics with MLflow."
    sheet.no_logs = f"No {kind} has written a log."
    found = state.details.get("inputs")
    sheet.inputs = [(name, str(text)) for name, text in found.items()] if isinstance(found, dict) else []
    sheet.outputs = outputs(run.outputs)
    sheet.facts = [("folder", str(run.folder))]
    sheet.next = _next(state)
    return sheet


def _say_why(run: RunHere, state: RunState) -> None:
    """The first members that failed, with the verdict where it says more than the end of their process.

    The others say that their logs were not read.
    """
    members = getattr(run, "members", {})
    failed = [one for one in state.members if one.status == RunStatus.FAILED and one.label in members]
    for member in failed[:_MOST_VERDICTS]:
        member.error = in_brief(members[member.label].verdict()) or member.error
    for member in failed[_MOST_VERDICTS:]:
        member.error = " ".join(filter(None, (member.error, "(its logs were not read)")))


def _group(state: RunState) -> Group:
    details = state.details
    metric = details.get("primary_metric")
    group = group_of(str(state.kind), state.members, details.get("best"), metric, _links(details.get("links")))
    if "links" not in details:
        group.no_links = "Which step reads the output of another one was not recorded when this run was made."
    group.objective = search_of(details)
    return group


def _links(found: Any) -> Iterable[Sequence[str]]:
    for one in found if isinstance(found, list) else ():
        if isinstance(one, list) and len(one) == 4 and all(isinstance(word, str) for word in one):
            yield one


def _first_failed(state: RunState) -> str | None:
    return next((member.label for member in state.members if member.status == RunStatus.FAILED), None)


def _logs(run: RunHere, members: list[MemberState], budget: int) -> list[Text]:
    """The logs of all members that have started, under the names of these."""
    found: list[Text] = []
    shown = sorted(members, key=lambda member: member.status != RunStatus.FAILED)[:_MOST_LOGS]
    shown = [member for member in members if member in shown]
    for member in shown:
        folder = run.folder.parent / member.name
        try:
            state = RunFolder(folder).read()
        except NotFound:
            continue
        written = Written.of(folder, state)
        secrets = secrets_of(environments(plan_of(folder)))
        logs = texts(written, budget // max(1, len(shown)), [state.failed_rank or 0], {}, secrets)
        for log in logs[: max(1, _MOST_LOGS // len(shown))]:
            log.member, log.order = member.label, []
            log.label = f"{member.label}: {log.label}" if len(logs) > 1 else member.label
            found.append(log)
    return found


def _plots(run: RunHere, state: RunState) -> list[Plot]:
    curves = []
    for label, member in getattr(run, "members", {}).items():
        metrics = member.metrics()
        curves.append((label, {name: by_step(metrics.history(name)) for name in metrics}))
    best = next((member.label for member in state.members if member.name == state.details.get("best")), None)
    return plots_of(curves, best)


def _next(state: RunState) -> list[tuple[str, str]]:
    rows = [("all members", f"azml-dist status {state.name}")]
    if failed := next((one for one in state.members if one.status == RunStatus.FAILED), None):
        rows.insert(0, (f"why {failed.label} failed", f"azml-dist why {failed.name}"))
        rows.append((f"the page of {failed.label}", f"azml-dist page {failed.name}"))
    best = state.details.get("best")
    if best:
        rows.append(("the page of the best trial", f"azml-dist page {best}"))
    if not state.is_final():
        rows.append(("follow it", f"azml-dist logs {state.name} --follow"))
    return [*rows, ("its files", f"azml-dist download {state.name} --to results")]
