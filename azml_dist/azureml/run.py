"""`AzureRun`: the handle of a run on Azure ML, which knows only its name.

`RunRecord` asks the service for the rest, `RunLogs` reads the logs, and `RunWatch` waits for the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.azureml.briefly import InBrief
from azml_dist.azureml.content import registered_as
from azml_dist.azureml.cost import Cost, Meter, rate_of
from azml_dist.azureml.described import Details, Submitted
from azml_dist.azureml.download import Member, Wanted, fetch
from azml_dist.azureml.dumps import Dump, dumps
from azml_dist.azureml.errors import translated
from azml_dist.azureml.failure import blamed_rank, exit_code
from azml_dist.azureml.jobs import job_of
from azml_dist.azureml.judged import Cancelled, note_verdict
from azml_dist.azureml.listing import latest
from azml_dist.azureml.material import Record, material
from azml_dist.azureml.metrics import metrics_of
from azml_dist.azureml.models import register_output
from azml_dist.azureml.monitor import system_of
from azml_dist.azureml.page import LINES, LOG_BYTES, Contents, Tail, page_of, ranks_first
from azml_dist.azureml.phases import Phases
from azml_dist.azureml.rerun import Earlier, Fetch, prepared
from azml_dist.azureml.runlogs import LINE_BYTES, RunLogs
from azml_dist.azureml.runrecord import RunRecord
from azml_dist.azureml.runview import last_line
from azml_dist.azureml.runwatch import RunWatch
from azml_dist.azureml.same import with_uploaded_inputs_of
from azml_dist.azureml.services import services_of
from azml_dist.azureml.snapshot import code_home
from azml_dist.azureml.stamps import seconds_of
from azml_dist.azureml.waiting import MaxWait
from azml_dist.azureml.why import Asked, Why, why
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import DistError, RunFailed, SubmitError
from azml_dist.model.parts import Environment
from azml_dist.page.html import RunPage
from azml_dist.plan.world import Service
from azml_dist.runs.download import Download
from azml_dist.runs.foot import Seen
from azml_dist.runs.limits import check_amount, check_count, check_timeout
from azml_dist.runs.logs import Reading, Source
from azml_dist.runs.run import Run, still_going_on
from azml_dist.runs.selection import Selection
from azml_dist.runs.services import RunService
from azml_dist.show import Block, Card, Facts, Page, Table, Told, abbreviated, card_text
from azml_dist.status import RunStatus
from azml_dist.verdict.card import ending
from azml_dist.verdict.reason import reason_of
from azml_dist.words import duration

if TYPE_CHECKING:
    from azml_dist.contents.code import KeptCode
    from azml_dist.job import Job
    from azml_dist.model.job import JobFields
    from azml_dist.runs.material import Material
    from azml_dist.runs.metrics import Metrics
    from azml_dist.runs.registered import Registered
    from azml_dist.runs.rerun import Rerun
    from azml_dist.runs.system import System
    from azml_dist.verdict.reason import Reason
    from azml_dist.verdict.verdict import Verdict

_TAIL_LINES = 20
_TAIL_BYTES = 1 << 15
"""The most bytes of the last lines that are shown."""


class KnownHere(NamedTuple):
    """What this process knows about a run, such as one that it submitted, and the service does not say."""

    code: Path | None = None
    """The job's code folder."""
    secrets: tuple[str, ...] = ()
    """The values of variables that the job takes from its caller."""
    submitted: float | None = None
    """When it was submitted, in seconds since 1970."""
    above: frozenset[str] = frozenset()
    """The sweeps and pipelines as whose member it was found."""


class Leaf(NamedTuple):
    """A single run in a sweep or pipeline, however deep."""

    label: str
    """`trial 3`, or the names of the steps that lead to it: `train/one`."""
    run: AzureRun

    def below(self, label: str) -> Leaf:
        """The same, seen from what contains the run that is called so there."""
        return Leaf("/".join(filter(None, (label, self.label))), self.run)


class AzureRun(Run):
    """A run on Azure ML, no matter who submitted it. Sweeps and pipelines are `AzureGroup`s."""

    def __init__(
        self, workspace: Workspace, name: str, service: Service | None = None, known: KnownHere | None = None
    ) -> None:
        self.name = name
        self._workspace = workspace
        self._known = known or KnownHere()
        self._judged: list[Why] = []
        self._phases = Phases(self._known.submitted)
        self._record = RunRecord(workspace, name, service)
        self._logs = RunLogs(self._record, self._phases)
        self._watch = RunWatch(self._record, self._logs, self._phases)

    @staticmethod
    def latest(workspace: Workspace, most: int | None = None) -> list[dict[str, Any]]:
        """The latest jobs of the workspace, newest last."""
        return latest(workspace, most)

    @property
    def status(self) -> RunStatus:
        return self._record.job().status

    @property
    def url(self) -> str:
        return self._record.url

    @property
    def outputs(self) -> Mapping[str, str]:
        """The address of each named output; for an output without a path, the documented default."""
        return self._record.outputs(self._record.job())

    @property
    def meter(self) -> Meter | None:
        """What the run costs, and may cost, where it was checked before it was submitted."""
        return self._watch.meter

    @meter.setter
    def meter(self, meter: Meter | None) -> None:
        self._watch.meter = meter

    def wait(
        self,
        timeout: float | None = None,
        *,
        max_wait: float | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> AzureRun:
        """Wait until the run has completed, and show its phases and the last lines of its ranks: at a terminal below
        all else, in a notebook as a table. With `tell`, each change is given to it as a line instead.

        With `max_wait`, the run is cancelled if it has not started after so many seconds.
        """
        check_timeout(timeout)
        check_amount("max_wait", max_wait)
        limits = [] if max_wait is None else [MaxWait(max_wait)]
        status = self._watch.until(self._record.is_over, timeout, limits, tell, self._shown_live())
        if status != RunStatus.COMPLETED:
            raise self._failure(status)
        return self

    def wait_for_start(self, tell: Callable[[str], None] | None = None) -> AzureRun:
        """Wait until the run has started. Raises `RunFailed` if it has failed or was cancelled."""

        def has_started(status: RunStatus) -> bool:
            return status in (RunStatus.RUNNING, RunStatus.FINALIZING) or self._record.is_over(status)

        status = self._watch.until(has_started, tell=tell, table=self._shown_live())
        if status in (RunStatus.FAILED, RunStatus.CANCELED):
            raise self._failure(status)
        return self

    def start_within(self, seconds: float) -> None:
        """From now on, `wait` cancels the run if it has not started after so many seconds."""
        self._watch.max_wait = MaxWait(seconds)

    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        """What is known already: this asks the service nothing."""
        return self._watch.watching(ranks)

    def cost(self) -> Cost | None:
        """What the run has cost so far, estimated from list prices; None before its start, for sweeps and pipelines."""
        job, details = self._record.job(), self._record.details()
        if job.is_group or not (details.started_at or (self.meter and self.meter.has_begun)):
            return None
        if self.meter is None:
            self.meter = Meter(rate_of(self._workspace, job.compute, job.instance_type, job.world.node_count))
        return self.meter.cost(details.started_at, details.ended_at)

    def _processes(self) -> Sequence[Source]:
        return self._record.sources

    def _read(self, how: Reading) -> Iterator[bytes]:
        return (piece for piece in self._pieces(how) if piece)

    def _pieces(self, how: Reading) -> Iterator[bytes]:
        """Whole lines; empty bytes while there are no new ones."""
        return self._logs.read(how)

    def leaves(self, most: int) -> tuple[list[Leaf], list[str]]:
        """The single runs that it consists of, and the labels of those that are too many: this one."""
        return [Leaf("", self)], []

    def cancel(self, *, reason: str | None = None) -> None:
        self._record.cancel(Cancelled(reason or "cancelled by `run.cancel()`"))

    def _material(self) -> Material:
        with translated(f"read run {self.name}", self._workspace):
            return material(self._told())

    def _told(self) -> Record:
        """What the service says of it, as it sends it."""
        with translated(f"read run {self.name}", self._workspace):
            record = self._record
            job, details = record.job_answer(), record.details_answer()
            return Record(self._workspace, job, details, record.ranges(), self._known.secrets)

    def fetch(self, folder: str | Path, *, only: Iterable[str] = (), so_far: bool = False) -> Download:
        job, wanted = self._record.job(), Selection(only)
        if not so_far and not (job.status.is_final or job.status.may_be_final):
            raise still_going_on(self.name, job.status, SubmitError)
        done = self._fetch(job, Path(folder), wanted, so_far)
        wanted.must_be_found(self.name)
        return done

    def _fetch(self, job: Submitted, folder: Path, only: Selection, so_far: bool) -> Download:
        """Download everything that is this run's own."""
        if job.is_sweep:
            return self._fetch_sweep(job, folder, only, so_far)
        return fetch(self._workspace, self._wanted(job, only, so_far), folder)

    def _members_below(self, only: Selection, done: Download, place: str, is_step: bool) -> Iterator[Member]:
        """The runs in it whose files are wanted: this one. `place` is its folder; a step has its outputs there, too.

        What cannot be read is noted in `done`.
        """
        logs = self._log_addresses if only.takes_some_of(f"{place}/user_logs") else dict
        outputs = self._output_addresses if is_step and only.takes_some_of(f"{place}/outputs") else dict
        yield Member(place, logs, outputs)

    def _wanted(self, job: Submitted, only: Selection, so_far: bool) -> Wanted:
        # The outputs of a sweep are those of its best trial.
        record = self._record
        addresses, artifacts = {} if job.is_sweep else record.outputs(job), record.artifacts(job)
        wanted = Wanted(self.name, addresses, artifacts, self._log_addresses, record.ranges(), only, so_far=so_far)
        return wanted._replace(must_be_found=not job.is_group)

    def _log_addresses(self) -> Mapping[str, str]:
        return self._record.details().logs

    def _output_addresses(self) -> Mapping[str, str]:
        return self.outputs

    def _fetch_sweep(self, job: Submitted, folder: Path, only: Selection, so_far: bool) -> Download:
        """Download the best trial, as azure-ai-ml does; files of the sweep itself go into `sweep`."""
        best = AzureRun(self._workspace, job.best_trial or self.name, self._record.service)
        found = best._record.job() if job.best_trial else job
        if found.is_sweep:
            done = Download(folder)
            nothing, yet = (done.missing, "") if job.status.is_final else (done.left_out, " yet")
            nothing.append(f"the best trial: Azure ML has none{yet}")
        else:
            wanted = best._wanted(found, only, so_far)._replace(must_be_found=False)
            done = fetch(self._workspace, wanted, folder)
        if (folder / "sweep").is_symlink():
            done.missing.append("sweep: a link has this name")
        elif only.takes_some_of("sweep"):
            done.add(fetch(self._workspace, self._wanted(job, only.below("sweep"), so_far), folder / "sweep"), "sweep")
        return done

    def metrics(self) -> Metrics:
        return metrics_of(self._workspace, self.name)

    def register(self, model: str, *, output: str, inside: str = "", version: str | None = None) -> Registered:
        return register_output(self._workspace, self.name, output, model, inside=inside, version=version)

    def system(self) -> System | None:
        details = self._record.details()
        began, ended = seconds_of(details.started_at), seconds_of(details.ended_at)
        return system_of(self._workspace, self.name, began, ended, self._record.service)

    @property
    def services(self) -> Mapping[str, RunService]:
        return services_of(self._workspace, self.name)

    def job(self) -> Job:
        return self._own_job

    @cached_property
    def _own_job(self) -> Job:
        """Read only once: what was submitted never changes."""
        with translated(f"read the job of run {self.name}", self._workspace):
            return job_of(self._workspace, self._record.job_answer())

    def named_as_here(self, job: JobFields, began: float | None = None) -> tuple[JobFields, Sequence[str]]:
        """An environment that is defined in a job has a hash as its version in the workspace, and uploaded data one in
        its address."""
        job, notes = with_uploaded_inputs_of(self.job(), job, began)
        here, other = self.job().environment, job.environment
        if isinstance(here, str) and isinstance(other, Environment):
            with suppress(DistError, OSError):
                if (name := registered_as(other)) and here.removeprefix("azureml:") == ":".join(name):
                    return job.with_(environment=here), notes
        return job, notes

    def code(self) -> KeptCode | None:
        code = self.job().code
        return code_home(self._workspace, code, self.name) if code else None

    def rerun(
        self,
        job: JobFields | None = None,
        *,
        download: Collection[str] | str = (),
        sample: int | None = None,
        resume: bool = False,
    ) -> Rerun:
        check_count("sample", sample, 1, hint="give the number of files to fetch of each folder")
        before, details = self.job(), self._record.details()
        attempts = {name.attempt for name in self._record.log_names(details)}
        earlier = Earlier(
            self.name,
            before,
            details,
            self._verdict(details),
            max(attempts, default=0),
            self.outputs if resume else {},
            self._record.ranges(),
        )
        fetch_too = Fetch([download] if isinstance(download, str) else download, sample, resume)
        return prepared(self._workspace, earlier, job or before, fetch_too)

    def verdict(self) -> Verdict | None:
        return self._verdict(self._record.details())

    def reason(self) -> Reason | None:
        return self._reason(self._record.details())

    def _reason(self, details: Details) -> Reason | None:
        if (cancelled := self._cancelled(details)) and cancelled.lacked_nodes:
            return "capacity"
        return reason_of(details.status, self._verdict_on_end(details), details.said)

    def _verdict_on_end(self, details: Details) -> Verdict | None:
        """Why the run as a whole ended badly."""
        return self._verdict(details)

    def _verdict(self, details: Details) -> Verdict | None:
        """Read only once, since nothing changes after a run has ended."""
        if details.status not in (RunStatus.FAILED, RunStatus.CANCELED):
            return None
        if not self._judged:
            record = self._record
            asked = Asked(record.submitted, details, record.details, record.ranges(), self._known.secrets, self._dumps)
            self._judged = [why(asked._replace(cancelled=self._cancelled(details)))]
            if verdict := self._judged[0].verdict:
                note_verdict(self._workspace.arm_id, self.name, verdict)
        return self._judged[0].verdict

    def failed_leaf(self) -> AzureRun:
        """The single run that failed first in it, however deep: this one."""
        return self

    @property
    def process_count(self) -> int:
        return len(self._record.sources)

    def in_brief(self) -> InBrief:
        """Why it failed, in a line."""
        try:
            verdict = self.verdict()
        except SubmitError as error:
            return InBrief(None, error.problems[0].message)
        text = verdict.summary if verdict and verdict.kind != "unknown" else None
        return InBrief(text, self._judged[0].unread if self._judged else None)

    def _cancelled(self, details: Details) -> Cancelled | None:
        """Why it was cancelled from this machine, if that ended it."""
        return self._record.cancelled if details.status == RunStatus.CANCELED else None

    def _dumps(self) -> Iterator[Dump]:
        job, record = self._record.submitted, self._record
        return dumps(self._workspace, record.artifacts(record.job()), job.dumps) if job.dumps else iter(())

    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card:
        details = self._record.details()
        rank = verdict.rank if verdict else None
        of_rank = "" if rank is None or len(self._record.sources) == 1 else f" --rank {rank}"
        places = [("studio", self.url), ("logs", f"azml-dist logs {self.name}{of_rank}")]
        with suppress(SubmitError):  # the default datastore may be hidden from this login
            places += [("output", f"{name}: {address}") for name, address in self.outputs.items()]
        if verdict and verdict.kind != "canceled" and not in_full:  # there is no more to say of that
            places += [("next", f"azml-dist why {self.name}")]
        took = self._phases.age(details).removeprefix("took ") if details.status.is_final else ""
        code = [self._known.code or Path()]
        hint = verdict.hint if verdict else None
        return ending(
            f"run {self.name}", details.status, took, verdict, places=places, hint=hint, code=code, in_full=in_full
        )

    def failed_rank(self) -> int | None:
        """The rank that failed first, if one did."""
        return self._failed_rank(self._record.details())

    def _failed_rank(self, details: Details) -> int | None:
        """The rank that the verdict names, or else the one that the service blames."""
        if details.status != RunStatus.FAILED:
            return None
        verdict = self._verdict(details)
        named = verdict.rank if verdict and verdict.certainty != "unknown" else None
        return self._blamed(details.message) if named is None or named >= len(self._record.sources) else named

    def describe(self) -> dict[str, Any]:
        return self._described(self._record.details())

    def _described(self, details: Details) -> dict[str, Any]:
        job = self._record.job()
        status, message = details.status, details.message
        cancelled = self._cancelled(details)
        return {
            "name": self.name,
            "status": str(status),
            "url": self.url,
            "exit_code": 0 if status == RunStatus.COMPLETED else 1 if status == RunStatus.FAILED else None,
            "folder": None,
            "failed_rank": self._failed_rank(details),
            "error": ": ".join(filter(None, [cancelled and cancelled.why, message])) or None,
            "display_name": job.display_name,
            "world": job.world_told,
            "created_at": details.created_at,
            "started_at": details.started_at,
            "ended_at": details.ended_at,
            "processes": [
                {"rank": name.source.rank, "node_rank": name.source.node_rank, "log": name.path}
                for name in sorted(self._record.log_names(details), key=lambda name: (name.source, name.attempt))
            ],
            "verdict": verdict.to_dict() if (verdict := self._verdict(details)) else None,
            "reason": self._reason(details),
            "phases": [{"name": span.name, "seconds": round(span.seconds)} for span in self._phases.spans(details)],
            "wait": self._wait(details),
        }

    def _wait(self, details: Details) -> dict[str, Any] | None:
        """Why the run waits, as JSON values."""
        self._watch.look_at(details.status, details)
        return self._watch.reason.wait._asdict() if self._watch.reason else None

    def _page(self) -> Page:
        return self._page_of(self._record.details())

    def _page_of(self, details: Details) -> Page:
        view = self._view(details)
        table = Table(("rank", "node", "last line", "log"), view["rows"])
        blocks: list[Block] = [Facts(view["facts"]), table, Told([("error", view["error"])])]
        if view["verdict"]:
            blocks.append(self.ending())
        return Page([view["status"], view["age"]], blocks, self.name, studio=self.url)

    def page(self) -> RunPage:
        return page_of(self.name, self._contents)

    def _contents(self) -> Contents:
        """What its page shows."""
        details = self._record.details()
        verdict = self._verdict(details)
        histories, outputs, system = None, {}, None
        with suppress(SubmitError):  # the page has everything else
            metrics = metrics_of(self._workspace, self.name)
            histories = {name: metrics.history(name) for name in metrics}
        with suppress(SubmitError):
            system = self.system()
        with suppress(SubmitError):  # the default datastore may be hidden from this login
            outputs = dict(self.outputs)
        return Contents(
            described=self._described(details),
            job=self._record.job(),
            spans=self._phases.spans(details),
            page=self._page_of(details),
            ending=self._ending(verdict, in_full=True) if details.status.is_final else None,
            verdict=verdict,
            outputs=outputs,
            histories=histories,
            system=system,
            tails=lambda ranks: self._tails(details, ranks, LOG_BYTES),
        )

    def _tails(self, details: Details, ranks: Iterable[int], most: int, of: Leaf | None = None) -> list[Tail]:
        """The ends of some logs, for a page: its own, or that of the sweep or pipeline that it belongs to."""
        sources = {source.rank: source for source in self._record.sources}
        secrets = [*self._record.submitted.secrets, *self._known.secrets]
        found = self._logs.tails(details, [rank for rank in ranks if rank in sources], LINES, most)
        return [
            Tail.of(self.name, sources[rank], len(sources), found[rank], secrets, of.label if of else "", most)
            for rank in sorted(found)
        ]

    def few_tails(self, leaf: Leaf, logs: int, most: int) -> list[Tail]:
        """The ends of at most so many of its logs, for the page of what it belongs to; none if they cannot be read."""
        with suppress(SubmitError):
            details = self._record.details()
            failed = self._failed_rank(details) if self._judged else self._blamed(details.message)
            verdict = self._judged[0].verdict if self._judged else None
            found = self._tails(details, ranks_first(self._record.sources, failed, verdict, logs), most, leaf)
            return [tail._replace(has_failed=details.status == RunStatus.FAILED) for tail in found]
        return []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _view(self, details: Details) -> dict[str, Any]:
        """The run, the duration of its phase, and the last lines of as many ranks as fit into a table."""
        found = self._described(details)
        of_verdict = found["verdict"]["ranks"] if found["verdict"] else []
        shown = abbreviated(self._record.sources, [found["failed_rank"], *of_verdict])
        lines = self._logs.tails(details, [source.rank for source in shown if source], 1, LINE_BYTES)
        logs = {process["rank"]: process["log"] for process in found["processes"]}  # those of the last attempt
        said = {source.rank: last_line(lines.get(source.rank), details.status) for source in shown if source}
        rows = [s and (str(s.rank), str(s.node_rank), said[s.rank], logs.get(s.rank, "")) for s in shown]
        return {**found, "age": self._phases.age(details), "rows": rows, "facts": self._facts(details, found["wait"])}

    def _facts(self, details: Details, wait: Mapping[str, Any] | None) -> list[tuple[str, str]]:
        """Its phases, its services, and why it waits."""
        spans = self._phases.spans(details)
        # The title already has the age of a single phase.
        facts = [(span.name, duration(span.seconds)) for span in spans if wait or len(spans) > 1]
        return [*facts, *self._services_told(details), ("why it waits", wait["reason"] if wait else "")]

    def _services_told(self, details: Details) -> list[tuple[str, str]]:
        """Where the services of the job are, while it runs."""
        if not self._record.submitted.has_services or details.status != RunStatus.RUNNING:
            return []
        with suppress(SubmitError):  # the run can be shown without them
            return [(f"service {name}", one.url or one.error or "") for name, one in self.services.items()]
        return []

    def _failure(self, status: RunStatus) -> RunFailed:
        try:
            details = self._record.details()
        except SubmitError as error:  # the run has failed in any case
            details = Details(status, f"the reason cannot be read: {error.problems[0].message}", {}, None, None, None)
        message = details.message
        rank = self._failed_rank(details)
        cancelled = self._cancelled(details)
        ends = {RunStatus.FAILED: "failed", RunStatus.CANCELED: f"was {cancelled.why if cancelled else 'cancelled'}"}
        verb = ends.get(status, f"has been {status} for {duration(self._record.service.final_when_unchanged)}")
        return RunFailed(
            f"run {self.name} {verb}{f': {message}' if message else ''}",
            run=self,
            failed_rank=rank,
            exit_codes={} if rank is None or (code := exit_code(message)) is None else {rank: code},
            log_tail=self._log_tail(details, rank or 0),
            hint=f"`azml-dist logs {self.name}` shows the logs of all ranks; {self.url}"
            if status in ends
            else f"it may continue: check `azml-dist status {self.name}`; `azml-dist cancel {self.name}` cancels it, "
            f"`azml-dist download {self.name}` gets its files",
            ending=self._ending_text() if status in ends else "",
        )

    def _log_tail(self, details: Details, rank: int) -> str:
        return self._logs.tails(details, [rank], _TAIL_LINES, _TAIL_BYTES).get(rank, "")

    def _ending_text(self) -> str:
        with suppress(SubmitError):  # that it failed is known all the same
            return card_text(self.ending())
        return ""

    def _blamed(self, message: str | None) -> int | None:
        return 0 if len(self._record.sources) == 1 else blamed_rank(message, len(self._record.sources))
