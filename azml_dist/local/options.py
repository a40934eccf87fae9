"""What `Local` is told, and what that means on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from azml_dist.errors import JobError, LaunchError
from azml_dist.local.debug import PostMortem, post_mortem
from azml_dist.local.faults.rehearsal import Rehearsal
from azml_dist.local.roots import default_root
from azml_dist.plan.world import Service
from azml_dist.runs.limits import check_amount, check_count

if TYPE_CHECKING:
    from azml_dist.runs.rerun import Rerun

Launcher = Literal["torchrun", "direct"]


class Options(NamedTuple):
    """The arguments of `Local`, which explains each of them."""

    inputs: Mapping[str, str | os.PathLike[str]]
    """The members of a sweep or pipeline have none: theirs are in their jobs."""
    root: str | os.PathLike[str] | None
    launcher: Launcher | None
    timeout: float | None
    """That of a sweep or pipeline is for all its members together."""
    python: str | None
    retries: int
    preempt_after: float | None
    faults: Sequence[str]
    fault_seed: int
    step_pattern: str | None
    against: str | None
    hosts: Literal["apart"] | None
    keep_pythonpath: bool
    packages: Literal["here", "job"]
    image: bool
    stall_after: float
    stall_timeout: float | None
    debug_rank: int | None
    pdb: bool
    services: bool
    watch: bool
    service: Service | None
    grace: float
    detach: bool


class Setup(NamedTuple):
    """The options with what they mean on this machine, found out once, and what is special about these runs."""

    options: Options
    python: str
    """The path of the interpreter."""
    root: Path
    """The folder of runs."""
    rehearsal: Rehearsal
    """The faults to inject."""
    pdb: PostMortem | None
    """The terminal at which pdb opens."""
    parent: str | None = None
    """The name of the sweep or pipeline that the runs are members of."""
    rerun: Rerun | None = None
    """What a run repeats, if it repeats one."""

    @classmethod
    def of(cls, options: Options) -> Setup:
        """Raises `JobError` for options that make no sense or exclude each other, and `LaunchError` for what this
        machine does not have."""
        _check_numbers(options)
        python = shutil.which(options.python or sys.executable)
        if not python:
            raise LaunchError(f"no Python at {options.python}", hint="give the path of the interpreter itself")
        root = Path(options.root) if options.root else default_root()
        rehearsal = _rehearsal(options)
        _check_packages(options)
        if options.image:
            _check_image(options)
        if options.detach and options.pdb:
            hint = "leave out one of the two"
            raise JobError("pdb needs your terminal, which a detached run does not have", hint=hint)
        pdb = post_mortem(options.pdb, watch=_is_watched(options))
        return cls(options, python, root, rehearsal, pdb)

    @property
    def watch(self) -> bool:
        """Whether the start-up module of the watch runs in every process."""
        return _is_watched(self.options)

    @property
    def is_apart(self) -> bool:
        """Whether each node has its own network."""
        return self.options.hosts == "apart"

    @property
    def attempts(self) -> int:
        """The greatest number of attempts that a run may have."""
        return 1 + self.options.retries + self.rehearsal.preemptions


def _is_watched(options: Options) -> bool:
    return options.watch and not options.image  # a container has no start-up module


def _rehearsal(options: Options) -> Rehearsal:
    has_faults = isinstance(options.faults, str) or options.faults or options.preempt_after is not None
    if not has_faults and options.step_pattern is None and not options.against:
        return Rehearsal()
    from azml_dist.local.faults.wanted import wanted

    return wanted(options.faults, options.preempt_after, options.fault_seed, options.step_pattern, options.against)


def _check_numbers(options: Options) -> None:
    check_amount("stall_after", options.stall_after, zero=True, hint="give a number of seconds, or 0 for no notes")
    check_amount("stall_timeout", options.stall_timeout, hint="leave it out to let a hung run continue")
    if options.stall_timeout is not None and not options.watch:
        raise JobError("`stall_timeout` needs the watch, which is off", hint="leave out one of the two options")
    check_amount("timeout", options.timeout)
    check_amount("preempt_after", options.preempt_after)
    check_amount("grace", options.grace, zero=True)
    check_count("retries", options.retries, 0, hint="give the number of times to restart a failed run")


def _check_packages(options: Options) -> None:
    if options.packages not in ("here", "job"):
        raise JobError(f"`packages` cannot be `{options.packages}`", hint="write `here` or `job`")
    if options.packages == "job" and options.python:
        raise JobError("the packages of the job come with their own Python", hint="leave `python` out")


def _check_image(options: Options) -> None:
    _refuse_with_image(
        python=options.python,
        packages=options.packages == "job",
        hosts=options.hosts,
        faults=options.faults,
        preempt_after=options.preempt_after,
        debug_rank=options.debug_rank is not None,
        pdb=options.pdb,
        stall_timeout=options.stall_timeout,
        keep_pythonpath=options.keep_pythonpath,
        services=options.services,
        launcher=options.launcher == "torchrun",
    )


def _refuse_with_image(**others: object) -> None:
    """Raises `JobError` for what does not work in containers."""
    if given := [name for name, value in others.items() if value]:
        option = _OPTIONS.get(given[0], f"--{given[0].replace('_', '-')}")
        raise JobError(f"`{option}` does not work in containers", hint=f"leave out `--image` or `{option}`")


_OPTIONS = {"hosts": "--apart", "packages": "--packages job", "faults": "--fault", "launcher": "--launcher torchrun"}
