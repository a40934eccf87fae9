"""The deliberate faults of a run: read, drawn, and checked against the job and the machine before the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from azml_dist.errors import JobError
from azml_dist.local.faults.checks import check
from azml_dist.local.faults.reference import reference
from azml_dist.local.faults.rehearsal import Rehearsal
from azml_dist.local.state import FaultState
from azml_dist.model.fault import Fault, check_pattern, drawn, parse
from azml_dist.model.steps import STEP_PATTERN
from azml_dist.plan.plan import LaunchPlan


def wanted(
    specs: Sequence[str], preempt_after: float | None, seed: int, step_pattern: str | None, against: str | None
) -> Rehearsal:
    """The faults that the options of a run request. Raises `JobError`."""
    if isinstance(specs, str):
        raise JobError(
            f"`faults` must be a list of strings, not the string {specs!r}", hint=f"write `faults=[{specs!r}]`"
        )
    faults = [parse(spec) for spec in specs]
    if preempt_after is not None:
        faults.append(parse(f"preempt@{preempt_after:g}s"))
    if step_pattern is not None:
        check_pattern(step_pattern, "the step pattern")
    if against and not faults:
        raise JobError(
            f"`--against {against}` compares the results of a run with a fault, and this run has none",
            hint="add one, such as `--fault kill:rank=0@step=3`",
        )
    return _Wanted(faults, seed, step_pattern or STEP_PATTERN, against)


class _Wanted(Rehearsal):
    def __init__(self, faults: Sequence[Fault], seed: int, step_pattern: str, against: str | None) -> None:
        self._faults, self._seed, self._against = faults, seed, against
        self.step_pattern = step_pattern
        self.preemptions = sum(fault.kind == "preempt" for fault in faults)
        self.inputs = {fault.name for fault in faults if fault.kind == "input" and fault.name}

    def drawn_for(self, plan: LaunchPlan) -> list[Fault]:
        ranks, nodes = len(plan.processes), plan.world.node_count
        return [drawn(fault, self._seed, number, ranks, nodes) for number, fault in enumerate(self._faults)]

    def records(self, plan: LaunchPlan) -> list[FaultState]:
        return [_record(fault) for fault in self.drawn_for(plan)]

    def check(self, plan: LaunchPlan, *, apart: bool) -> None:
        self.reference()
        for fault in self._faults:
            check(fault, plan, apart=apart)

    def reference(self) -> dict[str, Any] | None:
        return reference(self._against) if self._against else None

    def refuse_groups(self) -> None:
        if self._faults:
            raise JobError(
                f"the fault `{self._faults[0].spec}` is for a single job, but this is a sweep or a pipeline",
                hint="run one step with `pipeline.yml:STEP`, or the job that a sweep varies",
            )


def _record(fault: Fault) -> FaultState:
    rank, node = (place if isinstance(place, int) else None for place in (fault.rank, fault.node))
    return FaultState(fault.spec, fault.what, fault.when, rank, node)
