"""When a submitted job starts: after its time in the queue, and when its cluster has nodes for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from azml_dist.emulator.jobs import TERMINAL, Job
from azml_dist.emulator.knobs import Knobs
from azml_dist.emulator.node import JobRun
from azml_dist.emulator.quota import lacking
from azml_dist.emulator.state import Cluster, Workspace
from azml_dist.emulator.world import node_count


@dataclass
class _Waiting:
    job: Job
    knobs: Knobs
    timer: threading.Timer | None = None
    is_ready: bool = False
    """Whether its time in the queue is over."""


@dataclass
class Schedule:
    """The queue of the workspace. Jobs start in order of submission, each as soon as it fits."""

    workspace: Workspace
    start: Callable[[Job, Knobs, Callable[[], None]], JobRun]
    """Starts a job, which calls back at its end."""
    _waiting: list[_Waiting] = field(default_factory=list)

    def submit(self, job: Job, knobs: Knobs) -> None:
        """Queue a job."""
        waiting = _Waiting(job, knobs)
        job.on_cancel = lambda: self._cancel(waiting)
        with self.workspace.changed:
            self._waiting.append(waiting)
        if knobs.queue_seconds:
            job.advance("Queued")
            if knobs.queue_reason:
                job.queueing = _reason(self.workspace, "Waiting", knobs.queue_reason)
            waiting.timer = threading.Timer(knobs.queue_seconds, self._ready, args=(waiting,))
            waiting.timer.daemon = True
            waiting.timer.start()
        else:
            self._ready(waiting)

    def look(self) -> None:
        """Start what can start now; to be called when there may be more nodes."""
        with self.workspace.changed:
            free = [one for one in self._waiting if one.is_ready and self._holds_nodes(one.job)]
            self._waiting = [one for one in self._waiting if one not in free]
        for one in free:
            self.start(one.job, one.knobs, lambda job=one.job: self._ended(job))  # type: ignore[misc] # a default

    def close(self) -> None:
        """Nothing starts any more."""
        with self.workspace.changed:
            for one in self._waiting:
                if one.timer:
                    one.timer.cancel()
            self._waiting.clear()

    def _ready(self, waiting: _Waiting) -> None:
        waiting.is_ready = True
        self.look()

    def _cancel(self, waiting: _Waiting) -> None:
        with self.workspace.changed:
            if waiting not in self._waiting:
                return
            self._waiting.remove(waiting)
            if waiting.timer:
                waiting.timer.cancel()
        waiting.job.advance("Canceled")

    def _holds_nodes(self, job: Job) -> bool:
        """Whether the job now has its nodes; if not, the service says why."""
        if job.status in TERMINAL:
            return False
        cluster = self.workspace.computes.get((job.body.get("computeId") or "").rpartition("/")[2])
        wanted = node_count(job.body)
        if cluster is None or cluster.kind != "AmlCompute":
            return True  # serverless, or not a cluster: as many as are asked for
        reason = self._why_not(cluster, wanted)
        if reason is None:
            cluster.runs[job.name] = wanted
            job.queueing = None
            return True
        job.queueing = _reason(self.workspace, *reason)
        if job.status == "NotStarted":
            job.advance("Queued")
        return False

    def _why_not(self, cluster: Cluster, wanted: int) -> tuple[str, str] | None:
        """Why a cluster does not have that many nodes now: a code, and the service's words (inferred)."""
        free = cluster.max_nodes - sum(cluster.runs.values()) - cluster.unusable
        if wanted > cluster.max_nodes:
            return (
                "ClusterTooSmall",
                f"The job asks for {wanted} nodes, and the cluster has at most {cluster.max_nodes}.",
            )
        if wanted > free:
            ahead = len(cluster.runs)
            return (
                "ComputeTargetBusy",
                f"Waiting for {wanted} nodes: {ahead} runs use the compute target, {free} are free.",
            )
        missing = lacking(self.workspace, cluster, wanted)
        return ("QuotaExceeded", f"The quota does not suffice: {missing}") if missing else None

    def _ended(self, job: Job) -> None:
        with self.workspace.changed:
            for cluster in self.workspace.computes.values():
                cluster.runs.pop(job.name, None)
        self.look()


def _reason(here: Workspace, code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message, "lastRefreshTimestamp": here.now()}
