"""`Local`: the executor that runs a job on this machine, and `LocalRun`, the handle of such a run."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from azml_dist.errors import JobError, LaunchError
from azml_dist.inputs import refuse_open_inputs, with_inputs
from azml_dist.job import Job
from azml_dist.local import staging
from azml_dist.local.attempts import SNAPSHOT
from azml_dist.local.environment import base_environment, has_module
from azml_dist.local.gpus import share, visible_gpus
from azml_dist.local.hosts import check_apart, naming_hosts
from azml_dist.local.mpirun import find_mpirun
from azml_dist.local.places import places, usual_port
from azml_dist.local.ports import Ports
from azml_dist.local.ray_cluster import node_commands
from azml_dist.local.run import LocalRun
from azml_dist.local.state import ProcessState, RunFolder, RunState
from azml_dist.local.supervision import Supervision, memory_of, needs_no_quotes
from azml_dist.parts import Ray
from azml_dist.plan import SERVICE, LaunchPlan, Service
from azml_dist.runs import new_name

if TYPE_CHECKING:
    from azml_dist.local.group import GroupRun
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

Launcher = Literal["torchrun", "direct"]

LAUNCHERS: dict[str | None, tuple[str, ...]] = {
    None: ("direct", "torchrun"),
    "PyTorch": ("torchrun", "direct"),
    "TensorFlow": ("direct",),
    "Mpi": ("mpirun",),
    "Ray": ("ray",),
}
"""What can start the processes of each distribution here, the usual one first. None is a plain single process."""
HERE = tuple(LAUNCHERS)
"""The distributions that run here."""


class Local:
    """Runs jobs on this machine, each emulated node with a working directory of its own.

    Args:
        inputs: where the data of inputs is that only Azure ML can read, by name.
        root: the folder in which each run gets its own; `AZML_DIST_ROOT`, or `~/.azml_dist/runs`, if not given.
        launcher: `"torchrun"`, or `"direct"`: the same world without torchrun, started in milliseconds. Not given,
            PyTorch jobs use torchrun where torch is installed.
        timeout: seconds after which a run is canceled, in place of the job's own.
        python: the Python whose torchrun is used, and which `python` means in the command; the one that runs this.
        retries: how often a run whose processes fail is started again: under the same name, with fresh working
            directories, and with what was written to its outputs.
        preempt_after: seconds, from when all processes of the first attempt run, after which its nodes are taken away,
            as those of low priority are on Azure ML: all are killed at once, and a further attempt begins.
        hosts: `"apart"` gives each node a network of its own, as machines have: `localhost` is another on each
            (Linux, as root). Not given, all nodes are this machine.
        service: what Azure ML is taken to do where its documentation is silent.
        grace: seconds between the request to end (SIGTERM) and the end (SIGKILL) of processes that are stopped.
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
        hosts: Literal["apart"] | None = None,
        service: Service = SERVICE,
        grace: float = 3.0,
    ) -> None:
        for name, seconds in (("timeout of", timeout), ("preemption after", preempt_after)):
            if seconds is not None and not seconds > 0:
                raise JobError(f"a {name} {seconds:g} s is none", hint="write a number of seconds above 0")
        if retries < 0:
            raise JobError(f"{retries} further attempts are none", hint="write how often a run may begin again")
        found = shutil.which(python or sys.executable)
        if not found:
            raise LaunchError(f"there is no Python at {python}", hint="give the path of the interpreter itself")
        self._inputs = dict(inputs or {})
        self._root = Path(root) if root else default_root()
        self._launcher = launcher
        self._timeout = timeout
        self._retries = retries
        self._preempt_after = preempt_after
        self._python = found
        self._apart = hosts == "apart"
        self._service = service
        self._grace = grace
        self._parent: str | None = None

    @overload
    def submit(self, job: Job, *, supervision: Supervision | None = None) -> LocalRun: ...
    @overload
    def submit(
        self, job: Sweep | Pipeline, *, supervision: Supervision | None = None, at_a_time: int = 1
    ) -> GroupRun: ...
    def submit(
        self, job: Job | Sweep | Pipeline, *, supervision: Supervision | None = None, at_a_time: int = 1
    ) -> LocalRun:
        """Start the job here and return its run, which goes on while this process lives.

        A sweep runs its trials one after another, or `at_a_time`; a pipeline its steps, each after those it needs.
        `supervision` is a supervisor that was started ahead. Raises `JobError` for inputs that are not here,
        `LaunchError` where the run cannot be started.
        """
        if not isinstance(job, Job):
            from azml_dist.local.group import start

            return start(job, self, at_a_time, supervision)
        try:
            plan = self.plan(job)
            launcher = self._launcher_of(plan)
            supervision = supervision or Supervision(self._python if launcher == "torchrun" else None)
            folder = self.make_folder(plan.job)
            try:
                return self._start(plan, launcher, folder, supervision)
            except BaseException as error:
                shutil.rmtree(folder.path, ignore_errors=True)
                if isinstance(error, OSError):
                    raise _cannot_write(folder.path, error) from error
                raise
        except BaseException:
            if supervision:
                supervision.end()
            raise

    def member_of(self, parent: str) -> Local:
        """The executor of the runs that a run here consists of: what was said about the whole is not said of each."""
        executor = copy.copy(self)
        executor._parent, executor._inputs, executor._timeout = parent, {}, None
        return executor

    @property
    def timeout(self) -> float | None:
        """Seconds after which a run is canceled."""
        return self._timeout

    @property
    def inputs(self) -> Mapping[str, str | os.PathLike[str]]:
        """Where the data of inputs is."""
        return self._inputs

    def plan(self, job: Job) -> LaunchPlan:
        """The plan of a job that can run here; raises where it cannot."""
        if sys.platform == "win32":
            raise LaunchError("jobs do not run on Windows itself", hint="run this inside WSL, where they do")
        if job.code and not job.code_folder:
            raise JobError(
                f"{job.code} is a code asset in Azure ML, and not on this machine",
                hint="run it here from its folder: `--set code=PATH`",
                where="code",
            )
        if self._apart:
            check_apart()
        job = with_inputs(job, self._inputs)
        refuse_open_inputs(job)
        staging.refuse_remote_inputs(job)
        plan = replace(job.plan(), service=self._service)
        if plan.world.distribution not in HERE:
            raise LaunchError(
                f"{plan.world.distribution} jobs do not run here yet; they can be planned",
                hint="PyTorch, MPI, TensorFlow, Ray and single-process jobs run here",
            )
        if plan.world.distribution == "TensorFlow" and "TF_CONFIG" in os.environ:
            raise LaunchError(
                "TF_CONFIG is set in your environment: this shell belongs to some other TensorFlow run",
                hint="`unset TF_CONFIG`; each task of this run gets its own",
            )
        return plan

    def _launcher_of(self, plan: LaunchPlan) -> str:
        usual, *others = LAUNCHERS[plan.world.distribution]
        if usual == "ray":
            assert isinstance(plan.job.distribution, Ray)
            if plan.job.distribution.address:
                return "direct"
            self._check_ray(plan.job.distribution)
        if self._launcher and self._launcher not in (usual, *others):
            raise LaunchError(
                f"{self._launcher} does not start {plan.world.distribution} jobs", hint="leave the launcher out"
            )
        return self._launcher or usual

    def _check_ray(self, ray: Ray) -> None:
        if not has_module(self._python, "ray"):
            raise LaunchError(
                f"{self._python} has no ray, which starts the cluster of a Ray job",
                hint="`pip install 'azml-dist[ray]'`, or give the `address` of a cluster that is there",
            )
        if ray.include_dashboard and not has_module(self._python, "aiohttp_cors"):
            raise LaunchError(
                f"the job has `include_dashboard`, and the ray of {self._python} came without its dashboard",
                hint="`pip install 'ray[default]'`, or leave `include_dashboard` out",
            )

    def _start(self, plan: LaunchPlan, launcher: str, folder: RunFolder, supervision: Supervision) -> LocalRun:
        lock = folder.lock()
        ports = Ports(apart=self._apart)
        temp = Path(supervision.temp)
        try:
            path = _without_blanks(folder.path, temp)
            attempts = 1 + self._retries + (self._preempt_after is not None)
            found = places(plan, path, temp, ports, attempts, apart=self._apart)
            plans = [plan.at(replace(place, root_run_id=self._parent or "")) for place in found]
            state = _first_state(plans[0], folder)
            state.parent = self._parent
            folder.write(state)
            for working_dir in plans[0].place.working_dirs:
                staging.stage_code(plan.code, Path(working_dir))
            if attempts > 1:
                staging.stage_code(plan.code, path / SNAPSHOT)
            for name in ("user_logs", "system_logs"):
                (folder.path / name).mkdir()
            folder.reserve()
            (folder.path / "plan.json").write_text(json.dumps(_unsecret(plans[0]).to_dict(), indent=1))
            spec = self._specification(plans[0], folder, state, supervision.temp) | {"launcher": launcher}
            spec["attempts"] = [self._attempt(one, spec, ports) for one in plans]
            state.launcher = launcher
            folder.write(state)
            supervision.hand_over(spec, [lock, *ports.held])
            return LocalRun(folder, supervision)
        finally:
            ports.close()
            os.close(lock)

    def make_folder(self, job: Job) -> RunFolder:
        """An empty folder for a run of that job."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            remember_root(self._root)
            root = self._root.resolve()
            while True:
                name = job.name or new_name(job)
                try:
                    (root / name).mkdir()
                except FileExistsError:
                    if job.name:
                        raise JobError(
                            f"a run named {name} is in {root} already",
                            hint="give the job another `name`, or none, and each run gets its own",
                            where="name",
                        ) from None
                else:
                    return RunFolder(root / name)
        except OSError as error:
            raise _cannot_write(self._root, error) from error

    def _specification(self, plan: LaunchPlan, folder: RunFolder, state: RunState, temp: str) -> dict[str, Any]:
        """All that the supervisor needs to know, values of the caller's own variables included: it is never written."""
        world = plan.world
        base = base_environment(self._python, temp)
        bash = shutil.which("bash", path=base.get("PATH"))
        if bash is None:
            raise LaunchError("bash is not installed; Azure ML runs commands with it", hint="install bash")
        mpi = find_mpirun(self._python, base["PATH"]) if world.distribution == "Mpi" else None
        state.launcher_version = str(mpi) if mpi else None
        slices, finding = share(visible_gpus(base), world.node_count, world.process_count_per_node)
        state.findings += [finding] if finding else []
        return {
            "folder": str(folder.path),
            "temp": temp,
            "memory": memory_of(temp),
            "launcher_is_chosen": self._launcher is not None,
            "python": self._python,
            "argv": [bash, "-c", plan.command],
            "base_env": base,
            "node_count": world.node_count,
            "process_count": world.process_count_per_node,
            "apart": self._apart,
            "hosts": list(plan.place.addresses),
            "mpirun": mpi,
            "naming_hosts": naming_hosts() if mpi and world.node_count > 1 and not self._apart else None,
            "slices": slices,
            "staged": staging.stamps(plan.code),
            "timeout": self._timeout or plan.job.timeout,
            "retries": self._retries,
            "preempt_after": self._preempt_after,
            "grace": self._grace,
        }

    def _attempt(self, plan: LaunchPlan, spec: dict[str, Any], ports: Ports) -> dict[str, Any]:
        """What each attempt of a run has of its own."""
        attempt: dict[str, Any] = {
            "nodes": list(plan.place.working_dirs),
            "contexts": [
                {
                    "rank": process.rank,
                    "node_rank": process.node_rank,
                    "local_rank": process.local_rank,
                    "env": {
                        "PWD": plan.place.working_dir(process.node_rank),
                        "MLFLOW_ALLOW_FILE_STORE": "true",
                        **process.env,
                        **spec["slices"][process.node_rank],
                    },
                }
                for process in plan.processes
            ],
            "launcher_port": ports.take(),
            "port_in_use": None if plan.place.master_port == str(usual_port(plan)) else usual_port(plan),
        }
        if isinstance(ray := plan.job.distribution, Ray) and spec["launcher"] == "ray":
            attempt["ray"] = node_commands(ray, self._python, plan.place, ports)
        return attempt


def default_root() -> Path:
    """Where runs go if nobody says otherwise."""
    return Path(os.environ.get("AZML_DIST_ROOT") or Path.home() / ".azml_dist" / "runs")


def remember_root(root: Path) -> None:
    """Note a folder of runs, so that `azml-dist status NAME` finds them from anywhere."""
    with contextlib.suppress(OSError):
        file = _roots_file()
        if str(root.resolve()) not in known_roots():
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "a") as roots:
                roots.write(f"{root.resolve()}\n")


def known_roots() -> list[str]:
    """Every folder that runs were put into, the default one first."""
    try:
        noted = _roots_file().read_text().splitlines()
    except OSError:
        noted = []
    return list(dict.fromkeys([str(default_root()), *noted]))


def _roots_file() -> Path:
    return Path.home() / ".azml_dist" / "roots"


def _first_state(plan: LaunchPlan, folder: RunFolder) -> RunState:
    return RunState(
        name=folder.path.name,
        folder=str(folder.path),
        processes=[
            ProcessState(p.rank, p.node_rank, p.local_rank, p.log, p.role, p.role in plan.service.serving_roles)
            for p in plan.processes
        ],
        world=plan.world._asdict(),
        display_name=plan.job.display_name,
        created_at=time.time(),
    )


def _unsecret(plan: LaunchPlan) -> LaunchPlan:
    return plan.at(replace(plan.place, own_variables={}))


def _without_blanks(folder: Path, temp: Path) -> Path:
    """The run's folder under a path that needs no quotes in a command: its own, or a link to it."""
    if needs_no_quotes(str(folder)):
        return folder
    link = temp / folder.name
    link.symlink_to(folder)
    return link


def _cannot_write(path: Path, error: OSError) -> LaunchError:
    return LaunchError(f"cannot write {path}: {error.strerror}", hint="choose another folder with `--root`")
