"""What people see: each page is described once, and rendered as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeAlias, TypeVar

from azml_dist.columns import columns_of, padded
from azml_dist.errors import Finding, said_once
from azml_dist.words import visible

T = TypeVar("T")

_UNBROKEN = 40
"""How many characters of a cell a notebook keeps on one line."""
WIDEST_CARD = 80
"""The columns of a card, unless the terminal has fewer."""
_LEAST = 20
"""The least columns of the text beside the names, however narrow the terminal is."""
_NAMES = 7
"""The least columns of the names in a card."""
_NUMBER = re.compile(r"\d+")
_SHOWN = 16
_HEAD, _FOOT = 8, 3
"""How many rows at the start and the end of a longer table are shown."""


class Table(NamedTuple):
    """Rows under headings; None is a gap where rows are omitted."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str] | None]
    links: Mapping[str, str] = {}
    """The link of a cell with this text in a notebook."""


class Facts(NamedTuple):
    """Names and values in two columns; a name without a value is omitted."""

    pairs: Iterable[tuple[str, str]]


class Told(NamedTuple):
    """Lines that start with a word: `error`, `hint`, `note`; a word without text is omitted."""

    lines: Iterable[tuple[str, str | None]]


class Folded(NamedTuple):
    """What a notebook shows when you click its summary."""

    summary: str
    inside: Block | Page


class Row(NamedTuple):
    """A name and what there is to say about it."""

    name: str
    text: str = ""
    quoted: Sequence[str] = ()
    """Lines of code or of a log, shown as they are, below the text."""
    strong: bool = False
    whole: bool = False
    """On one line, however long that is: an address or a command, to be clicked or copied."""


class Card(NamedTuple):
    """How something ended: one line, and the rows below it; no wider than a terminal."""

    head: str
    rows: Sequence[Row]
    good: bool | None = None
    """True is green, False is red, None is neither."""


Block: TypeAlias = "Table | Facts | Told | Folded | Card"


class Page(NamedTuple):
    """A title and what is below it."""

    title: Sequence[str | None]
    blocks: Sequence[Block]
    name: str | None = None
    """The name of what the page describes, in front of the title."""
    studio: str | None = None
    """Its address in Azure ML studio: a line of text in a terminal, a link in the title in a notebook."""


class Shown:
    """Anything that can be shown as a page: `print` it, or put it at the end of a notebook cell."""

    def _page(self) -> Page:
        raise NotImplementedError

    def __str__(self) -> str:
        return page_text(self._page())

    def _repr_html_(self) -> str:
        return page_html(self._page())


def told(findings: Iterable[Finding]) -> list[Block]:
    """Each finding: how serious it is, what it is, and what to do about it; one that several steps have, once."""
    return [
        Told([(finding.level, f"{_of_steps(finding, steps)}{finding}"), ("hint", finding.hint)])
        for finding, steps in said_once(findings).items()
    ]


def _of_steps(finding: Finding, steps: Sequence[str]) -> str:
    """Which steps a finding is of, unless its place says it: `job.yml:7: jobs.train.command`."""
    if not steps or re.search(rf": jobs\.{re.escape(steps[0])}(\.|$)", finding.where or ""):
        return ""
    return f"{'step' if len(steps) == 1 else 'steps'} {', '.join(f'`{name}`' for name in steps)}: "


def abbreviated(rows: Sequence[T], also: Iterable[int | None] = ()) -> list[T | None]:
    """The first and the last rows of many, with a gap (None) between them.

    Rows with numbers in `also` matter: they are shown in any case, with the first ones, and the gap comes last.
    """
    if len(rows) <= _SHOWN:
        return list(rows)
    head, foot = set(range(_HEAD)), set(range(len(rows) - _FOOT, len(rows)))
    matter = [number for number in dict.fromkeys(also) if number is not None and 0 <= number < len(rows)][:_SHOWN]
    if set(matter) <= head | foot:
        return [*rows[:_HEAD], None, *rows[-_FOOT:]]
    return [*(rows[number] for number in sorted({*head, *matter})), None]


def page_text(page: Page, *, colour: bool = False, width: int | None = None) -> str:
    """A page for a terminal; prose is wrapped only if its width is given, for a pipe must have it on one line."""
    title = "  ".join(filter(None, (page.name, *page.title)))
    url = pairs_text([("url", page.studio)])
    narrow = min(width or WIDEST_CARD, WIDEST_CARD)
    blocks = [
        card_text(b, colour=colour, width=narrow) if isinstance(b, Card) else visible(_block_text(b, width))
        for b in page.blocks
    ]
    return "\n\n".join(filter(None, (visible(title), visible(url), *blocks)))


def card_text(card: Card, *, colour: bool = False, width: int = WIDEST_CARD) -> str:
    """A card for a terminal. What cannot be broken, such as a path, may be longer than a line."""
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    tone = {True: "\x1b[1;32m", False: "\x1b[1;31m", None: bold}[card.good] if colour else ""
    names_width = max([_NAMES, *(len(row.name) for row in card.rows)]) + 2
    room = width - names_width - 2
    lines = [f"{tone}{visible(card.head)}{plain}"]
    for row in card.rows:
        names = [f"{dim}{row.name:<{names_width}}{plain}"]
        shown = [f"{bold}{line}{plain}" if row.strong else line for line in _lines(row, room)]
        inner = "  " if shown else ""
        shown += [inner + _cut(line, room - len(inner)) for line in row.quoted]
        lines += [
            f"  {name}{line}".rstrip()
            for name, line in zip_longest(names, shown, fillvalue=" " * names_width)
            if line.strip()
        ]
    return "\n".join(lines)


def _lines(row: Row, room: int) -> list[str]:
    if row.whole:
        return [visible(" ".join(row.text.splitlines()))]
    return wrapped(visible(" ".join(row.text.split())), room)


def wrapped(text: str, room: int, indent: str = "") -> list[str]:
    """Lines of so many columns. Paths and what is in backticks, such as a command to be copied, stay in one piece."""
    kept = _QUOTED.sub(lambda match: match[0].replace(" ", _BLANK), text)
    lines = textwrap.wrap(
        kept, max(room, _LEAST), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_BLANK, " ") for line in lines]


_QUOTED = re.compile(r"`[^`\n]{1,120}`")
_BLANK = "\x00"


def _cut(line: str, room: int) -> str:
    text, room = visible(line.expandtabs(4).rstrip()), max(room, _LEAST)
    return text if len(text) <= room else f"{text[: room - 1]}…"


def page_html(page: Page) -> str:
    """A page for a notebook."""
    return title_html(page.name, *page.title, studio=page.studio) + "".join(map(_block_html, page.blocks))


def title_html(name: str | None, *facts: str | None, studio: str | None = None) -> str:
    """The line above a table: the name, the most important facts, and the link to the studio."""
    parts = [f"<b>{_escaped(name)}</b>"] if name else []
    parts += [_escaped(fact) for fact in facts if fact]
    # The address that a service sends could be a script.
    parts += [f'<a href="{_escaped(studio)}">studio</a>'] if studio and studio.startswith("https://") else []
    return f"<p>{' · '.join(parts)}</p>" if parts else ""


def pairs_text(pairs: Iterable[tuple[str, str | None]]) -> str:
    """Names and values in two columns; a name without a value is omitted."""
    given = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in given), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in given)


def table_text(table: Table, width: int | None = None) -> str:
    """A table for a terminal; columns of numbers are right-aligned, and long texts cut if it is wider than `width`."""
    rows = [[visible(cell) for cell in row or ["..."]] for row in (table.headings, *table.rows)]
    widths = [max(columns_of(row[i]) for row in rows if len(row) > i) for i in range(len(table.headings))]
    widest = widths.index(max(widths)) if widths else 0
    if width and (excess := sum(widths) + 2 * (len(widths) - 1) - width) > 0 and widths[widest] > _UNBROKEN:
        widths[widest] = max(widths[widest] - excess, _LEAST)
        rows = [[_amid(cell, widths[i]) if i == widest else cell for i, cell in enumerate(row)] for row in rows]
    numbers = _are_numbers(table)
    return "\n".join(
        "  ".join(
            padded(cell, width, to_the_right=number) for cell, width, number in zip(row, widths, numbers, strict=False)
        ).rstrip()
        for row in rows
    )


def _amid(cell: str, room: int) -> str:
    """A cell without its middle, if it is too long."""
    return cell if len(cell) <= room else f"{cell[: room // 2]}…{cell[len(cell) - (room - room // 2 - 1) :]}"


def told_text(block: Told, width: int | None = None) -> str:
    """Lines that start with a word; wrapped beside the words if the width of a terminal is given."""
    lines = [(word, text) for word, text in block.lines if text]
    if width is None:
        return pairs_text(lines)
    room = width - max((len(word) for word, _ in lines), default=0) - 2
    return pairs_text(
        (word, "\n".join("\n".join(wrapped(line, room)) for line in text.splitlines())) for word, text in lines
    )


def _block_text(block: Block, width: int | None = None) -> str:
    match block:
        case Table():
            return table_text(block, width)
        case Facts():
            return pairs_text(block.pairs)
        case Told():
            return told_text(block, width)
        case Folded(summary, Page() as page):
            return f"{summary}:\n\n{page_text(page, width=width)}"
        case Card():
            return card_text(block)
        case Folded(summary, Table() | Facts() | Told() | Folded() | Card() as inside):
            return f"{summary}\n{_block_text(inside, width)}"
    raise AssertionError(block)


def _block_html(block: Block) -> str:
    match block:
        case Table():
            return _table_html(block)
        case Facts(pairs):
            given = [pair for pair in pairs if pair[1]]
            return _table_html(Table((), given)) if given else ""
        case Told(lines):
            said = [f"<b>{word}</b> {_escaped(text)}" for word, text in lines if text]
            return f"<p>{'<br>'.join(said)}</p>" if said else ""
        case Card():
            return _card_html(block)
        case Folded(summary, inside):
            content = page_html(inside) if isinstance(inside, Page) else _block_html(inside)
            return f"<details><summary>{_escaped(summary)}</summary>{content}</details>"


def _card_html(card: Card) -> str:
    colour = {True: ";color:#1a7f37", False: ";color:#cf222e", None: ""}[card.good]
    rows = "".join(
        f'<tr><td style="text-align:left;vertical-align:top">{_escaped(row.name)}</td>'
        f'<td style="text-align:left">{_row_html(row)}</td></tr>'
        for row in card.rows
    )
    return f'<p style="margin-bottom:0{colour}"><b>{_escaped(card.head)}</b></p><table><tbody>{rows}</tbody></table>'


def _row_html(row: Row) -> str:
    text = f"<b>{_escaped(row.text)}</b>" if row.strong else _escaped(row.text)
    lines = "\n".join(_escaped(line.expandtabs(4)) for line in row.quoted)
    quoted = (
        f'<pre style="margin:0;white-space:pre-wrap;font-family:monospace;background:none">{lines}</pre>'
        if lines
        else ""
    )
    return text + quoted


def _table_html(table: Table) -> str:
    sides = ["right" if number else "left" for number in _are_numbers(table)]

    def row_html(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell_html(tag, *cell) for cell in zip(sides, cells, strict=False))}</tr>"

    def cell_html(tag: str, side: str, cell: str) -> str:
        shown = _escaped(cell)
        text = f'<a href="{_escaped(table.links[cell])}">{shown}</a>' if cell in table.links else shown
        wrap = ";white-space:nowrap" if len(cell) <= _UNBROKEN else ""
        return f'<{tag} style="text-align:{side};vertical-align:top{wrap}">{text}</{tag}>'

    head = f"<thead>{row_html('th', table.headings)}</thead>" if table.headings else ""
    gap = f'<tr><td colspan="{len(table.headings)}" style="text-align:left">…</td></tr>'
    body = "".join(row_html("td", row) if row else gap for row in table.rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _are_numbers(table: Table) -> list[bool]:
    """Whether each column contains only numbers, which are right-aligned."""
    rows = [row for row in table.rows if row]
    width = len(table.headings) or max((len(row) for row in rows), default=0)
    return [bool(rows) and all(_NUMBER.fullmatch(row[i]) for row in rows) for i in range(width)]


def _escaped(text: str) -> str:
    from html import escape  # only in notebooks

    return escape(visible(text))
