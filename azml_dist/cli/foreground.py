"""A local run in the foreground: started ahead, interrupted, reported."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azml_dist.cli.output import say

if TYPE_CHECKING:
    from azml_dist.local.run import LocalRun
    from azml_dist.local.supervision import Supervision


@contextmanager
def supervisor_ahead(job: str, launcher: str | None, python: str | None) -> Iterator[Supervision | None]:
    """Begin before the job is read: its supervisor; and torch, where it looks as if it needs torchrun, as that takes a
    second to import."""
    from azml_dist.local.supervision import Supervision

    if sys.platform == "win32":
        yield None
        return
    needs_torchrun = launcher != "direct" and _mentions_pytorch(job)
    supervision = Supervision((shutil.which(python) if python else sys.executable) if needs_torchrun else None)
    try:
        yield supervision
    except BaseException:
        supervision.end()
        raise


def _mentions_pytorch(job: str) -> bool:
    try:
        with open(job.rpartition(":")[0] or job, "rb") as file:
            return b"pytorch" in file.read(1 << 16).lower()
    except OSError:
        return False


class Interrupts:
    """Ctrl-C, `kill` and a closed terminal end the run, and are waited for; a second one kills it."""

    SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self) -> None:
        self.count = 0
        self.run: LocalRun | None = None

    def __enter__(self) -> Interrupts:
        self._before = [signal.signal(signum, self._interrupt) for signum in self.SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(signum, handler)

    def _interrupt(self, signum: int, _: object) -> None:
        self.count += 1
        if self.run is None or self.count > 2:
            raise KeyboardInterrupt
        # No print: this may have come in the middle of one.
        if self.count == 1:
            os.write(2, f"\nstopping run {self.run.name}; once more kills it\n".encode())
            self.run.cancel()
        else:
            self.run.kill()


def report(run: LocalRun, job: str) -> None:
    """How the run ended, where everything of it is, and what to type next."""
    state = run.state()
    for number, attempt in enumerate(state.earlier, 1):
        say(f"attempt {number}: {attempt.status}, {attempt.error}")
    for finding in state.findings:
        say(f"note: {finding}")
    if state.error:
        say(f"error: {state.error}")
        say(f"hint: {state.hint}") if state.hint else None
    rank = state.failed_rank if state.failed_rank is not None else len(state.processes) - 1
    say(f"run {run.name}: {state.status} in {(state.ended_at or 0) - (state.started_at or 0):.1f} s")
    say(f"  logs     {run.folder / 'user_logs'}")
    for name, path in run.outputs.items():
        say(f"  output   {name}: {path}")
    say(f"  again    azml-dist logs {run.name} --rank {rank}")
    if state.status == "Completed":
        say(f"  next     azml-dist submit {job}")
