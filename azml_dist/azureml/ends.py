"""The first and last lines of the logs of a run on Azure ML: many are read at a time, few are kept in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from azml_dist.azureml.parallel import each
from azml_dist.azureml.ranges import AT_A_TIME, Bytes, Ranges
from azml_dist.verdict.cut import HEAD, TAIL, Part, beginning, is_needed, last_traceback, may_be_cut
from azml_dist.verdict.known import Line, Log

_FAR = 1 << 40
"""Line numbers restart here after a gap with an unknown number of lines."""
_ROUNDS = 3
"""How often reading a log is attempted."""
_PAUSE = 0.5
_PIECE, _STEP = 2 << 20, 1 << 20
_COUNTED = 64 << 20
"""Up to how many bytes the lines of a log are counted, to number an important one."""
_BACK, _BACK_IN_ALL = 8 << 20, 64 << 20
"""How many bytes to read backwards for the beginning of a long message, in one log and in all of them."""


class Whose(NamedTuple):
    """A log, and what wrote it, if known."""

    rank: int | None
    node: int | None


class LogEnds:
    """The logs of a run, each read once: its first and last lines. `unread` has those that cannot be read."""

    def __init__(self, ranges: Ranges, whose: Mapping[str, Whose], addresses: Callable[[], Mapping[str, str]]) -> None:
        self._ranges = ranges
        self._whose = whose
        self._new_addresses = addresses
        self._urls: Mapping[str, str] = {}
        self._gaps: dict[str, int] = {}
        """Where the last lines of each long log start."""
        self._back = 0
        """How many bytes were read backwards."""
        self._before: dict[str, int | None] = {}
        """How many lines come before them, once counted."""
        self.unread: dict[str, int | None] = {}
        """The paths of logs that could not be read, each with the status of the storage's refusal."""

    def __iter__(self) -> Iterator[Log]:
        left = list(self._whose)
        for number in range(_ROUNDS):
            if number:
                time.sleep(_PAUSE)
            self._urls, self.unread = self._new_addresses(), {}
            for begin in range(0, len(left), AT_A_TIME):
                yield from self._batch(left[begin : begin + AT_A_TIME])
            if not (left := list(self.unread)):
                return

    def number(self, path: str, line: int | None) -> int | None:
        """The number of a line in its log; None if the log is too long to count."""
        if line is None or line < _FAR:
            return line
        if path not in self._before:
            self._before[path] = self._count(path)
        before = self._before[path]
        return None if before is None else before + line - _FAR + 1

    def _count(self, path: str) -> int | None:
        """How many lines come before the last ones of a log."""
        begin, counted = self._gaps[path], 0
        if begin > _COUNTED:
            return None
        for first in range(0, begin, _PIECE):
            found = self._get(path, first, min(_PIECE, begin - first))
            if not found.data:
                return None
            counted += found.data.count(b"\n")
        return counted

    def _batch(self, paths: list[str]) -> Iterator[Log]:
        found = dict(each(self._ends, paths, at_a_time=AT_A_TIME, stop=threading.Event()))
        for index, path in enumerate(paths):
            if isinstance(read := found[index], Log):
                yield read
            else:
                self.unread[path] = read.refused

    def _ends(self, path: str) -> Log | Bytes:
        """The lines of a log, or the response that has none."""
        begun = self._get(path, 0, HEAD + TAIL)
        if begun.status == 404:
            begun = Bytes(200)  # it exists by name, but nothing was written to it
        if not begun.says:
            return begun
        size = begun.size or len(begun.data)
        rank, node = self._whose[path]
        if size <= len(begun.data):
            return Log(path, _numbered(begun.data, 1), rank, node)
        gap = size - TAIL
        ended = self._get(path, gap, TAIL)
        if not ended.says:
            return ended
        head = beginning(begun.data[: 2 * HEAD])
        # The first line of the end is incomplete.
        cut = ended.data.find(b"\n") + 1
        tail = Part(gap + cut, ended.data[cut:])
        raised, between = self._above(path, ended.data, len(head), gap) if may_be_cut(ended.data) else (None, 0)
        if raised:
            tail = tail._replace(lines_before=between + ended.data.count(b"\n", 0, cut))
            raised = raised._replace(data=raised.data[: tail.first - raised.first])
        parts = [raised, tail] if raised and is_needed(raised, tail) else [tail._replace(lines_before=0)]
        self._gaps[path] = parts[0].first
        lines = [line for part in parts for line in _numbered(part.data, _FAR + part.lines_before)]
        return Log(path, [*_numbered(head, 1), *lines], rank, node)

    def _above(self, path: str, below: bytes, head: int, end: int) -> tuple[Part | None, int]:
        """The last traceback above the end of a log, and how many lines are from there to that end."""
        between, least = 0, max(head, end - _BACK)
        while end > least and self._back < _BACK_IN_ALL:
            first = max(least, end - _STEP)
            found = self._get(path, first, end - first)
            self._back += len(found.data)
            if not found.says or len(found.data) != end - first:
                break
            if part := last_traceback(found.data + below[:HEAD], len(found.data)):
                return Part(first + part.first, part.data), between + found.data.count(b"\n", part.first)
            between += found.data.count(b"\n")
            below, end = found.data, first
        return None, 0

    def _get(self, path: str, first: int, count: int) -> Bytes:
        return self._ranges.get(path, self._urls[path], first, count) if path in self._urls else Bytes(404)


def _numbered(data: bytes, first: int) -> list[Line]:
    lines = data.decode(errors="replace").removeprefix("\ufeff").removesuffix("\n").split("\n") if data else []
    return [Line(number, text) for number, text in enumerate(lines, first)]
