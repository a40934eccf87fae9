"""Reads the logs of a run in the order that `merged.py` recorded, live or a week later, in any process."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from azml_dist.errors import NotFound
from azml_dist.local.merged import log_of_attempt
from azml_dist.regular import NO_LINK, open_inside, open_regular
from azml_dist.runs.logs import Piece
from azml_dist.verdict.order import INDEX, RECORD

_PIECE = 1 << 20
_RECORDS = 4096
"""How many records to read at once."""
_OPEN_FILES = 200


class Reader:
    """Reads the logs of a run in the order in which the lines arrived; call `read()` again for new lines."""

    def __init__(self, folder: Path, logs: Sequence[str], ranks: frozenset[int] | None = None) -> None:
        self._folder, self._names, self._wanted = folder, logs, ranks
        self._files: dict[int, int] = {}
        self._offsets: defaultdict[int, int] = defaultdict(int)
        """The position of the next record in each log."""
        self._index: int | None = None
        self._half = b""
        """The beginning of a record that is still being written."""
        self._begins: dict[int, int] = {}
        """The position in each log before which nothing is wanted."""

    def read(self) -> Iterator[Piece]:
        """Everything that exists and has not been read yet."""
        while records := self._records():
            for log, size in _joined(RECORD.iter_unpack(records)):
                start = max(self._offsets[log], self._begins.get(log, 0))
                self._offsets[log] += size
                if self._is_wanted(log) and start < self._offsets[log]:
                    yield from self._pieces(log, start, self._offsets[log])

    def begin_at_last(self, count: int) -> dict[int, int]:
        """Let the next `read()` begin with the last existing lines of each rank, at most `count` of each.

        Returns the attempt of each rank before these lines, for ranks that had written something.
        """
        end = 0
        while records := self._records():
            end += len(records)
            for log, size in RECORD.iter_unpack(records):
                self._offsets[log] += size
        self._begins = {log: size for log, size in self._offsets.items() if self._is_wanted(log)}
        left = {log % len(self._names): count for log in self._begins} if count else {}
        for log, size in self._records_before(end):
            if not left:
                break
            end -= RECORD.size
            stop, rank = self._offsets[log], log % len(self._names)
            self._offsets[log] -= size
            if rank in left and log in self._begins:
                lines, self._begins[log] = self._last_lines(log, self._offsets[log], stop, left[rank])
                left[rank] -= lines
                if not left[rank]:
                    del left[rank]
        if self._index is not None:
            os.lseek(self._index, end, os.SEEK_SET)
        self._half = b""
        return {log % len(self._names): log // len(self._names) for log in sorted(self._begins) if self._begins[log]}

    def close(self) -> None:
        for fd in [*self._files.values(), *([] if self._index is None else [self._index])]:
            os.close(fd)
        self._files, self._index = {}, None

    def _is_wanted(self, log: int) -> bool:
        return self._wanted is None or log % len(self._names) in self._wanted

    def _records(self) -> bytes:
        """The next complete records of the index: the last one may be only partly written."""
        if self._index is None:
            try:
                self._index = open_regular(self._folder / INDEX, NO_LINK)
            except FileNotFoundError:
                return b""
            except OSError as error:
                raise self._unreadable(INDEX, error) from error
        records = b""
        while len(records) < RECORD.size and (data := os.read(self._index, RECORD.size * _RECORDS)):
            records = self._half + records + data
            whole = len(records) // RECORD.size * RECORD.size
            records, self._half = (records[:whole], records[whole:]) if whole else (b"", records)
        return records

    def _records_before(self, end: int) -> Iterator[tuple[int, int]]:
        """The records of the index before a position, last one first."""
        while end:
            assert self._index is not None
            begin = max(0, end - RECORD.size * _RECORDS)
            yield from reversed([*RECORD.iter_unpack(os.pread(self._index, end - begin, begin))])
            end = begin

    def _last_lines(self, log: int, start: int, end: int, count: int) -> tuple[int, int]:
        """How many of the last `count` lines are in a part of a log, and where the first of them begins."""
        found, position = 0, end
        while position > start:
            begin = max(start, position - _PIECE)
            data = os.pread(self._file(log), position - begin, begin)
            if position == end and data and not data.endswith(b"\n"):
                found += 1  # an incomplete line
            if found + (newlines := data.count(b"\n")) <= count:
                found += newlines
            else:
                newline = len(data)
                for _ in range(count - found + 1):  # including the newline before it
                    newline = data.rfind(b"\n", 0, newline)
                return count, begin + newline + 1
            position = begin
        return found, start

    def _file(self, log: int) -> int:
        """A descriptor of a log; of hundreds of logs, only some are open at a time."""
        if log not in self._files:
            while len(self._files) >= _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            attempt, rank = divmod(log, len(self._names))
            name = log_of_attempt(self._names[rank], attempt)
            try:
                self._files[log] = open_inside(self._folder, name)
            except OSError as error:
                raise self._unreadable(name, error) from error
        return self._files[log]

    def _unreadable(self, name: str, error: OSError) -> NotFound:
        hint = "read the other logs with `--rank N`" if len(self._names) > 1 and name != INDEX else None
        return NotFound(f"{self._folder / name} cannot be read: {error.strerror or error}", hint=hint)

    def _pieces(self, log: int, start: int, end: int) -> Iterator[Piece]:
        attempt, rank = divmod(log, len(self._names))
        while start < end and (data := os.pread(self._file(log), min(end - start, _PIECE), start)):
            yield Piece(rank, data, attempt)
            start += len(data)


def _joined(records: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Merges adjacent records of the same log, up to a limit."""
    last_rank, total = -1, 0
    for rank, size in records:
        if rank == last_rank and total + size <= _PIECE:
            total += size
            continue
        if total:
            yield last_rank, total
        last_rank, total = rank, size
    if total:
        yield last_rank, total
