"""What is known about a failed run: the logs of its ranks, how they ended, what the service says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from azml_dist.status import RunStatus


class Line(NamedTuple):
    """A line of a log; the number of the first line is 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Log:
    """A log, or only its first and last lines if it is long."""

    name: str
    lines: Sequence[Line]
    rank: int | None = None
    """The rank that wrote it; None if several did, or none."""
    node: int | None = None
    arrived: Mapping[int, int] = field(default_factory=dict)
    """By line number, the place of a line in the order in which all lines arrived, if that was observed."""
    cut: bool = False
    """Whether its last line has no end, as in a copy of a log that was still being written."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    exit_code: int | None = None
    signal: int | None = None
    stopped: bool = False
    """It was stopped because the run was over."""
    noticed: float | None = None
    """When its end was observed, by one clock for all ranks: that of `Log.arrived` if there is one."""
    quiet: float = 0.0
    """Seconds since it last wrote something, when it was stopped."""

    @property
    def well(self) -> bool:
        return self.exit_code == 0 and not self.signal


@dataclass(frozen=True)
class Said:
    """What the service says about a run."""

    message: str = ""
    codes: Sequence[str] = ()
    """`code` of the error and of all its inner errors, the outermost first."""
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Said | None:
        """From an answer of the run history, or the part of it that contains the error."""
        error = details.get("error")
        inner = error.get("error") if isinstance(error, dict) else None
        found = inner if isinstance(inner, dict) else error
        if not isinstance(found, dict) or not (found.get("message") or found.get("code")):
            return None
        warnings = details.get("warnings")
        said = [w.get("message") for w in warnings if isinstance(w, dict)] if isinstance(warnings, list) else []
        return cls(str(found.get("message") or ""), _codes(found), [str(one) for one in said if one])


class OnPurpose(NamedTuple):
    """What an injected fault did to a rank."""

    spec: str
    did: str
    """`killed`, `stopped`, `ended with exit code 0`."""
    ended: bool
    """Whether it ended the rank."""


@dataclass(frozen=True)
class Known:
    """Everything that a verdict is based on."""

    logs: Iterable[Log]
    """Logs of ranks, launchers and the service; each line shows by itself what it is. Each log is read once."""
    ends: Mapping[int, Ended] = field(default_factory=dict)
    """By rank, for the processes whose end was observed."""
    said: Said | None = None
    status: RunStatus | None = None
    """None if there are only logs."""
    error: str | None = None
    """What the executor says about the whole run: `it ran for longer than its timeout of 60 s`."""
    out_of_memory_kills: int | None = None
    """How many processes the kernel killed because memory ran out, by its own count; None if it could not be read."""
    on_purpose: Mapping[int, OnPurpose] = field(default_factory=dict)
    """By rank, what injected faults did to it in this attempt."""
    nodes: Mapping[int, int] = field(default_factory=dict)
    """The node of each rank."""
    code_roots: Sequence[str] = ()
    """Code folders, with which paths in tracebacks begin."""
    secrets: Sequence[str] = ()
    """Values that must not be shown."""
    command: str | None = None
    """What each process ran."""
    environment: str | None = None
    """The environment of the job, by name."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The files of the code folder that were not uploaded, each with the rule that says so: `.amlignore:3: data/`."""
    here: bool = False
    """Whether it ran on this machine, with this machine's packages."""


_CODE = 128
"""How many characters of an error code to keep."""


def _codes(error: Mapping[str, Any], depth: int = 8) -> list[str]:
    code = error.get("code")
    own = [str(code)[:_CODE]] if isinstance(code, str) and code else []
    inner = error.get("innerError")
    return own + (_codes(inner, depth - 1) if isinstance(inner, dict) and depth else [])


NAME = re.compile(
    r"(?:^|/)(?:retry_?(?P<attempt>\d+)/)?"
    r"std_log(?:_process_(?P<rank>\d+)|_node_(?P<node>\d+)(?:_(?P<role>[a-z]+))?)?(?:_rank_\d+)?\.txt$"
)
"""Azure's names of rank logs, with any number of digits."""
DUMP = re.compile(r"(?:^|/)(?:flight_recorder|nccl_trace|comm_lib_trace)_rank_(?P<rank>\d{1,7})$")
"""Files with dumps: those of `submit --watch-hangs`, and torch's own names."""
CODE_ROOT = re.compile(
    r"^.*?/(?:(?:exe|node_\d+)/wd|azureml-setup/\.\.|workdir|code|nodes/(?:retry_\d+/)?\d+)/|^.*/azureml/[\w-]+/(?:wd|code)/"
)
"""What comes before a path in the code folder, on Azure ML and in a local run."""
