"""A command at a real pseudo-terminal, and what a person sees there: the screen, and the lines that scrolled away."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyte

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOT_HERE = ("CI", "NO_COLOR", "COLUMNS", "LINES")


class Terminal:
    """A terminal of so many columns and rows, with a command in its foreground."""

    def __init__(self, argv: list[str], columns: int, rows: int, env: Mapping[str, str]) -> None:
        self.columns, self.rows = columns, rows
        self.screen = pyte.HistoryScreen(columns, rows, history=100_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._theirs)
        here = {name: value for name, value in os.environ.items() if name not in NOT_HERE}
        self.process = subprocess.Popen(
            argv,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**here, "TERM": "xterm-256color", **env},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    @property
    def shown(self) -> list[str]:
        """The lines on the screen, without empty ones at its end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def scrolled(self) -> list[str]:
        """The lines above the screen."""
        return ["".join(line[at].data for at in sorted(line)).rstrip() for line in self.screen.history.top]

    @property
    def everything(self) -> list[str]:
        return self.scrolled + self.shown

    def wait_for(self, condition: Callable[[str], Any], seconds: float = 60) -> str:
        """The screen, once it fulfils the condition."""
        deadline = time.monotonic() + seconds
        while not condition(text := "\n".join(self.shown)):
            assert time.monotonic() < deadline, text
            self._read(0.1)
        return text

    def has_shown(self, pattern: str) -> bool:
        """Whether a line that fits has ever been drawn, also one that was replaced before anybody looked."""
        return re.search(pattern, _ESCAPES.sub("", self.raw.decode(errors="replace"))) is not None

    def end(self, seconds: float = 60) -> int:
        """Read to the end of the command; its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.returncode

    def is_as_it_was(self) -> bool:
        """Whether the modes of the terminal are those from before, and its cursor can be seen, below what is shown."""
        same = termios.tcgetattr(self._theirs) == self.before
        return same and not self.screen.cursor.hidden and self.screen.cursor.y >= min(len(self.shown), self.rows - 1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        data = os.read(self._ours, 1 << 16)
        self.raw += data
        self._stream.feed(data)
        return True


@contextmanager
def at_terminal(
    *args: object, columns: int = 80, rows: int = 24, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """The command line at a terminal."""
    terminal = Terminal([sys.executable, "-m", "azml_dist.cli", *map(str, args)], columns, rows, env or {})
    try:
        yield terminal
    finally:
        terminal.close()
