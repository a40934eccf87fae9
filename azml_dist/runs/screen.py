"""A foot below the lines at a terminal: renewed in place, while lines pass above it into the scrollback, each once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from azml_dist.regular import write_all

Draw = Callable[[int, int], Sequence[str]]
"""What the foot says at so many columns and rows: lines no wider than that."""

_ERASE = "\r\x1b[J"
"""The cursor stays at the beginning of the foot, so whatever is below it is the foot: also after a resize, in which
some terminals wrap its lines and others cut them. Nothing is counted, and after `kill -9` nothing is to be restored."""
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Terminals that know this show what is between at once, without a flicker; the others ignore it."""
_TICK = 0.05
"""Seconds until lines that were written are shown, at most."""
_SLOWEST = 1.0
_SHARE = 25
"""The foot is drawn so seldom that it takes a 25th of the time."""
_DRAW = 0.2
"""Seconds between two drawings of the foot, if that is quick."""
_FIRST = 0.3
"""Seconds until it is drawn first: what is over sooner needs none."""
_MOST = 1 << 16
"""Bytes that are kept for the next tick."""

_shown: list[Screen] = []
"""The screen that is in use, if any."""


def renews(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which something may be renewed in place."""
    return (
        stream.isatty()
        and os.environ.get("TERM") != "dumb"
        and not os.environ.get("NO_COLOR")
        and os.environ.get("CI", "").lower() in ("", "0", "false")
    )


def same_terminal(one: TextIO, other: TextIO) -> bool:
    """Whether two streams lead to the same terminal."""
    with suppress(OSError, ValueError):
        return one.isatty() and other.isatty() and os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev
    return False


def screen_in_use() -> Screen | None:
    """The screen with the foot, if there is one."""
    return _shown[-1] if _shown else None


def print_above(text: str, stream: TextIO) -> bool:
    """Print a text above the foot of that terminal; False if there is none, and the caller has to print."""
    if not _shown or not same_terminal(stream, _shown[-1].stream):
        return False
    _shown[-1].write(text.encode(stream.encoding, "backslashreplace"))
    return True


def post_above(text: str) -> bool:
    """The same from a signal handler, which may have interrupted anything: it is printed soon."""
    if not _shown:
        return False
    _shown[-1].posted.append(text.encode(errors="replace") + b"\n")
    return True


@contextmanager
def foot(stream: TextIO, draw: Draw) -> Iterator[Screen]:
    """While the block runs, show a foot at the terminal `stream`; at its end nothing is left of it."""
    screen = Screen(stream, draw)
    screen.begin()
    _shown.append(screen)
    try:
        with _stopped_without_a_foot(screen):
            yield screen
    finally:
        _shown.remove(screen)
        screen.end()


@contextmanager
def _stopped_without_a_foot(screen: Screen) -> Iterator[None]:
    """Ctrl-Z first removes the foot, then stops this process; after `fg` the foot is there again.

    The signal may have interrupted anything, so the thread that draws removes the foot, and then sends it again. The
    stop itself is the system's: it stops nothing where no shell could continue it.
    """
    signum = getattr(signal, "SIGTSTP", None)
    is_main = threading.current_thread() is threading.main_thread()
    if signum is None or not is_main or not screen.has_thread or signal.getsignal(signum) != signal.SIG_DFL:
        yield
        return

    def hear(number: int, _: object) -> None:
        if not screen.is_leaving:
            screen.leave(lambda: signal.pthread_kill(threading.main_thread().ident or 0, number))
            return
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        # Here it has been continued.
        signal.signal(number, hear)
        screen.come_back()

    signal.signal(signum, hear)
    try:
        yield
    finally:
        signal.signal(signum, signal.SIG_DFL)


class Screen:
    """A terminal with lines and a foot; any thread may write."""

    def __init__(self, stream: TextIO, draw: Draw) -> None:
        self.stream, self._draw = stream, draw
        self.posted: deque[bytes] = deque()
        """What signal handlers want to be printed."""
        self._lock = threading.Lock()
        self._new: list[bytes] = []
        self._bytes = 0
        self._foot = ""
        self._drawn = False
        self._is_mid_line = False
        self._next = time.monotonic() + _FIRST
        self._size = self._columns_and_rows()
        self._broken: OSError | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._leave: Callable[[], object] | None = None
        self.is_leaving = False
        """Whether the foot is being removed, or is removed, because the process is to stop."""

    @property
    def has_thread(self) -> bool:
        """Whether there is ever a foot."""
        return self._thread is not None

    def leave(self, then: Callable[[], object]) -> None:
        """Remove the foot soon, until `come_back`; when it is gone, `then` is called by another thread."""
        self.is_leaving, self._leave = True, then

    def come_back(self) -> None:
        """Draw the foot again."""
        self.is_leaving, self._leave, self._next = False, None, 0.0

    def begin(self) -> None:
        """Draw the foot from now on; without it if the system allows no more threads."""
        thread = threading.Thread(target=self._renew, daemon=True, name="foot")
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def write(self, lines: bytes) -> None:
        """Print lines above the foot; raises `OSError` if the terminal is gone."""
        with self._lock:
            if self._broken:
                raise self._broken
            self._new.append(lines)
            self._bytes += len(lines)
            if self._bytes > _MOST or not self._thread:
                self._paint()

    def end(self) -> None:
        """Print what is left, and remove the foot."""
        self._over.set()
        if self._thread:
            self._thread.join()
        with self._lock:
            self._foot = ""
            if self._drawn or self._new or self.posted:
                self._paint()

    def _renew(self) -> None:
        while not self._over.wait(_TICK):
            foot = self._drawing()
            with self._lock:
                if foot is not None:
                    self._foot = foot
                if foot is not None or self._new or self.posted:
                    self._paint()
            if self._leave and not self._drawn:
                then, self._leave = self._leave, None
                then()

    def _drawing(self) -> str | None:
        """The foot as it is now, if it is time to draw it and it has changed."""
        if self.is_leaving:
            return "" if self._foot else None
        now, size = time.monotonic(), self._columns_and_rows()
        if now < self._next and size == self._size:
            return None
        columns, rows = size
        lines = self._draw(columns - 1, max(1, rows - 2))[: max(1, rows - 2)] if self._is_in_front() else []
        took = time.monotonic() - now
        self._next = now + min(_SLOWEST, max(_DRAW, took * _SHARE))
        is_resized, self._size = size != self._size, size
        foot = "\n".join(lines) + (f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else "") + "\r" if lines else ""
        return foot if is_resized or foot != self._foot else None

    def _paint(self) -> None:
        while self.posted:
            self._new.append(self.posted.popleft())
        lines, self._new, self._bytes = b"".join(self._new), [], 0
        before = _ERASE if self._drawn else ""
        self._is_mid_line = not lines.endswith(b"\n") if lines else self._is_mid_line
        after = "" if self._is_mid_line else self._foot
        self._drawn = bool(after)
        end = (after + _END).encode(self.stream.encoding, "replace")
        try:
            self.stream.flush()
            write_all(self.stream.fileno(), (_BEGIN + before).encode() + lines + end)
        except OSError as error:  # the terminal is gone; who writes next is told
            self._broken = error

    def _is_in_front(self) -> bool:
        """Whether no other program has the terminal, as it has after `azml-dist run job.yml &`."""
        try:
            return os.tcgetpgrp(self.stream.fileno()) == os.getpgrp()
        except (OSError, AttributeError):  # it is not this session's; or this is Windows
            return True

    def _columns_and_rows(self) -> tuple[int, int]:
        with suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(self.stream.fileno())
            return columns or 80, rows or 24
        return 80, 24


def at_terminal(lines: TextIO, *, plain: bool = False) -> bool:
    """Whether a foot may be shown below lines that are printed to this stream.

    Messages go to stderr: if that is another terminal or none, there is no foot.
    """
    return not plain and renews(lines) and same_terminal(lines, sys.stderr)
