"""How a run ended, as a card: who failed and why, where, what came of it, and what to do."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.regular import open_regular
from azml_dist.show import Block, Card, Facts, Folded, Row
from azml_dist.status import RunStatus
from azml_dist.words import plural

if TYPE_CHECKING:
    from azml_dist.verdict.verdict import Evidence, Verdict

_NO_NEWS = frozenset({"exit-code", "killed", "crash", "canceled", "timeout", "preempted", "exit-flake", "unknown"})
"""Kinds that say no more about a run here than its own error does."""
_OF_ALL = frozenset({"canceled", "timeout", "preempted", "image-build"})
"""Kinds that end all ranks alike."""
_LINES = 1_000_000
"""Lines of a file in which the one that failed is looked up."""


def ending(
    name: str,
    status: RunStatus,
    took: str,
    verdict: Verdict | None,
    *,
    places: Iterable[tuple[str, str]] = (),
    hint: str | None = None,
    code: Sequence[Path] = (),
    in_full: bool = False,
    inside: bool = False,
) -> Card:
    """The card that ends everything that is shown of a run that has come to its end.

    `places` are the rows below the verdict: logs, outputs, what to type next. `code` is where its code may be here.
    With `in_full` it also says what the run's own error says. `inside` if a launcher in the command has started the
    ranks of the verdict, and counts them in its own way.
    """
    rows = list(_why(verdict, code, in_full, inside)) if verdict else []
    rows += [Row("hint", hint)] if hint else []
    rows += [Row(what, text, whole=True) for what, text in places if text]
    good = {RunStatus.COMPLETED: True, RunStatus.FAILED: False}.get(status)
    since = "for" if status == RunStatus.RUNNING else "in"
    return Card(f"{name}: {status}" + (f" {since} {took}" if took else ""), rows, good)


def evidence(verdict: Verdict, width: int = 80) -> list[Block]:
    """The lines that say so."""
    lines = ["\n".join(textwrap.wrap(_said(one), width - 2, break_on_hyphens=False)[:6]) for one in verdict.evidence]
    return [Folded("evidence", Facts([("", line) for line in lines]))] if lines else []


def in_brief(verdict: Verdict | None) -> str | None:
    """One line that says more than how the process ended; None if there is no more to say."""
    if verdict is None or verdict.certainty == "unknown" or not (verdict.exception or verdict.kind not in _NO_NEWS):
        return None
    return verdict.summary


def _why(verdict: Verdict, code: Sequence[Path], in_full: bool, inside: bool) -> Iterator[Row]:
    if in_full or inside or in_brief(verdict):
        place = f" ({verdict.file}:{verdict.line})" if verdict.file else ""
        likely = " (likely)" if verdict.certainty == "likely" and not in_full else ""
        counted = " (as the launcher in the command counts ranks)" if inside else ""
        yield Row("why", verdict.summary.removesuffix(place) + likely + counted, strong=True)
    if in_full:
        certain = {"certain": "certain", "likely": "likely", "unknown": "not known for sure"}[verdict.certainty]
        yield Row("cause", f"{verdict.kind} ({certain})")
    if verdict.file:
        here = on_this_machine(verdict, code)
        where = here or f"{verdict.file}:{verdict.line}"
        yield Row("where", where, [verdict.source] if verdict.source else [], whole=True)
    if verdict.before:
        yield Row("before" if in_brief(verdict) else "last", quoted=verdict.before)
    if same := [rank for rank in verdict.ranks if rank != verdict.rank] if verdict.rank is not None else []:
        yield Row("also", f"{_ranks(same)} failed in the same way")
    if verdict.followers and verdict.kind not in _OF_ALL:
        yield Row("others", _others(verdict))


def on_this_machine(verdict: Verdict, code: Iterable[Path]) -> str | None:
    """The place of a failure in a file that is here, if that line is still the same: `/home/you/job/train.py:12`."""
    if not verdict.file or not verdict.line or os.path.isabs(verdict.file):
        return None
    for folder in code:
        file = folder / verdict.file if folder.is_dir() else folder
        if file.name == os.path.basename(verdict.file) and _line(file, verdict.line) == (verdict.source or ""):
            return f"{os.path.abspath(file)}:{verdict.line}"
    return None


def _line(file: Path, number: int) -> str | None:
    try:
        with open(open_regular(file), encoding="utf-8", errors="replace") as lines:
            return next(islice(lines, number - 1, number), "").strip() if number < _LINES else None
    except OSError:
        return None


def _others(verdict: Verdict) -> str:
    count = len(verdict.followers)
    who = f"rank {verdict.followers[0]}" if count == 1 else plural(count, "other rank" if verdict.ranks else "rank")
    if verdict.kind == "hang":
        return f"{who} {'waits' if count == 1 else 'wait'}"
    if verdict.were_stopped:
        return f"{who} {'was' if count == 1 else 'were'} stopped"
    if verdict.consequence:
        said = verdict.consequence[0].lower() + verdict.consequence[1:]
        return f"{who} failed as a consequence ({said})"
    return f"{who} failed or {'was' if count == 1 else 'were'} stopped as a consequence"


def _ranks(ranks: Sequence[int]) -> str:
    numbers = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {numbers}" if len(ranks) == 1 else f"ranks {numbers}"


def _said(one: Evidence) -> str:
    place = f"{one.log}:{one.line}" if one.line else one.log or "the service"
    return f"rank {one.rank}, {place}: {one.text}" if one.rank is not None else f"{place}: {one.text}"
