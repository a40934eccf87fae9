"""The earlier run that a run with faults is compared with."""

from __future__ import annotations

from typing import Any

from azml_dist.errors import JobError
from azml_dist.local.faults.recovery import final_metrics
from azml_dist.local.find import find
from azml_dist.status import RunStatus


def reference(name: str) -> dict[str, Any]:
    """The run of that name, with its final metrics. Raises `JobError` if it is no undisturbed, completed run."""
    run = find(name)
    if run is None or (state := run.state()).kind:
        raise JobError(f"there is no run of a job named {name} here", hint="`azml-dist list` shows the runs")
    if state.status != RunStatus.COMPLETED:
        raise JobError(
            f"run {run.name} is {state.status}, and has no final metrics", hint="name a run that has completed"
        )
    if any(fault.at is not None for fault in state.faults):
        raise JobError(f"run {run.name} had a fault itself", hint="name a run without one")
    return {"run": run.name, "metrics": final_metrics(state, run.folder, run.metrics())}
