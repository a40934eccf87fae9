"""Splits logs into one stream for each process, and removes what launchers and terminals add to lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from azml_dist.verdict.known import Line, Log
from azml_dist.verdict.records import unwrapped
from azml_dist.verdict.scan import OF_PREFIXES, OF_RECORDS, PREFIX, TRACEBACK, Scan
from azml_dist.verdict.tracebacks import LOGGED_ERROR

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_HEADER = "Traceback (most recent call last)"
_OWN = re.compile(r"[\s|+╭┌─-]*|.*(?:Original |Exception Group |in thread .*)")
"""What Python itself writes before that."""
_MARGIN = re.compile(r"(?P<margin> {2,})(?:[╭┌]|(?:Original )?Traceback )")
_BROKEN = re.compile(r"  File(?: \"[^\"]*)?(?:\",?)?$|  File \"[^\"]+\",(?! line \d+, in \S).*")
_PLACE = re.compile(r"  File \"[^\"]+\", line \d+, in \S+")
_PIECES = 6
"""Lines that one place may be broken into."""
_LABEL = 200
"""How many characters there may be before each line of a traceback."""
_LOCAL = -1
"""torchrun's tee names the local rank; numbers from here on stand for local ranks other than 0, whose global rank is
unknown."""
_LONGEST = 4000
"""How many characters of a line to read."""


@dataclass(frozen=True)
class Stream:
    """The lines of one process in one log."""

    log: str
    rank: int | None
    node: int | None
    numbers: Sequence[int]
    lines: Sequence[str]
    marked: frozenset[int] = frozenset()
    """Indices of lines with torch's prefix, which marks the traceback that ended the process."""
    shared: bool = False
    """Whether several processes wrote to this log."""
    cut: bool = False
    """Whether its last line may be incomplete."""
    scanned: Scan | None = field(default=None, compare=False, repr=False)
    """The words in these lines, if they were looked for before."""

    @cached_property
    def text(self) -> str:
        return "\n".join(self.lines)

    @cached_property
    def scan(self) -> Scan:
        return self.scanned or Scan(self.lines)

    def end(self, count: int) -> Stream:
        """The last lines of it."""
        return replace(self, numbers=self.numbers[-count:], lines=self.lines[-count:], marked=frozenset(), scanned=None)


def streams(log: Log) -> list[Stream]:
    """The streams in a log: one if one process wrote it, else one for each process that lines name."""
    found = _streams(log)
    if not log.cut:
        return found
    last = log.lines[-1].number
    return [replace(one, cut=True) if one.numbers and one.numbers[-1] == last else one for one in found]


def _streams(log: Log) -> list[Stream]:
    texts = [line.text for line in log.lines]
    scan = Scan(texts)
    lines = unwrapped(log.lines, scan.lines_with(OF_RECORDS))
    if lines is not log.lines:
        log = replace(log, lines=lines)
        texts = [line.text for line in lines]
        scan = Scan(texts)
    if not scan.has(OF_PREFIXES):
        bare = _unlabelled(_short(texts), scan.lines_with([TRACEBACK]))
        numbers = [line.number for line in log.lines]
        return [Stream(log.name, log.rank, log.node, numbers, bare, scanned=scan if bare is texts else None)]
    taken = [(Line(line.number, text), marked, by) for line in log.lines for text, marked, by in [_bare(line.text)]]
    named = {by for _, _, by in taken if by is not None}
    if not named or named == {log.rank}:
        return [_stream(log, log.rank, taken)]
    # If lines name several ranks, a line that names none may be from any process, such as the launcher.
    whose: list[int | None] = [*sorted(named), None]
    others = log.rank if log.rank is not None and len(named) == 1 else None
    others = None if min(named) < 0 else others
    parts = [(by, [one for one in taken if one[2] == by]) for by in whose]
    return [
        _stream(log, others if by is None else by if by >= 0 else None, part, shared=by is None or by < 0)
        for by, part in parts
        if part
    ]


def _stream(
    log: Log, rank: int | None, taken: Iterable[tuple[Line, bool, int | None]], *, shared: bool = False
) -> Stream:
    kept = list(taken)
    marked = frozenset(index for index, (_, marked, _) in enumerate(kept) if marked)
    numbers = [line.number for line, _, _ in kept]
    short = [line.text[:_LONGEST] for line, _, _ in kept]
    lines = _unlabelled(short, [at for at, line in enumerate(short) if TRACEBACK in line])
    return Stream(log.name, rank, log.node, numbers, lines, marked, shared)


def _unlabelled(lines: Sequence[str], begins: Sequence[int]) -> Sequence[str]:
    """The lines without what a logger or a collector of logs has put before each line of a traceback, such as a time.

    `begins` are the lines at which tracebacks may begin. The first line of one that was logged as an error keeps its
    label, since the script may have caught the exception.
    """
    begins = [at for at in begins if _HEADER in lines[at]]
    labels = {label for at in begins for below in lines[at + 1 : at + 2] if (label := _label(lines[at], below))}
    lines = _dedented(lines, begins)
    if not labels:
        return lines
    pattern = re.compile("|".join(sorted(labels, key=len, reverse=True)))
    return [
        line[found.end() :]
        if (found := pattern.match(line)) and not (_HEADER in line and LOGGED_ERROR.search(found[0]))
        else line
        for line in lines
    ]


def _dedented(lines: Sequence[str], begins: Sequence[int]) -> Sequence[str]:
    """The lines without the margin of a traceback that is in a column, as rich's handler and pip write it.

    The column may be narrow, which breaks the lines that name a place: they are put together again.
    """
    margins = {at: len(begun["margin"]) for at in begins if (begun := _MARGIN.match(lines[at]))}
    if not margins:
        return lines
    found, margin = list(lines), 0
    for at, line in enumerate(lines):
        margin = margins.get(at) or (margin if not line.strip() or line[:margin].isspace() else 0)
        found[at] = line[margin:].rstrip() if margin else line
        if margin and (broken := _BROKEN.match(found[at])):
            found[at] = _joined(broken[0], lines[at + 1 : at + _PIECES], margin)
    return found


def _joined(place: str, rest: Sequence[str], margin: int) -> str:
    """A line that names a place, from the pieces of it in a narrow column."""
    for piece in rest:
        if _PLACE.match(place) or not piece[:margin].isspace():
            break
        place += ("" if place.count('"') % 2 else " ") + piece[margin:].strip()
    return place


def _label(header: str, below: str) -> str | None:
    """A pattern of what is before the first line of a traceback, if it is before the second one, too."""
    before = header[: header.index(_HEADER)]
    if len(before) > _LABEL or _OWN.fullmatch(before):
        return None
    pattern = re.sub(r"\d+", r"\\d+", re.escape(before))
    found = re.match(pattern, below)
    return pattern if found and below[found.end() :].startswith('  File "') else None


def _short(texts: list[str]) -> list[str]:
    return texts if max(map(len, texts), default=0) <= _LONGEST else [text[:_LONGEST] for text in texts]


def _bare(text: str) -> tuple[str, bool, int | None]:
    """A line without additions, whether torch has marked it, and the rank that it names."""
    if "\r" in text:
        # A progress bar that is redrawn: its last state counts.
        text = text.rstrip("\r").rpartition("\r")[2]
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    marked, by = False, None
    while found := PREFIX.match(text):
        text = text[found.end() :]
        marked = marked or found["torch"] is not None
        rank = found["torch"] or found["mpi"] or found["torch2"]
        by = int(rank) if rank and len(rank) < 8 else by
        if (local := found["local"]) and len(local) < 8 and int(local):
            by = _LOCAL - int(local)
    return text, marked, by
