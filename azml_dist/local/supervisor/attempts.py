"""Further attempts of a run: when another one follows, and what it starts with.

If a job's spot nodes are evicted, Azure ML restarts it: under the same name, on other nodes, with what was written to
its outputs. The logs of such an attempt are in `user_logs/retry_001` (observed). How often it restarts, and that
`./outputs` and `./logs` start empty, is inferred.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from azml_dist.local.launchers.starting import LaunchFailed
from azml_dist.local.merged import log_of_attempt
from azml_dist.local.state import PREEMPTED, SNAPSHOT, Attempt, ProcessState, RunState
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec, WholeSpec


def of_attempt(spec: WholeSpec, retry: int) -> Spec:
    """The specification of one attempt, with its own nodes, ports and temporary files."""
    temp = os.path.join(spec["temp"], str(retry)) if retry else spec["temp"]
    return {**spec, **spec["attempts"][retry], "temp": temp}


def prepare(spec: Spec) -> None:
    """Prepare another attempt: the code on every node, as it was when the run began."""
    os.mkdir(spec["temp"])
    try:
        for node in spec["nodes"]:
            shutil.copytree(os.path.join(spec["folder"], SNAPSHOT), node)
    except shutil.Error as error:
        _, file, why = error.args[0][0]
        raise LaunchFailed(
            f"{file} could not be copied: {why}", "free some space, or choose another `--root`"
        ) from error


def follows(spec: Spec, state: RunState, verdict: str | None) -> bool:
    """Whether another attempt follows: this one was evicted, or it failed and the run has retries left."""
    if verdict == PREEMPTED:
        return True
    failures = sum(attempt.status == RunStatus.FAILED for attempt in state.earlier)
    return verdict is None and state.status == RunStatus.FAILED and failures < spec["retries"]


def begin_next(state: RunState, now: float) -> None:
    """Record how this attempt ended, and reset the state for a new one."""
    logs = state.first_logs
    if state.status == RunStatus.FAILED:
        state.findings.append(
            f"attempt {state.retry + 1} failed and was followed by another: Azure ML restarts a job if its nodes are "
            "evicted, but not if a process fails"
        )
    begun = state.earlier[-1].ended_at if state.earlier else state.started_at
    state.earlier.append(
        Attempt(state.status, state.error, state.failed_rank, state.exit_code, begun, now, state.processes)
    )
    state.retry += 1
    state.status = RunStatus.PREPARING
    state.error, state.hint, state.failed_rank, state.exit_code = None, None, None, None
    state.out_of_memory_kills = None
    state.processes = [
        ProcessState(p.rank, p.node_rank, p.local_rank, log_of_attempt(log, state.retry), p.role, p.serves)
        for p, log in zip(state.processes, logs, strict=True)
    ]
