"""The files that are a local run's only state: `run.json`, its lock, and the request to cancel it."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from azml_dist.errors import NotFound

NOT_STARTED, PREPARING, RUNNING, CANCEL_REQUESTED = "NotStarted", "Preparing", "Running", "CancelRequested"
COMPLETED, FAILED, CANCELED = "Completed", "Failed", "Canceled"
PREEMPTED = "Preempted"
"""How an attempt ended whose nodes were taken away; never the status of a run."""
FINAL = frozenset({COMPLETED, FAILED, CANCELED})
"""Azure's own words, and those after which nothing changes any more."""


@dataclass
class ProcessState:
    """A process of the run. `exit_code` is None and `signal` set where a signal ended it; both None before the end."""

    rank: int
    node_rank: int
    local_rank: int
    log: str
    role: str = "worker"
    serves: bool = False
    """It serves the others and does not end by itself: the run ends it when they are done."""
    exit_code: int | None = None
    signal: int | None = None
    stopped: bool = False
    """Ended because the run was stopped, not by itself."""
    pid: int | None = None


@dataclass
class MemberState:
    """A run among those that one run consists of: a trial of a sweep, a step of a pipeline."""

    label: str
    """`trial 3`, or the name of a step."""
    name: str
    """Of its own run, by which it is found."""
    status: str = NOT_STARTED
    exit_code: int | None = None
    failed_rank: int | None = None
    error: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    values: dict[str, Any] = field(default_factory=dict)
    """What a trial tries."""
    metric: float | None = None
    """The best value of the primary metric that a trial logged."""


@dataclass
class Attempt:
    """An attempt that was followed by another. The processes' exit codes tell more."""

    status: str
    """`Failed`, or `Preempted`."""
    error: str | None
    failed_rank: int | None
    exit_code: int | None
    started_at: float | None
    ended_at: float
    processes: list[ProcessState]


@dataclass
class RunState:
    """What `run.json` holds, and `azml-dist run --json` prints."""

    name: str
    folder: str
    processes: list[ProcessState] = field(default_factory=list)
    status: str = PREPARING
    exit_code: int | None = None
    """0, or that of the process that failed first (128 + the signal that ended it); None before the end."""
    failed_rank: int | None = None
    error: str | None = None
    hint: str | None = None
    retry: int = 0
    """Which attempt this is: 0 is the first, and 1 the one whose logs are in `user_logs/retry_001`."""
    earlier: list[Attempt] = field(default_factory=list)
    """The attempts before; `processes` and what ended them are those of the last."""
    launcher: str | None = None
    launcher_version: str | None = None
    """Of mpirun: which one it is, and where it was found."""
    world: dict[str, Any] = field(default_factory=dict)
    display_name: str | None = None
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    findings: list[str] = field(default_factory=list)
    """What this run did that would go differently on Azure ML, or is lost there."""
    kind: str | None = None
    """`sweep` or `pipeline` for a run that consists of others."""
    members: list[MemberState] = field(default_factory=list)
    """The runs that it consists of."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else there is to know of such a run, as the best trial of a sweep."""
    parent: str | None = None
    """The run that this one belongs to."""

    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def first_logs(self) -> list[str]:
        """The log of each process in the first attempt; those of others are named after them."""
        return [p.log for p in (self.earlier[0].processes if self.earlier else self.processes)]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints: the runs that one consists of as `trials` or `steps`, where there are any."""
        values = asdict(self)
        kind, members, details = values.pop("kind"), values.pop("members"), values.pop("details")
        return values | ({"kind": kind, _MEMBERS[kind]: members, "details": details} if kind else {})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunState:
        values = {**data, "processes": _processes(data)}
        values["earlier"] = [Attempt(**{**a, "processes": _processes(a)}) for a in data.get("earlier", [])]
        if kind := values.get("kind"):
            values["members"] = [MemberState(**m) for m in values.pop(_MEMBERS[kind])]
        return cls(**values)


def _processes(data: dict[str, Any]) -> list[ProcessState]:
    return [ProcessState(**p) for p in data["processes"]]


_MEMBERS = {"sweep": "trials", "pipeline": "steps"}


class RunFolder:
    """The folder of a local run, `<root>/<name>`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def file(self) -> Path:
        return self.path / "run.json"

    def read(self) -> RunState:
        """The state as it was last written; of a run whose processes are all gone, that it failed.

        Raises `NotFound` where there is none that can be read.
        """
        # Asked before the file is read: a run that ends in between has written its end by then.
        alive = self.is_alive()
        try:
            state = RunState.from_dict(json.loads(self.file.read_bytes()))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise NotFound(f"{self.file} is not the state of a run: {error}") from error
        if not alive and not state.is_final():
            state.status, state.exit_code = FAILED, 1
            state.error = "the run's own processes were killed, or the machine was restarted"
            for member in state.members:
                if member.started_at and member.status not in FINAL:
                    member.status, member.error = FAILED, state.error
        return state

    def write(self, state: RunState) -> None:
        """Replace `run.json` at once: a reader sees the old state or the new one."""
        draft = self.path / f".run.json.{os.getpid()}"
        draft.write_text(json.dumps(state.to_dict(), indent=1))
        draft.replace(self.file)

    def lock(self) -> int:
        """Mark the run as alive, for as long as this process or one that inherits the descriptor lives."""
        import fcntl  # not on Windows, where there are no local runs

        fd = os.open(self.path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def is_alive(self) -> bool:
        try:
            import fcntl

            fd = os.open(self.path / "run.lock", os.O_RDONLY | os.O_CLOEXEC)
        except (ImportError, OSError):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def request_cancel(self, *, kill: bool = False) -> None:
        """Ask the run's supervisor to end it; with `kill`, without giving its processes time to end by themselves."""
        (self.path / "cancel").write_text("kill" if kill else "")

    def cancel_request(self) -> str | None:
        """None, or the text of the request."""
        try:
            return (self.path / "cancel").read_text()
        except FileNotFoundError:
            return None

    def reserve(self) -> None:
        """Keep room for the last word, should the disk become full."""
        (self.path / ".reserve").write_bytes(bytes(65536))

    def release(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / ".reserve").unlink()
