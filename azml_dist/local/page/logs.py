"""The logs of a run for its page: as many lines as fit, and when each arrived."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from azml_dist.local.page.arrivals import Arrivals, read_arrivals
from azml_dist.local.page.files import address_of
from azml_dist.local.state import ProcessState, RunState
from azml_dist.local.times import Times, read_times
from azml_dist.page.sheet import Text
from azml_dist.page.text import read_lines, shares
from azml_dist.regular import open_inside
from azml_dist.words import plural, size_text


class LogFile(NamedTuple):
    """A log of a run, whether it exists or not."""

    number: int
    """Its number in the index."""
    attempt: int
    process: ProcessState
    size: int | None
    """None if it cannot be read."""


class Written(NamedTuple):
    """What the ranks of a run wrote, and when."""

    folder: Path
    began: float
    files: Sequence[LogFile]
    arrivals: Arrivals
    times: Times

    @classmethod
    def of(cls, folder: Path, state: RunState) -> Written:
        files = list(_files(folder, state))
        sizes = {one.number: one.size or 0 for one in files}
        began = state.started_at or state.created_at
        return cls(folder, began, files, read_arrivals(folder, sizes), read_times(folder))

    def seconds(self, record: int | None) -> float | None:
        """When a record arrived, in seconds since the start of the run."""
        at = None if record is None else self.times.of(record)
        return None if at is None else max(0.0, at - self.began)

    @property
    def last_attempt(self) -> dict[int, LogFile]:
        """The logs of the last attempt, by rank."""
        return {one.process.rank: one for one in self.files}


def texts(
    written: Written, budget: int, important: Iterable[int], bad: Mapping[str, Sequence[int]], secrets: Sequence[str]
) -> list[Text]:
    """The logs that have something in them, or are the only ones; `important` are ranks, `bad` lines of each log."""
    files = [one for one in written.files if one.size or (one.attempt == _attempts(written) and one.size is not None)]
    wanted = set(important)
    first = frozenset(place for place, one in enumerate(files) if one.process.rank in wanted)
    several = _attempts(written) > 0
    parts = zip(files, shares([one.size or 0 for one in files], first, budget), strict=True)
    return [_text(written, one, part, bad.get(one.process.log, ()), secrets, several) for one, part in parts]


def _attempts(written: Written) -> int:
    return max((one.attempt for one in written.files), default=0)


def _text(
    written: Written, one: LogFile, budget: int, bad: Sequence[int], secrets: Sequence[str], several: bool
) -> Text:
    size = one.size or 0
    try:
        with open(open_inside(written.folder, one.process.log), "rb") as file:
            found = read_lines(file, size, budget, secrets)
    except OSError as error:
        return Text(_label(one, several), one.process.log, None, None, "", [], note=error.strerror or str(error))
    records = [written.arrivals.of(one.number, offset) for offset in found.offsets]
    return Text(
        label=_label(one, several),
        path=one.process.log,
        href=address_of(written.folder / one.process.log),
        bytes=size,
        size=size_text(size),
        lines=found.lines,
        after=found.after,
        omitted=f"{_between(found.lines, found.after)} ({size_text(found.gap)}) are only in the file"
        if found.gap
        else None,
        order=_differences(records) if any(record is not None for record in records) else [],
        bad=_places(found.lines, found.after, bad),
        note="empty" if not size else None,
    )


def _label(one: LogFile, several: bool) -> str:
    role = f" ({one.process.role})" if one.process.serves else ""
    return f"rank {one.process.rank}{role}" + (f", attempt {one.attempt + 1}" if several else "")


def _between(lines: Sequence[str | None], after: int | None) -> str:
    return plural(after - lines.index(None) - 1, "line") if after is not None else "the lines in between"


def _places(lines: Sequence[str | None], after: int | None, bad: Sequence[int]) -> list[int]:
    """Where the lines with these numbers are."""
    gap = lines.index(None) if None in lines else len(lines)
    before = [number - 1 for number in bad if number <= gap]
    behind = [number - after + gap + 1 for number in bad if after is not None and number >= after]
    return before + [place for place in behind if place < len(lines)]


def _differences(records: Sequence[int | None]) -> list[int | None]:
    last, found = 0, list[int | None]()
    for record in records:
        found.append(None if record is None else record - last)
        last = last if record is None else record
    return found


def clock(written: Written, logs: Sequence[Text]) -> list[tuple[int, float]]:
    """From which record on the lines in these logs arrived at which time."""
    used: set[int] = set()
    for log in logs:
        last = 0
        for difference in log.order:
            if difference is not None:
                last += difference
                used.add(last)
    found: list[tuple[int, float]] = []
    for record in sorted(used):
        at = written.seconds(record)
        if at is not None and (not found or found[-1][1] != round(at, 3)):
            found.append((record, round(at, 3)))
    return found


def _files(folder: Path, state: RunState) -> Iterator[LogFile]:
    attempts = [*(one.processes for one in state.earlier), state.processes]
    for attempt, processes in enumerate(attempts):
        for process in processes:
            number = attempt * len(state.processes) + process.rank
            yield LogFile(number, attempt, process, _size(folder, process.log))


def _size(folder: Path, log: str) -> int | None:
    try:
        fd = open_inside(folder, log)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
