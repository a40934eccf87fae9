"""The handle of a run on Azure ML: it knows the run's name, and asks the service for the rest."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.azureml.errors import translated
from azml_dist.azureml.logs import Follower, LogName, World, by_attempt, parse, tail_of
from azml_dist.errors import NotFound, RunFailed, SubmitError
from azml_dist.local.merged import Piece
from azml_dist.logs import Labeller, Logs, Source, as_text, whole_lines
from azml_dist.runs import Run, RunStatus

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

_TAIL_LINES = 20
_POLL = (0.5, 2.0)
"""Seconds between two looks at a run whose logs are followed."""
_WAIT = (0.5, 10.0)
"""The same while nobody looks at its logs."""
_TRIES = 6
"""How often the logs of a run that has ended are asked for while some of them cannot be read."""
_BLAMED = re.compile(r"(?i)(?:std_log_process_|process '?(?:rank|worker)[ _]?|rank[ _])(\d+)")


class AzureRun(Run):
    """A run on Azure ML, submitted by this process or by anybody."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.name = name
        self._workspace = workspace

    @classmethod
    def find(cls, workspace: Workspace, name: str) -> AzureRun:
        """The run of that name; `NotFound` if the workspace has none."""
        run = cls(workspace, name)
        run._job()
        return run

    @staticmethod
    def latest(workspace: Workspace) -> list[dict[str, Any]]:
        """The latest command jobs of the workspace, the newest last."""
        with translated("list the jobs", workspace):
            page = workspace.arm.call("GET", "jobs", query={"jobType": "Command"})["value"]
        return [_summary(job) for job in reversed(page)]

    @property
    def status(self) -> RunStatus:
        return RunStatus(self._job()["status"])

    @property
    def url(self) -> str:
        return self._workspace.studio_url(self.name)

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The address of each named output."""
        outputs = self._job().get("outputs") or {}
        return {name: output.get("uri") for name, output in outputs.items() if name != "default"}

    def wait(self, timeout: float | None = None) -> AzureRun:
        deadline = None if timeout is None else time.monotonic() + timeout
        pauses = _pauses(_WAIT)
        while not (status := self.status).is_final:
            if deadline and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.name} is still {status} after {timeout:g} s")
            time.sleep(next(pauses))
        if status != RunStatus.COMPLETED:
            raise self._failure(status)
        return self

    def logs(
        self, rank: int | None = None, *, node: int | None = None, follow: bool = False, tail: int | None = None
    ) -> Logs:
        ranks = self.ranks(rank, node)
        return Logs(lambda: as_text(self.chunks(ranks, label=rank is None, follow=follow, tail=tail)))

    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        """The ranks that are meant; `NotFound` if the run has none of them."""
        ranks = [s.rank for s in self._sources if rank in (None, s.rank) and node in (None, s.node_rank)]
        if not ranks:
            which = " of ".join(f"{k} {v}" for k, v in (("rank", rank), ("node", node)) if v is not None)
            last = self._sources[-1]
            raise NotFound(
                f"run {self.name} has no {which}", hint=f"its last is rank {last.rank}, on node {last.node_rank}"
            )
        return frozenset(ranks)

    def chunks(
        self,
        ranks: frozenset[int] | None = None,
        *,
        label: bool = True,
        colour: bool = False,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[bytes]:
        """Whole lines as the ranks wrote them, each behind its label, in order within its rank.

        With `tail` only the last ones of those that are there; with `follow` then all that come, to the run's end.
        """
        labeller = Labeller(self._sources, colour=colour) if label else Labeller.of_none(self._sources)
        follower = Follower(self._token)
        attempts: dict[int, int] = {}

        def read(names: Mapping[LogName, str], *, to_the_end: bool) -> Iterator[bytes]:
            *earlier, last = by_attempt(names) or [{}]
            for group in [*earlier, last]:
                for line in follower.read(group, to_the_end=to_the_end or group is not last):
                    rank, attempt = line.name.source.rank, line.name.attempt
                    if attempts.setdefault(rank, attempt) != attempt:
                        attempts[rank] = attempt
                        yield labeller.label(Piece(rank, f"-- attempt {attempt + 1} --\n".encode()))
                    yield labeller.label(Piece(rank, line.data))

        if tail is not None:
            lines = whole_lines(read(self._log_files(ranks), to_the_end=True))
            yield b"".join(deque(lines, maxlen=tail))
            if not follow:
                return
        pauses = _pauses(_POLL)
        tries = _TRIES
        while True:
            details = self._details()
            follower.stale = False
            # Asked before the read: what a run writes before its end is there when it has ended.
            ended = not follow or RunStatus(details["status"]).is_final
            for chunk in read(self._names(details, ranks), to_the_end=ended):
                pauses = _pauses(_POLL)
                yield chunk
            if ended and not follower.stale:
                yield labeller.end()
                return
            tries -= ended
            if not tries:
                raise SubmitError(f"not all logs of run {self.name} can be read", hint=f"they are at {self.url} too")
            time.sleep(next(pauses))

    def cancel(self) -> None:
        with translated(f"cancel run {self.name}", self._workspace):
            self._workspace.arm.call("POST", f"jobs/{self.name}/cancel")

    def download(self, folder: str | Path) -> Path:
        target = Path(folder)
        with translated(f"download run {self.name}", self._workspace):
            self._workspace.client.jobs.download(self.name, download_path=target, all=True)
        return target

    def metrics(self) -> dict[str, float]:
        with translated(f"read the metrics of run {self.name}", self._workspace):
            found = self._workspace.mlflow.call("GET", "runs/get", query={"run_id": self.name})
        return {point["key"]: float(point["value"]) for point in found["run"]["data"].get("metrics", [])}

    def describe(self) -> dict[str, Any]:
        job, details = self._job(), self._details()
        status = RunStatus(details["status"])
        message = _message(details)
        return {
            "name": self.name,
            "status": str(status),
            "url": self.url,
            "exit_code": 0 if status == RunStatus.COMPLETED else 1 if status == RunStatus.FAILED else None,
            "folder": None,
            "failed_rank": _blamed(message) if status == RunStatus.FAILED else None,
            "error": message,
            "display_name": job.get("displayName"),
            "started_at": details.get("startTimeUtc"),
            "ended_at": details.get("endTimeUtc"),
            "processes": [
                {"rank": name.source.rank, "node_rank": name.source.node_rank, "log": name.path}
                for name in sorted(self._names(details, None), key=lambda name: (name.source, name.attempt))
            ],
        }

    def __str__(self) -> str:
        from azml_dist.render import azure_run_text

        return azure_run_text(self.describe())

    def __repr__(self) -> str:
        return f"<AzureRun {self.name}>"

    def _repr_html_(self) -> str:
        from azml_dist.render import azure_run_html

        return azure_run_html(self.describe())

    def _job(self) -> dict[str, Any]:
        with translated(f"find run {self.name}", self._workspace):
            found: dict[str, Any] = self._workspace.arm.call("GET", f"jobs/{self.name}")["properties"]
        return found

    def _details(self) -> dict[str, Any]:
        with translated(f"find run {self.name}", self._workspace):
            found: dict[str, Any] = self._workspace.history.call("GET", f"runs/{self.name}/details")
        return found

    @cached_property
    def _world(self) -> World:
        job = self._job()
        resources, distribution = job.get("resources") or {}, job.get("distribution") or {}
        return World(resources.get("instanceCount") or 1, distribution.get("processCountPerInstance") or 1)

    @cached_property
    def _sources(self) -> list[Source]:
        """Every process, by rank; of TensorFlow's tasks, the parameter servers after the workers."""
        distribution = self._job().get("distribution") or {}
        nodes, processes = self._world
        if distribution.get("distributionType") == "Ray":
            return [Source(0, 0)]
        servers = distribution.get("parameterServerCount") or 0
        sources = [Source(rank, rank // processes) for rank in range(nodes * processes)]
        return sources + [Source(len(sources) + i, i) for i in range(servers)]

    def _log_files(self, ranks: frozenset[int] | None) -> dict[LogName, str]:
        return self._names(self._details(), ranks)

    def _names(self, details: Mapping[str, Any], ranks: frozenset[int] | None) -> dict[LogName, str]:
        known = len(self._sources)
        named = ((parse(path, self._world), url) for path, url in sorted((details.get("logFiles") or {}).items()))
        return {
            name: url
            for name, url in named
            if name and name.source.rank < known and (ranks is None or name.source.rank in ranks)
        }

    def _token(self, scope: str) -> str:
        return str(self._workspace.credential.get_token(scope).token)

    def _failure(self, status: RunStatus) -> RunFailed:
        details = self._details()
        message = _message(details)
        rank = _blamed(message) if status == RunStatus.FAILED else None
        files = self._names(details, None if rank is None else frozenset([rank]))
        name = next(iter(sorted(files, key=lambda name: (name.source, -name.attempt))), None)
        verb = "failed" if status == RunStatus.FAILED else "was canceled"
        return RunFailed(
            f"run {self.name} {verb}{f': {message}' if message else ''}",
            run=self,
            failed_rank=rank,
            log_tail=tail_of(Follower(self._token), name, files[name], _TAIL_LINES) if name else "",
            hint=f"`azml-dist logs {self.name}` shows what all ranks wrote; {self.url}",
        )


def _summary(job: Mapping[str, Any]) -> dict[str, Any]:
    properties = job["properties"]
    return {
        "name": job["name"],
        "status": properties["status"],
        "display_name": properties.get("displayName"),
        "created_at": (job.get("systemData") or {}).get("createdAt"),
        "node_count": (properties.get("resources") or {}).get("instanceCount") or 1,
    }


def _message(details: Mapping[str, Any]) -> str | None:
    """The service's own words on why a run failed, on one line."""
    error = (details.get("error") or {}).get("error") or {}
    return " ".join(str(error.get("message") or "").split()) or None


def _blamed(message: str | None) -> int | None:
    found = _BLAMED.search(message or "")
    return int(found[1]) if found else None


def _pauses(bounds: tuple[float, float]) -> Iterator[float]:
    pause, longest = bounds
    while True:
        yield pause
        pause = min(pause * 1.3, longest)
