"""`Run`: one execution of a job, the handle that every executor returns."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.errors import DistError, NotFound
from azml_dist.runs.limits import check_count
from azml_dist.runs.logs import Logs, Reading, Source, as_text
from azml_dist.runs.notebook import InPlace, notebook
from azml_dist.runs.plot import Plot, plot
from azml_dist.show import Card, Page, Shown, page_html
from azml_dist.status import RunStatus
from azml_dist.verdict.reason import reason_of
from azml_dist.words import slug

if TYPE_CHECKING:
    from azml_dist.contents.code import KeptCode
    from azml_dist.model.job import JobFields
    from azml_dist.page.html import RunPage
    from azml_dist.runs.download import Download
    from azml_dist.runs.foot import Seen
    from azml_dist.runs.material import Material
    from azml_dist.runs.metrics import Metrics
    from azml_dist.runs.registered import Registered
    from azml_dist.runs.rerun import Rerun
    from azml_dist.runs.services import RunService
    from azml_dist.runs.system import System
    from azml_dist.verdict.reason import Reason
    from azml_dist.verdict.recovery import Recovery
    from azml_dist.verdict.verdict import Verdict


class Run(Shown, ABC):
    """A run on this machine or on Azure ML. Any process can use it, at any time."""

    name: str
    _table: InPlace | None = None
    """Where a notebook shows it."""

    @property
    @abstractmethod
    def status(self) -> RunStatus:
        """The current state of the run."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Its page in Azure ML studio, or its folder on this machine."""

    @property
    @abstractmethod
    def outputs(self) -> Mapping[str, Path | str]:
        """The folder of each named output by name, or its address if it is not on this machine."""

    @abstractmethod
    def wait(self, timeout: float | None = None, *, max_wait: float | None = None) -> Run:
        """Wait until the run has completed.

        Raises `RunFailed` if it failed or was cancelled, and `TimeoutError` after `timeout` seconds; the run then
        keeps running. A run on Azure ML that has not started after `max_wait` seconds is cancelled; runs on this
        machine start at once.
        """

    def logs(
        self, rank: int | None = None, *, node: int | None = None, follow: bool = False, tail: int | None = None
    ) -> Logs:
        """The lines of one process, or the labelled lines of all, in the order in which they arrived.

        `follow` also waits for new lines, until the run ends; `tail` keeps only the last existing lines of each
        rank.
        """
        check_count("tail", tail, 0, hint="give the number of lines to keep of each rank")
        ranks = self.ranks(rank, node)
        return Logs(lambda: as_text(self.chunks(ranks, label=rank is None, follow=follow, tail=tail)))

    @abstractmethod
    def verdict(self) -> Verdict | None:
        """Why the run failed: which rank, of what, and the lines that say so.

        None while the run is running, and if it completed.
        """

    def reason(self) -> Reason | None:
        """Why the run ended badly, in one word: `user`, `configuration`, `capacity`, `preempted`, `timeout`,
        `canceled` or `service`.

        None if it completed or is still running, and if the cause is unknown.
        """
        return reason_of(self.status, self.verdict())

    def ending(self, *, in_full: bool = False) -> Card:
        """How it ended: what is shown last, wherever a run is followed or waited for.

        With `in_full` also what the run's error says already.
        """
        return self._ending(self.verdict(), in_full)

    @abstractmethod
    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card:
        """The same, of a run whose verdict is known."""

    @abstractmethod
    def job(self) -> JobFields:
        """The job that it carries out, as it was submitted; `Job.from_run(run)` returns it as a `Job`.

        Its code is where this run has it: in the workspace, or in the folder of a local run. Raises `JobError` for
        kinds of jobs that a `Job` cannot express, and for what was not kept.
        """

    @property
    def began_here(self) -> float | None:
        """When it began, in seconds since 1970, if it reads data of this machine."""
        return None

    def named_as_here(self, job: JobFields, began: float | None = None) -> tuple[JobFields, Sequence[str]]:
        """Another job, with what it has in common with this one under the names that it has here, and what of it is not
        known. `began` is when that job began on this machine, if it did."""
        return job, ()

    def code(self) -> KeptCode | None:
        """The files of its code, brought to this machine; None if the job has no code."""
        return None

    @abstractmethod
    def rerun(
        self,
        job: JobFields | None = None,
        *,
        download: Collection[str] | str = (),
        sample: int | None = None,
        resume: bool = False,
    ) -> Rerun:
        """The run, prepared to run again on this machine: `submit(run.rerun(), on="local")`.

        Its code is fetched, and its data inputs that `download` names (or `"all"`), with `sample` only so many files of
        each folder. With `resume`, its named outputs start with what it had written. `job` is its job with your
        changes, by default as it was. Raises `JobError` for data that is neither here nor to be downloaded.
        """

    def recovery(self) -> Recovery | None:
        """What became of the work after a fault on purpose; None if there was none, and for runs on Azure ML."""
        return None

    @abstractmethod
    def page(self) -> RunPage:
        """The run as one HTML file that needs no server and no network: its plan, a timeline, the verdict, logs,
        metrics and files. `save` it, or put it at the end of a notebook cell.
        """

    @abstractmethod
    def cancel(self, *, reason: str | None = None) -> None:
        """Ask the run to stop, and return immediately; `wait()` waits until it has.

        A run on this machine stores `reason` and shows it as the cause of its end.
        """

    def download(self, folder: str | Path, *, only: Iterable[str] = (), so_far: bool = False) -> Path:
        """Copy named outputs, artifacts and the logs of all attempts into `folder`, and return it.

        `only` names what to copy, as in that folder: `["outputs/model", "user_logs"]`. With `so_far`, a run that
        has not ended is copied as it is now. Copied again, only what is new or has changed is fetched, and large files
        continue where they stopped; files that do not come from the run are not overwritten.

        Raises `DownloadFailed` if anything that the job declares is missing, after copying everything else.
        """
        found = self.fetch(folder, only=only, so_far=so_far)
        if found.missing:
            from azml_dist.runs.download import DownloadFailed

            raise DownloadFailed(self.name, found)
        return found.folder

    @abstractmethod
    def fetch(self, folder: str | Path, *, only: Iterable[str] = (), so_far: bool = False) -> Download:
        """Like `download`, but returns what was copied and what is missing instead of raising."""

    def bundle(self, file: str | Path | None = None) -> Path:
        """Write one zip that explains how the run ended, for a colleague or a support ticket, and return its path.

        It has the plan, the request, the verdict with its evidence, the ends of all logs, metrics, versions, and the
        ids for Azure support; no code, outputs or data. Secrets are removed. `azml_dist.run(path)` reads it as a run.
        By default, it is `NAME-bundle.zip` in the current folder; an existing file is not overwritten.
        """
        from azml_dist.runs.bundle import save_bundle

        return save_bundle(self, file)

    @abstractmethod
    def _material(self) -> Material:
        """What the run has for its bundle."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """The last value of each metric logged with MLflow, by name; `metrics().history(name)` has all of them."""

    def metric_histories(self) -> dict[str, list[float]]:
        """All values of each metric logged with MLflow, by name, in the order in which they were logged."""
        found = self.metrics()
        return {name: [point.value for point in found.history(name)] for name in found}

    @property
    def services(self) -> Mapping[str, RunService]:
        """The interactive services of the run by name, with their addresses: on Azure ML those of node 0.

        Here, those that `Local(services=True)` and `run --services` started, as long as the run.
        """
        return {}

    def system(self) -> System | None:
        """What the run used of its machines: CPU, memory and GPU of each rank here, of each node on Azure ML.

        None if that is not known: the run is short, or its workspace does not say.
        """
        return None

    def register(self, model: str, *, output: str, inside: str = "", version: str | None = None) -> Registered:
        """Register an output of a run that completed as a new version of a model, and return it.

        `output` is a named output, or `"artifacts"` for what the job wrote to `./outputs`; `inside` is a folder in it.
        The version is the next one by default. Raises `NotFound` if there is no such output, and `SubmitError` if the
        run has not completed or the version is taken.
        """
        raise DistError(
            f"run {self.name} ran on this machine, and models are registered in a workspace",
            hint=f"`azml-dist register {self.name} {output} --as {model}` uploads and registers it",
        )

    def plot(self, *metrics: str) -> Plot:
        """A picture of its metrics, or of those named, for a notebook; `azml_dist.plot(a, b)` compares runs.

        Raises `DistError` if matplotlib is not installed.
        """
        return plot(self, metrics=metrics or None)

    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        """The ranks selected by a rank, a node, or neither; raises `NotFound` if there are none."""
        sources = self._processes()
        ranks = [s.rank for s in sources if rank in (None, s.rank) and node in (None, s.node_rank)]
        if not sources:
            raise NotFound(f"run {self.name} has no processes", hint=f"it ended before any process started: {self.url}")
        if not ranks:
            which = " of ".join(f"{k} {v}" for k, v in (("rank", rank), ("node", node)) if v is not None)
            last = sources[-1]
            hint = f"the last one is rank {last.rank}, on node {last.node_rank}"
            raise NotFound(f"run {self.name} has no {which}", hint=hint)
        return frozenset(ranks)

    @abstractmethod
    def _processes(self) -> Sequence[Source]:
        """All processes of the run, ordered by rank."""

    def chunks(
        self,
        ranks: frozenset[int] | None = None,
        *,
        label: bool = True,
        colour: bool = False,
        follow: bool = False,
        tail: int | None = None,
        safe: bool = False,
        fold: bool = False,
    ) -> Iterator[bytes]:
        """The lines of `logs` as bytes; each chunk ends with a line.

        `safe` lines do nothing to a terminal but have colours; with `fold`, equal lines of many ranks are one.
        """
        return self._read(Reading(ranks, label, colour, follow, tail, safe, fold))

    @abstractmethod
    def _read(self, how: Reading) -> Iterator[bytes]:
        """Whole lines as the ranks wrote them, each after its label; the lines of a rank stay in order."""

    def _shown_live(self) -> InPlace | None:
        """Its table below the cell that runs, to be renewed; None if this is no notebook, or not the cell itself."""
        if notebook() is None or threading.current_thread() is not threading.main_thread():
            return None
        self._table = self._table or InPlace(self._live_page, lambda: repr(self))
        self._table.show()
        return self._table

    def _live_page(self) -> Page:
        """What a notebook shows while it waits."""
        return self._page()

    def _ipython_display_(self) -> None:
        """Show it at the end of a cell, once: below a cell that waited for it, it is there already."""
        if self._table and notebook() and self._table.is_here():
            self._table.renew(now=True)
            return
        display = sys.modules["IPython"].display.display
        display({"text/html": page_html(self._page()), "text/plain": repr(self)}, raw=True)

    @abstractmethod
    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        """What the foot at a terminal shows of the run, or of some of its ranks, whenever this is called."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The run as JSON values, as `azml-dist status --json` prints it."""


def new_name(job: JobFields, random_bytes: int = 3) -> str:
    """A name for a run of a job without one, fixed before anything starts: submitted twice, it is still one run."""
    slugs = (slug(words).lower()[:40] for words in _names(job))
    telling = (one for one in slugs if one and one not in _NOT_TELLING)
    return f"{next(telling, 'run')}-{secrets.token_hex(random_bytes)}"


_NOT_TELLING = frozenset(
    [
        *("job", "jobs", "command", "pipeline", "sweep", "component", "config", "azureml", "aml", "azure", "submit"),
        *("main", "run", "script", "start", "src", "code", "source", "app", "project", "tmp", "temp", "workspace"),
    ]
)
"""Names of files and folders that say nothing about a job."""


def _names(job: JobFields) -> Iterator[str]:
    """What a run may be named after, the best first."""
    yield job.display_name or ""
    if job.file:
        file, _, variable = os.path.basename(job.file).partition(".py:")
        yield variable
        yield os.path.splitext(file)[0]
    script = (job.script or "").rpartition("/")[2]
    yield os.path.splitext(script)[0] if script.endswith((".py", ".sh")) else script.rpartition(".")[2]
    yield Path(job.local_code).resolve().name if job.local_code else ""


def still_going_on(name: str, status: RunStatus, kind: type[DistError] = DistError) -> DistError:
    """The error of a download of a run that has not ended."""
    return kind(
        f"run {name} is still {status}: not everything that it will have is there yet",
        hint=f"`azml-dist download {name} --so-far` gets what there is; "
        f"`azml-dist logs {name} --follow` waits until it has ended",
    )


def pauses(first: float, longest: float) -> Iterator[float]:
    """Seconds to sleep between polls of a run: short at first, then longer while nothing happens."""
    pause = first
    while True:
        yield pause
        pause = min(pause * 1.3, longest)
