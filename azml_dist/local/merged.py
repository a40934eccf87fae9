"""The order in which the ranks of a run wrote their lines, kept beside their logs.

Each rank's output goes to its own file, byte for byte. `merged.idx` says in what order whole lines arrived: records of
rank and byte count. Whoever follows a run replays that order, live or a week later, in this process or another.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

INDEX = "merged.idx"
_RECORD = struct.Struct("<IQ")
_PIECE = 1 << 20


class Piece(NamedTuple):
    """Bytes of one rank. No other rank's bytes come between the pieces of one line."""

    rank: int
    data: bytes


class Writer:
    """Writes the ranks' logs and their order. Owned by the one process that reads the ranks' pipes."""

    def __init__(self, folder: Path, logs: Sequence[str]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._logs = [os.open(folder / log, flags, 0o644) for log in logs]
        self._index = os.open(folder / INDEX, flags, 0o644)
        self._unfinished = [0] * len(logs)
        """Bytes of each rank's last line, while it has no end."""

    def write(self, rank: int, data: bytes) -> None:
        _write_all(self._logs[rank], data)
        if lines := data.rfind(b"\n") + 1:
            self._record(rank, self._unfinished[rank] + lines)
            self._unfinished[rank] = 0
        self._unfinished[rank] += len(data) - lines

    def end(self, rank: int) -> None:
        """The rank writes no more: its last line counts, though it has no end."""
        if size := self._unfinished[rank]:
            self._record(rank, size)
            self._unfinished[rank] = 0

    def _record(self, rank: int, size: int) -> None:
        _write_all(self._index, _RECORD.pack(rank, size))


class Reader:
    """Reads the logs of a run in the order in which its lines arrived; `read()` again for what came since."""

    def __init__(self, folder: Path, logs: Sequence[str], ranks: frozenset[int] | None = None) -> None:
        self._folder, self._names, self._wanted = folder, logs, ranks
        self._files: dict[int, int] = {}
        self._offsets = [0] * len(logs)
        self._index: int | None = None

    def read(self) -> Iterator[Piece]:
        """All that is there and has not been read yet."""
        if self._index is None and (self._folder / INDEX).exists():
            self._index = os.open(self._folder / INDEX, os.O_RDONLY)
        if self._index is None:
            return
        while records := os.read(self._index, _RECORD.size * 4096):
            # A record is written at once, but a reader may still see half of one.
            if part := len(records) % _RECORD.size:
                records += os.read(self._index, _RECORD.size - part)
            for rank, size in _joined(_RECORD.iter_unpack(records)):
                start = self._offsets[rank]
                self._offsets[rank] += size
                if self._wanted is None or rank in self._wanted:
                    yield from self._pieces(rank, start, size)

    def close(self) -> None:
        for fd in [*self._files.values(), *([] if self._index is None else [self._index])]:
            os.close(fd)
        self._files, self._index = {}, None

    def _pieces(self, rank: int, start: int, size: int) -> Iterator[Piece]:
        if rank not in self._files:
            self._files[rank] = os.open(self._folder / self._names[rank], os.O_RDONLY)
        end = start + size
        while start < end and (data := os.pread(self._files[rank], min(end - start, _PIECE), start)):
            yield Piece(rank, data)
            start += len(data)


def _joined(records: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring records of one rank as one, up to a bound."""
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


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
