"""What was observed of one process in its log: causes, consequences, and what it did last."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from azml_dist.verdict.ends import Statement
from azml_dist.verdict.known import CODE_ROOT
from azml_dist.verdict.signatures import FINISHED, OF_A_PEER, Signature
from azml_dist.verdict.streams import Stream
from azml_dist.verdict.tracebacks import Frame
from azml_dist.verdict.verdict import Certainty, Evidence, Kind

_STEP = re.compile(r"(?i)\b(?:step|iter(?:ation)?|batch)\b\W{0,3}(\d{1,12})")
_WAITED = re.compile(r"^(?:Empty|Full|Timeout\w*|BrokenBarrierError)$")
"""Exceptions of a thread that waited for another one, which may have failed."""
_SIGNIFICANT = re.compile(r"\d+|0x[0-9a-f]+")


@dataclass(frozen=True)
class Cause:
    """What may have ended a process."""

    rank: int | None
    log: str
    kind: Kind
    certainty: Certainty
    strength: int
    """3: a cause; 2: a failure that something else may explain; 1: the process continued after it."""
    lines: tuple[tuple[int, str], ...]
    exception: str | None = None
    message: str | None = None
    place: Frame | None = None
    hint: str | None = None
    blame: str = "rank"
    signature: Signature | None = None
    when: float | None = None
    begins: int | None = None
    """The number of its first line."""
    uncaught: bool = False
    """Whether torch has marked the traceback as the one that ended the process."""
    logged: bool = False
    """Whether the script caught the exception and wrote it to a log."""
    worked_on: bool = False
    """Whether steps of the script's work follow, and not only many other lines."""
    wrote_on: bool = False
    """Whether any line follows that speaks of its work, which may have waited in a buffer."""
    again: bool = False
    """Whether the same exception came before, at the same place: the script had caught it there."""
    thread: str | None = None
    """The thread that it ended, which is not the main one."""
    lost_later: Literal["", "gone", "late"] = ""
    """What a later exception of this process says of a peer: that one ended it."""

    @property
    def speaks_of_a_peer(self) -> bool:
        """Whether its words may be those of a script that lost another process."""
        return self.signature is None and bool(OF_A_PEER.search(self.message or ""))

    @property
    def waited(self) -> bool:
        """Whether it waited in vain, perhaps for another thread of its process."""
        return not (self.thread or self.signature) and bool(_WAITED.match(self.exception or ""))

    @property
    def likeness(self) -> tuple[str, str | None, str]:
        """Equal for the same cause on several ranks."""
        # Each node has a code folder of its own.
        where = f"{CODE_ROOT.sub('', self.place.path, count=1)}:{self.place.line}" if self.place else ""
        return self.kind, self.exception, where or _SIGNIFICANT.sub("0", self.message or "")[:80]


@dataclass(frozen=True)
class Loss:
    """A line that says that a peer is gone or did not arrive."""

    rank: int | None
    log: str
    line: int
    text: str
    signature: Signature
    values: dict[str, str | None] = field(default_factory=dict)
    place: Frame | None = None
    exception: str | None = None
    said: str = ""
    """The text that says so."""


@dataclass(frozen=True)
class Heard:
    """What a stream says. Only the end of its text is kept, so that thousands of ranks need little memory."""

    stream: Stream
    """Its last lines."""
    causes: Sequence[Cause]
    losses: Sequence[Loss]
    confirmations: Sequence[Loss]
    """Confirmations other than exceptions."""
    stated: Sequence[Statement]
    """How processes ended, as launchers and shells say."""
    of_the_run: Sequence[tuple[Signature, re.Match[str], Evidence]]
    """What is said about the whole run."""
    has_traceback: bool
    went_on: bool
    """There was an exception, but the process continued its work after it."""
    aborted_at_exit: bool
    prints: Mapping[int, str]
    """The collectives that ranks are in, according to messages."""
    before: Sequence[str]
    """Its last lines before those that say that it failed."""
    kernel_count: str | None
    """The kernel's own count of processes that it killed because memory ran out, if above 0."""

    @property
    def rank(self) -> int | None:
        return self.stream.rank

    @property
    def step(self) -> int | None:
        """The last step that its last lines speak of."""
        said = [int(found[1]) for line in self.stream.lines for found in _STEP.finditer(line)]
        return said[-1] if said else None

    @property
    def finished(self) -> bool:
        """Whether its last lines show that the work is done."""
        return any(map(FINISHED.search, self.stream.lines))
