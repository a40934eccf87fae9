"""How the work of a run recovered from a fault, according to the steps in its logs, its outputs and its metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from azml_dist.local.faults.steps import Leg, legs
from azml_dist.local.state import RunState
from azml_dist.model.steps import STEP_PATTERN
from azml_dist.regular import end_of, open_inside
from azml_dist.status import RunStatus
from azml_dist.verdict.recovery import Outcome, Recovery
from azml_dist.verdict.verdict import Evidence, Verdict
from azml_dist.words import plural, value_text

TOLERANCE = 0.01
"""By which fraction a final metric may differ from that of the run without the fault."""
_TAIL = 1 << 16
_METRIC = re.compile(
    r"(?P<name>[A-Za-z][\w./-]*?(?:loss|acc|accuracy|error|perplexity|ppl|bleu|rouge|f1|auc|score|reward|mse|mae|rmse|r2)"
    r"\w*|loss|acc|accuracy|perplexity|f1|auc|score|mse|mae|rmse)[\"']?\s*[:= ]\s*"
    r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])"
)
"""`loss 0.31`, `val_acc=0.9`, `"test_loss": 1e-3` in a log."""


def recovery(state: RunState, folder: Path, metrics: Mapping[str, float], verdict: Verdict | None) -> Recovery | None:
    """The recovery of a finished run; None if no fault happened. `metrics` are the final ones that it logged."""
    came = [fault for fault in state.faults if fault.at is not None]
    if not came or not state.is_final():
        return None
    found = _of_work(state, folder)
    if state.status == RunStatus.COMPLETED:
        return _against(found, state, final_metrics(state, folder, metrics))
    if verdict and verdict.kind == "hang":
        return _ended(found, "hung", f"hung: {verdict.summary}", verdict.evidence)
    if state.status == RunStatus.FAILED or (state.error or "").startswith("it ran for longer"):
        return _ended(found, "failed", _how_it_failed(state), verdict.evidence if verdict else [])
    return _ended(found, "unknown", f"not known: {state.error}", [])


def _how_it_failed(state: RunState) -> str:
    if state.earlier:
        return f"failed in attempt {state.retry + 1}: {state.error}"
    if state.status == RunStatus.FAILED:
        return "failed, and no attempt was left: `--retries 1` allows another"
    return f"failed: {state.error}"


def _ended(found: Recovery, outcome: Outcome, summary: str, evidence: Sequence[Evidence]) -> Recovery:
    return Recovery(outcome, found.from_step, found.lost_steps, summary, [*evidence, *found.evidence])


# According to the steps.


def _of_work(state: RunState, folder: Path) -> Recovery:
    attempts = [*(attempt.processes for attempt in state.earlier), state.processes]
    found = legs(folder, attempts, state.step_pattern or STEP_PATTERN)
    came = sum(fault.at is not None for fault in state.faults)
    said = {leg.attempt for leg in found}
    if len(said) < len(attempts):
        which = next(number for number in range(len(attempts)) if number not in said)
        of = f"attempt {which + 1}" if len(attempts) > 1 else "the run"
        return _unknown(f"no line of {of} has a step", [])
    if len(found) - len(attempts) > came:
        return _unknown("the step numbers restart within an attempt, so they cannot be compared", _of(found[:2]))
    if len(found) == 1 and state.status != RunStatus.COMPLETED:
        return _unknown("no attempt followed", [found[0].last.line])
    if len(found) == 1:
        return _went_on(found[0], state)
    return _over_all([_between(before, after, found[0]) for before, after in pairwise(found)], folder, state)


def _unknown(why: str, evidence: Sequence[Evidence]) -> Recovery:
    return Recovery("unknown", None, None, f"not known: {why}", list(evidence))


def _of(found: Sequence[Leg]) -> list[Evidence]:
    return [leg.last.line for leg in found]


def _went_on(leg: Leg, state: RunState) -> Recovery:
    """No attempt followed: whether there were steps after the fault."""
    at = max((fault.step for fault in state.faults if fault.step is not None), default=None)
    later = [step for step in leg.steps if at is not None and step.number > at]
    if at is None or not later:
        return _unknown("there is no step after the fault", [leg.last.line])
    return Recovery("resumed", at, 0, f"continued after step {at}, no step lost", [later[0].line, leg.last.line])


@dataclass(frozen=True)
class _Change:
    """From one leg to the next."""

    from_step: int
    lost: int
    may_be_lost: int
    """Including those that were done but not printed."""
    over: bool
    evidence: list[Evidence]


def _between(before: Leg, after: Leg, first: Leg) -> _Change | None:
    begin, last = _begin_of(after, before.stride), before.last
    zero = _begin_of(first, before.stride)
    if begin is None or zero is None or begin > last.number:
        return None
    # Where the first step is 0, work that resumes after it has not started over.
    over = begin <= (-1 if first.first and first.first.number == 0 and after.first else max(zero, 0))
    lost = last.number - min(begin, zero) if over else last.number - begin
    shown = after.begin or after.first
    return _Change(begin, lost, lost + before.stride - 1, over, [last.line, *([shown.line] if shown else [])])


def _begin_of(leg: Leg, stride: int) -> int | None:
    """The step after which a leg starts: as it prints, or one stride before its first step."""
    if leg.begin and leg.first and leg.first.number == leg.begin.number:
        return leg.begin.number - 1  # `resumes from epoch 5`, then `epoch 5`: it named the next one
    if leg.begin:
        return leg.begin.number
    return leg.first.number - stride if leg.first else None


def _over_all(changes: Sequence[_Change | None], folder: Path, state: RunState) -> Recovery:
    known = [change for change in changes if change]
    evidence = [line for change in known for line in change.evidence]
    if len(known) < len(changes):
        return _unknown("the steps do not show where the work resumed", evidence)
    lost, most = sum(change.lost for change in known), sum(change.may_be_lost for change in known)
    words = f"{plural(lost, 'step')} lost" if lost == most else f"{lost} to {most} steps lost"
    if any(change.over for change in known):
        return Recovery("started-over", None, lost, f"started over, {words}", [*evidence, *_of_outputs(folder, state)])
    from_step = known[-1].from_step
    return Recovery("resumed", from_step, lost, f"resumed from step {from_step}, {words}", evidence)


def _of_outputs(folder: Path, state: RunState) -> list[Evidence]:
    """What the outputs had to resume from when the last attempt started."""
    begun = state.earlier[-1].ended_at if state.earlier else None
    if begun is None:
        return []
    outputs = folder / "outputs"
    files = [file for file in outputs.rglob("*") if file.is_file() and not file.is_symlink()]
    before = sorted((file for file in files if file.stat().st_mtime < begun), key=lambda file: file.stat().st_mtime)
    if before:
        name = before[-1].relative_to(folder).as_posix()
        return [Evidence(None, name, None, "existed when the last attempt started")]
    if not files:
        return [
            Evidence(None, "outputs", None, "no file was written to a named output; only those are shared by attempts")
        ]
    return []


# How the work ended.


def final_metrics(state: RunState, folder: Path, logged: Mapping[str, float]) -> dict[str, float]:
    """The final value of each metric: those logged with MLflow, or else the last in a log, of the lowest rank."""
    if logged:
        return dict(logged)
    for process in state.processes:
        try:
            text = end_of(open_inside(folder, process.log), _TAIL).decode(errors="replace")
        except OSError:
            continue
        if found := {match["name"]: float(match["value"]) for match in _METRIC.finditer(text)}:
            return found
    return {}


def _against(found: Recovery, state: RunState, metrics: Mapping[str, float]) -> Recovery:
    if not state.against:
        return found
    name, theirs = state.against["run"], state.against["metrics"]
    common = sorted(metrics.keys() & theirs.keys())
    if not common:
        line = Evidence(None, "", None, f"this run and {name} have no metric in common: not compared")
        return Recovery(found.outcome, found.from_step, found.lost_steps, found.summary, [*found.evidence, line])
    lines = [
        Evidence(None, "", None, f"{one} {value_text(metrics[one])}, in {name} {value_text(theirs[one])}")
        for one in common
    ]
    apart = [
        one for one in common if abs(metrics[one] - theirs[one]) > TOLERANCE * max(abs(theirs[one]), abs(metrics[one]))
    ]
    if not apart:
        summary = f"{found.summary}; ended as {name} did"
        return Recovery(found.outcome, found.from_step, found.lost_steps, summary, [*found.evidence, *lines])
    worst = max(apart, key=lambda one: abs(metrics[one] - theirs[one]) / max(abs(theirs[one]), abs(metrics[one])))
    summary = f"ended differently: {worst} {value_text(metrics[worst])}, in {name} {value_text(theirs[worst])}"
    if found.outcome != "unknown":
        summary += f" ({found.summary})"
    return Recovery("different", found.from_step, found.lost_steps, summary, [*lines, *found.evidence])
