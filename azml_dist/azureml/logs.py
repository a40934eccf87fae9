"""The logs of all ranks of a run on Azure ML: followed by byte range, each line once and in order within its rank."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.azureml.parallel import each
from azml_dist.logs import Source

if TYPE_CHECKING:
    import requests

_NAME = re.compile(
    r"user_logs/(?:retry_(?P<attempt>\d+)/)?std_log(?:_process_(?P<rank>\d+)|_node_(?P<node>\d+)_(?P<role>worker|ps))?\.txt"
)
"""Azure's names of logs, in any width; `retry_NNN` is a further attempt (seen in jobs of low-priority nodes)."""
PIECE = 1 << 22
"""Bytes that are asked for at once."""
AT_A_TIME = 16
PER_ROUND = 64
"""Logs that are looked at in one round: of 512 silent ranks, each comes up every eighth one."""
_STORAGE_SCOPE = "https://storage.azure.com/.default"


class World(NamedTuple):
    """What the names of logs do not say."""

    node_count: int
    process_count_per_node: int


class LogName(NamedTuple):
    """Whose log a file is."""

    path: str
    source: Source
    attempt: int = 0


def parse(path: str, world: World) -> LogName | None:
    """Whose log `path` is; None for a file that is no process's log."""
    found = _NAME.fullmatch(path)
    if not found:
        return None
    attempt = int(found["attempt"] or 0)
    if found["node"]:
        # As in the plan: workers first, then parameter servers.
        node = int(found["node"])
        return LogName(path, Source(node + (world.node_count if found["role"] == "ps" else 0), node), attempt)
    rank = int(found["rank"] or 0)
    return LogName(path, Source(rank, rank // world.process_count_per_node), attempt)


def by_attempt(names: Mapping[LogName, str]) -> list[dict[LogName, str]]:
    """The logs in groups, of which each is read to its end before the next: earlier attempts, and then the last."""
    attempts = sorted({name.attempt for name in names})
    return [{name: url for name, url in names.items() if name.attempt == attempt} for attempt in attempts]


class Line(NamedTuple):
    """Whole lines of one log, ends included; the last of a log may have none."""

    name: LogName
    data: bytes


class Follower:
    """Reads logs on from where it has read to. Addresses may change between two reads, and reads may fail."""

    def __init__(self, token: Callable[[str], str]) -> None:
        import requests

        self._token = token
        self._session = requests.Session()
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=AT_A_TIME))
        self._logs: dict[str, _Log] = {}
        self.stale = False
        """Whether a log could not be read since this was last set to False: ask for new addresses."""
        self.bytes = 0
        """Bytes that were downloaded."""

    def read(self, names: Mapping[LogName, str], *, to_the_end: bool) -> Iterator[Line]:
        """What is new in these logs; with `to_the_end`, also what has no end, and everything there is."""
        logs = [self._logs.setdefault(name.path, _Log(name)) for name in names]
        for log, url in zip(logs, names.values(), strict=True):
            log.url = url
        todo = logs
        while todo:
            now = time.monotonic()
            # Whose turn it has been for the longest comes first, so that none of many waits for ever.
            due = sorted((log for log in todo if to_the_end or log.next_look <= now), key=lambda log: log.next_look)
            due = due if to_the_end else due[:PER_ROUND]
            for _, log in each(self._fetch, due, at_a_time=AT_A_TIME, stop=threading.Event()):
                yield from log.lines()
            # A log that gave all that was asked for has more.
            todo = [log for log in due if log.more]
        if to_the_end and not self.stale:
            for log in logs:
                yield from log.rest()

    def _fetch(self, log: _Log) -> _Log:
        try:
            answer = self._get(log)
        except OSError:  # requests' errors are: what is not here yet comes with the next look
            log.wait(more=False, new=False)
            self.stale = True
            return log
        data = answer.content if answer.status_code in (200, 206) else b""
        if answer.status_code == 200 and log.offset:
            data = data[log.offset :]
        if answer.status_code in (401, 403, 404):
            self.stale = True
        self.bytes += len(answer.content)
        log.take(data)
        return log

    def _get(self, log: _Log) -> requests.Response:
        headers = {"Range": f"bytes={log.offset}-{log.offset + PIECE - 1}", "x-ms-version": "2021-08-06"}
        if "sig=" not in log.url:  # a datastore that knows identities alone
            headers["Authorization"] = f"Bearer {self._token(_STORAGE_SCOPE)}"
        return self._session.get(log.url, headers=headers, timeout=30)


class _Log:
    """How far a log has been read."""

    def __init__(self, name: LogName) -> None:
        self.name = name
        self.url = ""
        self.offset = 0
        self.more = False
        self.next_look = 0.0
        self._pause = 0.5
        self._unfinished = b""
        self._lines = b""

    def take(self, data: bytes) -> None:
        self.offset += len(data)
        end = data.rfind(b"\n") + 1
        if end:
            self._lines, self._unfinished = self._unfinished + data[:end], data[end:]
        else:
            self._unfinished += data
        self.wait(more=len(data) == PIECE, new=bool(data))

    def wait(self, *, more: bool, new: bool) -> None:
        """When to look again: soon at a log that grows, at most 2.5 s later at one that does not."""
        self.more = more
        self._pause = 0.5 if new else min(self._pause * 1.5, 2.5)
        self.next_look = 0.0 if more else time.monotonic() + self._pause

    def lines(self) -> Iterator[Line]:
        if self._lines:
            yield Line(self.name, self._lines)
            self._lines = b""

    def rest(self) -> Iterator[Line]:
        if self._unfinished:
            yield Line(self.name, self._unfinished)
            self._unfinished = b""


def tail_of(follower: Follower, name: LogName, url: str, lines: int) -> str:
    """The last lines of one log."""
    text: Any = b"".join(line.data for line in follower.read({name: url}, to_the_end=True))
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])
