"""What to keep of a log that is too long: its beginning, its end, and the last traceback between them.

The message of an exception may be longer than all that is kept of the end: where it was raised is then far above.
"""

from __future__ import annotations

from typing import NamedTuple

from azml_dist.verdict.signatures import PROGRESS

HEAD, TAIL = 16_384, 65_536
"""How many bytes of the beginning and of the end of a log to keep."""
_HEADER = b"Traceback (most recent call last)"
_BEFORE, _AFTER = 8_192, 16_384
"""How many bytes to keep before and after the beginning of that traceback."""
_FEW = 20
"""Lines that may follow an exception in a log of a process that it ended."""


class Part(NamedTuple):
    """A part of a log that starts with a whole line."""

    first: int
    """Where it starts, in bytes."""
    data: bytes
    lines_before: int = 0


def beginning(data: bytes) -> bytes:
    """The first lines of a log, given its first `2 * HEAD` bytes; of a very long line, its first part."""
    if b"\n" not in data[HEAD:]:
        return data[:HEAD]
    return data[: data.rfind(b"\n", 0, HEAD) + 1]


def last_traceback(data: bytes, before: int) -> Part | None:
    """The last traceback in a part of a log that begins before a position there; counted from that part."""
    at = data.rfind(_HEADER, 0, before + len(_HEADER) - 1)
    if at < 0:
        return None
    first = data.find(b"\n", max(0, at - _BEFORE), at) + 1 or at
    return Part(first, data[first : at + _AFTER], data.count(b"\n", 0, first))


def is_needed(part: Part, tail: Part) -> bool:
    """Whether a traceback far above the end may be what ended the process, and the lines show whether it went on."""
    skipped = tail.lines_before - part.lines_before - part.data.count(b"\n")
    if skipped <= 0:
        return True  # one line is between them, or none
    lines = part.data.count(b"\n") + tail.data.count(b"\n")
    return _HEADER not in tail.data and (skipped <= _FEW or lines > 2 * _FEW)


def may_be_cut(tail: bytes) -> bool:
    """Whether the end of a log may be the end of a long message: it has no traceback, and speaks of no work."""
    return _HEADER not in tail and not PROGRESS.search(tail.decode(errors="replace"))
