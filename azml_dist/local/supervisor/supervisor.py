"""The process that owns a local run: starts it, writes its logs, ends it, and records how it ended.

It is separate from the process that started the run, so that a busy notebook, a closed terminal or a `kill -9` of that
process cannot leave ranks behind. Each attempt of a run has its own supervisor, one after another.
Standard library only: it starts in a few hundredths of a second and stays small.
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
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from azml_dist.local import figures, processes, state
from azml_dist.local.faults.none import NoFaults
from azml_dist.local.launchers.choose import make_launcher
from azml_dist.local.launchers.hosts import Hosts
from azml_dist.local.launchers.launcher import Launcher
from azml_dist.local.launchers.starting import Exit, LaunchFailed
from azml_dist.local.merged import Writer
from azml_dist.local.state import RunFolder, RunState
from azml_dist.local.supervisor import attempts
from azml_dist.local.supervisor.artifacts import collect
from azml_dist.local.supervisor.memory import counts, kills_since
from azml_dist.local.supervisor.sampler import Sampler
from azml_dist.local.supervisor.services import start_services
from azml_dist.local.supervisor.stall import why_it_waited
from azml_dist.local.supervisor.watch import Watch
from azml_dist.local.tracking import endpoint
from azml_dist.local.tracking.endpoint import Endpoint
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.local.faults.engine import Faults
    from azml_dist.local.launchers.torchrun import Host
    from azml_dist.local.spec import Spec

_READ = 1 << 18
_F_SETPIPE_SZ = 1031
_LEFT_IN_A_PIPE = 1 << 22
"""More bytes than a pipe holds: anything beyond that was written after the end."""
_TICK = 0.1
"""Seconds between two checks for a request to cancel."""
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
    """One attempt of a run, from its first process to its final state."""

    def __init__(self, spec: Spec, host: Host | None, lifelines: tuple[int, ...]) -> None:
        self._spec = spec
        self._folder = RunFolder(spec["folder"])
        self._state = RunState.from_dict(json.loads(self._folder.file.read_bytes()))
        self._logs: Writer | None = None
        self._selector = selectors.DefaultSelector()
        self._outputs: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        """Process groups by rank, for the ranks that are running."""
        self._waiting = {p.rank for p in self._state.processes}
        self._serving = {p.rank for p in self._state.processes if p.serves}
        self._began = time.monotonic()
        now = time.time()
        self._state.started_at = self._state.started_at or now
        left = spec["timeout"] and spec["timeout"] - (now - self._state.started_at)
        self._deadline = left and time.monotonic() + left
        self._faults = self._expected_faults()
        self._stopping = False
        self._memory = counts()
        self._wrote: dict[int, float] = {}
        """When each rank last wrote something."""
        self._stopped_at = 0.0
        self._verdict: str | None = None
        """The final status of the run, if more than its exit codes decides it."""
        self._kill_at = float("inf")
        self._saved = 0.0
        self.hosts = Hosts(spec)
        self._host = host
        self._launcher: Launcher | None = None
        self._tracking = Endpoint(spec, self)
        self._watch = Watch(spec)
        self._sampler = Sampler(spec, self._state.retry, self)
        for fd in lifelines:
            self.watch(fd, lambda fd=fd: self._lifeline_ended(fd))  # type: ignore[misc]

    def run(self) -> None:
        """Start, watch, end. Whatever goes wrong, nothing is left running and the reason is recorded."""
        self._listen_to_signals()
        try:
            self._state.status = RunStatus.RUNNING
            self._save()
            try:
                if self._state.retry:
                    attempts.prepare(self._spec)
                self._logs = Writer(self._folder.path, self._state.first_logs, self._state.retry)
                self.hosts.start()
                self._state.findings += self.hosts.findings
                self._tracking.start(self.hosts.holders)
                self._state.findings += start_services(self._spec)
                self._faults.begin()
                self._launcher = make_launcher(self._spec, self, self._host)
                self.starts("starting processes")
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
                f"a bug in azml_dist ended the run: {kind}: {error}",
                "please report it, with supervisor.txt from system_logs",
            )
            raise
        finally:
            self._end()

    def _expected_faults(self) -> Faults | NoFaults:
        if not self._spec["faults"]:
            return NoFaults()
        from azml_dist.local.faults.engine import Faults

        return Faults(self._spec, self._state, self)

    # Called by launchers.

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever `fd` becomes readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, and close it."""
        self._selector.unregister(fd)
        os.close(fd)

    def starts(self, what: str) -> None:
        """Record what happens until all ranks have started."""
        self._state.starting = what
        self._saved = 0.0

    def started(self, rank: int, pid: int, output: int) -> None:
        """A rank has started, in its own process group, and writes to the pipe `output`."""
        self._groups[rank] = pid
        self._state.processes[rank].pid, self._state.processes[rank].started_at = pid, time.time()
        if len(self._groups) == len(self._state.processes):
            self._saved = 0.0  # it is known soon that all have started
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(output, _F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(output, False)
        self._outputs[rank] = output
        self.watch(output, lambda: self._read(rank))
        self._faults.started(rank)

    def ended(self, exits: list[Exit]) -> None:
        """Ranks have ended. If one failed by itself, end the run and report that rank."""
        for end in sorted(exits, key=lambda e: e.time):
            process = self._state.processes[end.rank]
            process.exit_code, process.signal = end.code, end.signal
            # A rank that had ended well before the others were stopped is one that they may have lost.
            process.stopped = end.stopped or (self._stopping and end.code != 0)
            self._waiting.discard(end.rank)
            self._groups.pop(end.rank, None)
            self._faults.ended(end.rank)
            process.noticed, process.unheard, process.ended_at = self._position, end.unheard, _wall_clock(end.time)
            if (end.code or end.signal) and not process.stopped:
                self._read(end.rank)
                self._state.failed_rank = end.rank
                self._stop()

    @property
    def stopping(self) -> bool:
        """Whether the run is being ended, so that no process may start any more."""
        return self._stopping

    def fell_back(self, launcher: str, finding: str) -> None:
        """Record that another launcher than the requested one starts the processes."""
        self._state.launcher = launcher
        self.found(finding)

    def found(self, finding: str) -> None:
        """Add a finding about this run."""
        self._state.findings.append(finding)

    # Called by faults.

    def processes_of(self, rank: int) -> list[int]:
        """The processes of a rank, its command first; without `rank.py`, which starts it under torchrun and mpirun."""
        if (pid := self._groups.get(rank)) is None:
            return []
        below = processes.descendants(pid)
        return below if self._state.launcher in ("torchrun", "mpirun") else [pid, *below]

    def ends_with(self, rank: int, code: int) -> None:
        """Tell the launcher of a rank which exit code to report, however the rank ends."""
        assert self._launcher
        self._launcher.ends_with(rank, code)

    def take_away(self, error: str, ranks: Collection[int]) -> None:
        """Evict ranks as Azure ML evicts spot nodes: immediately, with no warning to the processes."""
        self._verdict, self._state.error = state.PREEMPTED, error
        for rank in ranks:
            processes.send_group(self._groups[rank], signal.SIGKILL)
        self._stop(signal.SIGKILL if len(ranks) == len(self._groups) else signal.SIGTERM)

    def happened(self) -> None:
        """Record that a fault has occurred."""
        self._save_in_passing()

    # The loop.

    def _loop(self) -> None:
        while self._waiting - self._serving:
            self._turn()
        if self._waiting:
            self._stop()  # only servers are left, which nothing uses any more
        while self._waiting:
            self._turn()
        self._drain()

    def _turn(self) -> None:
        now = time.monotonic()
        pause = min(_TICK, self._kill_at - now, self._faults.turn())
        for key, _ in self._selector.select(max(0.0, pause)):
            key.data()
        ended = processes.reap()
        self._tracking.turn(ended)
        if not self._stopping and (hung := self._watch.turn(ended, now)):
            self._hangs(hung)
        if self._launcher:
            self._launcher.turn(ended)
        now = time.monotonic()
        if (request := self._folder.cancel_request()) is not None:
            self._cancel(request.reason)
            self._kill_at = min(self._kill_at, now) if request.kill else self._kill_at
        if self._deadline and now > self._deadline and self._watch.is_ready_to_end(now):
            self._time_out()
        if now >= self._kill_at:
            for pgid in self._groups.values():
                processes.send_group(pgid, signal.SIGKILL)
            self._waiting &= self._groups.keys()
            self._kill_at = now + 1
        if not self._stopping:
            self._sampler.turn(self._groups, now)
        if now > self._saved + _SAVE_EVERY:
            self._save_in_passing()

    def _read(self, rank: int) -> bool:
        """Read what a rank has written; returns whether there may be more."""
        fd = self._outputs.get(rank)
        if fd is None or self._logs is None:
            return False
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if not data:
            self._end_log(rank)
            return False
        assert self._logs
        self._faults.heard(rank, data)
        try:
            self._logs.write(rank, data)
            self._wrote[rank] = time.monotonic()
            self._watch.moved()
        except OSError as error:
            self._system_failed(error)
        return True

    def _drain(self) -> None:
        """After all ranks have ended, read what is left in their pipes, but no more, in case a child keeps writing."""
        for rank in list(self._outputs):
            for _ in range(_LEFT_IN_A_PIPE // _READ):
                if not self._read(rank):
                    break
            if rank in self._outputs:
                self._end_log(rank)

    def _end_log(self, rank: int) -> None:
        assert self._logs
        try:
            if self._logs:
                self._logs.end(rank)
        except OSError as error:
            self._system_failed(error)
        self.unwatch(self._outputs.pop(rank))

    # How a run ends.

    def _stop(self, signum: int = signal.SIGTERM) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._faults.stop()
        self._stopped_at = time.monotonic()
        if self._launcher:
            self._launcher.stop()
        for pgid in self._groups.values():
            processes.send_group(pgid, signum)
        # Ranks that have not started never will.
        self._waiting &= self._groups.keys()
        self._kill_at = time.monotonic() + self._spec["grace"]

    def _cancel(self, reason: str) -> None:
        if not self._stopping:
            self._verdict = RunStatus.CANCELED
            self._state.status, self._state.error = RunStatus.CANCEL_REQUESTED, reason
            self._stop()

    def _time_out(self) -> None:
        if not self._stopping:
            seen = f"seen just before it was ended: {self._watch.waits}" if self._watch.waits else None
            self._state.hint = why_it_waited(self._state, self._folder.path) or seen
            self._cancel(f"it ran for longer than its timeout of {self._spec['timeout']:g} s")

    def _hangs(self, error: str) -> None:
        verdict = (self._watch.hang or {}).get("verdict") or {}
        self._fail(error, verdict.get("hint"))
        self._state.failed_rank = verdict.get("rank")

    def _fail(self, error: str, hint: str | None) -> None:
        self._verdict, self._state.exit_code = RunStatus.FAILED, 1
        self._state.error, self._state.hint = error, hint
        self._stop()

    def _system_failed(self, error: OSError) -> None:
        if self._verdict:
            return
        if error.errno in _OF_THE_DISK:
            self._fail(
                f"cannot write to the run's folder: {error.strerror}", "free some space, or choose another `--root`"
            )
        else:
            self._fail(f"the run hit a limit of the system: {error}", "check the limits with `ulimit -a`")

    def _lifeline_ended(self, fd: int) -> None:
        # Nothing is ever written to a lifeline: if it is readable, its other end is closed.
        self._selector.unregister(fd)
        if fd == 0:
            if not self._spec["detached"]:
                self._cancel(state.LAUNCHER_ENDED)
        else:
            self._fail("a guard of the run was killed; all processes were stopped", None)

    def _end(self) -> None:
        for pgid in self._groups.values():
            processes.send_group(pgid, signal.SIGKILL)
        explanation = self._launcher.close() if self._launcher else None
        left = processes.end_descendants(deadline=time.monotonic() + 5)
        run = self._state
        run.starting = None
        self._drain()
        if self._logs:
            self._logs.close()
        run.findings += self._faults.close()
        self.hosts.close()
        run.findings += [] if run.retry else self._spec["from_outside"]
        run.findings += self._collect()
        if left:
            run.findings.append(f"processes {left} could not be ended within 5 s")
        is_explained = self._judge()
        if run.failed_rank is not None and not is_explained:
            run.hint = run.hint or explanation
        if attempts.follows(self._spec, run, self._verdict) and self._begins_next():
            return
        run.findings += self._faults.never_came()
        self._watch.close(has_hung=run.status != RunStatus.COMPLETED)
        run.ended_at = time.time()
        run.findings += endpoint.differences(self._spec["tracking"]["run"])
        run.findings += figures.findings(figures.read_samples(self._folder.path, run.retry), self._serving)
        self._folder.release()
        endpoint.end_run(self._spec["tracking"]["run"], run.status)
        shutil.rmtree(self._folder.path / state.SNAPSHOT, ignore_errors=True)
        self._save()

    def _begins_next(self) -> bool:
        """Start another attempt; False if the disk has no space to record it."""
        attempts.begin_next(self._state, time.time())
        try:
            self._save()
        except OSError as error:
            self._verdict = None
            self._system_failed(error)
            self._state.status = RunStatus.FAILED
            return False
        return True

    def _collect(self) -> list[str]:
        """Findings about the files that the run left behind; an error here does not change how the run ended."""
        try:
            return collect(self._folder.path, self._spec["nodes"], self._spec["staged"], self._state.retry)
        except Exception as error:
            return [f"files in ./outputs and ./logs could not be moved out of nodes/: {type(error).__name__}: {error}"]

    def _judge(self) -> bool:
        """Determine the status, the exit code and the reason; whether that reason is certain."""
        run = self._state
        if self._verdict:
            run.status = self._verdict
            return False
        failed = [p for p in run.processes if p.exit_code != 0 and not (p.serves and p.stopped)]
        if not failed:
            run.status, run.exit_code = RunStatus.COMPLETED, 0
            return False
        # Most runs succeed, and start faster without importing what explains failures.
        from azml_dist.local.supervisor.verdict import told

        run.status, run.out_of_memory_kills = RunStatus.FAILED, kills_since(self._memory)
        for process in run.processes:
            if process.stopped:
                process.quiet = max(0.0, self._stopped_at - self._wrote.get(process.rank, self._began))
        found = told(run, self._folder.path, self._spec["contexts"][0]["env"])
        run.failed_rank, run.exit_code, run.error, run.hint = found.rank, found.exit_code, found.error, found.hint
        if on_purpose := self._faults.reason(run.processes[found.rank]):
            run.error, run.hint = on_purpose, None
            return True
        return found.explained

    # Helpers.

    @property
    def _position(self) -> int:
        return self._logs.position if self._logs else 0

    def _save(self) -> None:
        self._saved = time.monotonic()
        self._folder.write(self._state)

    def _save_in_passing(self) -> None:
        """Save the state; a full disk does not end the run as long as its logs can be written."""
        try:
            self._save()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._system_failed(error)

    def _listen_to_signals(self) -> None:
        """The end of a child wakes the loop; a termination signal stops the run."""
        wake, end = os.pipe()
        for fd in (wake, end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        self.watch(wake, lambda: self._on_signals(_read_some(wake)))
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def _on_signals(self, signums: bytes) -> None:
        if asked := set(signums) - {signal.SIGCHLD}:
            self._cancel(state.cancelled_by(min(asked)))


def _wall_clock(monotonic: float) -> float:
    """A time of the monotonic clock in seconds since 1970; the present one if it is 0."""
    return time.time() - (time.monotonic() - monotonic if monotonic else 0.0)


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b" "
