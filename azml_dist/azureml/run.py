"""The handle of a run on Azure ML: it knows the run's name, and asks the service for the rest."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from azml_dist.azureml.errors import translated
from azml_dist.azureml.failure import blamed_rank, exit_code, service_message
from azml_dist.azureml.logs import STORAGE_SCOPE, Follower, Line, LogName, World, by_attempt, parse
from azml_dist.azureml.runview import Phase, in_the_notebook, last_line, shown_ranks
from azml_dist.errors import AuthError, NotFound, RunFailed, SubmitError
from azml_dist.local.merged import Piece
from azml_dist.logs import Labeller, Logs, Source, as_text
from azml_dist.runs import Run, RunStatus

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

    from azml_dist.azureml.workspace import Workspace

T = TypeVar("T")

_TAIL_LINES = 20
_LISTED = 50
_POLL = (0.5, 2.0)
"""Seconds between two looks at a run whose logs are followed."""
_WAIT = (0.5, 10.0)
"""The same while nobody looks at its logs."""
_TICK = 0.25
"""Seconds in which logs that fall due are gathered, to be looked at together."""
_SOON = 1.0
"""Seconds until new addresses are asked for, once a log cannot be read."""
_TRIES = {True: 6, False: 40}
"""How often the logs of a run that has ended are asked for, where they are refused, and where the connection fails."""
_PATIENCE = 600.0
"""Seconds for which Azure may be out of reach while a run is followed or waited for: a train, a laptop that sleeps."""


class AzureRun(Run):
    """A run on Azure ML, submitted by this process or by anybody."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.name = name
        self._workspace = workspace
        self._phase = Phase()

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
            page = workspace.arm.call("GET", "jobs", query={"jobType": "Command"})
            jobs = page["value"]
            while len(jobs) < _LISTED and (link := page.get("nextLink")):
                page = workspace.arm.call("GET", "jobs", query=dict(parse_qsl(urlsplit(link).query)))
                jobs += page["value"]
        return [_summary(job) for job in reversed(jobs[:_LISTED])]

    @property
    def status(self) -> RunStatus:
        return RunStatus(self._job()["status"])

    @property
    def url(self) -> str:
        return self._workspace.studio_url(self.name)

    @property
    def outputs(self) -> Mapping[str, str]:
        """The address of each named output; of one without a path of its own, the documented default."""
        outputs = self._job().get("outputs") or {}
        return {name: self._address(name, output.get("uri")) for name, output in outputs.items() if name != "default"}

    def _address(self, output: str, uri: str | None) -> str:
        template = uri or "azureml://datastores/${{default_datastore}}/paths/azureml/${{name}}/${{output_name}}/"
        values = {
            "name": lambda: self.name,
            "output_name": lambda: output,
            "default_datastore": self._default_datastore,
        }
        return re.sub(r"\$\{\{\s*(name|output_name|default_datastore)\s*\}\}", lambda m: values[m[1]](), template)

    def _default_datastore(self) -> str:
        with translated("find the default datastore", self._workspace):
            return str(self._workspace.client.datastores.get_default().name)

    def wait(self, timeout: float | None = None) -> AzureRun:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        pauses = _pauses(_WAIT)
        renew = in_the_notebook(self)
        while not (status := self._patiently(lambda: self.status)).is_final:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"run {self.name} is still {status} after {timeout:g} s")
            renew()
            time.sleep(min(next(pauses), left))
        renew()
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

        With `tail` the last ones of each rank: when they were written, nobody says. With `follow` then all that come,
        to the run's end.
        """
        if tail == 0 and not follow:
            return
        labeller = Labeller(self._sources, colour=colour) if label else Labeller.of_none(self._sources)
        follower = Follower(self._storage_token)

        def show(lines: Iterable[Line]) -> Iterator[bytes]:
            for line in lines:
                yield labeller.label(Piece(line.name.source.rank, line.data, line.name.attempt))

        details = self._details()
        if tail is not None:
            *earlier, last = by_attempt(self._names(details, ranks)) or [{}]
            for group in earlier:
                follower.skip(group)
            follower.begin_at_the_tail(last, tail)
        pauses, pauses_at_the_end, failures = _pauses(_POLL), _pauses(_POLL), 0
        while True:
            follower.stale = False
            # Asked before the read: what a run writes before its end is there when it has ended.
            ended = not follow or RunStatus(details["status"]).is_final
            *earlier, last = by_attempt(self._names(details, ranks)) or [{}]
            for group in earlier:
                yield from show(follower.read(group, to_the_end=True))
            next_details = time.monotonic() + next(pauses)
            while True:
                yield from show(follower.read(last, to_the_end=ended))
                now = time.monotonic()
                if follower.stale:
                    next_details = min(next_details, now + _SOON)
                if ended or now >= next_details:
                    break
                time.sleep(min(next_details - now, max(follower.next_look - now, _TICK)))
            if ended:
                failures += 1
                given_up = failures == _TRIES[follower.refused is not None]
                # 404: it is known by name, and nothing was ever written to it.
                if not follower.stale or (given_up and follower.refused == 404):
                    yield labeller.end()
                    return
                if given_up:
                    raise self._unreadable(follower.refused)
                time.sleep(next(pauses_at_the_end))
            details = self._patiently(self._details)

    def cancel(self) -> None:
        if self.status.is_final:
            return
        with translated(f"cancel run {self.name}", self._workspace):
            self._workspace.arm.call("POST", f"jobs/{self.name}/cancel")

    def download(self, folder: str | Path) -> Path:
        target = Path(folder)
        if not (status := self.status).is_final:
            raise SubmitError(
                f"run {self.name} is still {status}: what it writes can be downloaded when it has ended",
                hint=f"`azml-dist logs {self.name} --follow`, or `run.wait()`",
            )
        target.mkdir(parents=True, exist_ok=True)
        # azure-ai-ml overwrites what is there, and is interrupted in the middle of files.
        with TemporaryDirectory(prefix=".download-", dir=target) as fresh:
            with translated(f"download run {self.name}", self._workspace):
                self._workspace.client.jobs.download(self.name, download_path=fresh, all=True)
            _move(Path(fresh, "named-outputs"), target / "outputs")
            _move(Path(fresh, "artifacts", "user_logs"), target / "user_logs")
            _move(Path(fresh, "artifacts"), target / "artifacts")
        return target

    def metrics(self) -> dict[str, float]:
        with translated(f"read the metrics of run {self.name}", self._workspace):
            found = self._workspace.mlflow.call("GET", "runs/get", query={"run_id": self.name})
        return {point["key"]: float(point["value"]) for point in found["run"]["data"].get("metrics", [])}

    def metric_histories(self) -> dict[str, list[float]]:
        return {name: self._history_of(name) for name in self.metrics()}

    def _history_of(self, metric: str) -> list[float]:
        query = {"run_id": self.name, "metric_key": metric}
        points: list[dict[str, Any]] = []
        with translated(f"read the metrics of run {self.name}", self._workspace):
            while True:
                page = self._workspace.mlflow.call("GET", "metrics/get-history", query=query)
                points += page.get("metrics", [])
                if not (token := page.get("next_page_token")):
                    return [float(point["value"]) for point in points]
                query["page_token"] = token

    def describe(self) -> dict[str, Any]:
        return self._described(self._details())

    def _described(self, details: Mapping[str, Any]) -> dict[str, Any]:
        job = self._job()
        status = RunStatus(details["status"])
        message = service_message(details)
        return {
            "name": self.name,
            "status": str(status),
            "url": self.url,
            "exit_code": 0 if status == RunStatus.COMPLETED else 1 if status == RunStatus.FAILED else None,
            "folder": None,
            "failed_rank": self._blamed(message) if status == RunStatus.FAILED else None,
            "error": message,
            "display_name": job.get("displayName"),
            "world": self._world._asdict() | {"world_size": len(self._sources)},
            "created_at": details.get("createdTimeUtc"),
            "started_at": details.get("startTimeUtc"),
            "ended_at": details.get("endTimeUtc"),
            "processes": [
                {"rank": name.source.rank, "node_rank": name.source.node_rank, "log": name.path}
                for name in sorted(self._names(details, None), key=lambda name: (name.source, name.attempt))
            ],
        }

    def __str__(self) -> str:
        from azml_dist.render import azure_run_text

        return azure_run_text(self._view())

    def __repr__(self) -> str:
        return f"<AzureRun {self.name}>"

    def _repr_html_(self) -> str:
        from azml_dist.render import azure_run_html

        return azure_run_html(self._view())

    def _view(self) -> dict[str, Any]:
        """The run as described, how long its phase lasts, and the last lines of the ranks that a table has room for."""
        details = self._details()
        found = self._described(details)
        shown = shown_ranks(self._sources, found["failed_rank"])
        lines = self._tails(details, [source.rank for source in shown if source], 1)
        logs = {process["rank"]: process["log"] for process in found["processes"]}  # of the last attempt
        rows = [
            s and (str(s.rank), str(s.node_rank), last_line(lines.get(s.rank)), logs.get(s.rank, "")) for s in shown
        ]
        return {**found, "age": self._phase.age(details), "rows": rows}

    def _job(self) -> dict[str, Any]:
        with translated(f"find run {self.name}", self._workspace):
            found: dict[str, Any] = self._workspace.arm.call("GET", f"jobs/{self.name}")["properties"]
        return found

    def _details(self) -> dict[str, Any]:
        with translated(f"find run {self.name}", self._workspace):
            found: dict[str, Any] = self._workspace.history.call("GET", f"runs/{self.name}/details")
        return found

    @cached_property
    def _submitted(self) -> dict[str, Any]:
        """The job, of which only is read here what never changes."""
        return self._job()

    @cached_property
    def _world(self) -> World:
        job = self._submitted
        resources, distribution = job.get("resources") or {}, job.get("distribution") or {}
        return World(resources.get("instanceCount") or 1, distribution.get("processCountPerInstance") or 1)

    @cached_property
    def _sources(self) -> list[Source]:
        """Every process, by rank; of TensorFlow's tasks, the parameter servers after the workers."""
        distribution = self._submitted.get("distribution") or {}
        nodes, processes = self._world
        if distribution.get("distributionType") == "Ray":
            return [Source(0, 0)]
        servers = distribution.get("parameterServerCount") or 0
        sources = [Source(rank, rank // processes) for rank in range(nodes * processes)]
        return sources + [Source(len(sources) + i, i, "ps") for i in range(servers)]

    def _names(self, details: Mapping[str, Any], ranks: frozenset[int] | None) -> dict[LogName, str]:
        known = len(self._sources)
        found = ((parse(path, self._world), url) for path, url in (details.get("logFiles") or {}).items())
        named = sorted(((name, url) for name, url in found if name), key=lambda pair: (pair[0].source, pair[0].attempt))
        return {
            name: url
            for name, url in named
            if name.source.rank < known and (ranks is None or name.source.rank in ranks)
        }

    def _storage_token(self) -> AccessToken:
        with translated(f"read the logs of run {self.name}", self._workspace):
            return self._workspace.credential.get_token(STORAGE_SCOPE)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, in the end: a connection that is gone for minutes ends nobody's waiting."""
        give_up = time.monotonic() + _PATIENCE
        pauses = _pauses(_WAIT)
        while True:
            try:
                return ask()
            except (AuthError, NotFound):
                raise
            except SubmitError:
                if time.monotonic() > give_up:
                    raise
            time.sleep(next(pauses))

    def _unreadable(self, refused: int | None) -> SubmitError:
        if refused:
            hint = f"your login needs the role Storage Blob Data Reader, or use the run's page: {self.url}"
            return AuthError(f"not all logs of run {self.name} can be read: the storage answers {refused}", hint=hint)
        message = f"not all logs of run {self.name} can be read: the connection to the storage fails"
        return SubmitError(message, hint=f"try again; the run's page has them too: {self.url}")

    def _failure(self, status: RunStatus) -> RunFailed:
        details = self._details()
        message = service_message(details)
        rank = self._blamed(message) if status == RunStatus.FAILED else None
        verb = "failed" if status == RunStatus.FAILED else "was canceled"
        return RunFailed(
            f"run {self.name} {verb}{f': {message}' if message else ''}",
            run=self,
            failed_rank=rank,
            exit_codes={} if rank is None or (code := exit_code(message)) is None else {rank: code},
            log_tail=self._tails(details, [rank or 0], _TAIL_LINES).get(rank or 0, ""),
            hint=f"`azml-dist logs {self.name}` shows what all ranks wrote; {self.url}",
        )

    def _tails(self, details: Mapping[str, Any], ranks: Iterable[int], count: int) -> dict[int, str]:
        """The last lines of some ranks, of their last attempts; those that cannot be read are not there."""
        newest = {name.source.rank: (name, url) for name, url in self._names(details, frozenset(ranks)).items()}
        follower = Follower(self._storage_token)
        names = dict(newest.values())
        found: dict[int, bytes] = {}
        with suppress(SubmitError):
            follower.begin_at_the_tail(names, count)
            for line in follower.read(names, to_the_end=True):
                found[line.name.source.rank] = found.get(line.name.source.rank, b"") + line.data
        return {rank: text.decode(errors="replace").rstrip("\n") for rank, text in found.items()}

    def _blamed(self, message: str | None) -> int | None:
        return 0 if len(self._sources) == 1 else blamed_rank(message, len(self._sources))


def _move(source: Path, target: Path) -> None:
    """Move all files of a folder into another, but for those that are there."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


def _summary(job: Mapping[str, Any]) -> dict[str, Any]:
    properties = job["properties"]
    return {
        "name": job["name"],
        "status": properties["status"],
        "display_name": properties.get("displayName"),
        "created_at": (job.get("systemData") or {}).get("createdAt"),
        "node_count": (properties.get("resources") or {}).get("instanceCount") or 1,
    }


def _pauses(bounds: tuple[float, float]) -> Iterator[float]:
    pause, longest = bounds
    while True:
        yield pause
        pause = min(pause * 1.3, longest)
