"""The order in which the ranks of a run wrote their lines, kept beside their logs.

Each rank's output goes to its own file, byte for byte. `merged.idx` says in what order whole lines arrived: records of
log and byte count. Logs are counted by rank, and on from there in a further attempt. Whoever follows a run replays that
order, live or a week later, in this process or another.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
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
    attempt: int = 0
    """0 is the first."""


def log_of_attempt(log: str, attempt: int) -> str:
    """The name of a process's log in an attempt: Azure ML puts those of a second one into `user_logs/retry_001`."""
    folder, _, name = log.rpartition("/")
    return f"{folder}/retry_{attempt:03}/{name}" if attempt else log


class Writer:
    """Writes the ranks' logs and their order. Owned by the one process that reads the ranks' pipes."""

    def __init__(self, folder: Path, logs: Sequence[str], attempt: int = 0) -> None:
        """`logs` are those of the first attempt, whichever this is."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        files = [folder / log_of_attempt(log, attempt) for log in logs]
        for parent in {file.parent for file in files}:
            parent.mkdir(exist_ok=True)
        self._logs = [os.open(file, flags, 0o644) for file in files]
        self._first = attempt * len(logs)
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
        _write_all(self._index, _RECORD.pack(self._first + rank, size))


class Reader:
    """Reads the logs of a run in the order in which its lines arrived; `read()` again for what came since."""

    def __init__(self, folder: Path, logs: Sequence[str], ranks: frozenset[int] | None = None) -> None:
        self._folder, self._names, self._wanted = folder, logs, ranks
        self._files: dict[int, int] = {}
        self._offsets: defaultdict[int, int] = defaultdict(int)
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
            for log, size in _joined(_RECORD.iter_unpack(records)):
                start = self._offsets[log]
                self._offsets[log] += size
                if self._wanted is None or log % len(self._names) in self._wanted:
                    yield from self._pieces(log, start, size)

    def close(self) -> None:
        for fd in [*self._files.values(), *([] if self._index is None else [self._index])]:
            os.close(fd)
        self._files, self._index = {}, None

    def _pieces(self, log: int, start: int, size: int) -> Iterator[Piece]:
        attempt, rank = divmod(log, len(self._names))
        if log not in self._files:
            self._files[log] = os.open(self._folder / log_of_attempt(self._names[rank], attempt), os.O_RDONLY)
        end = start + size
        while start < end and (data := os.pread(self._files[log], min(end - start, _PIECE), start)):
            yield Piece(rank, data, attempt)
            start += len(data)


def _joined(records: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring records of one log as one, up to a bound."""
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
