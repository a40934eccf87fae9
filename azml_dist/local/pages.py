"""Pages that show the state of local runs: one run, a sweep or pipeline, a list of runs."""

from __future__ import annotations

from collections.abc import Collection

from azml_dist.local.ending import duration_text
from azml_dist.local.ranks import processes_table
from azml_dist.local.state import FaultState, MemberState, RunState
from azml_dist.local.system import system_of as system_of
from azml_dist.page.members import objective_of, table_of, took_of
from azml_dist.plan.world import World
from azml_dist.runs.rerun import Origin
from azml_dist.runs.system import System
from azml_dist.show import Block, Card, Facts, Page, Told
from azml_dist.words import plural, took_text, value_text


def run_page(
    state: RunState,
    ending: Card | None = None,
    recovery: str | None = None,
    system: System | None = None,
    odd: Collection[int] = (),
) -> Page:
    """The state of a run: its processes and what they used, its findings, why it failed, how it recovered.

    Of many processes, those in `odd` are shown in any case.
    """
    blocks: list[Block] = [processes_table(state, odd)]
    if system:
        blocks.append(Facts([("used", system.summary())]))
    if system and not state.is_final():  # at the end, they are among the run's findings
        blocks.append(Told([("note", finding) for finding in system.findings]))
    if state.services and not state.is_final():
        blocks.append(Facts([(f"service {one.name}", one.url) for one in state.services]))
    if state.origin:
        blocks.append(Facts([("from", str(Origin(**state.origin)))]))
    if state.earlier:
        blocks.append(Facts(_attempts(state)))
    if state.faults:
        facts = [("fault", came(fault)) for fault in state.faults]
        blocks.append(Facts([*facts, *([("recovery", recovery)] if recovery else [])]))
    return Page([state.status, _world(state), duration_text(state)], [*blocks, *_said(state, ending)], state.name)


def group_page(state: RunState, ending: Card | None = None) -> Page:
    """The state of a sweep or a pipeline: its trials or steps."""
    title = [state.status, objective_of(state.details), duration_text(state)]
    members = table_of(state.members, state.details.get("best"), state.details.get("primary_metric"))
    return Page(title, [members, *_said(state, ending)], state.name)


def _said(state: RunState, ending: Card | None = None) -> list[Block]:
    # The card below says why; the error of a hang ends with the same words.
    why = next((row.text for row in ending.rows if row.name == "why"), "") if ending else ""
    short = (state.error or "").removesuffix(f": {why.removesuffix(' (likely)')}")
    error = Told([("error", short or None), ("hint", state.hint if state.error and not ending else None)])
    return [*(Told([("note", finding)]) for finding in state.findings), error, *([ending] if ending else [])]


def member_text(state: RunState, member: MemberState) -> str:
    """A trial or a step on one line."""
    values = ", ".join(f"{name}={value_text(value)}" for name, value in member.values.items())
    metric = f"{state.details['primary_metric']}={value_text(member.metric)}" if member.metric is not None else ""
    ending = f"{member.status}{f': {member.error}' if member.error else ''}"
    return f"{member.label}: " + "  ".join(filter(None, (ending, values, metric, took_text(took_of(member)))))


def came(fault: FaultState) -> str:
    """How a fault went, on one line."""
    if fault.at is None:
        return f"{fault.what}, {fault.when}: not yet, or never"
    pid = f" (pid {fault.pid})" if fault.pid else ""
    attempt = f" in attempt {fault.attempt + 1}" if fault.attempt else ""
    note = f"; {fault.note}" if fault.note else ""
    return f"{fault.what}{pid} after {fault.at:.1f} s{attempt}: {fault.trigger}{note}"


def _attempts(state: RunState) -> list[tuple[str, str]]:
    """How the earlier attempts ended; the processes shown are those of the last one."""
    earlier = [(f"attempt {number}", f"{a.status}: {a.error}") for number, a in enumerate(state.earlier, 1)]
    return [*earlier, (f"attempt {state.retry + 1}", "shown above")]


def _world(state: RunState) -> str:
    if state.kind:
        return plural(len(state.members), "trial" if state.kind == "sweep" else "step")
    return str(World(**state.world)) if state.world else ""
