"""The foot of commands that follow a run: what happens, while the lines of the run pass above it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from azml_dist.errors import DistError
from azml_dist.runs.screen import at_terminal, foot
from azml_dist.words import duration

if TYPE_CHECKING:
    from azml_dist.runs.foot import Seen


class Live:
    """What the foot of a command shows: first how a run is prepared, then the run."""

    def __init__(self) -> None:
        self._look: Callable[[], Seen | None] = lambda: None
        self._last: Seen | None = None
        self._began = time.monotonic()

    def tell(self, what: str) -> None:
        """Show what is being prepared."""
        from azml_dist.runs.foot import Seen

        self._look = lambda: Seen("", f"{what}, {duration(time.monotonic() - self._began)}")

    def show(self, look: Callable[[], Seen | None]) -> None:
        """Show what this says from now on."""
        self._look = look

    def close(self) -> None:
        """Show nothing from now on."""
        self._look, self._last = lambda: None, None

    def draw(self, columns: int, rows: int) -> Sequence[str]:
        """The lines of the foot."""
        from azml_dist.runs.foot import foot_lines

        with suppress(DistError, OSError):  # the code that follows the run reports it
            self._last = self._look() or self._last
        return foot_lines(self._last, columns, rows) if self._last else []


@contextmanager
def live(as_json: bool, plain: bool) -> Iterator[Live | None]:
    """While the block runs, have a foot at the terminal; None where there is none, or where nobody wants one."""
    lines = sys.stderr if as_json else sys.stdout
    if not at_terminal(lines, plain=plain):
        yield None
        return
    shown = Live()
    with foot(lines, shown.draw):
        yield shown
