"""The latest jobs of a workspace, as a list shows them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.described import Submitted
from azml_dist.azureml.errors import translated
from azml_dist.azureml.judged import noted_verdict
from azml_dist.azureml.parallel import each
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import SubmitError
from azml_dist.notation.shell import script_in
from azml_dist.status import RunStatus

_LISTED = 50
_AT_ONCE = 100
"""About how many runs one request asks."""
_AT_A_TIME = 4
_PATIENCE = 15.0
"""Seconds that the list waits for times."""


def latest(workspace: Workspace, most: int | None = None) -> list[dict[str, Any]]:
    """The latest jobs, newest last, each with its verdict if it is known here.

    A sweep or pipeline is one job. `world` is None for every kind but command jobs.
    """
    with translated("list the jobs", workspace):
        found = [Submitted.of(job) for job in reversed(workspace.arm.read_all("jobs", most or _LISTED))]
        summaries = [_summary(job, workspace.arm_id) for job in found]
    times = _times(workspace, [job.name for job in found])
    return [one | times.get(one["name"], _UNKNOWN) for one in summaries]


_UNKNOWN: dict[str, str | None] = {"started_at": None, "ended_at": None}


def _times(workspace: Workspace, names: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """When each run started and ended, as far as run history says so. A list of jobs does not have it.

    This request is in azure-ai-ml's generated client only: whatever becomes of it, the list has everything else.
    """

    def ask(some: Sequence[str]) -> dict[str, dict[str, str | None]]:
        requests = {name: {"runId": name, "selectRunMetadata": True} for name in some}
        with suppress(SubmitError), translated("read when the runs started", workspace):
            answer = workspace.history.call(
                "POST", "batchrundata", body={"requests": requests}, attempts=1, timeout=_PATIENCE
            )
            found = Answer(answer).object("successfulResults").each_object()
            runs = {name: one.object("runMetadata") for name, one in found}
            return {
                name: {"started_at": run.text("startTimeUtc"), "ended_at": run.text("endTimeUtc")}
                for name, run in runs.items()
            }
        return {}

    parts = [names[place : place + _AT_ONCE] for place in range(0, len(names), _AT_ONCE)]
    done = each(ask, parts, at_a_time=_AT_A_TIME, stop=threading.Event())
    return {name: times for _, found in done for name, times in found.items()}


def _summary(job: Submitted, workspace: str) -> dict[str, Any]:
    is_command = job.kind == "command"
    failed = job.status in (RunStatus.FAILED, RunStatus.CANCELED)
    verdict = noted_verdict(workspace, job.name) if failed else None
    return {
        "name": job.name,
        "status": str(job.status),
        "display_name": job.display_name,
        "created_at": job.created_at,
        "node_count": job.world.node_count if is_command else None,
        "kind": job.kind,
        "world": job.world_told if is_command else None,
        "compute": job.compute,
        "script": job.command and script_in(job.command),
        "verdict": verdict and verdict.to_dict(),
    }
