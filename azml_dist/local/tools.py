"""What one run is started with: its Python, its launcher, and the containers of its nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.local import processes
from azml_dist.local.environment import has_module
from azml_dist.local.options import Setup
from azml_dist.model.parts import Ray
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.world import World

if TYPE_CHECKING:
    from azml_dist.local.containers.prepare import Containers
    from azml_dist.local.packages import Made

LAUNCHERS: dict[str | None, tuple[str, ...]] = {
    None: ("direct", "torchrun"),
    "PyTorch": ("torchrun", "direct"),
    "TensorFlow": ("direct",),
    "Mpi": ("mpirun",),
    "Ray": ("ray",),
}
"""What can start the processes of each distribution, the default first. None is a plain single process."""
HERE = tuple(LAUNCHERS)
"""The distributions that run on this machine."""


class Tools(NamedTuple):
    """What a run is started with."""

    launcher: str
    python: str
    """The interpreter that has the launcher, and that `python` runs in the command."""
    note: str | None = None
    """What is not as the environment of the job has it."""
    containers: Containers | None = None
    """The engine and the image, if the nodes are containers."""


def tools_of(setup: Setup, plan: LaunchPlan, tell: Callable[[str], None] | None = None) -> Tools:
    """Prepares what a run of this plan is started with: an image or a virtual environment, if it needs one.

    Raises `LaunchError` if the run cannot be started with it on this machine, and `JobError` for a fault that cannot
    happen in it.
    """
    python, note, containers = setup.python, None, None
    if setup.options.image:
        from azml_dist.local.containers.prepare import containers_of

        containers = containers_of(plan, tell)
    elif setup.options.packages == "job":
        python, note = _own_packages(setup, plan, tell)
    # The torchrun of this Python is not in the image.
    launcher = "direct" if containers else _launcher(setup, plan, python)
    setup.rehearsal.check(plan, apart=setup.is_apart)
    _check_open_files(plan.world, launcher, setup.attempts)
    return Tools(launcher, python, note, containers)


def environment_of(setup: Setup, plan: LaunchPlan) -> object:
    """The environment of a job, with what it installs, if that is known."""
    return (setup.rerun and setup.rerun.environment) or plan.job.environment


def _own_packages(setup: Setup, plan: LaunchPlan, tell: Callable[[str], None] | None) -> Made:
    from azml_dist.local import packages

    if tell:
        tell("preparing the packages of the job")
    return packages.environment_of(environment_of(setup, plan))


def _launcher(setup: Setup, plan: LaunchPlan, python: str) -> str:
    """The launcher that was asked for, or the usual one; raises if it cannot start such a job here."""
    distribution, wanted = plan.world.distribution, setup.options.launcher
    usual, *others = LAUNCHERS[distribution]
    if usual == "ray":
        assert isinstance(plan.job.distribution, Ray)
        if plan.job.distribution.address:
            return "direct"
        _check_ray(plan.job.distribution, python, keep_pythonpath=setup.options.keep_pythonpath)
    if wanted and wanted not in (usual, *others):
        raise LaunchError(f"{wanted} cannot start {distribution} jobs", hint="leave out the launcher")
    return wanted or usual


def _check_ray(ray: Ray, python: str, *, keep_pythonpath: bool) -> None:
    if not has_module(python, "ray", keep_pythonpath=keep_pythonpath):
        raise LaunchError(
            f"{python} has no ray, which is needed for Ray jobs",
            hint="`pip install 'azml-dist[ray]'`, or give the `address` of an existing cluster",
        )
    if ray.include_dashboard and not has_module(python, "aiohttp_cors", keep_pythonpath=keep_pythonpath):
        raise LaunchError(
            f"the job sets `include_dashboard`, but ray was installed without its dashboard in {python}",
            hint="`pip install 'ray[default]'`, or leave out `include_dashboard`",
        )


def _check_open_files(world: World, launcher: str, attempts: int) -> None:
    """Refuse a run that would run out of file descriptors halfway."""
    # In each attempt: one port for the processes, one for their launcher, and one for each task of TensorFlow.
    ports = attempts * (2 + (world.world_size if world.distribution == "TensorFlow" else 0))
    limit = processes.file_limit()
    if ports + processes.open_files() > limit[0]:
        raise LaunchError(
            f"the ports of this run need {ports:,} open files; the limit is {limit[0]:,}",
            hint=f"run `ulimit -Sn {min(limit[1], 2 * ports + 100)}` first, or allow fewer attempts",
        )
    needed = ports + processes.files_of(launcher, world.node_count, world.process_count_per_node)
    if needed > processes.most_files(limit):
        raise LaunchError(
            f"{world.world_size} processes need about {needed:,} open files; the hard limit is "
            f"{processes.most_files(limit):,}",
            hint=f"raise the hard limit to {needed:,} or more (`ulimit -Hn` shows it), or run fewer processes",
        )
