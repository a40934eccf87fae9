"""Starts one run: prepares its folder and its ports, and hands it over to its supervisor."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.local import staging
from azml_dist.local.debug import Debugged, debugged
from azml_dist.local.environment import base_environment, left_out
from azml_dist.local.gpus import NVIDIA_SMI, counted_by_nvidia_smi, no_gpu_here, share, visible_gpus
from azml_dist.local.handover import memory_of
from azml_dist.local.kept import keep_run
from azml_dist.local.launchers.hosts import naming_hosts
from azml_dist.local.launchers.openmpi import OpenMpi, find_mpirun
from azml_dist.local.launchers.own_tmp import shared_tmp
from azml_dist.local.launchers.ray_start import node_commands
from azml_dist.local.options import Setup
from azml_dist.local.outside import modules_from_outside
from azml_dist.local.places import places, usual_port
from azml_dist.local.ports import Ports
from azml_dist.local.roots import runs_in_code
from azml_dist.local.run import LocalRun
from azml_dist.local.services import services_of
from azml_dist.local.state import ARTIFACTS, SNAPSHOT, ProcessState, RunFolder, RunState
from azml_dist.local.supervision import Supervision, needs_no_quotes
from azml_dist.local.tmp import own_tmp, user_of_tmp, who_mentions
from azml_dist.local.tools import Tools, environment_of
from azml_dist.local.tracking.begin import Tracking, begin_tracking
from azml_dist.local.versions import other_versions_here
from azml_dist.local.watch.place import make_place
from azml_dist.local.watch.place import variables as watch_variables
from azml_dist.model.parts import Ray
from azml_dist.plan.installs import installed_by
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.platform import node_variables
from azml_dist.plan.probed import probed_findings

if TYPE_CHECKING:
    from azml_dist.local.spec import AttemptSpec, OwnTmp, WholeSpec


def start_run(
    setup: Setup,
    tools: Tools,
    plan: LaunchPlan,
    folder: RunFolder,
    lock: int,
    supervision: Supervision,
    tell: Callable[[str], None] | None = None,
) -> LocalRun:
    """Start the processes of a plan in the folder of a run, and return that run.

    `lock` shows that the run is alive; `tell` gets what is being prepared, in words. Raises `LaunchError` or `OSError`
    if that is not possible; the folder is then left as it is.
    """
    tracking = begin_tracking(plan.job, folder.path, plan.service)
    ports = Ports(apart=setup.is_apart or setup.options.image)
    try:
        start = RunStart(setup, tools, folder, supervision.temp, ports, tracking)
        spec = start.prepare(plan, tell)
        supervision.hand_over(spec, [lock, *ports.held, tracking.listener.fileno()])
        return LocalRun(folder, supervision, outlives=setup.options.detach)
    finally:
        tracking.listener.close()
        ports.close()


class _Machine(NamedTuple):
    """What the processes of a run find on this machine."""

    variables: dict[str, str]
    """The caller's environment, without variables of another run."""
    bash: str
    mpi: OpenMpi | None
    slices: list[dict[str, str]]
    """The `CUDA_VISIBLE_DEVICES` of each node."""
    user_of_tmp: str | None
    """What uses `/tmp`."""


class RunStart(NamedTuple):
    """One run until its supervisor takes over."""

    setup: Setup
    tools: Tools
    folder: RunFolder
    temp: str
    """A folder with a short path, for sockets, links and scripts."""
    ports: Ports
    tracking: Tracking

    def prepare(self, plan: LaunchPlan, tell: Callable[[str], None] | None) -> WholeSpec:
        """Fill the folder of the run, and return everything that its supervisor needs."""
        setup, options = self.setup, self.setup.options
        path = _without_blanks(self.folder.path, Path(self.temp))
        plans = self._plans(plan, path)
        first = plans[0]
        if setup.rerun:
            staging.put_back(setup.rerun.outputs, first.place.outputs)
        state = self._first_state(first)
        self.folder.write(state)
        self._stage(first, path, tell)
        keep_run(plan, self.folder.path)
        self.folder.reserve()
        (self.folder.path / "plan.json").write_text(json.dumps(_unsecret(first).to_dict(), indent=1))
        waiting = debugged(options.debug_rank, first, self.tools.python, self.ports, watch=setup.watch)
        state.findings += waiting.told(plan.job.local_code) if waiting else []
        state.findings += setup.pdb.told() if setup.pdb else []
        machine = self._look_around(first, state)
        # A rank that waits for an editor is no hang, and Ray's processes are not looked at.
        is_judged = setup.watch and first.world.distribution != "Ray" and not (waiting or setup.pdb)
        spec = self._specification(first, machine, options.stall_after if is_judged else 0)
        self._add_services(spec, first, state)
        spec["attempts"] = [self._attempt(one, spec, waiting) for one in plans]
        state.launcher = self.tools.launcher
        self.folder.write(state)
        return spec

    def _plans(self, plan: LaunchPlan, path: Path) -> list[LaunchPlan]:
        """The plan of each attempt, with everything in it that is known now."""
        setup, rerun = self.setup, self.setup.rerun
        found = places(
            plan,
            path,
            Path(self.temp),
            self.ports,
            setup.attempts,
            self.tracking,
            apart=setup.is_apart,
            linked=setup.rehearsal.inputs,
            secrets=rerun.secrets if rerun else None,
        )
        plans = [plan.at(replace(place, root_run_id=setup.parent or "")) for place in found]
        _refuse_marks(plans)
        return plans

    def _first_state(self, plan: LaunchPlan) -> RunState:
        """The state of the run before its processes start."""
        setup, rerun = self.setup, self.setup.rerun
        state = RunState(
            name=self.folder.path.name,
            folder=str(self.folder.path),
            processes=[
                ProcessState(p.rank, p.node_rank, p.local_rank, p.log, p.role, p.role in plan.service.serving_roles)
                for p in plan.processes
            ],
            world=plan.world._asdict(),
            display_name=plan.job.display_name,
            created_at=time.time(),
            file=plan.job.file and os.path.abspath(plan.job.file),
            script=plan.job.script,
        )
        state.python = self.tools.python
        state.parent = setup.parent
        if rerun:
            state.origin = rerun.origin._asdict()
            state.findings += rerun.notes
        state.step_pattern, state.against = setup.options.step_pattern, setup.rehearsal.reference()
        state.faults = setup.rehearsal.records(plan)
        return state

    def _stage(self, plan: LaunchPlan, path: Path, tell: Callable[[str], None] | None) -> None:
        """Copy the code into the working directory of each node, and make the folders of the logs."""
        copies = [Path(working_dir) for working_dir in plan.place.working_dirs]
        copies += [path / SNAPSHOT] if self.setup.attempts > 1 else []
        told = staging.Staging(plan.code, len(copies), tell) if tell else None
        for copy_of_code in copies:
            staging.stage_code(plan.code, copy_of_code, told)
        for name in ("user_logs", "system_logs"):
            (self.folder.path / name).mkdir()
        if (self.folder.path / ARTIFACTS).is_dir():
            staging.link_logs(self.folder.path, (process.log for process in plan.processes))

    def _look_around(self, plan: LaunchPlan, state: RunState) -> _Machine:
        """What this machine has for the run. What differs from Azure ML is added to the findings."""
        tools, options, world = self.tools, self.setup.options, plan.world
        base = base_environment(tools.python, self.temp, keep_pythonpath=options.keep_pythonpath)
        bash = shutil.which("bash", path=base.get("PATH"))
        if bash is None:
            raise LaunchError("bash is not installed; Azure ML runs commands with bash", hint="install bash")
        mpi = find_mpirun(tools.python, base["PATH"]) if world.distribution == "Mpi" else None
        state.launcher_version = str(mpi) if mpi else None
        gpus = visible_gpus(base)
        slices, finding = share(gpus, world.node_count, world.process_count_per_node)
        smi = counted_by_nvidia_smi(who_mentions(NVIDIA_SMI, plan.code, plan.command), gpus, slices) if gpus else None
        # In a container, each node has its own files, packages and Python.
        used_by = None if options.image else user_of_tmp(plan.code, plan.command)
        shared = shared_tmp(used_by, f"on {sys.platform}") if used_by and sys.platform != "linux" else None
        dropped = None if options.keep_pythonpath else left_out(plan.job.environment_variables)
        versions = None if options.image else other_versions_here(tools.python, environment_of(self.setup, plan))
        if world.distribution == "Ray" and options.stall_timeout:
            # What Ray starts belongs to its daemons, which are never quite idle.
            state.findings.append("Ray jobs are not watched for hangs: `--stall-timeout` does nothing")
        state.findings += filter(
            None,
            [
                *(finding, no_gpu_here(plan.job, gpus), smi, dropped, shared, versions, tools.note),
                runs_in_code(plan.code, self.setup.root),
                _installs_here(plan) if options.packages == "here" and not options.image else None,
            ],
        )
        state.findings += [str(one) for one in probed_findings(plan.processes)]
        if other := plan.place.mpi_master_port:
            state.findings.append(
                f"port {usual_port(plan)}, which DeepSpeed and others choose in MPI jobs, is in use: this run sets"
                f" MASTER_PORT to {other}, which Azure ML does not set"
            )
        state.findings += [tools.containers.finding] if tools.containers else []
        return _Machine(base, bash, mpi, slices, used_by)

    def _specification(self, plan: LaunchPlan, machine: _Machine, stall_after: float) -> WholeSpec:
        """What is the same in all attempts. It includes the caller's variables, so it is never written to disk."""
        setup, options, world, base = self.setup, self.setup.options, plan.world, machine.variables
        return {
            "folder": str(self.folder.path),
            "temp": self.temp,
            "memory": memory_of(self.temp),
            "launcher": self.tools.launcher,
            "launcher_is_chosen": options.launcher is not None,
            "python": self.tools.python,
            "argv": [machine.bash, "-c", plan.command],
            "base_env": base,
            "node_count": world.node_count,
            "process_count": world.process_count_per_node,
            "apart": setup.is_apart,
            "hosts": list(plan.place.addresses),
            "mpirun": machine.mpi,
            "naming_hosts": naming_hosts() if machine.mpi and world.node_count > 1 and not setup.is_apart else None,
            "slices": machine.slices,
            "staged": staging.stamps(plan.code),
            "from_outside": self._modules_from_outside(plan, base),
            "keep_pythonpath": options.keep_pythonpath,
            "tmp": self._own_tmp(plan, machine),
            "timeout": options.timeout or plan.job.timeout,
            "retries": options.retries,
            "faults": [fault.to_dict() for fault in setup.rehearsal.drawn_for(plan)],
            "step_pattern": setup.rehearsal.step_pattern,
            "inputs": dict(plan.place.inputs),
            "grace": options.grace,
            "detached": options.detach,
            "services": [],
            "watch": make_place(self.temp, self.folder.path) if setup.watch else None,
            "stall_after": stall_after,
            "stall_timeout": options.stall_timeout if world.distribution != "Ray" else None,
            "tracking": self.tracking.specification(),
            "file_limit": None,
            "attempts": [],
        }

    def _modules_from_outside(self, plan: LaunchPlan, base: dict[str, str]) -> list[str]:
        if self.setup.options.image:
            return []
        return modules_from_outside(
            plan.code, plan.command, plan.job.environment_variables, self.tools.python, base.get("PYTHONPATH")
        )

    def _own_tmp(self, plan: LaunchPlan, machine: _Machine) -> OwnTmp | None:
        if self.setup.options.image:
            return None
        paths = (self.tools.python, self.temp, str(self.folder.path))
        return own_tmp(plan, machine.variables, machine.user_of_tmp, *paths)

    def _add_services(self, spec: WholeSpec, plan: LaunchPlan, state: RunState) -> None:
        options = self.setup.options
        if options.services:
            found = services_of(plan.job, self.tools.python, self.ports, keep_pythonpath=options.keep_pythonpath)
            spec["services"], state.services = found.specs, found.states
            state.findings += found.findings

    def _attempt(self, plan: LaunchPlan, spec: WholeSpec, waiting: Debugged | None) -> AttemptSpec:
        """What differs between the attempts of a run."""
        attempt: AttemptSpec = {
            "nodes": list(plan.place.working_dirs),
            "tmp_folders": [
                os.path.join(spec["folder"], "tmp", str(plan.place.attempt), str(node))
                for node in range(plan.world.node_count)
            ],
            "contexts": [
                {
                    "rank": process.rank,
                    "node_rank": process.node_rank,
                    "local_rank": process.local_rank,
                    "env": {
                        "PWD": plan.place.working_dir(process.node_rank),
                        **process.env,
                        **self.tracking.environment({**spec["base_env"], **process.env}),
                        **watch_variables(spec["watch"], {**spec["base_env"], **process.env}),
                        **spec["slices"][process.node_rank],
                        **(waiting.variables(process.rank) if waiting else {}),
                        **(self.setup.pdb.variables(process.rank) if self.setup.pdb else {}),
                    },
                }
                for process in plan.processes
            ],
            "launcher_port": self.ports.take(),
            "containers": None,
            "port_in_use": usual_port(plan) if plan.place.mpi_master_port else None,
        }
        if containers := self.tools.containers:
            variables = {name for context in attempt["contexts"] for name in context["env"]}
            attempt["containers"] = containers.of_an_attempt(plan, spec["temp"], variables, spec["slices"])
        if isinstance(ray := plan.job.distribution, Ray) and spec["launcher"] == "ray":
            attempt["ray"] = node_commands(ray, self.tools.python, plan.place, self.ports)
            attempt["node_env"] = [node_variables(plan.processes, node) for node in range(plan.world.node_count)]
        return attempt


def _installs_here(plan: LaunchPlan) -> str | None:
    """A finding if the command changes what is installed on this machine."""
    said = installed_by(plan.job.shell_command)
    return said and (
        f"`{said}` changes the packages of this machine: leave it out here, or run with `--packages job`, which makes"
        " an environment for the job"
    )


def _refuse_marks(plans: Sequence[LaunchPlan]) -> None:
    """Raise if a placeholder is left in a plan: bash would read `<input a>` as redirections, and overwrite files."""
    if marks := [mark for plan in plans for mark in plan.marks]:
        raise LaunchError(
            f"the run was not started: its command or environment needs the {marks[0]}, which is unknown",
            hint="this is a bug in azml_dist: please report it with the job",
        )


def _unsecret(plan: LaunchPlan) -> LaunchPlan:
    return plan.at(replace(plan.place, own_variables={}))


def _without_blanks(folder: Path, temp: Path) -> Path:
    """A path of the run's folder that needs no quotes in a command: its own, or a link to it."""
    if needs_no_quotes(str(folder)):
        return folder
    link = temp / folder.name
    link.symlink_to(folder)
    return link
