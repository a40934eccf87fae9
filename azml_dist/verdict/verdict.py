"""`Verdict`: which rank failed, why, how certain that is, and the lines that show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "user-code",
    "missing-module",
    "missing-file",
    "permission",
    "bad-arguments",
    "data-access",
    "gpu-out-of-memory",
    "host-out-of-memory",
    "shared-memory",
    "disk-full",
    "collective-timeout",
    "collective-mismatch",
    "rendezvous",
    "gpu-hardware",
    "checkpoint-mismatch",
    "shape-mismatch",
    "not-a-number",
    "crash",
    "killed",
    "exit-code",
    "exit-flake",
    "hang",
    "preempted",
    "timeout",
    "canceled",
    "image-build",
    "launcher",
    "service",
    "unknown",
]
Certainty = Literal["certain", "likely", "unknown"]
"""`certain`: a line or the kernel says so, and nothing contradicts it; `likely`: the best explanation of what is
known; `unknown`: what is known does not explain it."""


STOPPED = "stopped"
"""What became of followers that said nothing, where it was seen."""


@dataclass(frozen=True)
class Evidence:
    """A line that the verdict is based on."""

    rank: int | None
    log: str
    line: int | None
    text: str


@dataclass(frozen=True)
class Verdict:
    """Why a run failed."""

    kind: Kind
    certainty: Certainty
    rank: int | None
    """The rank that failed first; None if that is unknown, or if no rank is to blame."""
    ranks: list[int]
    """All ranks that failed by themselves, for the same reason."""
    node: int | None
    exception: str | None
    message: str | None
    file: str | None
    """The file in the user's own code, relative to the code folder."""
    line: int | None
    source: str | None
    summary: str
    hint: str | None
    followers: list[int]
    """Ranks that failed or were stopped because another one had failed."""
    evidence: list[Evidence]
    before: tuple[str, ...] = ()
    """What the rank wrote last, before it failed."""
    consequence: str | None = None
    """What most followers said when they lost a peer, as `connection closed by peer`; or that they were stopped."""

    @property
    def were_stopped(self) -> bool:
        """Whether the followers said nothing, and were seen to be stopped."""
        return self.consequence == STOPPED

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        values = asdict(self)
        for shown_only in ("before", "consequence"):
            del values[shown_only]
        return values
