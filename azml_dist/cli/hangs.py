"""A run that hangs, while a terminal follows it: said once, and again when it changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azml_dist.cli.beside import beside
from azml_dist.cli.output import say

if TYPE_CHECKING:
    from azml_dist.local.run import LocalRun

_LOOK = 0.5
"""Seconds between two looks for a note."""


@contextmanager
def hangs_told(run: LocalRun) -> Iterator[None]:
    """While this block follows the run, say when nothing moves, and who keeps whom waiting."""
    with beside(_Teller(run).look, _LOOK):
        yield


class _Teller:
    def __init__(self, run: LocalRun) -> None:
        self._run = run
        self._file = run.folder / "hang.json"
        self._seen: tuple[int, int] | None = None

    def look(self) -> None:
        """Say what is new: a stall, another reason for it, or its end."""
        try:
            status = os.stat(self._file)
        except OSError:
            if self._seen:
                say("note: the run moves again")
            self._seen = None
            return
        if self._seen != (status.st_ino, status.st_mtime_ns):
            self._seen = (status.st_ino, status.st_mtime_ns)
            self._say()

    def _say(self) -> None:
        from azml_dist.local.watch.taking import hang_of, still_for

        verdict = hang_of(self._run.folder)
        still = f"nothing has moved for {still_for(self._run.folder):.1f} s"
        say(f"note: {still}: {verdict.summary}" if verdict else f"note: {still}")
        if verdict and verdict.source:
            say(f"  {verdict.file}:{verdict.line}  {verdict.source}")
        say(f"  `azml-dist stacks {self._run.name}` shows where each rank is; Ctrl-C ends the run")
