"""Lines that rewrite themselves, as progress bars do: what each says last; and lines that are safe for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from azml_dist.words import late

_REWRITTEN = late(rb"(?m)^[^\n]*\r(?=[^\r\n])")
"""What a line says before its last carriage return: tqdm, pip and curl write that alone, Keras backspaces before it."""
_ENDS = b"\r\b"
_CONTROL = late(
    rb"(\x1b\[[0-9;:]*m)"  # colours: kept
    rb"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
    rb"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]"
)
"""Whatever moves the cursor, clears the screen, sets a title or rings: sequences of ECMA-48, and single characters."""
_PRINTED = bytes(byte for byte in range(256) if (byte >= 0x20 and byte not in (0x7F, 0xC2)) or byte in b"\t\n")
"""Bytes that are no part of a control sequence."""
_COLOURED = late(rb"(?m)\x1b\[[0-9;:]*m[^\n]*$")
_PLAIN = b"\x1b[0m"


def last_states(lines: bytes) -> bytes:
    """Lines without what each overwrote; the last one may be incomplete."""
    return _REWRITTEN.sub(b"", lines) if b"\r" in lines else lines


_UP = late(rb"\x1b\[\d{0,3}[AF]")
_PARTS = late(
    rb"(?P<back>\r)|\x1b\[(?P<up>\d{0,3})(?P<how>[AF])|\x1b\[(?P<erase>\d{0,3})K"
    rb"|(?P<text>(?:[^\r\x1b]|\x1b(?!\[\d{0,3}[AFK]))+)"
)
_MOST_ROWS = 100


def moves_up(data: bytes) -> bool:
    """Whether it moves the cursor to lines above, as progress bars do that show several lines."""
    # A single byte is found ten times as fast as two, and most logs have none of it.
    return b"\x1b" in data and _UP.search(data) is not None


class Rows:
    """What a terminal shows of lines that move the cursor up, such as nested bars of tqdm.

    As many lines are held back as such a move has reached over so far; a line that is no bar ends all bars above it.
    """

    def __init__(self) -> None:
        self._rows: list[bytes | None] = []
        """The lines that are held back; None for one that was cleared, or printed before."""
        self._at = 0
        self._reach = 0
        self._at_start = True
        """Whether the cursor is at the start of its line, so that text replaces what is there."""
        self._astray = False
        """Whether it has come from another line and is not: bars never write there."""

    def write(self, lines: bytes) -> bytes:
        """More whole lines; returns those that change no more."""
        if not self._rows and b"\r" not in lines and not moves_up(lines):
            return lines
        return b"".join(part for line in lines.split(b"\n")[:-1] for part in self._line(line))

    def end(self) -> bytes:
        """All lines that are left."""
        shown = [row.rstrip(_ENDS) + b"\n" for row in self._rows if row is not None]
        self._rows, self._at = [], 0
        return b"".join(shown)

    def _line(self, line: bytes) -> Iterator[bytes]:
        bare = line.rstrip(b"\r")
        if bare and b"\r" not in bare and not moves_up(bare):
            self._rows[self._at : self._at + 1] = []  # it is written over that one
            yield self.end() + line + b"\n"
            return
        self._at_start, is_text = True, False
        for part in _PARTS.finditer(bare):
            if self._astray and part["text"] and plain_text(part["text"]).strip():
                yield self.end()
                self._astray, is_text = False, True
            self._follow(part)
        yield from self._next_row(is_text)

    def _follow(self, part: re.Match[bytes]) -> None:
        self._rows += [None] * (self._at + 1 - len(self._rows))
        if part["how"]:
            self._up(min(int(part["up"] or 1), _MOST_ROWS))
            self._at_start = self._at_start or part["how"] == b"F"
            self._astray = not self._at_start
        elif part["back"]:
            self._at_start, self._astray = True, False
        elif part["text"]:
            self._put(part["text"])
        elif part["erase"] == b"2" or self._at_start:
            self._rows[self._at] = None

    def _put(self, text: bytes) -> None:
        if not plain_text(text):
            return  # such as one that hides the cursor
        text = text if self._at_start else (self._rows[self._at] or b"") + text
        self._rows[self._at] = text if text.strip() else None
        self._at_start = False

    def _up(self, count: int) -> None:
        self._at -= count
        if self._at < 0:
            self._rows[:0] = [None] * -self._at
            self._at = 0
        self._reach = min(max(self._reach, len(self._rows) - 1 - self._at), _MOST_ROWS)

    def _next_row(self, is_text: bool) -> Iterator[bytes]:
        if is_text:
            yield self.end()
            return
        self._rows += [b""] * (self._at + 1 - len(self._rows))
        self._at, self._astray = self._at + 1, False
        final = max(0, max(self._at, len(self._rows) - 1) - self._reach)
        shown, self._rows, self._at = self._rows[:final], self._rows[final:], self._at - final
        yield from (row.rstrip(_ENDS) + b"\n" for row in shown if row is not None)


def state_of(line: bytes) -> bytes:
    """What a terminal shows of a line that is still being written."""
    return last_states(line.rpartition(b"\n")[2].rstrip(_ENDS)).rstrip(_ENDS)


def for_terminal(lines: bytes) -> bytes:
    """Lines that can only be read: of their control sequences, colours are left, and end with the line."""
    if not lines.translate(None, _PRINTED):
        return lines  # nearly all lines; this is ten times as fast as the search
    shown = _CONTROL.sub(lambda found: found[1] or b"", lines)
    return _COLOURED.sub(lambda found: found[0] + _PLAIN, shown)


def plain_text(line: bytes) -> str:
    """A line without any control sequence, for places that have their own colours."""
    return _CONTROL.sub(b"", line).decode(errors="replace").expandtabs(4)


def last_text(data: bytes) -> str | None:
    """The last line that says something: as a terminal would show it, without colours."""
    *whole, begun = data.split(b"\n")
    lines = [state_of(begun), *(last_states(line) for line in reversed(whole))]
    return next((text for line in lines if (text := plain_text(line).strip())), None)
