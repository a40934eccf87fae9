"""Columns that fit into a terminal: long cells are cut, then columns are left out; in a pipe, everything is shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from azml_dist.words import visible

_GAP = "  "


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    least: int | None = None
    """The fewest characters to which its cells may be cut; None: they are not cut."""
    leaves: int = 0
    """When it is left out: 1 is the first to go; 0 stays."""


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[list[str]]:
    """The headings and the rows as padded cells, no wider than `width` together; of a pipe, `width` is None."""
    table = [[column.heading for column in columns], *([visible(cell) for cell in row] for row in rows)]
    kept = list(range(len(columns)))
    while True:
        widths = [max(columns_of(row[i]) for row in table) for i in kept]
        over = 0 if width is None else sum(widths) + len(_GAP) * (len(kept) - 1) - width
        for place in sorted(range(len(kept)), key=lambda place: -widths[place]):
            least = columns[kept[place]].least
            if over > 0 and least is not None:
                spare = max(0, widths[place] - max(least, columns_of(columns[kept[place]].heading)))
                widths[place] -= min(spare, over)
                over -= min(spare, over)
        leaving = [i for i in kept if columns[i].leaves]
        if over <= 0 or not leaving:
            break
        kept.remove(min(leaving, key=lambda i: columns[i].leaves))
    widths = _squeezed(widths, over)
    return [[padded(cut(row[i], room), room) for i, room in zip(kept, widths, strict=True)] for row in table]


def line(cells: Sequence[str]) -> str:
    """Cells of a row on one line."""
    return _GAP.join(cells).rstrip()


def _squeezed(widths: list[int], over: int) -> list[int]:
    """Narrower columns where not even the least widths fit: the widest gives way, each keeps a character."""
    widths = [*widths]
    while over > 0 and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
        over -= 1
    return widths


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_of_letter(letter) for letter in text)


def cut(text: str, room: int) -> str:
    """The beginning of a text that fits into so many columns."""
    if columns_of(text) <= room:
        return text
    shown, used = "", 0
    for letter in text:
        used += _of_letter(letter)
        if used > room - 1:
            break
        shown += letter
    return f"{shown}…"


def _of_letter(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def padded(text: str, room: int, *, to_the_right: bool = False) -> str:
    """A text with spaces up to so many columns."""
    spaces = " " * (room - columns_of(text))
    return spaces + text if to_the_right else text + spaces
