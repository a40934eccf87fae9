"""The process that owns a local run: starts it, keeps its logs, ends it, and writes how it ended.

It runs apart from whoever launched the run, so that a busy notebook, a closed terminal or a `kill -9` of the launching
process cannot leave ranks behind. Two processes watch each other: the supervisor, and a guard that is its parent. On
Linux both adopt every descendant that loses its parent, so when one of them is killed, the other ends all that is left.
Standard library alone: it starts in a few hundredths of a second and stays small.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azml_dist.local import processes, state
from azml_dist.local.artifacts import collect
from azml_dist.local.launchers import Exit, Launcher, LaunchFailed, make_launcher
from azml_dist.local.merged import Writer
from azml_dist.local.state import ProcessState, RunFolder, RunState
from azml_dist.local.supervision import receive, send

if TYPE_CHECKING:
    from azml_dist.local.torchrun import Host

_READ = 1 << 18
_F_SETPIPE_SZ = 1031
_TICK = 0.1
"""Seconds between two looks for a request to cancel."""
_SAVE_EVERY = 0.5
_OF_THE_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EFBIG,
    errno.ENOENT,
)
_EXIT_ABORT = b"terminate called without an active exception"


def main() -> None:
    """Entry point of the guard; stdin is a socket, over which the run comes, and which its launcher keeps open."""
    temp, torchrun_python = sys.argv[1:]
    processes.adopt_orphans()
    guards, supervisors = socket.socketpair()
    if pid := os.fork():
        supervisors.close()
        _guard(pid, guards, temp)
        return
    guards.close()
    processes.adopt_orphans()
    host = None
    if torchrun_python:
        from azml_dist.local.torchrun import start_host

        host = start_host(torchrun_python, temp)
    payload, _ = receive(supervisors)
    if payload:
        spec = json.loads(payload)
        log = os.path.join(spec["folder"], "system_logs", "supervisor.txt")
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), 2)
        Supervisor(spec, host, lifelines=(0, supervisors.fileno())).run()


def _guard(supervisor: int, to_supervisor: socket.socket, temp: str) -> None:
    """Hand the run on to the supervisor and wait for its end. If it was killed, end what it left and say so."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda signum, _: processes.send([supervisor], signum))
    payload, fds = receive(socket.socket(fileno=os.dup(0)))
    if payload:
        send(to_supervisor, payload, fds)
        status = _wait_for(supervisor)
    processes.end_descendants(deadline=time.monotonic() + 10)
    if payload:
        _write_the_end(RunFolder(json.loads(payload)["folder"]), status)
    shutil.rmtree(temp, ignore_errors=True)


def _wait_for(pid: int) -> int:
    while (ended := os.wait())[0] != pid:
        pass
    return ended[1]


def _write_the_end(folder: RunFolder, status: int) -> None:
    run = RunState.from_dict(json.loads(folder.file.read_bytes()))
    if not run.is_final():
        run.status, run.exit_code, run.ended_at = state.FAILED, 1, time.time()
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an error of its own"
        run.error = f"the run's supervisor was ended by {how}; its processes were stopped"
        folder.release()
        folder.write(run)


class Supervisor:
    """One run, from its first process to its last word."""

    def __init__(self, spec: dict[str, Any], host: Host | None, lifelines: tuple[int, ...]) -> None:
        self._spec = spec
        self._folder = RunFolder(spec["folder"])
        self._state = RunState.from_dict(json.loads(self._folder.file.read_bytes()))
        self._logs = Writer(self._folder.path, [p.log for p in self._state.processes])
        self._selector = selectors.DefaultSelector()
        self._outputs: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        """Process groups by rank, of the ranks that have started and not ended."""
        self._waiting = {p.rank for p in self._state.processes}
        self._serving = {p.rank for p in self._state.processes if p.serves}
        self._deadline = time.monotonic() + spec["timeout"] if spec["timeout"] else None
        self._stopping = False
        self._verdict: str | None = None
        """The status the run will end with, where that is decided by more than its exit codes."""
        self._kill_at = float("inf")
        self._saved = 0.0
        self._launcher: Launcher = make_launcher(spec, self, host)
        for fd in lifelines:
            self.watch(fd, lambda fd=fd: self._lifeline_ended(fd))  # type: ignore[misc]

    def run(self) -> None:
        """Start, watch, end. Whatever goes wrong, nothing is left running and the reason is written down."""
        self._listen_to_signals()
        try:
            self._state.status, self._state.started_at = state.RUNNING, time.time()
            self._save()
            try:
                self._launcher.start()
                self._loop()
            except LaunchFailed as failure:
                self._fail(str(failure), failure.hint)
                self._loop()
        except OSError as error:
            self._system_failed(error)
        finally:
            self._end()

    # What launchers call.

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever there is something to read from `fd`."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """Look at `fd` no more, and close it."""
        self._selector.unregister(fd)
        os.close(fd)

    def started(self, rank: int, pid: int, output: int) -> None:
        """A rank runs, in a process group of its own, and writes into the pipe `output`."""
        self._groups[rank] = pid
        self._state.processes[rank].pid = pid
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(output, _F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(output, False)
        self._outputs[rank] = output
        self.watch(output, lambda: self._take(rank))
        if self._stopping:
            processes.send_group(pid, signal.SIGTERM)

    def ended(self, exits: list[Exit]) -> None:
        """Ranks ended. The first that failed by itself ends the run, under its name."""
        for end in sorted(exits, key=lambda e: e.time):
            process = self._state.processes[end.rank]
            process.exit_code, process.signal = end.code, end.signal
            process.stopped = self._stopping or end.stopped
            self._waiting.discard(end.rank)
            self._groups.pop(end.rank, None)
            if (end.code or end.signal) and not process.stopped:
                self._read(end.rank)
                self._state.failed_rank = end.rank
                self._stop()

    @property
    def stopping(self) -> bool:
        """The run is being ended: no process may start any more."""
        return self._stopping

    def fell_back(self, launcher: str, finding: str) -> None:
        """Another launcher than the one that was asked for starts the processes."""
        self._state.launcher = launcher
        self._state.findings.append(finding)

    # The loop.

    def _loop(self) -> None:
        while self._waiting - self._serving:
            self._turn()
        if self._waiting:
            self._stop()  # what serves the others has nobody left to serve
        while self._waiting:
            self._turn()
        self._drain()

    def _turn(self) -> None:
        now = time.monotonic()
        for key, _ in self._selector.select(max(0.0, min(_TICK, self._kill_at - now))):
            key.data()
        self._launcher.turn(processes.reap())
        now = time.monotonic()
        if (request := self._folder.cancel_request()) is not None:
            self._cancel("somebody asked for it")
            self._kill_at = min(self._kill_at, now) if request == "kill" else self._kill_at
        if self._deadline and now > self._deadline:
            self._cancel(f"it ran for longer than its timeout of {self._spec['timeout']:g} s")
        if now >= self._kill_at:
            for pgid in self._groups.values():
                processes.send_group(pgid, signal.SIGKILL)
            self._waiting &= self._groups.keys()
            self._kill_at = now + 1
        if now > self._saved + _SAVE_EVERY:
            self._save()

    def _take(self, rank: int) -> None:
        self._read(rank)

    def _read(self, rank: int) -> bool:
        """Take what a rank has written; whether there may be more."""
        fd = self._outputs.get(rank)
        if fd is None:
            return False
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if not data:
            self._logs.end(rank)
            self.unwatch(self._outputs.pop(rank))
            return False
        self._logs.write(rank, data)
        return True

    def _drain(self) -> None:
        """All ranks have ended: what their pipes still hold, and then no more, should a child of theirs live on."""
        for rank in list(self._outputs):
            while self._read(rank):
                pass
            if rank in self._outputs:
                self._logs.end(rank)
                self.unwatch(self._outputs.pop(rank))

    # How a run ends.

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._launcher.stop()
        for pgid in self._groups.values():
            processes.send_group(pgid, signal.SIGTERM)
        # Those that never started never will.
        self._waiting &= self._groups.keys()
        self._kill_at = time.monotonic() + self._spec["grace"]

    def _cancel(self, reason: str) -> None:
        if not self._stopping:
            self._verdict = state.CANCELED
            self._state.status, self._state.error = state.CANCEL_REQUESTED, reason
            self._stop()

    def _fail(self, error: str, hint: str | None) -> None:
        self._verdict, self._state.exit_code = state.FAILED, 1
        self._state.error, self._state.hint = error, hint
        self._stop()

    def _system_failed(self, error: OSError) -> None:
        if error.errno in _OF_THE_DISK:
            self._fail(f"the run's folder cannot be written: {error.strerror}", "make room, or choose another `--root`")
        else:
            self._fail(f"the system refused what the run needs: {error}", "see `ulimit -a` for its limits")

    def _lifeline_ended(self, fd: int) -> None:
        # Nothing is ever written into a lifeline: that it can be read means that its other end is closed.
        self._selector.unregister(fd)
        if fd == 0:
            self._cancel("the process that launched it ended")
        else:
            self._fail("the guard of the run was killed; its processes were stopped", None)

    def _end(self) -> None:
        for pgid in self._groups.values():
            processes.send_group(pgid, signal.SIGKILL)
        self._launcher.close()
        left = processes.end_descendants(deadline=time.monotonic() + 5)
        run = self._state
        try:
            self._drain()
            run.findings += collect(self._folder.path, self._spec["nodes"], self._spec["staged"])
        except OSError as error:
            self._system_failed(error)
        if left:
            run.findings.append(f"processes {left} could not be ended within 5 s")
        self._judge()
        run.ended_at = time.time()
        self._folder.release()
        self._save()

    def _judge(self) -> None:
        """The status, the exit code and the reason."""
        run = self._state
        if self._verdict:
            run.status = self._verdict
            return
        failed = [p for p in run.processes if p.exit_code != 0 and not (p.serves and p.stopped)]
        if not failed:
            run.status, run.exit_code = state.COMPLETED, 0
            return
        first = next((p for p in failed if p.rank == run.failed_rank), failed[0])
        run.failed_rank, run.status = first.rank, state.FAILED
        run.exit_code = first.exit_code if first.signal is None else 128 + first.signal
        run.error, run.hint = self._reason(first)

    def _reason(self, process: ProcessState) -> tuple[str, str | None]:
        rank, log = f"rank {process.rank}", self._folder.path / process.log
        if process.signal is None:
            return f"{rank} failed with exit code {process.exit_code}", None
        name = signal.Signals(process.signal).name if process.signal in set(signal.Signals) else str(process.signal)
        if process.signal == signal.SIGABRT and _EXIT_ABORT in _tail(log):
            return (
                f"{rank} was aborted ({name}) at the exit of its interpreter, after its work was done",
                "a known flake of gloo: let the model go out of scope before `destroy_process_group()`",
            )
        hint = (
            "the kernel's out-of-memory killer does this; `dmesg` tells" if process.signal == signal.SIGKILL else None
        )
        return f"{rank} was ended by signal {process.signal} ({name})", hint

    # Small things.

    def _save(self) -> None:
        self._saved = time.monotonic()
        self._folder.write(self._state)

    def _listen_to_signals(self) -> None:
        """A child's end wakes the loop; a request to end stops the run."""
        wake, end = os.pipe()
        for fd in (wake, end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        self.watch(wake, lambda: self._on_signals(_read_some(wake)))
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)

    def _on_signals(self, signums: bytes) -> None:
        if set(signums) - {signal.SIGCHLD}:
            self._cancel("its supervisor was asked to end")


def _tail(file: Any) -> bytes:
    with open(file, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
        return log.read()


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b" "
