"""One execution of a job: the handle that every executor returns, and the ways to get one."""

from __future__ import annotations

import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, overload

from azml_dist.errors import JobError, LaunchError, NotFound, Problem, SubmitError

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

    from azml_dist.azureml.workspace import Workspace
    from azml_dist.job import Job
    from azml_dist.logs import Logs
    from azml_dist.pipeline import Pipeline
    from azml_dist.plan import LaunchPlan
    from azml_dist.sweep import Sweep
    from azml_dist.sweepplan import SweepPlan


class RunStatus(str, Enum):
    """Azure ML's words for where a run is (azure-ai-ml, `RunHistoryConstants`)."""

    NOT_STARTED = "NotStarted"
    STARTING = "Starting"
    PROVISIONING = "Provisioning"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    CANCEL_REQUESTED = "CancelRequested"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    NOT_RESPONDING = "NotResponding"
    PAUSED = "Paused"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, value: object) -> RunStatus:
        """A word that Azure has learnt since."""
        return cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Nothing changes any more."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELED)

    def __str__(self) -> str:
        return self.value


class Run(ABC):
    """A run, here or on Azure ML. It can be asked from any process, at any time."""

    name: str

    @property
    @abstractmethod
    def status(self) -> RunStatus:
        """Where the run is now."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a person can look at it."""

    @property
    @abstractmethod
    def outputs(self) -> Mapping[str, Path | str]:
        """The folder of each named output, or its address where that is not on this machine."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> Run:
        """Return when the run is completed.

        Raises `RunFailed` when it failed or was canceled, and `TimeoutError` after `timeout` seconds, which leaves
        the run going on.
        """

    @abstractmethod
    def logs(
        self, rank: int | None = None, *, node: int | None = None, follow: bool = False, tail: int | None = None
    ) -> Logs:
        """The lines of one process, or of all, labelled, in the order in which they arrived.

        With `follow` the lines that are still to come too, until the run ends; with `tail` the last ones only.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Ask the run to end, and return at once; `wait()` for its end."""

    @abstractmethod
    def download(self, folder: str | Path) -> Path:
        """Copy named outputs, artifacts and logs into `folder`; nothing there is overwritten."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The last value of every metric that was logged with MLflow."""

    @abstractmethod
    def metric_histories(self) -> dict[str, list[float]]:
        """All values of every metric that was logged with MLflow, in the order in which they were."""

    @abstractmethod
    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        """The ranks that are meant by a rank, a node, or neither; `NotFound` if the run has none of them."""

    @abstractmethod
    def chunks(
        self,
        ranks: frozenset[int] | None = None,
        *,
        label: bool = True,
        colour: bool = False,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[bytes]:
        """What `logs` is made of: whole lines, as bytes."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The run as `azml-dist status --json` prints it."""


class Runs(list["Run | SubmitError"]):
    """What came of a list of jobs: a run or an error for each, in order. At the end of a cell it is a table."""

    def __str__(self) -> str:
        from azml_dist.render import results_text

        return results_text(self)

    def _repr_html_(self) -> str:
        from azml_dist.render import results_html

        return results_html(self)


class Executor(Protocol):
    """Where jobs run."""

    def submit(self, job: Job) -> Run:
        """Start the job, and return its run."""


Place: TypeAlias = "Executor | Literal['local'] | None"


@overload
def submit(job: Sequence[Job | Command], *, on: Place = None, dry_run: Literal[False] = False) -> Runs: ...
@overload
def submit(job: Sequence[Job | Command], *, on: Place = None, dry_run: Literal[True]) -> list[LaunchPlan]: ...
@overload
def submit(job: Sweep, *, on: Place = None, dry_run: Literal[True]) -> SweepPlan: ...
@overload
def submit(job: Pipeline, *, on: Place, dry_run: Literal[False] = False) -> Run: ...
@overload
def submit(job: Job | Sweep | Command, *, on: Place = None, dry_run: Literal[False] = False) -> Run: ...
@overload
def submit(job: Job | Command, *, on: Place = None, dry_run: Literal[True]) -> LaunchPlan: ...
def submit(job: Any, *, on: Any = None, dry_run: bool = False) -> Any:
    """Start a job or a sweep on Azure ML, or where `on` says, and return its run; with `dry_run`, the plan alone.

    A job may be a `Command` of azure-ai-ml too, as its `command(...)` makes one.

    Of a list, what its jobs share is uploaded and looked up once; the result has a run or a `SubmitError` for each,
    in the same order.

    Raises `JobError` for a job that cannot mean anything, `LaunchError` where its processes cannot be started,
    `SubmitError` where Azure refused it or could not be reached.
    """
    many = isinstance(job, Sequence)
    jobs = [_job(one) for one in job] if many else [_job(job)]
    if dry_run:
        plans = [one.plan() for one in jobs]
        return plans if many else plans[0]
    executor = _executor(on)
    together: Any = getattr(executor, "submit_all", None) if many else None
    results = together(jobs) if together else [executor.submit(one) for one in jobs]
    if announce := getattr(executor, "announce", None):
        announce(results)
    return Runs(results) if many else results[0]


def run(name: str, *, root: str | Path | None = None) -> Run:
    """The run of that name, started by this process or any other: on this machine, or in the configured workspace.

    Raises `NotFound` if there is none, `SubmitError` where the workspace cannot be asked.
    """
    from azml_dist.local.run import LocalRun

    if found := LocalRun.find(name, root):
        return found
    names = [r.name for r in LocalRun.all(root)]
    hint = _nearest(name, names) or "`azml-dist list` shows all runs"
    workspace = None if root or os.sep in name else _configured_workspace()
    if workspace is None:
        raise NotFound(f"there is no run {name!r} on this machine, and no workspace to ask", hint=hint)
    from azml_dist.azureml.run import AzureRun

    try:
        return AzureRun.find(workspace, name)
    except NotFound as error:
        where = f"on this machine or in workspace {workspace.name}"
        raise NotFound(f"there is no run {name!r} {where}", hint=hint) from error


def _configured_workspace() -> Workspace | None:
    """The workspace of `config.json` or of the environment, if there is one."""
    from azml_dist.azureml.workspace import Workspace

    workspace = Workspace()
    return workspace if workspace.is_configured else None


def new_name(job: Job, random_bytes: int = 3) -> str:
    """A name for a run of a job that has none, fixed before anything starts: sent twice, it is still one run."""
    words = job.display_name or (Path(job.code_folder).resolve().name if job.code_folder else "") or "run"
    slug = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-").lower()[:40] or "run"
    return f"{slug}-{secrets.token_hex(random_bytes)}"


def own_variables(job: Job) -> dict[str, str]:
    """The values of the variables that the job takes from the caller's environment. Not for printing."""
    names = [name for name, value in job.environment_variables.items() if value is None]
    if missing := [name for name in names if name not in os.environ]:
        raise JobError.of(
            Problem(
                f"the job takes {name} from your environment, where it is not set",
                f"`export {name}=...` first, or give it a value in the job",
                f"environment_variables.{name}",
            )
            for name in missing
        )
    return {name: os.environ[name] for name in names}


def _job(job: Any) -> Any:
    """The job, sweep or pipeline itself, or the job that a `Command` of azure-ai-ml means."""
    from azml_dist.job import Job
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

    return job if isinstance(job, Job | Sweep | Pipeline) else Job.from_command(job)


def _executor(on: Any) -> Executor:
    if on == "local":
        from azml_dist.local.executor import Local

        return Local()
    if on is None:
        from azml_dist.azureml.executor import AzureML

        return AzureML()
    if not hasattr(on, "submit"):
        raise LaunchError(f"`on` is {on!r}", hint='write `on="local"`, or an executor such as `Local(...)`')
    executor: Executor = on
    return executor


def _nearest(name: str, names: list[str]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else None
