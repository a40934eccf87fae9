"""What the foot at a terminal says about a run: its phase, the last line of each rank with its age, metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.runs.logs import RICH_COLOURS, Source
from azml_dist.show import Facts, Page, Table, Told
from azml_dist.words import duration, ranks_text, value_text, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MOST = 16
"""More ranks than that are shown in groups."""
_GROUPS = 8
_METRICS = 6
_NOTES = 3
"""Lines of a note."""
_NOT_WORDS = re.compile(r"[^A-Za-z]+")
_SILENT = 2.0
"""Seconds by which a rank is behind the others of its group before it gets a line of its own."""
_NARROW = 50
"""With fewer columns than that, there is no column for ages."""


class RankLine(NamedTuple):
    """What a rank, or several that say the same, wrote last."""

    ranks: tuple[int, ...]
    text: str | None
    """None if it has written nothing."""
    age: float | None = None
    """Seconds since then: of several ranks, those of the one that has been silent the longest."""
    ended: str = ""
    """How it ended, if it did: `exit 1`."""
    source: Source | None = None
    """The rank, if it is only one."""

    def label(self, columns: int) -> str:
        """That of its lines, shorter where there is little space."""
        if self.source and columns >= _NARROW:
            return self.source.label
        return f"[{ranks_text(self.ranks)}]"


class Seen(NamedTuple):
    """All that the foot shows."""

    name: str
    phase: str
    """With its age, as in `running 12 s`."""
    more: str = ""
    lines: Sequence[RankLine] = ()
    metrics: Mapping[str, float] = {}
    note: str = ""
    """Why it waits, or what keeps it."""


def grouped(lines: Sequence[RankLine]) -> list[RankLine]:
    """Ranks that say the same as one; of more than 16 also those that say nearly the same, and the rest in one."""
    many = len(lines) > MOST
    groups: dict[tuple[object, ...], list[RankLine]] = {}
    for line in lines:
        said = _NOT_WORDS.sub("", line.text) if many and line.text else line.text
        groups.setdefault((said, line.ended, line.source and line.source.member), []).append(line)
    parts = [part for group in groups.values() for part in (_apart(group) if many else [group])]
    found = [_joined(part) for part in parts]
    return [*found[: _GROUPS - 1], _rest(found[_GROUPS - 1 :])] if many and len(found) > _GROUPS else found


def _apart(group: Sequence[RankLine]) -> Iterator[Sequence[RankLine]]:
    """A group without the few that have been silent for longer than the others; and those, for their words tell why."""
    ages = sorted(line.age or 0.0 for line in group)
    usual = ages[len(ages) // 2]
    silent = [line for line in group if not line.ended and (line.age or 0.0) > 2 * usual + _SILENT]
    if 0 < len(silent) <= len(group) // 4:
        yield [line for line in group if line not in silent]
        yield silent
    else:
        yield group


def foot_lines(seen: Seen, columns: int, rows: int) -> list[str]:
    """The foot as lines for a terminal with so much space."""
    from rich.table import Table
    from rich.text import Text

    console = _console()
    shown = grouped(seen.lines)
    metrics = _metrics(seen.metrics)
    notes = [*Text(visible(seen.note), "yellow").wrap(console, columns)] if seen.note else []
    notes = notes[: max(0, min(_NOTES, rows - 2))]
    room = rows - 2 - len(notes) - bool(metrics)  # an empty line, and the one with the phase
    if len(shown) > room:
        shown = [*shown[: room - 1], _rest(shown[room - 1 :])] if room > 1 else []
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(9, columns // 3))
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    has_ages = columns >= _NARROW
    if has_ages:
        grid.add_column(no_wrap=True, justify="right", min_width=5)
    for line in shown:
        age = line.ended or _age(line)
        grid.add_row(Text(line.label(columns), _colour(line)), _said(line), *([Text(age, _style(line))] * has_ages))
    head = Text.assemble((seen.phase, "bold"), f"  {seen.name}" if seen.name else "", "  " if seen.more else "")
    head.append(visible(seen.more), "dim")
    lines = [_line(console, line, columns) for line in (head, *notes)]
    with console.capture() as caught:
        console.print(grid, width=columns)
    lines += caught.get().splitlines() if shown else []
    lines += [_line(console, Text(metrics, "green"), columns)] if metrics else []
    return [*([""] if rows > len(lines) else []), *lines][:rows]


def seen_page(seen: Seen) -> Page:
    """The same for a notebook."""
    shown = grouped(seen.lines)
    rows = [(_who(line), line.text or "no line yet", line.ended or _age(line)) for line in shown]
    told = Told([("note", seen.note)])
    facts = Facts([(name, value_text(value)) for name, value in seen.metrics.items()])
    return Page([seen.phase, seen.more], [Table(("rank", "last line", "age"), rows), facts, told], seen.name)


def _who(line: RankLine) -> str:
    if line.source and line.source.member:
        return line.source.label.strip("[]")
    return ranks_text(line.ranks).partition(" ")[2]


def _age(line: RankLine) -> str:
    return "" if line.age is None else duration(line.age)


@cache
def _console() -> Console:
    """Renders for any terminal: its width is given with each rendering."""
    from io import StringIO

    from rich.console import Console

    return Console(
        file=StringIO(), force_terminal=True, color_system="standard", width=1000, highlight=False, markup=False,
        emoji=False, legacy_windows=False,
    )  # fmt: skip


def _line(console: Console, text: Text, columns: int) -> str:
    text.truncate(columns, overflow="ellipsis")
    with console.capture() as caught:
        console.print(text, end="", no_wrap=True, crop=False, soft_wrap=True)
    return caught.get()


def _said(line: RankLine) -> Text:
    from rich.text import Text

    return Text("no line yet" if line.text is None else visible(line.text), "dim" if line.text is None else "")


def _style(line: RankLine) -> str:
    return "dim" if line.ended in ("", "exit 0") else "red"


def _colour(line: RankLine) -> str:
    return RICH_COLOURS[line.source.rank % len(RICH_COLOURS)] if line.source else "bold"


def _metrics(metrics: Mapping[str, float]) -> str:
    shown = [f"{visible(name)} {value_text(value)}" for name, value in list(metrics.items())[:_METRICS]]
    more = len(metrics) - len(shown)
    return "  ".join([*shown, *([f"and {more} more"] if more else [])])


def _joined(group: Sequence[RankLine]) -> RankLine:
    ages = [line.age for line in group if line.age is not None]
    ranks = tuple(sorted(rank for line in group for rank in line.ranks))
    source = group[0].source if len(group) == 1 else None
    return group[0]._replace(ranks=ranks, age=max(ages, default=None), source=source)


def _rest(lines: Sequence[RankLine]) -> RankLine:
    """The lines for which there is no space, as one: with the last words of the rank that is silent the longest."""
    oldest = max(lines, key=lambda line: line.age or 0.0)
    return _joined([oldest, *(line for line in lines if line is not oldest)])._replace(text=oldest.text)
