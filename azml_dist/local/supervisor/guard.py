"""The processes that start a run's supervisor, one for each attempt, and outlive it.

Three processes watch each other: the supervisor; its parent, the guard; and the guard's parent, the warden. On Linux
all three adopt every descendant that loses its parent, so if any two of them are killed, the third ends everything that
is left. If all three are killed, the system ends each rank's own process, but not the processes that it has started.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from azml_dist.local import processes
from azml_dist.local.handover import GUARD_LOG, receive, remove_temp, send
from azml_dist.local.launchers.choose import start_ahead
from azml_dist.local.launchers.starting import LaunchFailed, last_error
from azml_dist.local.state import RunFolder, RunState, cancelled_by
from azml_dist.local.supervisor import attempts
from azml_dist.local.supervisor.supervisor import Supervisor
from azml_dist.local.tracking import endpoint
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.local.launchers.torchrun import Host
    from azml_dist.local.spec import Spec, WholeSpec

_REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Lifelines = tuple[int, ...]
"""Descriptors that become readable when a process that the run depends on is gone: 0 for the process that started it,
then its warden and its guard."""


def guard_supervisor() -> None:
    """Entry point; stdin is a socket that delivers the run, and that the process that started it keeps open."""
    temp, torchrun_python = sys.argv[1:]
    # What is loaded stays. To look for garbage in it takes time, and would copy the pages that the processes share.
    gc.freeze()
    gc.enable()
    processes.begin_with_default_signals()
    file_limit = processes.raise_file_limit()
    # From here on, signals are blocked until each process can handle them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    processes.adopt_orphans()
    warden = _Watch("guard", temp)
    warden.fork(lambda lifeline: _guard(temp, torchrun_python, lifeline))
    payload, fds = receive(socket.socket(fileno=os.dup(0)))
    if payload:
        payload = json.dumps(json.loads(payload) | {"file_limit": file_limit}).encode()
        warden.hand_over(payload, fds)
        warden.wait()
    warden.end()
    remove_temp(temp)
    sys.stderr.flush()
    os._exit(0)  # to take all modules apart would take longer


def _guard(temp: str, torchrun_python: str, lifeline: socket.socket) -> None:
    guard = _Watch("supervisor", temp)
    lifelines = (0, lifeline.fileno())
    guard.fork(lambda ours: _supervise_first(temp, torchrun_python, lifelines, ours))
    payload, fds = receive(lifeline)
    if payload:
        guard.hand_over(payload, fds)
        while guard.wait() == 0 and (retry := guard.next_attempt()):
            guard.fork(lambda ours, retry=retry: _supervise_again(_spec(payload, fds), retry, lifelines, ours))  # type: ignore[misc]
    guard.end()
    remove_temp(temp)


class _Watch:
    """The parent of a process that owns the run: it outlives that process, and ends what it left running."""

    def __init__(self, watched: str, temp: str) -> None:
        self._watched = watched
        self._log = os.path.join(temp, GUARD_LOG)
        self._folder: RunFolder | None = None
        self._mlflow_run = ""
        self._lifeline: socket.socket
        self._child: int | None = None
        self._status = 0
        for signum in _REQUESTS:
            signal.signal(signum, self._pass_on)

    def fork(self, main: Callable[[socket.socket], None]) -> None:
        """Start the process, which gets the other end of our lifeline."""
        self._lifeline, theirs = socket.socketpair()
        if pid := os.fork():
            theirs.close()
            self._child = pid
            return
        code = 1
        try:
            self._lifeline.close()
            processes.adopt_orphans()
            main(theirs)
            code = 0
        except BaseException:
            import traceback  # slower to import than everything else here

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def hand_over(self, payload: bytes, fds: list[int]) -> None:
        """Hand it the run."""
        spec = json.loads(payload)
        self._folder, self._mlflow_run = RunFolder(spec["folder"]), spec["tracking"]["run"]
        with contextlib.suppress(ConnectionError):  # it was killed; its wait status will tell
            send(self._lifeline, payload, fds)

    def wait(self) -> int:
        """The wait status of the process, once it and our own processes that it had started have ended."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _REQUESTS)
        while (ended := os.wait())[0] != self._child:
            pass
        # A supervisor whose guard is killed still ends its run properly. It holds the guard's end of our lifeline.
        self._lifeline.recv(1)
        signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
        self._child = None
        self._lifeline.close()
        self._status = ended[1]
        return self._status

    def next_attempt(self) -> int:
        """The number of the next attempt, if the supervisor left one to start; 0 if the run has ended."""
        assert self._folder
        run = _state(self._folder)
        return 0 if run.is_final() else run.retry

    def end(self) -> None:
        """End everything that is left, and write the final state of a run if its supervisor could not."""
        processes.end_descendants(deadline=time.monotonic() + 10)
        if self._folder:
            error = f"the run's {self._watched} was ended by {self._how(self._folder)}; all processes were stopped"
            _write_the_end(self._folder, self._mlflow_run, error)

    def _how(self, folder: RunFolder) -> str:
        if os.WIFSIGNALED(self._status):
            return f"signal {os.WTERMSIG(self._status)}"
        why = last_error(str(folder.path / "system_logs" / "supervisor.txt")) or last_error(self._log)
        return f"an error of its own{why}"

    def _pass_on(self, signum: int, _: object) -> None:
        """Cancel the run: by a request, which its next owner will find, and by a signal, which needs no disk."""
        if self._folder:
            with contextlib.suppress(OSError):
                self._folder.request_cancel(cancelled_by(signum))
        if self._child:
            processes.send([self._child], signum)


def _supervise_first(temp: str, torchrun_python: str, lifelines: Lifelines, lifeline: socket.socket) -> None:
    host = None
    if torchrun_python:
        with contextlib.suppress(LaunchFailed):  # tried again when there is a run to cancel
            host = start_ahead(torchrun_python, temp)
    payload, fds = receive(lifeline)
    if payload:
        _supervise(attempts.of_attempt(_spec(payload, fds), 0), host, (*lifelines, lifeline.fileno()))


def _supervise_again(spec: WholeSpec, retry: int, lifelines: Lifelines, lifeline: socket.socket) -> None:
    # The launcher of the first attempt, which may differ from the requested one.
    again = attempts.of_attempt(spec, retry)
    again["launcher"] = _state(RunFolder(spec["folder"])).launcher or again["launcher"]
    _supervise(again, None, (*lifelines, lifeline.fileno()))


def _supervise(spec: Spec, host: Host | None, lifelines: Lifelines) -> None:
    log = os.path.join(spec["folder"], "system_logs", "supervisor.txt")
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644), 2)
    Supervisor(spec, host, lifelines).run()


def _spec(payload: bytes, fds: list[int]) -> WholeSpec:
    """Receive the run's specification. The last descriptor listens for MLflow clients."""
    spec: WholeSpec = json.loads(payload)
    spec["tracking"]["listener"] = fds[-1]
    return spec


def _state(folder: RunFolder) -> RunState:
    return RunState.from_dict(json.loads(folder.file.read_bytes()))


def _write_the_end(folder: RunFolder, mlflow_run: str, error: str) -> None:
    run = _state(folder)
    if not run.is_final():
        run.status, run.exit_code, run.ended_at, run.error = RunStatus.FAILED, 1, time.time(), error
        folder.release()
        endpoint.end_run(mlflow_run, run.status)
        folder.write(run)
