"""Further attempts of a run: when one follows, and what it begins with.

Azure ML starts a job again whose low-priority nodes were taken away: under the same name, on other nodes, with what was
written to its outputs. The logs of such an attempt are in `user_logs/retry_001` (seen). How often it does so, and that
`./outputs` and `./logs` begin empty, is inferred.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from azml_dist.local.merged import log_of_attempt
from azml_dist.local.state import FAILED, PREEMPTED, PREPARING, Attempt, ProcessState, RunState

SNAPSHOT = ".snapshot"
"""The code as it was staged, in the run's folder, for working directories of further attempts."""


def of_attempt(spec: dict[str, Any], retry: int) -> dict[str, Any]:
    """The specification of one attempt: nodes, ports and temporary files are its own."""
    temp = os.path.join(spec["temp"], str(retry)) if retry else spec["temp"]
    return {**spec, **spec["attempts"][retry], "temp": temp}


def prepare(spec: dict[str, Any]) -> None:
    """Make what a further attempt finds when it starts: its code on every node, as it was when the run began."""
    os.mkdir(spec["temp"])
    for node in spec["nodes"]:
        shutil.copytree(os.path.join(spec["folder"], SNAPSHOT), node)


def follows(spec: dict[str, Any], state: RunState, verdict: str | None) -> bool:
    """Whether an attempt is not the last: its nodes were taken away, or it failed and the run may fail once more."""
    if verdict == PREEMPTED:
        return True
    failures = sum(attempt.status == FAILED for attempt in state.earlier)
    return verdict is None and state.status == FAILED and failures < spec["retries"]


def begin_next(state: RunState, now: float) -> None:
    """Note how this attempt went, and begin a new one with nothing started."""
    logs = state.first_logs
    if state.status == FAILED:
        state.findings.append(
            f"attempt {state.retry + 1} failed and was followed by another: Azure ML does that where nodes were taken "
            "away, and not where a process failed"
        )
    begun = state.earlier[-1].ended_at if state.earlier else state.started_at
    state.earlier.append(
        Attempt(state.status, state.error, state.failed_rank, state.exit_code, begun, now, state.processes)
    )
    state.retry += 1
    state.status, state.error, state.hint, state.failed_rank, state.exit_code = PREPARING, None, None, None, None
    state.processes = [
        ProcessState(p.rank, p.node_rank, p.local_rank, log_of_attempt(log, state.retry), p.role, p.serves)
        for p, log in zip(state.processes, logs, strict=True)
    ]
