"""Follows the logs of all ranks of a run on Azure ML by byte range: each line once, in order within its rank."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.azureml.parallel import each
from azml_dist.azureml.ranges import AT_A_TIME, Bytes, Ranges
from azml_dist.runs.logs import Source

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

_NAME = re.compile(
    r"user_logs/(?:retry_(?P<attempt>\d+)/)?std_log(?:_process_(?P<rank>\d+)|_node_(?P<node>\d+)_(?P<role>worker|ps))?\.txt"
)
"""Azure's log names, with numbers of any width; `retry_NNN` is a further attempt (observed after evictions)."""
PIECE = 2 << 20
"""Bytes per request."""
LOOK = (0.5, 2.4)
"""Seconds until a log is polled again: if it is growing, and if it has long been silent."""
_WINDOW = 1 << 16
"""Enough bytes for most tails."""


class World(NamedTuple):
    """What cannot be read off the names of logs."""

    node_count: int
    process_count_per_node: int


class LogName(NamedTuple):
    """The rank and attempt that a log belongs to."""

    path: str
    source: Source
    attempt: int = 0


def parse(path: str, world: World) -> LogName | None:
    """The rank and attempt of a log by its path; None if the file is not the log of a process."""
    found = _NAME.fullmatch(path)
    if not found:
        return None
    attempt = int(found["attempt"] or 0)
    if found["node"]:
        # As in the plan: workers first, then parameter servers.
        node = int(found["node"])
        serves = found["role"] == "ps"
        return LogName(path, Source(node + world.node_count * serves, node, "ps" if serves else ""), attempt)
    rank = int(found["rank"] or 0)
    return LogName(path, Source(rank, rank // world.process_count_per_node), attempt)


def by_attempt(names: Mapping[LogName, str]) -> list[dict[LogName, str]]:
    """The logs in groups, one per attempt; each group is read to its end before the next."""
    attempts = sorted({name.attempt for name in names})
    return [{name: url for name, url in names.items() if name.attempt == attempt} for attempt in attempts]


class Line(NamedTuple):
    """Whole lines of one log with their newlines; only the last line of a log may have none."""

    name: LogName
    data: bytes


class Follower:
    """Reads the new part of logs on each call. Addresses may change between calls, and reads may fail.

    However many logs there are, and however long their lines, at most `AT_A_TIME` pieces are being requested or are in
    memory.
    """

    def __init__(self, token: Callable[[], AccessToken], cloud: str) -> None:
        self._ranges = Ranges(token, cloud)
        self._logs: dict[str, _Log] = {}
        self.stale = False
        """Whether a log could not be read since this was last set to False; new addresses may help."""
        self.refused: int | None = None
        """The status code with which a log was last refused; None if the connection failed."""

    @property
    def next_look(self) -> float:
        """When (`time.monotonic`) the next log is due; infinity if there is none."""
        return min((log.next_look for log in self._logs.values() if not log.closed), default=float("inf"))

    def read(self, names: Mapping[LogName, str], *, to_the_end: bool) -> Iterator[Line]:
        """New lines of the logs that are due; with `to_the_end`, of all logs up to their ends.

        A log that was read to its end is closed, because nothing will be written to it any more.
        """
        logs = todo = [log for log in self._known(names) if not log.closed]
        while todo:
            now = time.monotonic()
            # The log that has been due the longest comes first, so that none of many waits forever.
            due = sorted((log for log in todo if to_the_end or log.next_look <= now), key=lambda log: log.next_look)
            for start in range(0, len(due), AT_A_TIME):
                # A batch is shown before the next is requested, which limits memory.
                batch = due[start : start + AT_A_TIME]
                for _ in each(self._fetch, batch, at_a_time=AT_A_TIME, stop=threading.Event()):
                    pass
                for log in batch:
                    yield from log.lines()
            # If a log returned as much as was requested, it has more.
            todo = [log for log in due if log.more]
        if to_the_end:
            for log in logs:
                yield from log.close()

    def begun(self) -> Iterator[Line]:
        """The beginnings of lines that are not complete yet."""
        for log in self._logs.values():
            if log.unfinished and not log.closed:
                yield Line(log.name, log.unfinished)

    def begin_at_the_tail(self, names: Mapping[LogName, str], lines: int, most: int | None = None) -> None:
        """Start each of these logs at its last existing lines, which are found from the end backwards.

        If the lines have more than `most` bytes in total, only the end is read, after an ellipsis.
        """
        for log in self._known(names):
            log.tail = Tail(lines, most)

    def skip(self, names: Mapping[LogName, str]) -> None:
        """Read nothing of these logs."""
        for log in self._known(names):
            log.closed = True

    def _known(self, names: Mapping[LogName, str]) -> list[_Log]:
        for name, url in names.items():
            self._logs.setdefault(name.path, _Log(name)).url = url
        return [self._logs[name.path] for name in names]

    def _fetch(self, log: _Log) -> None:
        if log.tail is not None:
            self._fetch_tail(log, log.tail)
            return
        answer = self._get(log, log.offset, PIECE)
        if answer is None:
            return
        is_shorter = answer.status == 416 and answer.size is not None and answer.size < log.offset
        if is_shorter or log.is_of_another(answer.made):
            log.begin_again(answer.made)
        else:
            log.take(answer.data)

    def _fetch_tail(self, log: _Log, tail: Tail) -> None:
        """Find where the last lines begin, from the end backwards; `_fetch` continues from there."""
        answer = self._get(log, 0, _WINDOW)
        if answer is None:
            return
        data, size = answer.data, answer.size or len(answer.data)
        if size <= len(data):
            log.begin_at(_after_breaks(data, _breaks(data, tail.lines)) or 0, data)
            return
        first = max(0, size - tail.most) if tail.most else 0
        end, window, left = size, _WINDOW, 0
        while end > first:
            start = max(first, end - window)
            if (answer := self._get(log, start, end - start)) is None:
                return
            data = answer.data
            is_last = end == size
            left = _breaks(data, tail.lines) if is_last else left
            if (found := _after_breaks(data, left)) is not None:
                # Bytes that were received are not requested again, unless they are too many to keep.
                log.begin_at(start + found, data if is_last else b"", start)
                return
            left -= data.count(b"\n")
            end, window = start, min(window * 4, PIECE)
        log.begin_at(first, b"", cut=first > 0)

    def _get(self, log: _Log, first: int, count: int) -> Bytes | None:
        """At most `count` bytes of a log, if the answer tells something about it."""
        answer = self._ranges.get(log.name.path, log.url, first, count)
        if answer.says:
            return answer
        self.stale, self.refused = True, answer.refused
        log.failed = True
        log.wait(new=False)
        return None


class Tail(NamedTuple):
    """How much of the end of a log to read: at most so many lines, and so many bytes."""

    lines: int
    most: int | None


class _Log:
    """How far a log has been read."""

    def __init__(self, name: LogName) -> None:
        self.name = name
        self.url = ""
        self.offset = 0
        self.tail: Tail | None = None
        """If set, read only this part of its end."""
        self.more = self.failed = self.closed = False
        self.next_look = 0.0
        self._pause = LOOK[0]
        self._made: str | None = None
        self.unfinished = b""
        self._lines: list[Line] = []

    def take(self, data: bytes) -> None:
        self.offset += len(data)
        self.unfinished += data
        self._cut(self.unfinished.rfind(b"\n") + 1)
        if len(self.unfinished) > PIECE:  # a progress bar, or not text at all
            self._cut(len(self.unfinished))
        self.failed = False
        self.wait(new=bool(data), more=len(data) == PIECE)

    def begin_at(self, offset: int, data: bytes, start: int = 0, *, cut: bool = False) -> None:
        """Read from `offset` on; `data` are the bytes from `start` on, which were received already."""
        self.tail = None
        self.offset = offset
        if cut:
            self.unfinished = "…".encode()
        if data:
            self.take(data[offset - start :])
        self.wait(new=True, more=not data)

    def is_of_another(self, made: str | None) -> bool:
        """Whether the file was replaced by a new one with the same name since the last read."""
        before, self._made = self._made, made or self._made
        return before is not None and made is not None and before != made

    def begin_again(self, made: str | None) -> None:
        """A restarted node writes a new log: it is shorter than what was read, or was created later."""
        self.take(b"\n" if self.unfinished else b"")
        self.name = self.name._replace(attempt=self.name.attempt + 1)
        self.offset = 0
        self._made = made
        self.wait(new=True, more=True)

    def wait(self, *, new: bool, more: bool = False) -> None:
        """When to poll again: immediately if there is more, soon if the log is growing, later if it is not."""
        self.more = more
        self._pause = LOOK[0] if new else min(self._pause * 1.5, LOOK[1])
        self.next_look = 0.0 if more else time.monotonic() + self._pause

    def lines(self) -> Iterator[Line]:
        """The complete lines that have been read."""
        while self._lines:
            yield self._lines.pop(0)

    def close(self) -> Iterator[Line]:
        """The incomplete last line; empty until it is known to be the last."""
        if not self.failed:
            self._cut(len(self.unfinished))
            self.closed = True
        return self.lines()

    def _cut(self, end: int) -> None:
        if end:
            self._lines.append(Line(self.name, self.unfinished[:end]))
            self.unfinished = self.unfinished[end:]


def _breaks(data: bytes, lines: int) -> int:
    """After which newline from the right the last lines begin; an incomplete last line counts as one."""
    return lines + 1 if data.endswith(b"\n") else max(lines, 1)


def _after_breaks(data: bytes, breaks: int) -> int | None:
    """The text after the n-th newline from the right; None if there are fewer."""
    end = len(data)
    for _ in range(breaks):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return None
    return end + 1
