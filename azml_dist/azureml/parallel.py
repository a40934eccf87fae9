"""Many calls at a time, in threads that nobody has to wait for: Ctrl-C is heard at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_Done: TypeAlias = "tuple[int, R | None, BaseException | None]"


def each(
    work: Callable[[T], R], items: Sequence[T], *, at_a_time: int, stop: threading.Event
) -> Iterator[tuple[int, R]]:
    """The index and the result of every item, as they come in. The first error is raised, and sets `stop`.

    Where somebody else sets `stop`, nothing is begun any more, and what is on its way is not waited for.
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

    # Not a ThreadPoolExecutor: the interpreter waits for its threads at exit, and so for a stuck upload.
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


def _take(done: queue.SimpleQueue[_Done[R]], stop: threading.Event) -> _Done[R]:
    while True:
        with suppress(queue.Empty):
            return done.get(timeout=0.2)  # without it, Windows hears no Ctrl-C
        if stop.is_set():
            return -1, None, None
