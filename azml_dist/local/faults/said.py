"""What the ranks of an attempt have printed so far that faults wait for: steps, and lines that match a pattern."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from azml_dist.model.fault import ordinal
from azml_dist.model.steps import shown_lines, step_number

_LONGEST = 4096
"""How many bytes of a line are searched."""
_SHOWN = 200
"""Letters of a line that are kept."""
_PATIENCE = 0.5
"""How many more seconds a rank gets to print its first step than another rank needed."""


class Heard(NamedTuple):
    """A line that a fault waits for."""

    rank: int
    words: str
    """Its description: `the 3rd line of rank 2 with a step`."""
    line: str


@dataclass
class _Rank:
    started: float
    rest: bytes = b""
    steps: int = 0
    first_step_at: float = 0.0
    last_step: int | None = None
    lines: list[str] = field(default_factory=list)
    """The first lines with a step."""


class Said:
    """Counts the lines of each rank that have a step, and keeps the first line for each pattern."""

    def __init__(self, step_pattern: str, patterns: Collection[str], counts: Collection[int]) -> None:
        """`counts` are the numbers of lines with a step that faults wait for."""
        self._step = re.compile(step_pattern)
        self._most = max(counts, default=0)
        self._patterns = {pattern: re.compile(pattern) for pattern in patterns}
        self._ranks: dict[int, _Rank] = {}
        self._found: dict[str, Heard] = {}

    @property
    def last_step(self) -> int | None:
        """The highest step that a rank has printed."""
        return max((one.last_step for one in self._ranks.values() if one.last_step is not None), default=None)

    def started(self, rank: int) -> None:
        self._ranks[rank] = _Rank(time.monotonic())

    def hear(self, rank: int, data: bytes) -> None:
        """Process what a rank has written."""
        one = self._ranks[rank]
        # What a progress bar shows counts at once, though its line has no end yet.
        *lines, rest = re.split(rb"\r?\n|\r(?=.)", one.rest + data, flags=re.DOTALL)
        one.rest = rest[:_LONGEST]
        for line in lines:
            for shown in shown_lines(line):
                self._look_at(rank, one, shown)

    def _look_at(self, rank: int, one: _Rank, line: str) -> None:
        if match := self._step.search(line):
            one.steps += 1
            one.first_step_at = one.first_step_at or time.monotonic()
            number = step_number(match)
            one.last_step = one.last_step if number is None else number
            if len(one.lines) < self._most:
                one.lines.append(line[:_SHOWN])
        for pattern, compiled in self._patterns.items():
            if pattern not in self._found and compiled.search(line):
                self._found[pattern] = Heard(rank, f"a line of rank {rank}", line)

    def line(self, pattern: str) -> Heard | None:
        """The first line that matched."""
        return self._found.get(pattern)

    def step(self, count: int, ranks: Collection[int]) -> Heard | None:
        """Whether one of these ranks has printed this many steps; if they print none, whether another rank has."""
        own = [rank for rank in ranks if rank in self._ranks]
        if said := self._first(count, own):
            return said
        other = self._other(count, ranks)
        return other if other and self._are_silent(ranks, other.rank) else None

    def ahead(self, count: int, ranks: Collection[int]) -> int | None:
        """A rank that has printed this many steps, as long as it is open whether these ranks print steps at all."""
        other = self._other(count, ranks)
        return other.rank if other and not self._are_silent(ranks, other.rank) else None

    def _other(self, count: int, ranks: Collection[int]) -> Heard | None:
        """Where these ranks have printed no step yet: a rank that has printed so many."""
        if any(rank in self._ranks and self._ranks[rank].steps for rank in ranks):
            return None
        return self._first(count, self._ranks)

    def _are_silent(self, ranks: Collection[int], other: int) -> bool:
        """Whether ranks had more time for their first step than another one needed for its own."""
        needed = self._ranks[other].first_step_at - self._ranks[other].started + _PATIENCE
        now = time.monotonic()
        return all(rank in self._ranks and now - self._ranks[rank].started > needed for rank in ranks)

    def _first(self, count: int, ranks: Collection[int]) -> Heard | None:
        for rank in ranks:
            one = self._ranks[rank]
            if one.steps >= count:
                return Heard(rank, f"the {ordinal(count)} line of rank {rank} with a step", one.lines[count - 1])
        return None
