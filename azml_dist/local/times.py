"""When lines arrived: `times.idx`, next to `merged.idx`.

Each mark is a number of records of `merged.idx` and a time: the records from there on arrived at that time or later.
A run writes marks at most every twentieth of a second, and more rarely the longer it runs, so the file stays small.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from bisect import bisect_right
from pathlib import Path

from azml_dist.regular import NO_LINK, end_of, open_regular

TIMES = "times.idx"
_MARK = struct.Struct("<Qd")
_PAUSES = ((60, 0.05), (3600, 0.5), (float("inf"), 5.0))
"""Until so many seconds after the start, how many seconds are at least between two marks."""
_MOST_BYTES = 16_000_000
"""More than the marks of a month."""


class TimesWriter:
    """Writes the marks of one attempt. A mark that cannot be written is left out: the lines themselves matter more."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / TIMES, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | NO_LINK, 0o644)
        self._began = time.time()
        self._next = 0.0

    def saw(self, records: int) -> None:
        """Another record is about to follow so many."""
        now = time.time()
        if now < self._next:
            return
        self._next = now + next(pause for until, pause in _PAUSES if now - self._began < until)
        with contextlib.suppress(OSError):
            os.write(self._fd, _MARK.pack(records, now))

    def close(self) -> None:
        os.close(self._fd)


class Times:
    """The marks of a run."""

    def __init__(self, marks: list[tuple[int, float]]) -> None:
        self._marks = sorted(marks)
        self._records = [records for records, _ in self._marks]

    def of(self, record: int) -> float | None:
        """When a record arrived, in seconds since 1970; None if that was not recorded."""
        place = bisect_right(self._records, record) - 1
        return self._marks[place][1] if place >= 0 else None


def read_times(folder: Path) -> Times:
    """The marks of a run; none for a run of an older version, or if they cannot be read."""
    try:
        data = end_of(open_regular(folder / TIMES, NO_LINK), _MOST_BYTES)
    except OSError:
        return Times([])
    whole = len(data) // _MARK.size * _MARK.size
    return Times([mark for mark in _MARK.iter_unpack(data[:whole]) if 0 < mark[1] < _LATEST])


_LATEST = 253_402_300_799.0
"""The end of the year 9999."""
