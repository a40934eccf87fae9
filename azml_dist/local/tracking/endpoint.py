"""The supervisor's side of a run's tracking server: sockets that listen from the start, and a server on first use.

If the script never logs, the run only pays for a socket. The store is on disk, and the sockets belong to the
supervisor: if the server ends, with an attempt or by accident, the next client starts another one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from azml_dist.local.tracking import store
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

_SCRIPT = Path(__file__).with_name("server.py")
HOST = "127.0.0.1"
_BACKLOG = 4096
"""All ranks of a run may connect at once, before the server has started."""
_CLONE_NEWNET = 0x40000000
_FAILURES = 3


class Reports(Protocol):
    """What the endpoint needs from its run."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def found(self, finding: str) -> None: ...


def listen() -> socket.socket:
    """A socket that listens on a free port of the loopback interface."""
    listener = socket.create_server((HOST, 0), backlog=_BACKLOG)
    listener.set_inheritable(False)
    return listener


def address(listener: socket.socket) -> str:
    """The tracking URI of the socket."""
    return f"http://{HOST}:{listener.getsockname()[1]}"


class Endpoint:
    """The sockets that the processes of a run log to, and the server behind them."""

    def __init__(self, spec: Spec, reports: Reports) -> None:
        self._spec, self._reports = spec, reports
        self._config = {name: spec["tracking"][name] for name in ("run", "token", "service")}
        self._python: str = spec["python"]
        self._listeners: list[int] = []
        self._watched: list[int] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._failures = 0

    def start(self, holders: list[int]) -> None:
        """Wait for clients on the inherited socket, or in the network of each node if nodes have their own.

        `holders` are processes in those networks. A socket belongs to the network in which it was created.
        """
        listener: int = self._spec["tracking"]["listener"]
        if holders:
            with socket.socket(fileno=os.dup(listener)) as inherited:
                port = inherited.getsockname()[1]
            self._listeners = [_listen_inside(holder, port) for holder in holders]
        else:
            self._listeners = [listener]
        self._wait()

    def turn(self, ended: list[tuple[int, int]]) -> None:
        """If the server is among the processes that have ended, wait for the next client."""
        for pid, status in ended:
            if self._server and pid == self._server.pid:
                self._server = None
                self._failures += status != 0
                if status:
                    self._python = sys.executable  # the job's Python may be too old, or gone
                if self._failures < _FAILURES:
                    self._wait()
                else:
                    self._close()
                    self._reports.found("the MLflow server of the run could not be started: see supervisor.txt")

    def _wait(self) -> None:
        for listener in self._listeners:
            watched = os.dup(listener)
            self._watched.append(watched)
            self._reports.watch(watched, self._serve)

    def _serve(self) -> None:
        """A client has connected: start the server, which owns the sockets until it ends."""
        while self._watched:
            self._reports.unwatch(self._watched.pop())
        env = {name: value for name, value in self._spec["base_env"].items() if not name.startswith("MLFLOW_")}
        with suppress(OSError):  # if it cannot start, its clients notice, and so does the next turn
            self._server = subprocess.Popen(
                [self._python, "-I", str(_SCRIPT), *map(str, self._listeners)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={**env, "MLFLOW_DISABLE_TELEMETRY": "true"},
                pass_fds=self._listeners,
                start_new_session=True,
            )
            self._server.returncode = 0  # the supervisor's loop reaps all its children, including this one
            assert self._server.stdin
            # The configuration is secret, and a command line is not. The pipe stays open until this process ends.
            self._server.stdin.write(json.dumps(self._config).encode() + b"\n")
            self._server.stdin.flush()

    def _close(self) -> None:
        for listener in self._listeners:
            os.close(listener)
        self._listeners = []


def end_run(run: str, status: str) -> None:
    """Record in the MLflow run how the run ended."""
    numbers = {RunStatus.COMPLETED: store.FINISHED, RunStatus.CANCELED: store.KILLED}
    with suppress(OSError, store.Refused, LookupError):  # deleted, or a full disk, which is reported elsewhere
        store.end_run(Path(run), numbers.get(RunStatus(status), store.FAILED))


def differences(run: str) -> list[str]:
    """Findings about what the run logged but Azure ML would have rejected."""
    try:
        return list(store.differences(Path(run)))
    except OSError:
        return []


def _listen_inside(pid: int, port: int) -> int:
    """The descriptor of a socket that listens in the network of another process."""
    import ctypes

    setns = ctypes.CDLL(None, use_errno=True).setns
    ours, theirs = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for who in ("self", pid))
    try:
        if setns(theirs, _CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        try:
            return socket.create_server((HOST, port), backlog=_BACKLOG).detach()
        finally:
            setns(ours, _CLONE_NEWNET)
    finally:
        os.close(ours)
        os.close(theirs)
