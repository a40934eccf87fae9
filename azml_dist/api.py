"""Locally or on Azure ML: `submit` a job to an executor, and find its run again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, overload

from azml_dist.as_job import as_job
from azml_dist.errors import LaunchError, NotFound, SubmitError
from azml_dist.local import find
from azml_dist.overview import MOST, Overview, Seen, overview
from azml_dist.plan.dumps import with_dumps
from azml_dist.runs.bundled import BundledRun, is_bundle
from azml_dist.runs.limits import check_count
from azml_dist.runs.rerun import Rerun
from azml_dist.runs.run import Run
from azml_dist.show import Page, Shown, Table, abbreviated
from azml_dist.words import nearest

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

    from azml_dist.azureml.workspace import Workspace
    from azml_dist.job import Job
    from azml_dist.pipeline import Pipeline
    from azml_dist.plan.plan import LaunchPlan
    from azml_dist.plan.sweep import SweepPlan
    from azml_dist.sweep import Sweep


_AT_A_TIME = 8
"""How many runs are asked for their status at the same time."""
_REFUSED = 5
"""How many jobs of a long list that were not submitted are shown in a table."""


class Runs(Shown, list["Run | SubmitError"]):
    """The results of a list of jobs: a run or an error for each, in order. At the end of a notebook cell, a table."""

    def _page(self) -> Page:
        # A browser does not follow the file:// address of a local run.
        pages = {run.name: run.url for run in self if not isinstance(run, SubmitError) and run.url.startswith("https:")}
        refused = [number for number, one in enumerate(self) if isinstance(one, SubmitError)]
        shown = abbreviated(list(enumerate(self)), refused[:_REFUSED])
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            rows = list(threads.map(lambda one: one and _result(*one), shown))
        return Page([], [Table(("job", "run", "status"), rows, pages)])


class Executor(Protocol):
    """Where jobs run."""

    def submit(self, job: Job) -> Run:
        """Start the job, and return its run."""


Where: TypeAlias = "Executor | Literal['local'] | None"


@overload
def submit(
    job: Sequence[Job | Command],
    *,
    on: Where = None,
    dry_run: Literal[False] = False,
    check: bool | None = None,
    max_cost: float | None = None,
    max_wait: float | None = None,
    watch_hangs: bool = False,
) -> Runs: ...
@overload
def submit(
    job: Sequence[Job | Command], *, on: Where = None, dry_run: Literal[True], watch_hangs: bool = False
) -> list[LaunchPlan]: ...
@overload
def submit(job: Sweep, *, on: Where = None, dry_run: Literal[True], watch_hangs: bool = False) -> SweepPlan: ...
@overload
def submit(
    job: Pipeline,
    *,
    on: Where,
    dry_run: Literal[False] = False,
    check: bool | None = None,
    max_cost: float | None = None,
    max_wait: float | None = None,
    watch_hangs: bool = False,
) -> Run: ...
@overload
def submit(
    job: Job | Sweep | Command | Run | Rerun,
    *,
    on: Where = None,
    dry_run: Literal[False] = False,
    check: bool | None = None,
    max_cost: float | None = None,
    max_wait: float | None = None,
    watch_hangs: bool = False,
) -> Run: ...
@overload
def submit(
    job: Job | Command, *, on: Where = None, dry_run: Literal[True], watch_hangs: bool = False
) -> LaunchPlan: ...
def submit(
    job: Job | Sweep | Pipeline | Command | Run | Rerun | Sequence[Job | Command],
    *,
    on: Where = None,
    dry_run: bool = False,
    check: bool | None = None,
    max_cost: float | None = None,
    max_wait: float | None = None,
    watch_hangs: bool = False,
) -> Run | Runs | LaunchPlan | SweepPlan | list[LaunchPlan]:
    """Start a job or a sweep on Azure ML, or on the executor `on`, and return its run; with `dry_run`, only its plan.

    ::

        run = submit(job, on="local")  # on this machine
        run = submit(job)  # on Azure ML, in the workspace from config.json or environment variables
        run.wait()

    A job may also be what azure-ai-ml's `command(...)`, `.sweep(...)` and `load_job(...)` return. Pipelines only run
    locally. A run means its job: with `on="local"` its code is fetched and it runs here, else it is submitted again;
    `run.rerun(...)` also fetches its data.

    On Azure ML, a job is first checked against the workspace, and refused before any upload if it is sure to fail;
    `check=False` skips this. With `max_cost`, an amount in the currency of the workspace's price list, a job that may
    cost more is refused as well, and `run.wait()` cancels the run at that amount; of a list, this applies to each job.
    With `max_wait`, `run.wait()` cancels a run that has not started so many seconds after its submission.

    With `watch_hangs`, the job gets environment variables with which its ranks leave what they waited for, if NCCL
    times out; `run.verdict()` reads it. A run on this machine is watched without it.

    For a list, whatever the jobs share is uploaded and looked up once; the result has a run or a `SubmitError` for
    each job, in the same order.

    Raises `JobError` if the job is invalid, `LaunchError` if its processes cannot be started, and `SubmitError` if
    Azure refused the job or could not be reached.
    """
    many = isinstance(job, Sequence)
    given: list[Any] = [*job] if isinstance(job, Sequence) else [job]
    if dry_run:
        plans = [one.plan() for one in _jobs_of(given, watch_hangs)]
        return plans if many else plans[0]
    how = {"check": check, "max_cost": max_cost, "max_wait": max_wait}
    results = _started(_executor(on), given, together=many, watch_hangs=watch_hangs, how=how)
    return Runs(results) if many else results[0]


def _jobs_of(given: Iterable[Any], watch_hangs: bool) -> list[Any]:
    jobs = [as_job(one) for one in given]
    return [with_dumps(one) for one in jobs] if watch_hangs else jobs


def _started(executor: Any, given: list[Any], *, together: bool, watch_hangs: bool, how: dict[str, Any]) -> list[Any]:
    """A run for each, or an error if Azure ML got them `together`; `how` is for executors that check jobs first."""
    comes_home = hasattr(executor, "again")  # as on this machine
    if comes_home:
        given = [one.rerun() if isinstance(one, Run) else one for one in given]
    checks = hasattr(executor, "submit_all")  # as on Azure ML
    jobs = _jobs_of(given, watch_hangs and checks)
    if comes_home and any(isinstance(one, Rerun) for one in given):
        return [_again(executor, one) for one in given]
    if checks:
        results = executor.submit_all(jobs, **how) if together else [executor.submit(jobs[0], **how)]
    else:
        results = [executor.submit(one) for one in jobs]
    if announce := getattr(executor, "announce", None):
        announce(results)
    return results


def _again(executor: Any, one: Any) -> Run:
    started: Run = executor.again(one).submit(one.job) if isinstance(one, Rerun) else executor.submit(one)
    return started


def run(name: str, *, root: str | Path | None = None) -> Run:
    """The run with this name, started by any process: on this machine, or in the configured workspace.

    The path of a bundle is a run as well: what `azml-dist bundle` wrote, or the folder that it was unpacked into.

    Raises `NotFound` if there is none, and `SubmitError` if the workspace cannot be reached.
    """
    if found := _bundled(name) or find.find(name, root):
        return found
    if is_bundle(name):  # a folder beside this one: a run of that name comes first
        return BundledRun(name)
    hint = nearest(name, find.names(root)) or "`azml-dist list` shows all runs"
    workspace = None if root or os.sep in name else _configured_workspace()
    if workspace is None:
        raise NotFound(f"there is no run {name!r} on this machine, and no workspace is configured", hint=hint)
    try:
        there: Run = _azure().azure_run(workspace, name)
    except NotFound as error:
        where = f"on this machine or in workspace {workspace.name}"
        raise NotFound(f"there is no run {name!r} {where}", hint=hint) from error
    return there


class RunList(Shown, list["Run"]):
    """Runs, newest last. At the end of a notebook cell, a table."""

    def __init__(self, found: Overview, handles: Iterable[Run]) -> None:
        super().__init__(handles)
        self._found = found

    def _page(self) -> Page:
        headings, *rows = self._found.lines()
        links = {run.name: run.url for run in self if run.url.startswith("https:")}
        cells = [[cell.strip() for cell in row] for row in rows]
        return Page([], [Table([heading.strip() for heading in headings], cells, links)])


def list_runs(
    *,
    root: str | Path | None = None,
    here: bool = True,
    azure: bool = True,
    failed: bool = False,
    limit: int | None = None,
) -> RunList:
    """The runs on this machine, or in `root`, and those in the configured workspace, newest last.

    `failed` keeps those that failed, `limit` the last ones. The trials of a sweep and the steps of a pipeline are
    those of one run. Raises `SubmitError` if the workspace cannot be reached; `azure=False` does not ask it.
    """
    check_count("limit", limit, 0, hint="give the number of runs to list")
    workspace = _configured_workspace() if azure and not root else None
    there = _azure().AzureRun.latest(workspace, MOST if failed else limit) if workspace else []
    found = overview(root, here=here, there=there, failed=failed, limit=limit)
    return RunList(found, (_handle(one, workspace) for one in found.runs))


def _handle(one: Seen, workspace: Workspace | None) -> Run:
    if one.here:
        return find.handle_of(one.here.folder, one.here.kind)
    assert workspace
    found: Run = _azure().handle(workspace, one.name, one.there["kind"] if one.there else None)
    return found


def _bundled(path: str) -> Run | None:
    """The run of a bundle; None for any other name or path. Raises `NotFound` for a zip that is not a bundle."""
    is_zip = path.endswith(".zip") and os.path.isfile(path)
    return BundledRun(path) if is_zip or (os.sep in path and is_bundle(path)) else None


def _azure() -> Any:
    """Handles of runs on Azure ML."""
    from azml_dist.azureml import group

    return group


def _configured_workspace() -> Workspace | None:
    """The workspace from `config.json` or environment variables, if there is one."""
    from azml_dist.azureml.workspace import Workspace

    workspace = Workspace()
    return workspace if workspace.is_configured else None


def _executor(on: Any) -> Executor:
    if on == "local":
        from azml_dist.local.executor import Local

        return Local()
    if on is None:
        from azml_dist.azureml.executor import AzureML

        return AzureML()
    if not hasattr(on, "submit") or isinstance(on, type):
        raise LaunchError(f"`on` is {on!r}", hint='write `on="local"`, or an executor such as `Local(...)`')
    executor: Executor = on
    return executor


def _result(number: int, result: Run | SubmitError) -> tuple[str, str, str]:
    if isinstance(result, SubmitError):
        return str(number), "", f"not submitted: {result.problems[0]}"
    try:
        return str(number), result.name, str(result.status)
    except SubmitError as error:
        return str(number), result.name, f"unknown: {error.problems[0]}"
