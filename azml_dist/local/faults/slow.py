"""Slows a rank down: stops it for a part of each fifth of a second."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from azml_dist.local import processes

_PERIOD = 0.2


class Slow:
    """Lets processes run for only a fraction of the time."""

    def __init__(self, times: float, processes_of: Callable[[], list[int]]) -> None:
        self._running = _PERIOD / times
        self._processes_of = processes_of
        self._stopped: list[int] = []
        self._next = time.monotonic()

    def turn(self, now: float) -> float:
        """Stop or continue them if it is time; returns the seconds until the next turn."""
        if now >= self._next:
            if self._stopped:
                self.end()
                self._next = now + self._running
            else:
                self._stopped = self._processes_of()
                processes.send(self._stopped, signal.SIGSTOP)
                self._next = now + _PERIOD - self._running
        return max(0.0, self._next - now)

    def end(self) -> None:
        """Continue them."""
        processes.send(self._stopped, signal.SIGCONT)
        self._stopped = []
