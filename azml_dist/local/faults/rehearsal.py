"""The deliberate faults of a run, before it starts. Most runs have none, and do not load what reads and checks them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from azml_dist.model.steps import STEP_PATTERN

if TYPE_CHECKING:
    from azml_dist.local.state import FaultState
    from azml_dist.model.fault import Fault
    from azml_dist.plan.plan import LaunchPlan


class Rehearsal:
    """What is special about a run on purpose: here nothing. `faults/wanted.py` has that of a run with faults."""

    step_pattern = STEP_PATTERN
    preemptions = 0
    """How many attempts may end because of an eviction."""
    inputs: Collection[str] = ()
    """The inputs that a fault takes away."""

    def drawn_for(self, plan: LaunchPlan) -> list[Fault]:
        """The faults of a run of this plan, with everything random decided."""
        return []

    def records(self, plan: LaunchPlan) -> list[FaultState]:
        """What `run.json` says about them before they have happened."""
        return []

    def check(self, plan: LaunchPlan, *, apart: bool) -> None:
        """Raises `JobError` if a fault cannot happen in a local run of this plan."""

    def reference(self) -> dict[str, Any] | None:
        """The run that this one is held against, with its final metrics. Raises `JobError`."""
        return None

    def refuse_groups(self) -> None:
        """Raises `JobError` if there are faults: a sweep or a pipeline consists of runs, not of ranks."""
