"""Which record of `merged.idx` a byte of a log belongs to: the order in which the lines of all ranks arrived."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from azml_dist.regular import NO_LINK, open_regular
from azml_dist.verdict.order import INDEX, RECORD

_HEAD, _TAIL = 200_000, 400_000
"""How many records of the beginning and of the end are read."""
_LARGEST = 1 << 62
"""More than any log has, as a damaged index may say."""


class Arrivals:
    """The beginning and the end of an index."""

    def __init__(self, head: bytes, tail: bytes, first: int, sizes: Mapping[int, int]) -> None:
        """`first` is the number of the first record of the tail; `sizes` are those of the logs, by their numbers."""
        self._ends: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        self._records: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        self._gaps: dict[int, int] = {}
        """For each log, where the tail begins: in between, nothing is known."""
        at: defaultdict[int, int] = defaultdict(int)
        for record, (log, size) in enumerate(RECORD.iter_unpack(head)):
            self._add(log, at, size, record)
        if not tail:
            return
        left = dict(sizes)
        for log, size in RECORD.iter_unpack(tail):
            left[log] = left.get(log, 0) - size
        self._gaps = {log: max(begin, at[log]) for log, begin in left.items()}
        at.update(left)
        for record, (log, size) in enumerate(RECORD.iter_unpack(tail), first):
            self._add(log, at, size, record)

    def _add(self, log: int, at: defaultdict[int, int], size: int, record: int) -> None:
        at[log] = min(at[log] + size, _LARGEST)
        self._ends[log].append(max(0, at[log]))
        self._records[log].append(record)

    def of(self, log: int, offset: int | None) -> int | None:
        """The record with this byte of a log; None if it is not known."""
        if offset is None or not (ends := self._ends.get(log)):
            return None
        place = bisect_left(ends, offset + 1)
        if place == len(ends):
            return None
        gap = self._gaps.get(log)
        if gap is not None and offset < gap and ends[place] > gap:
            return None
        return self._records[log][place]

    def first(self, log: int) -> int | None:
        """The first record of a log."""
        return self.of(log, 0)

    def last(self, log: int) -> int | None:
        """The last record of a log."""
        records = self._records.get(log)
        return records[-1] if records else None


def read_arrivals(folder: Path, sizes: Mapping[int, int]) -> Arrivals:
    """What the index of a run says; nothing if it cannot be read."""
    try:
        with open(open_regular(folder / INDEX, NO_LINK), "rb") as file:
            count = file.seek(0, os.SEEK_END) // RECORD.size
            file.seek(0)
            if count <= _HEAD + _TAIL:
                return Arrivals(_whole(file.read(count * RECORD.size)), b"", 0, sizes)
            head = file.read(_HEAD * RECORD.size)
            file.seek((count - _TAIL) * RECORD.size)
            return Arrivals(_whole(head), _whole(file.read(_TAIL * RECORD.size)), count - _TAIL, sizes)
    except OSError:
        return Arrivals(b"", b"", 0, {})


def _whole(data: bytes) -> bytes:
    return data[: len(data) // RECORD.size * RECORD.size]
