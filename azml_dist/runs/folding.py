"""Equal lines of many ranks as one: `[ranks 0-63] epoch 1 done`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

from azml_dist.runs.logs import Labeller, Piece, Reading, Source
from azml_dist.words import ranks_text

MANY = 16
"""Lines of more ranks than that are folded."""
MOMENT = 0.3
"""Seconds within which equal lines count as one event."""
_PER_RANK = 8
"""How many lines of each rank may arrive meanwhile: of a log that is read again, nobody knows the seconds."""
_BYTES = 1 << 22
"""Bytes of lines that wait at most."""


def labeller_of(how: Reading, sources: Sequence[Source]) -> Labeller | Folding:
    """What puts labels before lines: of many ranks, equal lines get one, if that is wanted."""
    count = len(sources) if how.ranks is None else len(how.ranks)
    if how.member:
        sources = [one._replace(member=how.member) for one in sources]
    if not how.label:
        return Labeller.of_none(sources, safe=how.safe)
    if how.fold and count > MANY:
        return Folding(sources, count, colour=how.colour, safe=how.safe)
    return Labeller(sources, colour=how.colour, safe=how.safe)


class _Group:
    """A line, and the ranks that have written it."""

    def __init__(self, line: bytes, number: int, arrived: int, at: float) -> None:
        self.line, self.number, self.arrived, self.at = line, number, arrived, at
        self.ranks: list[int] = []


class Folding:
    """Labels lines as `Labeller` does, and holds them back for a moment: others may write the same.

    The lines of each rank stay in order: a rank that is behind joins no line from before its own last one.
    """

    def __init__(self, sources: Sequence[Source], count: int, *, colour: bool = False, safe: bool = False) -> None:
        """`count`: how many of the ranks are read."""
        self._labeller = Labeller(sources, colour=colour, safe=safe)
        self._bare = Labeller.of_none(sources, safe=safe)
        self._count = count
        self._bold = ("\x1b[1m", "\x1b[0m") if colour else ("", "")
        self._groups: deque[_Group] = deque()
        self._by_line: dict[bytes, _Group] = {}
        """The newest group of each line."""
        self._last = [-1] * len(sources)
        """The number of the group that each rank joined last."""
        self._lines = self._made = self._bytes = 0

    def begin_after(self, attempts: Mapping[int, int]) -> None:
        """Begin in the middle: the attempt of each rank so far."""
        self._bare.begin_after(attempts)

    def label(self, piece: Piece) -> bytes:
        """The lines that are ready now."""
        now = time.monotonic()
        if self._bare.open not in (None, piece.rank):
            self._end_line(now)
        text = self._bare.label(piece)
        if text and not text.endswith(b"\n"):  # a line longer than any that is held back
            return self._flush() + self._labeller.label(Piece(piece.rank, text))
        for line in text.split(b"\n")[:-1]:
            self._add(piece.rank, line, now)
        return self.ready(now)

    def ready(self, now: float | None = None) -> bytes:
        """The lines that have waited for a moment, or that all ranks have written."""
        now = time.monotonic() if now is None else now
        found = []
        while self._groups and self._is_ready(self._groups[0], now):
            found.append(self._take())
        return b"".join(found)

    def end(self) -> bytes:
        """All lines that are left."""
        now = time.monotonic()
        self._end_line(now)
        for rank, lines in self._bare.bars():
            for line in lines.split(b"\n")[:-1]:
                self._add(rank, line, now)
        return self._flush()

    def _end_line(self, now: float) -> None:
        """The rank whose line is incomplete writes no more of it."""
        rank, rest = self._bare.open, self._bare.close()
        if rank is not None:
            for line in rest.split(b"\n")[:-1]:
                self._add(rank, line, now)

    def _add(self, rank: int, line: bytes, now: float) -> None:
        self._lines += 1
        group = self._by_line.get(line)
        if group is None or group.number <= self._last[rank]:
            group = self._by_line[line] = _Group(line, self._made, self._lines, now)
            self._made += 1
            self._bytes += len(line)
            self._groups.append(group)
        group.ranks.append(rank)
        self._last[rank] = group.number

    def _is_ready(self, group: _Group, now: float) -> bool:
        return (
            now >= group.at + MOMENT
            or len(group.ranks) == self._count
            or self._lines - group.arrived > _PER_RANK * self._count
            or self._bytes > _BYTES
        )

    def _take(self) -> bytes:
        group = self._groups.popleft()
        if self._by_line.get(group.line) is group:
            del self._by_line[group.line]
        self._bytes -= len(group.line)
        if len(group.ranks) == 1:
            return self._labeller.label(Piece(group.ranks[0], group.line + b"\n"))
        begin, end = self._bold
        return f"{begin}[{ranks_text(group.ranks)}]{end} ".encode() + group.line + b"\n"

    def _flush(self) -> bytes:
        return b"".join(self._take() for _ in range(len(self._groups)))
