"""Log lines as people see them: `[node1 rank3] text`, the same for local runs and runs on Azure ML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from azml_dist.runs.bars import Rows, for_terminal, last_states, moves_up, state_of

# Eight colours that are legible on a dark and on a light background.
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93)
RICH_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red", "bright_cyan", "bright_yellow")
"""The same in the words of rich."""


_LONGEST = 1 << 20
"""Bytes of an incomplete line that are held back."""


class Source(NamedTuple):
    """A process that writes a log."""

    rank: int
    node_rank: int
    role: str = ""
    """Shown only if it matters, as for a parameter server."""
    member: str = ""
    """The trial or step that the process belongs to."""

    @property
    def label(self) -> str:
        return f"[{' '.join(filter(None, (self.member, f'node{self.node_rank}', f'rank{self.rank}', self.role)))}]"


class Reading(NamedTuple):
    """Which logs of a run to read, and how to show them."""

    ranks: frozenset[int] | None = None
    label: bool = True
    colour: bool = False
    follow: bool = False
    """Also wait for new lines, until the run ends."""
    tail: int | None = None
    """Start with only this many of the existing lines of each rank."""
    safe: bool = False
    """For a terminal: without control sequences other than colours."""
    fold: bool = False
    """Show equal lines of many ranks as one."""
    member: str = ""
    """The trial or step that the run is, for the labels of its lines."""


class Labeller:
    """Puts a label before each line, and leaves of a progress bar what it says last.

    Lines stay whole; a newline is added to a last line without one.
    """

    def __init__(self, sources: Sequence[Source], *, colour: bool = False, safe: bool = False) -> None:
        self._labels = [_coloured(s) if colour else f"{s.label} ".encode() for s in sources]
        self._safe = safe
        self._attempts: dict[int, int] = {}
        self.open: int | None = None
        """The rank whose line is still incomplete."""
        self._held = b""
        """The part of that line that is not printed yet, since the rest may be a progress bar that replaces it."""
        self._is_begun = False
        """Whether a part of it is: lines may have any length."""
        self._rows: dict[int, Rows] = {}
        """Of each rank that shows bars in several lines: those that are not printed yet."""

    @classmethod
    def of_none(cls, sources: Sequence[Source], *, safe: bool = False) -> Labeller:
        """A labeller without labels."""
        labeller = cls(sources, safe=safe)
        labeller._labels = [b""] * len(sources)
        return labeller

    def begin_after(self, attempts: Mapping[int, int]) -> None:
        """Begin in the middle: the attempt of each rank so far."""
        self._attempts.update(attempts)

    def label(self, piece: Piece) -> bytes:
        if self._attempts.setdefault(piece.rank, piece.attempt) != piece.attempt:
            self._attempts[piece.rank] = piece.attempt
            begun = f"-- attempt {piece.attempt + 1} --\n".encode()
            earlier = self.close() + self._labelled(piece.rank, self._rows.pop(piece.rank, Rows()).end(), False)
            return earlier + self.label(piece._replace(data=begun)) + self.label(piece)
        before = b"" if self.open == piece.rank else self.close()
        text, self._held = self._split(piece.rank, self._held + piece.data)
        is_begun, self._is_begun = self._is_begun, not text.endswith(b"\n") if text else self._is_begun
        self.open = piece.rank if self._held or self._is_begun else None
        return before + self._labelled(piece.rank, text, is_begun)

    def close(self) -> bytes:
        """What an incomplete line still needs, if there is one, as its rank writes no more: the rest, and a newline."""
        if self.open is None:
            return b""
        rows = self._rows.get(self.open)
        text = rows.write(self._held + b"\n") + rows.end() if rows else state_of(self._held) + b"\n"
        rest = self._labelled(self.open, text, self._is_begun)
        self.open, self._held, self._is_begun = None, b"", False
        return rest

    def end(self) -> bytes:
        """Everything that was held back."""
        return self.close() + b"".join(self._labelled(rank, lines, False) for rank, lines in self.bars())

    def bars(self) -> Iterator[tuple[int, bytes]]:
        """What the bars of each rank say last, if it shows some in several lines."""
        for rank, rows in self._rows.items():
            yield rank, rows.end()

    def ready(self) -> bytes:
        """What was held back and can be printed now: nothing."""
        return b""

    def _split(self, rank: int, data: bytes) -> tuple[bytes, bytes]:
        """The whole lines that can be printed, and the rest of the data."""
        if rank not in self._rows and moves_up(data):
            self._rows[rank] = Rows()
        rows = self._rows.get(rank)
        lines, newline, rest = (last_states(data) if rows is None else data).rpartition(b"\n")
        text = lines + newline if rows is None else rows.write(lines + newline)
        if rows and b"\r" in rest.rstrip(b"\r") and not moves_up(rest):
            rest = b"\r" + last_states(rest)  # still no line of plain text
        if len(rest) > _LONGEST:
            return text + (rows.end() if rows else b"") + rest, b""
        return text, rest

    def _labelled(self, rank: int, text: bytes, is_begun: bool) -> bytes:
        if not text:
            return text
        label = self._labels[rank]
        lines = for_terminal(text) if self._safe else text
        return (b"" if is_begun else label) + lines[:-1].replace(b"\n", b"\n" + label) + lines[-1:]


class Logs:
    """The log lines of a run. Iterate over them, `print` them, or end a notebook cell with them."""

    def __init__(self, lines: Callable[[], Iterator[str]]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        return self._lines()

    def __str__(self) -> str:
        return "\n".join(self)

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and any(text in line for line in self)

    def _ipython_display_(self) -> None:
        for line in self:
            print(line, flush=True)


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Complete lines with their newlines, however the chunks were cut."""
    begun: list[bytes] = []
    for chunk in chunks:
        *lines, rest = chunk.split(b"\n")
        if lines:
            yield b"".join((*begun, lines[0], b"\n"))
            yield from (line + b"\n" for line in lines[1:])
            begun = []
        if rest:
            begun.append(rest)
    if begun:
        yield b"".join(begun)


def as_text(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines as text, without their newlines; bytes that are not UTF-8 become a replacement character."""
    for line in whole_lines(chunks):
        yield line.decode(errors="replace").removesuffix("\n")


def _coloured(source: Source) -> bytes:
    return f"\x1b[{_COLOURS[source.rank % len(_COLOURS)]}m{source.label}\x1b[0m ".encode()


class Piece(NamedTuple):
    """Bytes of one rank. The pieces of one line are never interleaved with those of another rank."""

    rank: int
    data: bytes
    attempt: int = 0
    """0 is the first attempt."""
