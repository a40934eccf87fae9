"""The logs of all ranks of a run on Azure ML: followed by byte range, each line once and in order within its rank."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.azureml.connections import session
from azml_dist.azureml.parallel import each
from azml_dist.logs import Source

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import AccessToken

_NAME = re.compile(
    r"user_logs/(?:retry_(?P<attempt>\d+)/)?std_log(?:_process_(?P<rank>\d+)|_node_(?P<node>\d+)_(?P<role>worker|ps))?\.txt"
)
"""Azure's names of logs, in any width; `retry_NNN` is a further attempt (seen in jobs of low-priority nodes)."""
PIECE = 2 << 20
"""Bytes that are asked for at once."""
AT_A_TIME = 16
LOOK = (0.5, 2.4)
"""Seconds until a log is looked at again: of one that grows, and of one that has long been silent."""
STORAGE_SCOPE = "https://storage.azure.com/.default"
_WINDOW = 1 << 16
"""Bytes that are enough for most tails."""
_SAYS = frozenset([200, 206, 416])
"""Answers that say something about a log: its bytes, or that it has no more."""


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
        serves = found["role"] == "ps"
        return LogName(path, Source(node + world.node_count * serves, node, "ps" if serves else ""), attempt)
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
    """Reads logs on from where it has read to. Addresses may change between two reads, and reads may fail.

    However many logs there are, no more than `AT_A_TIME` pieces are being asked for, or wait in memory.
    """

    def __init__(self, token: Callable[[], AccessToken]) -> None:
        self._new_token = token
        self._token: AccessToken | None = None
        self._token_lock = threading.Lock()
        self._session: Any = None
        self._logs: dict[str, _Log] = {}
        self.stale = False
        """Whether a log could not be read since this was last set to False: ask for new addresses."""
        self.refused: int | None = None
        """The status with which a log was last refused; None where it was the connection that failed."""

    @property
    def next_look(self) -> float:
        """When (`time.monotonic`) the first log is due again; infinity where there is none."""
        return min((log.next_look for log in self._logs.values() if not log.closed), default=float("inf"))

    def read(self, names: Mapping[LogName, str], *, to_the_end: bool) -> Iterator[Line]:
        """What is new in those of these logs that are due; with `to_the_end`, in all of them and to their ends.

        Nobody writes to a log any more that was read to its end: it is closed.
        """
        logs = todo = [log for log in self._known(names) if not log.closed]
        while todo:
            now = time.monotonic()
            # Whose turn it has been for the longest comes first, so that none of many waits for ever.
            due = sorted((log for log in todo if to_the_end or log.next_look <= now), key=lambda log: log.next_look)
            for start in range(0, len(due), AT_A_TIME):
                # A batch is shown before the next is asked for: what waits in memory is bounded.
                batch = due[start : start + AT_A_TIME]
                for _ in each(self._fetch, batch, at_a_time=AT_A_TIME, stop=threading.Event()):
                    pass
                for log in batch:
                    yield from log.lines()
            # A log that gave all that was asked for has more.
            todo = [log for log in due if log.more]
        if to_the_end:
            for log in logs:
                yield from log.close()

    def begin_at_the_tail(self, names: Mapping[LogName, str], lines: int) -> None:
        """Of these logs only the last lines of what is there by now are read, found from the end backwards."""
        for log in self._known(names):
            log.tail = lines

    def skip(self, names: Mapping[LogName, str]) -> None:
        """Read nothing of these logs."""
        for log in self._known(names):
            log.closed = True

    def _known(self, names: Mapping[LogName, str]) -> list[_Log]:
        for name, url in names.items():
            self._session = self._session or session(url, AT_A_TIME)  # all logs of a run are in one storage account
            self._logs.setdefault(name.path, _Log(name)).url = url
        return [self._logs[name.path] for name in names]

    def _fetch(self, log: _Log) -> None:
        if log.tail is not None:
            self._fetch_tail(log, log.tail)
            return
        answer = self._get(log, log.offset, log.offset + PIECE - 1)
        if answer is None:
            return
        data, size = _content(answer), _size(answer)
        if answer.status_code == 416 and size is not None and size < log.offset:
            log.begin_again()
            return
        # 200 is of a server that knows no ranges.
        log.take(data[log.offset :] if answer.status_code == 200 else data)

    def _fetch_tail(self, log: _Log, lines: int) -> None:
        answer = self._get(log, 0, _WINDOW - 1)
        if answer is None:
            return
        data, start, window = _content(answer), 0, _WINDOW
        size = _size(answer) or len(data)
        if size > len(data):
            data, start = b"", size
        while start and data.count(b"\n") <= lines:
            start = max(0, size - window)
            answer = self._get(log, start, size - 1)
            if answer is None:
                return
            data, window = _content(answer), window * 4
        log.take_tail(data, size)

    def _get(self, log: _Log, first: int, last: int) -> requests.Response | None:
        """The answer, if it says something about the log."""
        headers = {"Range": f"bytes={first}-{last}", "x-ms-version": "2021-08-06"}
        if "sig=" not in log.url:  # a datastore that knows identities alone
            headers["Authorization"] = f"Bearer {self._bearer()}"
        try:
            answer: requests.Response = self._session.get(log.url, headers=headers, timeout=(10, 30))
        except OSError:  # requests' errors are: what is not here yet comes with the next look
            self._failed(log, None)
            return None
        if answer.status_code not in _SAYS:
            self._failed(log, answer.status_code)
            return None
        return answer

    def _failed(self, log: _Log, status: int | None) -> None:
        self.stale, self.refused = True, status if status in (401, 403, 404) else None
        if status == 401:
            self._token = None
        log.failed = True
        log.wait(new=False)

    def _bearer(self) -> str:
        """One token for all logs: some credentials start a process whenever they are asked."""
        with self._token_lock:
            if self._token is None or self._token.expires_on < time.time() + 300:
                self._token = self._new_token()
            return str(self._token.token)


class _Log:
    """How far a log has been read."""

    def __init__(self, name: LogName) -> None:
        self.name = name
        self.url = ""
        self.offset = 0
        self.tail: int | None = None
        """How many of its last lines are to be read, and nothing before."""
        self.more = self.failed = self.closed = False
        self.next_look = 0.0
        self._pause = LOOK[0]
        self._unfinished = b""
        self._lines: list[Line] = []

    def take(self, data: bytes) -> None:
        self.offset += len(data)
        self._unfinished += data
        self._cut(self._unfinished.rfind(b"\n") + 1)
        if len(self._unfinished) > PIECE:  # a progress bar, or no text at all
            self._cut(len(self._unfinished))
        self.failed = False
        self.wait(new=bool(data), more=len(data) == PIECE)

    def take_tail(self, data: bytes, size: int) -> None:
        """Take the last lines of `data`, at whose end the log was `size` bytes long; one without an end counts."""
        *lines, unfinished = data.split(b"\n")
        count = max(0, (self.tail or 0) - bool(unfinished))
        self.tail = None
        self.take(b"".join(line + b"\n" for line in lines[len(lines) - count :]) + unfinished)
        self.offset = size

    def begin_again(self) -> None:
        """There is less than was read: a node that was restarted writes its log anew."""
        self.take(b"\n" if self._unfinished else b"")
        self.name = self.name._replace(attempt=self.name.attempt + 1)
        self.offset = 0
        self.wait(new=True, more=True)

    def wait(self, *, new: bool, more: bool = False) -> None:
        """When to look again: at once where there is more, soon at a log that grows, later at one that does not."""
        self.more = more
        self._pause = LOOK[0] if new else min(self._pause * 1.5, LOOK[1])
        self.next_look = 0.0 if more else time.monotonic() + self._pause

    def lines(self) -> Iterator[Line]:
        """What is to be shown by now."""
        while self._lines:
            yield self._lines.pop(0)

    def close(self) -> Iterator[Line]:
        """The last line, which has no end; nothing while it is not known to be the last."""
        if not self.failed:
            self._cut(len(self._unfinished))
            self.closed = True
        return self.lines()

    def _cut(self, end: int) -> None:
        if end:
            self._lines.append(Line(self.name, self._unfinished[:end]))
            self._unfinished = self._unfinished[end:]


def _content(answer: requests.Response) -> bytes:
    return answer.content if answer.status_code in (200, 206) else b""


def _size(answer: requests.Response) -> int | None:
    """How long the whole log is: `Content-Range: bytes 0-99/1234`, or `bytes */1234` where there is no such range."""
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None
