"""What happens before the first line, where no foot shows it: said when it takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from azml_dist.cli.beside import beside
from azml_dist.cli.output import say
from azml_dist.errors import DistError

if TYPE_CHECKING:
    from azml_dist.cli.live import Live
    from azml_dist.local.run import LocalRun

LONG = 15.0
"""Seconds until it is said, and until it is said again."""
_LOOK = 1.0


class Starting:
    """Tells at most now and then what is being prepared."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LONG

    def tell(self, what: str) -> None:
        """Say it, if that was not done a moment ago."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LONG
            say(f"note: {what}")


@contextmanager
def start_told(run: LocalRun, foot: Live | None) -> Iterator[None]:
    """While this block follows the run, say what it waits for, until all of its processes have started."""
    if foot:
        yield
        return
    with beside(_Teller(run).look, _LOOK):
        yield


class _Teller:
    def __init__(self, run: LocalRun) -> None:
        self._run, self._starting, self._is_over = run, Starting(), False

    def look(self) -> None:
        if self._is_over:
            return
        with suppress(DistError):  # the code that follows the run reports it
            state = self._run.state()
            if state.is_final() or all(process.pid for process in state.processes):
                self._is_over = True
            elif state.starting:
                self._starting.tell(f"{state.starting}, {time.time() - state.created_at:.0f} s so far")
