"""What you see while you wait for a run: a foot at a terminal, or else a line for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, Protocol

from azml_dist.runs.foot import Seen, foot_lines
from azml_dist.runs.screen import foot, print_above, renews, screen_in_use
from azml_dist.words import visible


class State(NamedTuple):
    """The state of a run that is waited for, in words."""

    name: str
    line: str
    """With its age, which changes all the time: `queued 12 min: wants 2 nodes; …`."""
    change: str
    """Without ages, which is the same as long as nothing happens."""
    told: str
    """What to tell about the change: `queued: wants 2 nodes; …`."""


class View(Protocol):
    """Shows the state of a run while someone waits for it."""

    def show(self, state: Callable[[], State]) -> None:
        """Show the state; it is asked for again while a pause lasts, but asks the service nothing."""

    def pause(self, seconds: float) -> None:
        """Wait for the next look."""

    def end(self) -> None:
        """Nothing more is shown."""


class Silent:
    """Shows nothing: a script without a terminal, or a notebook, which has its table."""

    def show(self, state: Callable[[], State]) -> None:
        pass

    def pause(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))

    def end(self) -> None:
        pass


class Lines(Silent):
    """A line for each change."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._last: str | None = None

    def show(self, state: Callable[[], State]) -> None:
        now = state()
        if now.change != self._last:
            self._last = now.change
            self._tell(f"run {now.name}: {now.told}")


class OnFoot(Silent):
    """The foot of a terminal, and at the end the last state on a line of its own."""

    def __init__(self, watching: Callable[[], Seen]) -> None:
        self._stack = ExitStack()
        self._state: Callable[[], State] | None = None
        self._watching = watching

    def show(self, state: Callable[[], State]) -> None:
        if not self._state:
            self._stack.enter_context(foot(sys.stderr, self._draw))
        self._state = state

    def end(self) -> None:
        self._stack.close()
        if self._state:
            state = self._state()
            note(f"run {state.name}: {state.line}")

    def _draw(self, columns: int, rows: int) -> list[str]:
        return foot_lines(self._watching(), columns, rows)


def view_of(
    tell: Callable[[str], None] | None, watching: Callable[[], Callable[[], Seen]], *, in_notebook: bool
) -> View:
    """How to show a wait: as `tell` wants it, or as suits where this process runs.

    At a terminal, that is what `watching()` gives, unless the run has a foot there already.
    """
    if tell:
        return Lines(tell)
    if in_notebook or not sys.stderr.isatty() or screen_in_use():
        return Silent()
    return OnFoot(watching()) if renews(sys.stderr) else Lines(note)


def note(text: str) -> None:
    """Print a message, above the foot if there is one."""
    if not print_above(visible(text) + "\n", sys.stderr):
        print(visible(text), file=sys.stderr, flush=True)
