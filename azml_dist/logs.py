"""Log lines as people see them: `[node1 rank3] text`, alike for local runs and runs on Azure ML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from azml_dist.local.merged import Piece

# The eight that are legible on a dark and on a light ground.
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93)


class Source(NamedTuple):
    """A process that writes a log."""

    rank: int
    node_rank: int
    role: str = ""
    """Where it is worth a word: a parameter server's."""
    member: str = ""
    """Which of the runs that one run consists of: a trial, or a step."""

    @property
    def label(self) -> str:
        return f"[{' '.join(filter(None, (self.member, f'node{self.node_rank}', f'rank{self.rank}', self.role)))}]"


class Labeller:
    """Puts each line's label before it. Lines stay whole; a last line without an end gets one."""

    def __init__(self, sources: Sequence[Source], *, colour: bool = False) -> None:
        self._labels = [_coloured(s) if colour else f"{s.label} ".encode() for s in sources]
        self._attempts: dict[int, int] = {}
        self._open: int | None = None
        """The rank whose line has been begun and not ended."""

    @classmethod
    def of_none(cls, sources: Sequence[Source]) -> Labeller:
        """One that leaves lines as they are, but for the end of the last."""
        labeller = cls(sources)
        labeller._labels = [b""] * len(sources)
        return labeller

    def label(self, piece: Piece) -> bytes:
        if self._attempts.setdefault(piece.rank, piece.attempt) != piece.attempt:
            self._attempts[piece.rank] = piece.attempt
            begun = f"-- attempt {piece.attempt + 1} --\n".encode()
            return self.end() + self.label(piece._replace(data=begun)) + self.label(piece)
        label, data = self._labels[piece.rank], piece.data
        ended = data.endswith(b"\n")
        text = data[:-1].replace(b"\n", b"\n" + label) + data[-1:]
        before = b"" if self._open == piece.rank else self.end() + label
        self._open = None if ended else piece.rank
        return before + text

    def end(self) -> bytes:
        """What is missing to the end of a line."""
        ending = b"" if self._open is None else b"\n"
        self._open = None
        return ending


class Logs:
    """Lines of a run's logs. Iterate over it, `print` it, or leave it at the end of a notebook cell."""

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
    """Lines with their ends, however they were cut into chunks."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def as_text(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines without their ends, as text; what is no UTF-8 has a mark in its place."""
    for line in whole_lines(chunks):
        yield line.decode(errors="replace").removesuffix("\n")


def _coloured(source: Source) -> bytes:
    return f"\x1b[{_COLOURS[source.rank % len(_COLOURS)]}m{source.label}\x1b[0m ".encode()
