"""The files that hold all state of a local run: `run.json`, its lock, and the request to cancel it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.errors import NotFound
from azml_dist.local.checking import check_run
from azml_dist.local.record import Record, fresh
from azml_dist.regular import NO_LINK, UNWAITING, read_regular
from azml_dist.status import RunStatus

LAUNCHER_ENDED = "cancelled because the process that started it ended"
"""Why a run is cancelled if the process that it belongs to ends."""
PREEMPTED = "Preempted"
"""The status of an attempt that was evicted; never the status of a run."""
MEMBERS_PAUSE = 0.03
"""Seconds between two looks at the members of a sweep or pipeline that run."""

SNAPSHOT = ".snapshot"
"""A copy of the staged code in the run's folder, for the working directories of further attempts."""
ARTIFACTS = "artifacts"
"""The folder of a run for what was written to `./outputs` and the like; and the named output that refers to it, as in
azureml-examples' `hello-pipeline-default-artifacts`."""


class ProcessState(Record):
    """A process of the run. Until it ends, `exit_code` and `signal` are None; then one of them is set."""

    rank: int
    node_rank: int
    local_rank: int
    log: str
    role: str = "worker"
    serves: bool = False
    """It serves the others and does not end by itself: the run ends it when they have finished."""
    exit_code: int | None = None
    signal: int | None = None
    stopped: bool = False
    """It was stopped by the run, and did not end by itself."""
    pid: int | None = None
    noticed: int | None = None
    """When its end was noticed: the length of `merged.idx`, the order of all lines, at that time."""
    quiet: float | None = None
    """For a process that was stopped: the seconds since it last wrote something."""
    unheard: bool = False
    """Its `rank.py` was killed, and the process with it: how it would have ended is unknown."""
    started_at: float | None = None
    ended_at: float | None = None


class MemberState(Record):
    """A trial of a sweep, or a step of a pipeline."""

    label: str
    """`trial 3`, or the name of a step."""
    name: str
    """The name of its own run."""
    status: str = RunStatus.NOT_STARTED
    exit_code: int | None = None
    failed_rank: int | None = None
    error: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    values: dict[str, Any] = fresh(factory=dict)
    """The hyperparameters of a trial."""
    metric: float | None = None
    """The best value of the primary metric that the trial logged."""

    def is_final(self) -> bool:
        return RunStatus(self.status).is_final


class Attempt(Record):
    """An attempt that was followed by another."""

    status: str
    """`Failed`, or `Preempted`."""
    error: str | None
    failed_rank: int | None
    exit_code: int | None
    started_at: float | None
    ended_at: float
    processes: list[ProcessState]


class FaultState(Record):
    """An injected fault: what was requested, and what happened."""

    spec: str
    what: str
    """`kill rank 2`."""
    when: str
    """`10 s after all processes have started`."""
    rank: int | None = None
    node: int | None = None
    at: float | None = None
    """Seconds since the first process of its attempt started; None if the fault never occurred."""
    attempt: int | None = None
    """The attempt in which it occurred; 0 is the first."""
    pid: int | None = None
    trigger: str | None = None
    """What triggered it: `the 3rd line of rank 2 with a step: step 3`."""
    step: int | None = None
    """The highest step that any rank had logged by then."""
    ended: list[int] = fresh(factory=list)
    """The ranks that it ended."""
    note: str | None = None
    """More about it."""


class ServiceState(Record):
    """A service of the job that was started with the run."""

    name: str
    type: str
    """`tensor_board`."""
    url: str
    """Where it is as long as the run."""


NOTHING_MOVED = "nothing moved for"
"""How the error of a run begins that was ended because it hung."""


class RunState(Record):
    """The contents of `run.json`, which `azml-dist run --json` prints."""

    name: str
    folder: str
    processes: list[ProcessState] = fresh(factory=list)
    status: str = RunStatus.PREPARING
    exit_code: int | None = None
    """0, or the exit code of the process that failed first (128 + its signal if one ended it); None until the end."""
    failed_rank: int | None = None
    error: str | None = None
    hint: str | None = None
    retry: int = 0
    """The number of the attempt: 0 is the first, 1 is the one with its logs in `user_logs/retry_001`."""
    earlier: list[Attempt] = fresh(factory=list)
    """The earlier attempts; `processes` are those of the last one."""
    out_of_memory_kills: int | None = None
    """How many processes the kernel killed because memory ran out in the run's control group; None if unreadable."""
    launcher: str | None = None
    starting: str | None = None
    """What happens until all processes have started: `importing torch`, `starting processes`."""
    launcher_version: str | None = None
    """Version and path of mpirun."""
    world: dict[str, Any] = fresh(factory=dict)
    display_name: str | None = None
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    faults: list[FaultState] = fresh(factory=list)
    """The faults injected into it."""
    step_pattern: str | None = None
    """The pattern of log lines that contain the step, if given."""
    against: dict[str, Any] | None = None
    """The run without faults that this one is compared with: `run`, its name, and its final `metrics`."""
    services: list[ServiceState] = fresh(factory=list)
    findings: list[str] = fresh(factory=list)
    """Notes about what would differ or be lost on Azure ML."""
    kind: str | None = None
    """`sweep` or `pipeline` if the run has members."""
    members: list[MemberState] = fresh(factory=list)
    """Its trials or steps."""
    details: dict[str, Any] = fresh(factory=dict)
    """More about a sweep or pipeline, such as the best trial."""
    parent: str | None = None
    """The name of the run that this one belongs to."""
    file: str | None = None
    """The file of its job; None for a job that was made in Python, and in runs of older versions."""
    script: str | None = None
    """The script that its command starts, where one is seen."""
    origin: dict[str, Any] | None = None
    """The run that this one repeats: the fields of an `Origin`. `run.json` has it under `from`."""
    python: str | None = None
    """The Python that `python` runs in its command; None in runs of older versions."""

    def is_final(self) -> bool:
        return RunStatus(self.status).is_final

    @property
    def first_logs(self) -> list[str]:
        """The log of each process in the first attempt; the names in later attempts follow from it."""
        return [p.log for p in (self.earlier[0].processes if self.earlier else self.processes)]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints, with the members, if any, as `trials` or `steps`."""
        values = super().to_dict()
        values["from"] = values.pop("origin")
        kind, members, details = values.pop("kind"), values.pop("members"), values.pop("details")
        return values | ({"kind": kind, _MEMBERS[kind]: members, "details": details} if kind else {})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunState:
        values = {**data, "processes": _processes(data)}
        values["origin"] = values.pop("from", None)
        values["earlier"] = [Attempt(**{**a, "processes": _processes(a)}) for a in data.get("earlier", [])]
        values["faults"] = [FaultState(**f) for f in data.get("faults", [])]
        values["services"] = [ServiceState(**s) for s in data.get("services", [])]
        if kind := values.get("kind"):
            values["members"] = [MemberState(**m) for m in values.pop(_MEMBERS[kind])]
        return cls(**values)


def _processes(data: dict[str, Any]) -> list[ProcessState]:
    return [ProcessState(**p) for p in data["processes"]]


_MAX_BYTES = 64_000_000
"""More than the size of `run.json` for 100,000 processes."""
_LIST = "`azml-dist list` shows the readable runs"
_MEMBERS = {"sweep": "trials", "pipeline": "steps"}


class CancelRequest(NamedTuple):
    """The request to cancel a run."""

    kill: bool
    """Do not give its processes time to end by themselves."""
    reason: str
    """Who or what cancelled it: `cancelled with Ctrl-C`."""


def cancelled_by(signum: int) -> str:
    """The reason for the end of a run whose owner got a signal."""
    if signum == signal.SIGINT:
        return "cancelled with Ctrl-C"
    name = signal.Signals(signum).name
    return f"cancelled because its terminal was closed ({name})" if name == "SIGHUP" else f"cancelled by {name}"


class RunFolder:
    """The folder of a local run, `<root>/<name>`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._known, self._was_final = b"", False
        """The last `run.json` that was read and found to be right, and whether it was of a run that had ended."""

    @classmethod
    def make(cls, root: Path, state: RunState) -> tuple[RunFolder, int]:
        """Create the folder of a new run with its first state, and hold its lock; `FileExistsError` if it exists.

        The folder appears complete or not at all: if this process is killed halfway, the name stays free.
        """
        draft = cls(root / f".new-{os.getpid()}-{os.urandom(4).hex()}")
        draft.path.mkdir()
        lock = None
        try:
            lock = draft.lock()
            draft.write(state)
            if os.path.lexists(root / state.name):  # a rename would replace an empty folder
                raise FileExistsError(root / state.name)
            draft.path.rename(root / state.name)
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            shutil.rmtree(draft.path, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(root / state.name) from error
            raise
        return cls(root / state.name), lock

    @property
    def file(self) -> Path:
        return self.path / "run.json"

    def read(self) -> RunState:
        """The state as it was last written; `Failed` if all processes of an unfinished run are gone.

        Raises `NotFound` if there is no readable state.
        """
        # Checked before the file is read: if the run ends in between, its final state has been written.
        alive = self.is_alive()
        try:
            text = read_regular(self.file, _MAX_BYTES)
            data = json.loads(text)
            if text != self._known:
                check_run(data)
            state = RunState.from_dict(data)
            self._known, self._was_final = text, state.is_final()
        except FileNotFoundError as error:
            raise NotFound(f"{self.path} is no longer the folder of a run", hint=_LIST) from error
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            why = error.strerror or error if isinstance(error, OSError) else error
            hint = f"{_LIST}; the files of this one are in {self.path}"
            raise NotFound(f"{self.file} is not a valid run state: {why}", hint=hint) from error
        # The run is found by the folder's name, and the folder may have been renamed.
        state.name, state.folder = self.path.name, str(self.path)
        if not alive and not state.is_final():
            self._end_without_owner(state)
        return state

    def has_ended(self) -> bool:
        """Whether the run has ended, for who asks again and again: mostly, nothing has changed since the last time."""
        with contextlib.suppress(OSError):
            if self.is_alive() and read_regular(self.file, _MAX_BYTES) == self._known:
                return self._was_final
        return self.read().is_final()

    def _end_without_owner(self, state: RunState) -> None:
        """The final state of a run whose owner is gone."""
        state.exit_code, state.ended_at = 1, state.ended_at or self._last_sign_of_life()
        if not state.kind:
            state.status = RunStatus.FAILED
            state.error = "the run's own processes were killed, or the machine was restarted"
            return
        # Its members have their own supervisors, which cancel them and record that.
        state.status, state.error = RunStatus.CANCELED, LAUNCHER_ENDED
        for member in state.members:
            if member.started_at and not member.is_final():
                self._take_ending(member)
                if not member.is_final():
                    state.status, state.ended_at = RunStatus.CANCEL_REQUESTED, None

    def _take_ending(self, member: MemberState) -> None:
        try:
            own = RunFolder(self.path.parent / member.name).read()
        except NotFound:
            member.status, member.error = RunStatus.CANCELED, LAUNCHER_ENDED
            return
        member.status, member.exit_code, member.failed_rank = own.status, own.exit_code, own.failed_rank
        member.error, member.ended_at = own.error, own.ended_at

    def _last_sign_of_life(self) -> float | None:
        try:
            return self.file.stat().st_mtime
        except OSError:
            return None

    def write(self, state: RunState) -> None:
        """Replace `run.json` atomically: a reader sees either the old state or the new one."""
        replace_file(self.file, json.dumps(state.to_dict(), indent=1))

    def lock(self) -> int:
        """Mark the run as alive as long as this process, or one that inherits the descriptor, lives."""
        import fcntl  # not available on Windows, which has no local runs

        fd = os.open(self.path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | NO_LINK | UNWAITING, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def is_alive(self) -> bool:
        try:
            import fcntl

            fd = os.open(self.path / "run.lock", os.O_RDONLY | os.O_CLOEXEC | NO_LINK | UNWAITING)
        except (ImportError, OSError):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def request_cancel(self, reason: str, *, kill: bool = False) -> None:
        """Ask the run's supervisor to end it; with `kill`, its processes get no time to end by themselves.

        A request to kill stands: two interrupts in quick succession may come here in either order.
        """
        earlier = None if kill else self.cancel_request()
        if earlier and earlier.kill:
            return
        replace_file(self.path / "cancel", f"{'kill' if kill else 'end'}\n{reason[:200]}")

    def cancel_request(self) -> CancelRequest | None:
        """The request, if there is one."""
        try:
            how, _, reason = read_regular(self.path / "cancel", 1000).decode(errors="replace").partition("\n")
        except OSError:
            return None
        return CancelRequest(how == "kill", " ".join(reason.split()) or "cancelled")

    def reserve(self) -> None:
        """Reserve space for the final state in case the disk fills up: a larger `run.json` needs room next to it."""
        (self.path / ".reserve").write_bytes(bytes(65536 + 2 * self.file.stat().st_size))

    def release(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / ".reserve").unlink()


def replace_file(file: Path, text: str) -> None:
    """Write a file completely or not at all, and never through a link."""
    draft = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666), "wb") as opened:
            opened.write(text.encode(errors="backslashreplace"))
        draft.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def is_run(folder: Path) -> bool:
    """Whether a `run.json` exists, valid or not; reading it reports what is wrong."""
    try:
        return os.path.lexists(folder / "run.json")
    except (OSError, ValueError):
        return False
