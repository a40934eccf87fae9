"""Something that is looked at again and again, beside the lines of a run that is being followed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """While the block runs, call `look` in a thread, so often; without one, if the system allows no more threads."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # `ulimit -u`, or a container's limit of pids: the run itself will say so if it needs more
        yield
        return
    try:
        yield
    finally:
        over.set()
        thread.join()
