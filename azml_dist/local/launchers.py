"""What starts the processes of a world, and learns how each ended: torchrun, mpirun, or the supervisor itself.

A launcher reports to the run it belongs to through `started` and `ended`; to the rest of the run they are all alike.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from azml_dist.local.hosts import Hosts
    from azml_dist.local.torchrun import Host

Spec = dict[str, Any]
"""What the executor asks of the supervisor; see `executor.specification`."""

FOLDER = Path(__file__).parent
"""Where the scripts are that launchers start by their paths."""
REPORT_GRACE = 0.5
"""Seconds for a rank's own report to arrive, once its launcher has given up."""


class Exit(NamedTuple):
    """How the process of a rank ended. `stopped` where a signal to stop had reached it before."""

    rank: int
    code: int | None
    signal: int | None
    stopped: bool = False
    time: float = 0.0


class LaunchFailed(Exception):
    """The processes could not be started, or their launcher broke."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Run(Protocol):
    """What a launcher needs of the run it serves."""

    @property
    def stopping(self) -> bool: ...
    @property
    def hosts(self) -> Hosts: ...
    def watch(self, fd: int, callback: Callable[[], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def started(self, rank: int, pid: int, output: int) -> None: ...
    def ended(self, exits: list[Exit]) -> None: ...
    def fell_back(self, launcher: str, finding: str) -> None: ...


class Launcher(Protocol):
    """Starts every process of the world."""

    def start(self) -> None: ...
    def turn(self, children: list[tuple[int, int]]) -> None:
        """Called at each turn of the run's loop, with the children that ended: ids and wait statuses."""

    def stop(self) -> None:
        """Start no more. The ranks themselves are stopped by their run."""

    def close(self) -> str | None:
        """Called when no rank is left, before whatever else is left gets killed; where a failure may be explained."""


def make_launcher(spec: Spec, run: Run, host: Host | None) -> Launcher:
    """The launcher that the specification names; `host` is the process that torchrun's `start_host` started ahead."""
    if spec["launcher"] == "ray":
        from azml_dist.local.ray_cluster import RayCluster

        return RayCluster(spec, run)
    if spec["launcher"] == "torchrun":
        from azml_dist.local.torchrun import Torchrun, start_host

        return Torchrun(spec, run, host or start_host(spec["python"], spec["temp"]))
    if spec["launcher"] == "mpirun":
        from azml_dist.local.mpirun import Mpirun

        return Mpirun(spec, run)
    return Direct(spec, run)


class Direct:
    """Every rank is a child of the supervisor."""

    def __init__(self, spec: Spec, run: Run) -> None:
        self._spec, self._run = spec, run
        self._ranks: dict[int, int] = {}
        self._started = False

    @property
    def is_done(self) -> bool:
        """All ranks have been started, and have ended."""
        return self._started and not self._ranks

    def start(self) -> None:
        for context in self._spec["contexts"]:
            output, theirs = os.pipe()
            try:
                pid = spawn(
                    [*self._run.hosts.enter(context["node_rank"]), *self._spec["argv"]],
                    self._spec["nodes"][context["node_rank"]],
                    self._spec["base_env"] | context["env"],
                    theirs,
                )
            finally:
                os.close(theirs)
            self._ranks[pid] = context["rank"]
            self._run.started(context["rank"], pid, output)
        self._started = True

    def turn(self, children: list[tuple[int, int]]) -> None:
        now = time.monotonic()
        mine = [(pid, status) for pid, status in children if pid in self._ranks]
        self._run.ended([Exit(self._ranks.pop(pid), *ending(status), time=now) for pid, status in mine])

    def stop(self) -> None:
        pass

    def close(self) -> str | None:
        return None


def spawn(argv: list[str], cwd: str, env: dict[str, str], output: int, stdin: int = subprocess.DEVNULL) -> int:
    """Start a process in a session of its own, both its outputs on one descriptor; its id."""
    try:
        child = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=stdin, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        raise LaunchFailed(f"{argv[0]} could not be started in {cwd}: {error.strerror}") from error
    child.returncode = 0  # the supervisor's loop collects all its children, this one too
    return child.pid


def ending(status: int) -> tuple[int | None, int | None]:
    """Exit code and signal of a wait status; one of them is None."""
    code = os.waitstatus_to_exitcode(status)
    return (None, -code) if code < 0 else (code, None)


def ending_words(code: int | None, signum: int | None) -> str:
    """How a process ended, for a message."""
    return f"was ended by signal {signum}" if code is None else f"ended with exit code {code}"
