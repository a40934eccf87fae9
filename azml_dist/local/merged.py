"""The order in which the ranks of a run wrote their lines, stored next to their logs.

Each rank's output goes to its own file, byte for byte. `merged.idx` records the order in which whole lines arrived:
each record is a log and a byte count. Logs are numbered by rank; those of further attempts follow. `replay.py` reads
them in that order, live or a week later, in any process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from azml_dist.local.times import TimesWriter
from azml_dist.regular import NO_LINK, write_all
from azml_dist.verdict.order import INDEX, RECORD


def log_of_attempt(log: str, attempt: int) -> str:
    """The name of a process's log in an attempt: Azure ML puts those of the second into `user_logs/retry_001`."""
    folder, _, name = log.rpartition("/")
    return f"{folder}/retry_{attempt:03}/{name}" if attempt else log


class Writer:
    """Writes the ranks' logs and their order. Used only by the process that reads the ranks' pipes."""

    def __init__(self, folder: Path, logs: Sequence[str], attempt: int = 0) -> None:
        """`logs` are those of the first attempt, whichever attempt this is."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | NO_LINK
        files = [folder / log_of_attempt(log, attempt) for log in logs]
        for parent in {file.parent for file in files}:
            parent.mkdir(exist_ok=True)
        self._logs = [os.open(file, flags, 0o644) for file in files]
        self._first = attempt * len(logs)
        self._index = os.open(folder / INDEX, flags, 0o644)
        self._times = TimesWriter(folder)
        self._records = self.position
        self._unfinished = [0] * len(logs)
        """Bytes of each rank's last line while it is incomplete."""

    def write(self, rank: int, data: bytes) -> None:
        write_all(self._logs[rank], data)
        if lines := data.rfind(b"\n") + 1:
            self._record(rank, self._unfinished[rank] + lines)
            self._unfinished[rank] = 0
        self._unfinished[rank] += len(data) - lines

    def end(self, rank: int) -> None:
        """The rank has ended: record its last line even if it is incomplete."""
        if size := self._unfinished[rank]:
            self._record(rank, size)
            self._unfinished[rank] = 0

    @property
    def position(self) -> int:
        """The number of records in the index, which serves as a clock for what has arrived."""
        return os.lseek(self._index, 0, os.SEEK_END) // RECORD.size

    def close(self) -> None:
        for fd in (*self._logs, self._index):
            os.close(fd)
        self._times.close()

    def _record(self, rank: int, size: int) -> None:
        self._times.saw(self._records)
        self._records += 1
        write_all(self._index, RECORD.pack(self._first + rank, size))
