"""The order in which the lines of all ranks arrived, which a local run stores in `merged.idx` next to its logs."""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

INDEX = "merged.idx"
RECORD = struct.Struct("<IQ")
"""The log of the next whole lines, and their bytes."""
_MOST = 200_000
"""How many records to read from the end: enough for the last seconds of a run."""


class Order:
    """The end of an index, to look up when a byte of a log arrived."""

    def __init__(self, index: IO[bytes], sizes: Mapping[int, int]) -> None:
        """`sizes` are those of the logs, by the number that each has in the index."""
        records, self._first = _last_records(index)
        left = dict(sizes)
        for log, size in records:
            left[log] = left.get(log, 0) - size
        self._unread = dict(left)
        self._ends: defaultdict[int, list[int]] = defaultdict(list)
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        for place, (log, size) in enumerate(records, self._first):
            left[log] += size
            self._ends[log].append(left[log])
            self._places[log].append(place)

    def of_lines(self, log: int, lines: Iterable[tuple[int, int]]) -> dict[int, int]:
        """By line number, when each arrived; `lines` are numbers, each with the byte at which that line begins."""
        ends, places = self._ends[log], self._places[log]
        found = {}
        for number, begin in lines:
            at = bisect_left(ends, begin + 1)
            if at < len(ends):
                # Lines before the records that were read came first, in an unknown order.
                came_first = self._first > 0 and begin < self._unread[log]
                found[number] = self._first - 1 if came_first else places[at]
        return found


def _last_records(index: IO[bytes]) -> tuple[Sequence[tuple[int, int]], int]:
    size = index.seek(0, os.SEEK_END) // RECORD.size
    first = max(0, size - _MOST)
    index.seek(first * RECORD.size)
    data = index.read((size - first) * RECORD.size)
    return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])), first
