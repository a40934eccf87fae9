"""A run below the cell of a notebook: one table, renewed in place; and what the stop button says."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

from azml_dist.errors import DistError
from azml_dist.show import Page, page_html

_PAUSE = 1.0
"""Seconds between two renewals."""


def notebook() -> Any:
    """IPython if this process is the kernel of a notebook, else None."""
    ipython: Any = sys.modules.get("IPython")
    return ipython if ipython and hasattr(ipython.get_ipython(), "kernel") else None


class Interrupted(KeyboardInterrupt):
    """The stop button was pressed while a run was waited for."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows below the cell."""
        return [str(self)]


@contextmanager
def interruptible() -> Iterator[None]:
    """In a notebook, an interrupt of this block says that the run continues, and shows nothing of this package."""
    try:
        yield
    except KeyboardInterrupt:
        if notebook() is None:
            raise
        raise Interrupted("the run continues; `run.cancel()` ends it") from None


class InPlace:
    """A page below one cell or several, the same in all of them."""

    def __init__(self, page: Callable[[], Page], text: Callable[[], str]) -> None:
        """`text` is for what shows no HTML."""
        self._page, self._text = page, text
        self._id = f"azml-dist-{token_hex(8)}"
        self._lock = threading.Lock()
        self._cells: set[object] = set()
        self._last = ""
        self._next = 0.0

    def show(self) -> None:
        """Show it below the cell that runs, if it is not there already."""
        cell = self._cell()
        with self._lock:
            if cell not in self._cells:
                self._cells.add(cell)
                self._publish(update=False)

    def is_here(self) -> bool:
        """Whether it is below the cell that runs."""
        return self._cell() in self._cells

    def renew(self, *, now: bool = False) -> None:
        """Renew it everywhere, unless that was done a moment ago."""
        with self._lock:
            if now or time.monotonic() >= self._next:
                self._publish(update=True)

    def _publish(self, *, update: bool) -> None:
        with suppress(DistError, OSError):  # it is shown again soon; who waits for the run learns of errors
            html = page_html(self._page())
            if not update or html != self._last:
                self._last = html
                data = {"text/html": html, "text/plain": self._text()}
                notebook().display.display(data, raw=True, display_id=self._id, update=update)
        self._next = time.monotonic() + _PAUSE

    def _cell(self) -> object:
        return notebook().get_ipython().execution_count


def renew_beside(table: InPlace, is_over: Callable[[], bool]) -> None:
    """Show a table below the cell, and renew it until the run is over, while the notebook does something else."""

    def renew() -> None:
        with suppress(DistError, OSError):  # its folder has been deleted
            while not is_over():
                time.sleep(_PAUSE)
                table.renew()
            table.renew(now=True)

    table.show()
    # In the context of this cell: what a thread shows would go to the cell that runs then.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(renew,), daemon=True, name="table")
    with suppress(RuntimeError):  # the system allows no more threads
        thread.start()
