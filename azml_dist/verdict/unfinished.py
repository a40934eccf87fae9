"""Logs that end too early, as copies of logs that were still being written: in a traceback, or in its last line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from azml_dist.verdict.known import Known
from azml_dist.verdict.scan import OF_LAUNCHERS
from azml_dist.verdict.signatures import NOISE, Signature
from azml_dist.verdict.streams import Stream
from azml_dist.verdict.tracebacks import Frame, Traceback, unfinished

WORDS = "its log ends in the middle of a traceback"
HINT = "look at the end of the whole log: this copy of it is incomplete"
_SAY_ALL = frozenset({"KeyError", "IndexError", "AttributeError", "NameError", "ZeroDivisionError"})
"""Exceptions that mean the same whatever the rest of their message is."""
_COLLECTIVE = re.compile(
    r"\b(?:dist|distributed|hvd|comm|accelerator|fabric)\.\w+\(|\b(?:all_reduce|barrier|broadcast|all_gather)\w*\("
)
_OF_COLLECTIVES = re.compile(r"[/\\]torch[/\\]distributed[/\\]|[/\\](?:horovod|mpi4py)[/\\]")


def frames_at_the_end(stream: Stream, known: Known) -> tuple[Frame, ...]:
    """The frames of a traceback whose exception is not in the log, if how the process ended was not seen either."""
    if stream.shared or stream.rank in known.ends:
        return ()
    return unfinished(stream.lines, cut=stream.cut)


def is_vague(stream: Stream, one: Traceback, signature: Signature | None) -> bool:
    """Whether the log ends before it shows what an exception means, or whether the script has caught it."""
    if not stream.cut or stream.scan.has(OF_LAUNCHERS):
        return False
    in_a_line = one.root.name in _SAY_ALL
    if any(not NOISE.search(line) for line in stream.lines[one.root.named + 1 if in_a_line else one.end :]):
        return True
    message = one.root.message
    is_whole = in_a_line and bool(message) and message.count("'") % 2 == 0
    return signature is None and not is_whole


def in_a_collective(frames: Sequence[Frame]) -> bool:
    """Whether a process was in a collective: it may have lost a peer there."""
    inner = frames[-1] if frames else None
    return inner is not None and bool(_OF_COLLECTIVES.search(inner.path) or _COLLECTIVE.search(inner.source or ""))
