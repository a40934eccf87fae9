"""Runs many calls at a time in threads that need not be waited for, so that Ctrl-C works immediately."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_Done: TypeAlias = "tuple[int, R | None, BaseException | None]"


def each(
    work: Callable[[T], R], items: Sequence[T], *, at_a_time: int, stop: threading.Event
) -> Iterator[tuple[int, R]]:
    """The index and the result of each item, as they finish. The first error is raised, and sets `stop`.

    If the caller sets `stop`, no further call starts, and running calls are not waited for.
    """
    todo = iter(enumerate(items))
    lock = threading.Lock()
    done: queue.SimpleQueue[_Done[R]] = queue.SimpleQueue()

    def run() -> None:
        while not stop.is_set():
            with lock:
                index, item = next(todo, (-1, None))
            if index < 0:
                return
            try:
                done.put((index, work(item), None))  # type: ignore[arg-type]  # an item, as the index is one
            except BaseException as error:
                done.put((index, None, error))

    # Not a ThreadPoolExecutor: at exit, the interpreter would wait for its threads, and so for a stuck upload.
    for _ in range(min(at_a_time, len(items))):
        threading.Thread(target=run, name="azml_dist", daemon=True).start()
    try:
        for _ in items:
            index, result, error = _take(done, stop)
            if index < 0:
                return
            if error:
                raise error
            yield index, result  # type: ignore[misc]  # a result, as there is no error
    except BaseException:
        stop.set()
        raise


class StopWithin(threading.Event):
    """Set by itself, or with the `outer` event: one failed upload does not stop the other jobs."""

    def __init__(self, outer: threading.Event) -> None:
        super().__init__()
        self._outer = outer

    def is_set(self) -> bool:
        return super().is_set() or self._outer.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (end is None or time.monotonic() < end):
            super().wait(0.1 if end is None else max(0.0, min(0.1, end - time.monotonic())))
        return self.is_set()


def _take(done: queue.SimpleQueue[_Done[R]], stop: threading.Event) -> _Done[R]:
    while True:
        with suppress(queue.Empty):
            return done.get(timeout=0.2)  # without a timeout, Ctrl-C does not work on Windows
        if stop.is_set():
            return -1, None, None
