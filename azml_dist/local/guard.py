"""The process that starts a run's supervisor, one for each attempt, and outlives it.

Two processes watch each other: the supervisor, and this guard that is its parent. On Linux both adopt every descendant
that loses its parent, so when one of them is killed, the other ends all that is left.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azml_dist.local import attempts, processes, state
from azml_dist.local.state import RunFolder, RunState
from azml_dist.local.supervision import receive, remove_temp, send
from azml_dist.local.supervisor import Supervisor

if TYPE_CHECKING:
    from azml_dist.local.torchrun import Host


def guard_supervisor() -> None:
    """Entry point; stdin is a socket, over which the run comes, and which its launcher keeps open."""
    temp, torchrun_python = sys.argv[1:]
    processes.adopt_orphans()
    guard = _Guard()
    guard.fork(lambda lifeline: _supervise_first(temp, torchrun_python, lifeline))
    payload, fds = receive(socket.socket(fileno=os.dup(0)))
    if payload:
        spec = json.loads(payload)
        guard.folder = RunFolder(spec["folder"])
        send(guard.lifeline, payload, fds)
        while (status := guard.wait()) == 0 and (retry := guard.next_attempt()):
            guard.fork(lambda lifeline, retry=retry: _supervise_again(spec, retry, lifeline))  # type: ignore[misc]
    processes.end_descendants(deadline=time.monotonic() + 10)
    if payload:
        _write_the_end(guard.folder, status)
    remove_temp(temp)


class _Guard:
    """The parent of the supervisor of each attempt."""

    def __init__(self) -> None:
        self.folder: RunFolder
        self.lifeline: socket.socket
        self._supervisor: int | None = None
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._pass_on)

    def fork(self, supervise: Callable[[socket.socket], None]) -> None:
        """Start a supervisor; it gets the other end of our lifeline."""
        self.lifeline, theirs = socket.socketpair()
        if pid := os.fork():
            theirs.close()
            self._supervisor = pid
            return
        code = 1
        try:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            self.lifeline.close()
            processes.adopt_orphans()
            supervise(theirs)
            code = 0
        except BaseException:
            import traceback  # takes longer to import than all else here

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> int:
        """The wait status of the supervisor, once it has ended."""
        while (ended := os.wait())[0] != self._supervisor:
            pass
        self._supervisor = None
        self.lifeline.close()
        return ended[1]

    def next_attempt(self) -> int:
        """The number of the attempt that the supervisor has left to be made; 0 if the run has ended."""
        run = _state(self.folder)
        return 0 if run.is_final() else run.retry

    def _pass_on(self, signum: int, _: object) -> None:
        if self._supervisor is not None:
            processes.send([self._supervisor], signum)
        else:
            self.folder.request_cancel()


def _supervise_first(temp: str, torchrun_python: str, lifeline: socket.socket) -> None:
    host = None
    if torchrun_python:
        from azml_dist.local.torchrun import start_host

        host = start_host(torchrun_python, temp)
    payload, _ = receive(lifeline)
    if payload:
        _supervise(attempts.of_attempt(json.loads(payload), 0), host, lifeline)


def _supervise_again(spec: dict[str, Any], retry: int, lifeline: socket.socket) -> None:
    # What the first attempt was started with, which need not be what was asked for.
    spec = attempts.of_attempt(spec, retry) | {"launcher": _state(RunFolder(spec["folder"])).launcher}
    attempts.prepare(spec)
    _supervise(spec, None, lifeline)


def _supervise(spec: dict[str, Any], host: Host | None, lifeline: socket.socket) -> None:
    log = os.path.join(spec["folder"], "system_logs", "supervisor.txt")
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644), 2)
    Supervisor(spec, host, lifelines=(0, lifeline.fileno())).run()


def _state(folder: RunFolder) -> RunState:
    return RunState.from_dict(json.loads(folder.file.read_bytes()))


def _write_the_end(folder: RunFolder, status: int) -> None:
    run = _state(folder)
    if not run.is_final():
        run.status, run.exit_code, run.ended_at = state.FAILED, 1, time.time()
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an error of its own"
        run.error = f"the run's supervisor was ended by {how}; its processes were stopped"
        folder.release()
        folder.write(run)
