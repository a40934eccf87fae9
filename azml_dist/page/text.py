"""Logs for a page: their lines as they can be shown, as many as fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO, NamedTuple

from azml_dist.verdict.hidden import hide

_LONGEST = 2000
"""How many letters of a line are shown."""
_LOOKED_AT = 65_536
"""How many bytes of a line are looked at."""
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and the like
    r"|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"  # titles and links
)
_COUNTED = 256_000_000
"""How many bytes are looked through for the number of a line."""
_PIECE = 1 << 20


class Lines(NamedTuple):
    """Lines of a log: its beginning, and its end after a gap."""

    lines: list[str | None]
    """None is the gap."""
    offsets: list[int | None]
    """The byte at which each line begins."""
    after: int | None = None
    """The number of the first line after the gap; None if there is no gap, or nobody counted."""
    gap: int = 0
    """How many bytes are left out."""


def shown_line(raw: bytes, secrets: Sequence[str] = ()) -> str:
    """A line as a terminal would show it: of a progress bar its last state; without colours; shortened; no secrets."""
    line = raw.rstrip(b"\r\n")
    # The last state of a progress bar is at the end.
    line = line[-_LOOKED_AT:].rpartition(b"\r")[2] if b"\r" in line else line[:_LOOKED_AT]
    text = line.decode(errors="replace")
    text = hide(_CONTROL.sub("", text[: 4 * _LONGEST]), secrets)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … (a line of {len(raw):,} bytes)"


def read_lines(file: IO[bytes], size: int, budget: int, secrets: Sequence[str] = ()) -> Lines:
    """The lines of a file of this size; at most so many bytes of it, a quarter from its beginning."""
    if size <= budget:
        data = file.read(size)
        return _lines(data, 0, secrets)
    head = _upto_last_line(file.read(budget // 4))
    rest = budget - budget // 4
    file.seek(size - rest)
    tail = file.read(rest)
    begin = tail.find(b"\n") + 1
    before = _lines(head, 0, secrets)
    offset = size - rest + begin
    after = _lines(tail[begin:], offset, secrets)
    number = _count(file, len(head), offset)
    return Lines(
        [*before.lines, None, *after.lines],
        [*before.offsets, None, *after.offsets],
        None if number is None else len(before.lines) + number + 1,
        offset - len(head),
    )


def _lines(data: bytes, offset: int, secrets: Sequence[str]) -> Lines:
    raw = data.splitlines(keepends=True) if b"\r" not in data else _split(data)
    offsets: list[int | None] = []
    for line in raw:
        offsets.append(offset)
        offset += len(line)
    return Lines([shown_line(line, secrets) for line in raw], offsets)


def _split(data: bytes) -> list[bytes]:
    """Lines end with a newline only: a carriage return begins the line again."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def _upto_last_line(data: bytes) -> bytes:
    end = data.rfind(b"\n") + 1
    return data[:end] if end else data


def _count(file: IO[bytes], begin: int, end: int) -> int | None:
    """The number of lines between two places; None if these are too far apart."""
    if end - begin > _COUNTED:
        return None
    file.seek(begin)
    found = 0
    while begin < end and (data := file.read(min(_PIECE, end - begin))):
        found += data.count(b"\n")
        begin += len(data)
    return found


def shares(sizes: Sequence[int], important: frozenset[int], budget: int) -> list[int]:
    """How many bytes of each log fit: the important ones first, a quarter of the budget each at most; equal parts of
    what is left for the others."""
    found = [0] * len(sizes)
    left = budget
    for place in sorted(important):
        if place < len(sizes):
            found[place] = min(sizes[place], budget // max(4, len(important) * 2))
            left -= found[place]
    waiting = sorted((place for place in range(len(sizes)) if not found[place]), key=lambda place: sizes[place])
    for number, place in enumerate(waiting):
        found[place] = min(sizes[place], left // (len(waiting) - number))
        left -= found[place]
    # What nobody else needs goes to the important ones.
    for place in sorted(important):
        if place < len(sizes):
            more = min(sizes[place] - found[place], max(left, 0))
            found[place] += more
            left -= more
    return found
