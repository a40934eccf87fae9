"""`Local`: the executor that runs a job on this machine."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from azml_dist.as_job import as_job
from azml_dist.errors import JobError, LaunchError
from azml_dist.latest import note_started
from azml_dist.local import staging
from azml_dist.local.launchers.hosts import check_apart
from azml_dist.local.options import Launcher, Options, Setup
from azml_dist.local.roots import remember_root
from azml_dist.local.run import LocalRun
from azml_dist.local.runstart import start_run
from azml_dist.local.state import RunFolder, RunState
from azml_dist.local.supervision import Supervision
from azml_dist.local.tools import HERE, Tools, tools_of
from azml_dist.local.tracking.store import STORE
from azml_dist.model.given import refuse_open_inputs, with_inputs
from azml_dist.model.job import JobFields
from azml_dist.plan.plan import LaunchPlan, plan_job
from azml_dist.plan.world import Service
from azml_dist.runs.notebook import renew_beside
from azml_dist.runs.run import new_name

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, PipelineJob
    from azure.ai.ml.entities import Sweep as AzureSweep

    from azml_dist.local.groups.run import GroupRun
    from azml_dist.pipeline import Pipeline
    from azml_dist.runs.rerun import Rerun
    from azml_dist.sweep import Sweep

_R = TypeVar("_R", bound=LocalRun)


class Local:
    """Runs jobs on this machine. Each emulated node has its own working directory.

    Args:
        inputs: local paths, by input name, for data that only Azure ML can read.
        root: the folder in which each run gets its own folder; by default `AZML_DIST_ROOT` or `~/.azml_dist/runs`.
        launcher: `"torchrun"`, or `"direct"`, which starts the same processes without torchrun in milliseconds. By
            default, PyTorch jobs use torchrun if torch is installed.
        timeout: seconds after which a run is cancelled; overrides the timeout of the job.
        python: the Python that provides torchrun and that `python` runs in the command; by default the current one.
        retries: how many times a failed run is restarted: under the same name, with fresh working directories, and
            with what was written to its outputs.
        preempt_after: simulate a spot eviction this many seconds after all processes of the first attempt have
            started: all processes are killed at once, and another attempt begins.
        faults: faults to inject, such as `"kill:rank=2@step=3"`; see `docs/rehearse.md`.
        fault_seed: the seed of the random choices in faults, such as `rank=any`: the same seed, the same faults.
        step_pattern: a regular expression for log lines that contain the step, with its number as a group.
        against: the name of a run without faults to compare the final metrics with.
        hosts: `"apart"` gives each node its own network, so that `localhost` differs from node to node (Linux, as
            root). By default, all nodes are this machine.
        image: whether each node is a container of the job's image, started with podman or docker. Experimental: never
            run by its authors.
        packages: `job` runs the job in a virtual environment with the packages that its environment lists, made by uv
            or pip the first time; by default, `here`, it runs with those of `python`.
        keep_pythonpath: pass on your `PYTHONPATH`, `PYTHONHOME` and the like, which do not exist on Azure ML.
        stall_after: seconds without output or progress of any rank, after which a note says which rank keeps the
            others waiting, and where; 0 for never.
        stall_timeout: seconds of such a stall after which the run is ended, with a verdict of the kind `hang`.
        debug_rank: this rank waits under debugpy until your editor attaches; the run's notes say how. Nothing is noted
            about the others, which wait for it.
        pdb: the first rank that fails opens pdb at your terminal, while the others wait.
        services: start the job's services of the type `tensor_board`, for as long as the run.
        watch: whether to watch the run for stalls. With False, azml_dist adds nothing to its `PYTHONPATH`.
        service: what Azure ML is assumed to do where its documentation does not say; by default what a probe of the
            configured workspace found out, and our own assumptions for the rest.
        grace: seconds between SIGTERM and SIGKILL when processes are stopped.
        detach: let runs outlive this process: a closed terminal, a kernel that restarts. `azml_dist.run(NAME)` finds
            them again, and `run.cancel()` ends them.
    """

    def __init__(
        self,
        *,
        inputs: Mapping[str, str | os.PathLike[str]] | None = None,
        root: str | os.PathLike[str] | None = None,
        launcher: Launcher | None = None,
        timeout: float | None = None,
        python: str | None = None,
        retries: int = 0,
        preempt_after: float | None = None,
        faults: Sequence[str] = (),
        fault_seed: int = 0,
        step_pattern: str | None = None,
        against: str | None = None,
        hosts: Literal["apart"] | None = None,
        keep_pythonpath: bool = False,
        packages: Literal["here", "job"] = "here",
        image: bool = False,
        stall_after: float = 60.0,
        stall_timeout: float | None = None,
        debug_rank: int | None = None,
        pdb: bool = False,
        services: bool = False,
        watch: bool = True,
        service: Service | None = None,
        grace: float = 3.0,
        detach: bool = False,
    ) -> None:
        options = Options(
            inputs=dict(inputs or {}),
            root=root,
            launcher=launcher,
            timeout=timeout,
            python=python,
            retries=retries,
            preempt_after=preempt_after,
            faults=faults,
            fault_seed=fault_seed,
            step_pattern=step_pattern,
            against=against,
            hosts=hosts,
            keep_pythonpath=keep_pythonpath,
            packages=packages,
            image=image,
            stall_after=stall_after,
            stall_timeout=stall_timeout,
            debug_rank=debug_rank,
            pdb=pdb,
            services=services,
            watch=watch,
            service=service,
            grace=grace,
            detach=detach,
        )
        self._setup = Setup.of(options)

    @overload
    def submit(
        self,
        job: JobFields | Command,
        *,
        supervision: Supervision | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> LocalRun: ...
    @overload
    def submit(
        self,
        job: Sweep | Pipeline | AzureSweep | PipelineJob,
        *,
        supervision: Supervision | None = None,
        at_a_time: int = 1,
    ) -> GroupRun: ...
    def submit(
        self,
        job: Any,
        *,
        supervision: Supervision | None = None,
        at_a_time: int = 1,
        tell: Callable[[str], None] | None = None,
    ) -> LocalRun:
        """Start the job and return its run, which ends with this process at the latest, unless it is detached.

        `job` may also be what azure-ai-ml's `command(...)`, `.sweep(...)`, pipelines and `load_job(...)` return.

        The trials of a sweep run one after another, or `at_a_time` in parallel; a step of a pipeline starts when the
        steps that it needs have finished. `supervision` is a supervisor that was started ahead; `tell` gets what is
        being prepared, in words. Raises `JobError` if an input is not on this machine, and `LaunchError` if the run
        cannot be started.
        """
        try:
            job = as_job(job)
            if not isinstance(job, JobFields):
                return self._noted(self._start_group(job, at_a_time, supervision))
            plan = self.plan(job)
            tools = tools_of(self._setup, plan, tell)
            if supervision and self._setup.options.packages == "job":
                supervision.end()  # it was started without the Python of these packages
                supervision = None
            supervision = supervision or Supervision(
                tools.python if tools.launcher == "torchrun" else None,
                keep_pythonpath=self._setup.options.keep_pythonpath,
            )
            return self._start(plan, tools, supervision, tell)
        except BaseException:
            if supervision:
                supervision.end()
            raise

    def _start(
        self, plan: LaunchPlan, tools: Tools, supervision: Supervision, tell: Callable[[str], None] | None
    ) -> LocalRun:
        folder, lock = self.make_folder(plan.job)
        try:
            return self._noted(start_run(self._setup, tools, plan, folder, lock, supervision, tell))
        except BaseException as error:
            shutil.rmtree(folder.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise _refused(folder.path, error) from error
            raise
        finally:
            os.close(lock)

    def again(self, rerun: Rerun) -> Local:
        """The executor for a run that repeats another one: `again(rerun).submit(rerun.job)`."""
        return self._with(self._setup._replace(rerun=rerun))

    def _with(self, setup: Setup) -> Local:
        """The same executor with another setup."""
        executor = copy.copy(self)
        executor._setup = setup
        return executor

    def _noted(self, run: _R) -> _R:
        """The same run, remembered as the one that was started last; of a group, that is the group."""
        if self._setup.parent is None:
            note_started(run.name, root=str(run.folder.parent))
        return run

    def _start_group(self, job: Sweep | Pipeline, at_a_time: int, supervision: Supervision | None) -> GroupRun:
        from azml_dist.local.groups import detached

        self._setup.rehearsal.refuse_groups()
        if not self._setup.options.detach:
            return detached.start(job, self, at_a_time, supervision)
        if supervision:
            supervision.end()
        # Its members end with the process that starts them.
        options = self._setup.options._replace(detach=False)
        return detached.start_detached(job, self._with(self._setup._replace(options=options)), at_a_time)

    def announce(self, results: Sequence[LocalRun]) -> None:
        """Show a new run in a notebook, and renew that until it ends."""
        for run in results if len(results) == 1 else ():
            if table := run._shown_live():
                renew_beside(table, lambda run=run: run.status.is_final)  # type: ignore[misc]

    def member_of(self, parent: str) -> Local:
        """The executor for the members of a sweep or pipeline, which do not repeat the findings about the whole."""
        options = self._setup.options._replace(inputs={}, timeout=None)
        return self._with(self._setup._replace(options=options, parent=parent))

    @property
    def timeout(self) -> float | None:
        """Seconds after which a run is cancelled."""
        return self._setup.options.timeout

    @property
    def inputs(self) -> Mapping[str, str | os.PathLike[str]]:
        """Local paths of inputs."""
        return self._setup.options.inputs

    def plan(self, job: JobFields) -> LaunchPlan:
        """The plan of the job; raises if it cannot run on this machine."""
        if sys.platform == "win32":
            raise LaunchError("local runs are not supported on Windows", hint="run this inside WSL")
        if job.code and not job.local_code:
            raise JobError(
                f"{job.code} is a code asset in Azure ML, not a folder on this machine",
                hint="name the local folder of the code: `--set code=PATH`",
                where="code",
            )
        if self._setup.is_apart:
            check_apart()
        job = with_inputs(job, self.inputs)
        refuse_open_inputs(job)
        staging.refuse_remote_inputs(job)
        plan = plan_job(job)
        service = self._setup.options.service
        plan = replace(plan, service=service) if service else plan
        if plan.world.distribution not in HERE:
            raise LaunchError(
                f"{plan.world.distribution} jobs cannot run locally yet; they can be planned",
                hint="PyTorch, MPI, TensorFlow, Ray and single-process jobs run locally",
            )
        if plan.world.distribution == "TensorFlow" and "TF_CONFIG" in os.environ:
            raise LaunchError(
                "TF_CONFIG is set in your environment, probably by another TensorFlow run",
                hint="`unset TF_CONFIG`: each task of this run gets its own",
            )
        return plan

    def make_folder(self, job: JobFields) -> tuple[RunFolder, int]:
        """A folder for a run of the job, and the lock that shows that the run is alive."""
        try:
            self._setup.root.mkdir(parents=True, exist_ok=True)
            remember_root(self._setup.root)
            root = self._setup.root.resolve()
            (root / STORE).mkdir(exist_ok=True)  # before the run takes this name
            while True:
                name = job.name or new_name(job)
                state = RunState(name, str(root / name), display_name=job.display_name, created_at=time.time())
                state.file, state.script = job.file and os.path.abspath(job.file), job.script
                try:
                    return RunFolder.make(root, state)
                except FileExistsError:
                    if job.name:
                        raise JobError(
                            f"a run named {name} already exists in {root}",
                            hint="change the `name` of the job, or leave it out so that each run gets a new one",
                            where="name",
                        ) from None
        except OSError as error:
            raise _cannot_write(self._setup.root, error) from error


def _cannot_write(path: Path, error: OSError) -> LaunchError:
    return LaunchError(f"cannot write {path}: {error.strerror}", hint="choose another folder with `--root`")


def _refused(folder: Path, error: OSError) -> LaunchError:
    """The error for a system call that failed while a run was prepared."""
    # A copy that runs out of space names both files.
    about = str(error.filename2 or error.filename or "")
    if error.errno in _OF_THE_DISK or about.startswith(str(folder)):
        return _cannot_write(folder, error)
    if about:
        return LaunchError(f"cannot use {about}: {error.strerror}", hint="check that it exists, and its permissions")
    return LaunchError(f"the run cannot start: {error.strerror}", hint="check the limits with `ulimit -a`")


_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
