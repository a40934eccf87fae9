"""The process that owns a local run: starts it, keeps its logs, ends it, and writes how it ended.

It runs apart from whoever launched the run, so that a busy notebook, a closed terminal or a `kill -9` of the launching
process cannot leave ranks behind. In a run of several attempts each has a supervisor, one after another.
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
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azml_dist.local import attempts, processes, state
from azml_dist.local.artifacts import collect
from azml_dist.local.hosts import Hosts
from azml_dist.local.launchers import Exit, Launcher, LaunchFailed, make_launcher
from azml_dist.local.merged import Writer
from azml_dist.local.state import RunFolder, RunState
from azml_dist.local.verdict import reason

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


class Supervisor:
    """One attempt of a run, from its first process to its last word."""

    def __init__(self, spec: dict[str, Any], host: Host | None, lifelines: tuple[int, ...]) -> None:
        self._spec = spec
        self._folder = RunFolder(spec["folder"])
        self._state = RunState.from_dict(json.loads(self._folder.file.read_bytes()))
        self._logs = Writer(self._folder.path, self._state.first_logs, self._state.retry)
        self._selector = selectors.DefaultSelector()
        self._outputs: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        """Process groups by rank, of the ranks that have started and not ended."""
        self._waiting = {p.rank for p in self._state.processes}
        self._serving = {p.rank for p in self._state.processes if p.serves}
        now = time.time()
        self._state.started_at = self._state.started_at or now
        left = spec["timeout"] and spec["timeout"] - (now - self._state.started_at)
        self._deadline = left and time.monotonic() + left
        self._preempt_after = None if self._state.retry else spec["preempt_after"]
        self._preempt_at: float | None = None
        self._stopping = False
        self._verdict: str | None = None
        """The status the run will end with, where that is decided by more than its exit codes."""
        self._kill_at = float("inf")
        self._saved = 0.0
        self.hosts = Hosts(spec)
        self._launcher: Launcher = make_launcher(spec, self, host)
        for fd in lifelines:
            self.watch(fd, lambda fd=fd: self._lifeline_ended(fd))  # type: ignore[misc]

    def run(self) -> None:
        """Start, watch, end. Whatever goes wrong, nothing is left running and the reason is written down."""
        self._listen_to_signals()
        try:
            self._state.status = state.RUNNING
            self._save()
            try:
                self.hosts.start()
                self._launcher.start()
                self._loop()
            except LaunchFailed as failure:
                self._fail(str(failure), failure.hint)
                self._loop()
        except OSError as error:
            self._system_failed(error)
        except Exception as error:
            kind = type(error).__name__
            self._fail(
                f"an error in azml_dist ended the run: {kind}: {error}",
                "please report it; supervisor.txt in system_logs tells more",
            )
            raise
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
        if self._preempt_after and len(self._groups) == len(self._state.processes):
            self._preempt_at = time.monotonic() + self._preempt_after

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
        if self._preempt_at and now > self._preempt_at:
            self._preempt()
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

    def _stop(self, signum: int = signal.SIGTERM) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._launcher.stop()
        for pgid in self._groups.values():
            processes.send_group(pgid, signum)
        # Those that never started never will.
        self._waiting &= self._groups.keys()
        self._kill_at = time.monotonic() + self._spec["grace"]

    def _cancel(self, reason: str) -> None:
        if not self._stopping:
            self._verdict = state.CANCELED
            self._state.status, self._state.error = state.CANCEL_REQUESTED, reason
            self._stop()

    def _preempt(self) -> None:
        """As a node of low priority is taken away: at once, and without a word that a process could hear."""
        if not self._stopping:
            self._verdict = state.PREEMPTED
            self._state.error = f"its nodes were taken away after {self._preempt_after:g} s"
            self._stop(signal.SIGKILL)

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
        explanation = self._launcher.close()
        left = processes.end_descendants(deadline=time.monotonic() + 5)
        run = self._state
        try:
            self._drain()
            run.findings += collect(self._folder.path, self._spec["nodes"], self._spec["staged"], run.retry)
        except OSError as error:
            self._system_failed(error)
        if left:
            run.findings.append(f"processes {left} could not be ended within 5 s")
        self._judge()
        if run.failed_rank is not None:
            run.hint = run.hint or explanation
        if attempts.follows(self._spec, run, self._verdict):
            attempts.begin_next(run, time.time())
        else:
            if run.status == state.COMPLETED and self._preempt_after:
                run.findings.append(f"it ended before its nodes were to be taken away, after {self._preempt_after:g} s")
            run.ended_at = time.time()
            self._folder.release()
            shutil.rmtree(self._folder.path / attempts.SNAPSHOT, ignore_errors=True)
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
        run.error, run.hint = reason(first, self._folder.path / first.log)

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


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b" "
