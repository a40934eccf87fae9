"""What the ranks of a run here wrote last, read from the ends of their logs, whoever asks and whenever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from azml_dist.errors import DistError
from azml_dist.local.state import ProcessState, RunState
from azml_dist.plan.world import World
from azml_dist.regular import open_inside
from azml_dist.runs.bars import last_text
from azml_dist.runs.foot import RankLine, Seen
from azml_dist.runs.foot import seen_page as seen_page
from azml_dist.runs.logs import Source
from azml_dist.status import RunStatus
from azml_dist.words import duration

_END = 4096
"""Enough bytes of the end of a log for the last line that anyone reads."""


HANG = "hang.json"
"""The file that says that a run hangs, while it does."""
_METRICS = 2.0
"""Seconds between two looks for metrics, at least."""
_SHARE = 25


class _End(NamedTuple):
    size: int
    at: float
    text: str | None


class Lately:
    """The last line of each rank; a log that has not grown is not read again."""

    def __init__(self, folder: Path, ranks: Collection[int] | None = None) -> None:
        self._folder, self._ranks = folder, ranks
        self._ends: dict[str, _End] = {}

    def lines(self, state: RunState) -> list[RankLine]:
        """The last line of each rank, also if it is not complete yet, as that of a progress bar is."""
        now = time.time()
        wanted = [p for p in state.processes if self._ranks is None or p.rank in self._ranks]
        return [self._line(process, now) for process in wanted]

    def _line(self, process: ProcessState, now: float) -> RankLine:
        end = self._end(process.log)
        age = None if end.text is None else max(0.0, now - end.at)
        source = Source(process.rank, process.node_rank, "ps" if process.serves else "")
        return RankLine((process.rank,), end.text, age, _ended(process), source)

    def _end(self, log: str) -> _End:
        known = self._ends.get(log, _End(0, 0.0, None))
        with suppress(OSError):
            size = os.stat(self._folder / log, follow_symlinks=False).st_size
            if size != known.size:
                known = self._ends[log] = self._read(log)
        return known

    def _read(self, log: str) -> _End:
        fd = open_inside(self._folder, log)
        try:
            status = os.fstat(fd)
            data = os.pread(fd, _END, max(0, status.st_size - _END))
        finally:
            os.close(fd)
        return _End(status.st_size, status.st_mtime, last_text(data))


def watching(
    state_of_run: Callable[[], RunState],
    folder: Path,
    ranks: Collection[int] | None,
    metrics: Callable[[], Mapping[str, float]],
) -> Callable[[], Seen]:
    """What the foot shows of a run, whenever it is called."""
    lately, seldom = Lately(folder, ranks), Seldom(metrics)

    def look() -> Seen:
        state = state_of_run()
        age = duration((state.ended_at or time.time()) - state.created_at)
        hangs = not state.is_final() and (folder / HANG).exists()
        note = f"nothing moves: `azml-dist stacks {state.name}` shows where each rank is" if hangs else ""
        world = str(World(**state.world))
        return Seen(state.name, f"{phase(state)} {age}", world, lately.lines(state), seldom.ask(), note)

    return look


class Seldom:
    """Metrics as they were a moment ago: they are read so seldom that it takes a 25th of the time."""

    def __init__(self, metrics: Callable[[], Mapping[str, float]]) -> None:
        self._metrics = metrics
        self._found: Mapping[str, float] = {}
        self._next = 0.0

    def ask(self) -> Mapping[str, float]:
        """The last values; those from before if they cannot be read now."""
        now = time.monotonic()
        if now >= self._next:
            with suppress(DistError, OSError, ValueError):
                self._found = self._metrics()
            self._next = now + max(_METRICS, (time.monotonic() - now) * _SHARE)
        return self._found


def phase(state: RunState) -> str:
    """What happens now: `importing torch`, `starting processes (3 of 4)`, `running`."""
    if state.status in (RunStatus.PREPARING, RunStatus.RUNNING):
        begun = sum(process.pid is not None for process in state.processes)
        if begun < len(state.processes):
            of = f" ({begun} of {len(state.processes)})" if begun else ""
            return (state.starting or "starting") + of
    words = {RunStatus.CANCEL_REQUESTED: "stopping", RunStatus.PREPARING: "starting"}
    told = words.get(RunStatus(state.status), state.status.lower())
    return f"attempt {state.retry + 1}: {told}" if state.retry else told


def _ended(process: ProcessState) -> str:
    if process.stopped:
        return "stopped"
    if process.signal is not None:
        return f"signal {process.signal}"
    return "" if process.exit_code is None else f"exit {process.exit_code}"
