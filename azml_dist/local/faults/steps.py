"""What the logs of an attempt say about its progress: which steps, in which order, and where it resumed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from azml_dist.local.state import ProcessState
from azml_dist.model.steps import shown_lines, step_number
from azml_dist.regular import open_inside
from azml_dist.verdict.verdict import Evidence

_MOST = 32 << 20
"""How many bytes of a log are read."""
_RESUMES = re.compile(
    r"(?i)\b(?:resum\w*|restor\w*|restart\w*|continu\w*|go(?:es|ing)? on|pick\w* up|begin\w*|start\w*|load\w*)\b"
)
"""Words in a line that says where a script starts: `resumed from step 40`, `begins at step 0`."""


class Step(NamedTuple):
    """A line with a step."""

    number: int
    line: Evidence
    is_begin: bool
    """Whether it says where the script starts."""


class Leg(NamedTuple):
    """An attempt, or a part of one if a script restarts itself within it."""

    steps: Sequence[Step]
    attempt: int

    @property
    def last(self) -> Step:
        """The highest step."""
        return max(self.steps, key=lambda step: step.number)

    @property
    def begin(self) -> Step | None:
        """The line that says where it started, if it comes before all other steps of its rank."""
        firsts = {step.line.rank: step for step in reversed(self.steps)}
        return next((step for step in firsts.values() if step.is_begin), None)

    @property
    def first(self) -> Step | None:
        """The lowest step that was done after the start."""
        return min((step for step in self.steps if not step.is_begin), key=lambda step: step.number, default=None)

    @property
    def stride(self) -> int:
        """The most frequent difference between the steps of consecutive lines."""
        by_rank: dict[int | None, list[int]] = {}
        for step in self.steps:
            if not step.is_begin:
                by_rank.setdefault(step.line.rank, []).append(step.number)
        gaps = Counter(b - a for numbers in by_rank.values() for a, b in pairwise(numbers) if b > a)
        return gaps.most_common(1)[0][0] if gaps else 1


def legs(folder: Path, attempts: Sequence[Sequence[ProcessState]], pattern: str) -> list[Leg]:
    """What each attempt did, according to its logs; an attempt in which steps restart counts as several."""
    compiled = re.compile(pattern)
    found = []
    for number, processes in enumerate(attempts):
        by_rank = [parts for p in processes if (parts := _parts(list(_steps(folder, p, compiled))))]
        count = max(map(len, by_rank), default=0)
        found += [
            Leg([step for parts in by_rank if len(parts) > part for step in parts[part]], number)
            for part in range(count)
        ]
    return found


def _parts(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps of a rank, split wherever a number is not higher than the previous one."""
    parts: list[list[Step]] = []
    for step in steps:
        before = parts[-1][-1] if parts else None
        if before is None or step.number < before.number or (step.is_begin and not before.is_begin):
            parts.append([])
        parts[-1].append(step)
    return parts


def _steps(folder: Path, process: ProcessState, pattern: re.Pattern[str]) -> Iterator[Step]:
    for number, text in _lines(folder, process.log):
        if (match := pattern.search(text)) and (step := step_number(match)) is not None:
            line = Evidence(process.rank, process.log, number, text.strip()[:200])
            yield Step(step, line, bool(_RESUMES.search(text, 0, match.end())))


def _lines(folder: Path, log: str) -> Iterator[tuple[int, str]]:
    try:
        file = open(open_inside(folder, log), "rb")  # noqa: SIM115 (closed below)
    except OSError:
        return
    with file:
        left = _MOST
        for number, line in enumerate(file, 1):
            left -= len(line)
            if left < 0:
                return
            for shown in shown_lines(line):
                yield number, shown
