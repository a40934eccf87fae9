"""What starts the processes of a world, and learns how each ended: torchrun, or the supervisor itself.

A launcher reports to the run it belongs to through `started` and `ended`; to the rest of the run they are all alike.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from azml_dist.local import processes
from azml_dist.local.environment import base_environment

Spec = dict[str, Any]
"""What the executor asks of the supervisor; see `executor.specification`."""

_HERE = Path(__file__).parent
_AGENT_GRACE = 0.5
"""Seconds for a rank's own report to arrive, once its torchrun agent has given up."""


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


class Host(NamedTuple):
    """The process that becomes the torchrun agents, once it is told on the pipe `orders` for which world."""

    pid: int
    orders: int


def make_launcher(spec: Spec, run: Run, host: Host | None) -> Launcher:
    """The launcher that the specification names; `host` is what `start_host` has started ahead."""
    if spec["launcher"] == "ray":
        from azml_dist.local.ray_cluster import RayCluster

        return RayCluster(spec, run)
    if spec["launcher"] == "torchrun":
        return Torchrun(spec, run, host or start_host(spec["python"], spec["temp"]))
    return Direct(spec, run)


def start_host(python: str, temp: str) -> Host:
    """Start the process that imports torch, and then waits for its orders."""
    output = os.open(os.path.join(temp, "torchrun.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    orders, ours = os.pipe()
    try:
        argv = [python, str(_HERE / "torchrun_host.py"), os.path.join(temp, "s")]
        return Host(spawn(argv, temp, base_environment(python, temp), output, orders), ours)
    finally:
        os.close(output)
        os.close(orders)


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
                    self._spec["argv"],
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


class Torchrun:
    """One torchrun agent a node; in each process that it starts, `rank.py` stands before the user's command."""

    def __init__(self, spec: Spec, run: Run, host: Host) -> None:
        self._spec, self._run, self._host = spec, run, host
        self._contexts = {(c["node_rank"], c["local_rank"]): c for c in spec["contexts"]}
        self._logs = os.path.join(spec["folder"], "system_logs")
        self._direct: Direct | None = None
        self._broken: tuple[float, str] | None = None

    def start(self) -> None:
        path = os.path.join(self._spec["temp"], "s")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(1024)
        self._run.watch(listener.fileno(), lambda: _Client(self, listener.accept()[0]).open(self._run))
        world = [str(self._spec[key]) for key in ("node_count", "process_count", "launcher_port")]
        rank = [sys.executable, "-I", "-S", str(_HERE / "rank.py"), path]
        os.write(self._host.orders, "\0".join([self._logs, *world, *rank]).encode())
        os.close(self._host.orders)

    def turn(self, children: list[tuple[int, int]]) -> None:
        if self._direct:
            self._direct.turn(children)
            return
        for pid, status in children:
            if pid == self._host.pid and status:
                self._breaks(f"torchrun {ending_words(*ending(status))}")
        if self._broken and time.monotonic() > self._broken[0] and not self._run.stopping:
            shutil.copy(os.path.join(self._spec["temp"], "torchrun.txt"), self._logs)
            raise LaunchFailed(self._broken[1], f"its own messages are in {self._logs}")

    def stop(self) -> None:
        # Left alone, the agents would wait for one another for up to 300 s.
        processes.send([*processes.children(self._host.pid), self._host.pid], signal.SIGKILL)

    # What its clients, the processes under torchrun, have to say.

    def rank_asks(self, client: _Client, node: int, local: int, rank: int, world_size: int, pid: int) -> None:
        """A process is there: give it what the plan says of it, if torchrun put it where the plan has it."""
        context = self._contexts.get((node, local))
        if not context or (context["rank"], len(self._contexts)) != (rank, world_size):
            raise LaunchFailed(
                f"torchrun started rank {rank} of {world_size} as process {local} of node {node}; the plan differs"
            )
        if self._run.stopping:
            client.close()
            return
        output, theirs = os.pipe()
        environment = self._spec["base_env"] | context["env"]
        parts = [self._spec["nodes"][node]], self._spec["argv"], [f"{k}={v}" for k, v in environment.items()]
        payload = b"\0\0".join(b"\0".join(map(os.fsencode, part)) for part in parts)
        try:
            client.send(payload, theirs)
        except ConnectionError:  # it was killed meanwhile, as its agent will tell
            os.close(output)
            return
        finally:
            os.close(theirs)
        client.rank = rank
        self._run.started(rank, pid, output)

    def rank_ended(self, end: Exit) -> None:
        self._run.ended([end])

    def agent_ended(self, node: int, code: int) -> None:
        if code:
            how = ending_words(None, -code) if code < 0 else ending_words(code, None)
            self._breaks(f"the torchrun agent of node {node} {how}")

    def torchrun_is_missing(self, why: str) -> None:
        if self._spec["launcher_is_chosen"]:
            raise LaunchFailed(
                f"torchrun cannot be started by {self._spec['python']}: {why}",
                "install torch there, or run with `--launcher direct`",
            )
        self._run.fell_back(
            "direct", f"{self._spec['python']} has no torch: the same world was started directly, without torchrun"
        )
        self._direct = Direct(self._spec, self._run)
        self._direct.start()

    def _breaks(self, message: str) -> None:
        # An agent ends after a rank of its own did; the rank's own report may still be on its way.
        self._broken = self._broken or (time.monotonic() + _AGENT_GRACE, message)


class _Client:
    """A connection from `rank.py` or `torchrun_host.py`: lines of words."""

    def __init__(self, launcher: Torchrun, connection: socket.socket) -> None:
        self._launcher, self._connection = launcher, connection
        self._lines = connection.makefile("rb", buffering=0)
        self.rank: int | None = None
        self._ended = False

    def open(self, run: Run) -> None:
        self._run = run
        run.watch(self._connection.fileno(), self._read)

    def send(self, payload: bytes, fd: int) -> None:
        size = len(payload).to_bytes(4, "little")
        socket.send_fds(self._connection, [size], [fd])
        self._connection.sendall(payload)

    def close(self) -> None:
        self._lines.close()
        self._run.unwatch(self._connection.detach())

    def _read(self) -> None:
        try:
            words = self._lines.readline().decode().split()
        except ConnectionError:
            words = []
        kind, *rest = words or ["gone"]
        if kind == "rank":
            self._launcher.rank_asks(self, *map(int, rest))
        elif kind == "exit" and self.rank is not None:
            self._ended = True
            code, signum = (None if word == "None" else int(word) for word in rest[:2])
            self._launcher.rank_ended(Exit(self.rank, code, signum, rest[2] != "0", float(rest[3])))
        elif kind == "agent":
            self._launcher.agent_ended(*map(int, rest))
        elif kind == "no-torchrun":
            self._launcher.torchrun_is_missing(" ".join(rest))
        elif kind == "gone":
            self.close()
            if self.rank is not None and not self._ended:
                # Only a SIGKILL ends `rank.py` without a word.
                self._launcher.rank_ended(Exit(self.rank, None, signal.SIGKILL, time=time.monotonic()))


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
