"""A local run in the foreground: started ahead, interrupted, reported."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from click.exceptions import Exit

from azml_dist.cli.base import DONE, FAILED, INTERRUPTED
from azml_dist.cli.faults import faults_told
from azml_dist.cli.hangs import hangs_told
from azml_dist.cli.output import (
    OutputError,
    colours,
    folds,
    give_up,
    is_terminal,
    print_chunks,
    say,
    say_card,
    tell,
    tell_json,
)
from azml_dist.cli.prelude import start_told
from azml_dist.errors import RunFailed
from azml_dist.regular import kind_of
from azml_dist.runs.screen import post_above
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.cli.live import Live
    from azml_dist.local.groups.run import GroupRun
    from azml_dist.local.run import LocalRun
    from azml_dist.local.supervision import Supervision
    from azml_dist.show import Row


@contextmanager
def supervisor_ahead(
    job: str, launcher: str | None, python: str | None, keep_pythonpath: bool = False
) -> Iterator[Supervision | None]:
    """Start the supervisor before the job is read, and torch, which takes a second to import, if the job seems to need
    torchrun."""
    from azml_dist.local.supervision import Supervision

    if sys.platform == "win32":
        yield None
        return
    needs_torchrun = launcher != "direct" and _mentions_pytorch(job)
    torchrun_python = (shutil.which(python) if python else sys.executable) if needs_torchrun else None
    supervision = Supervision(torchrun_python, keep_pythonpath=keep_pythonpath)
    try:
        yield supervision
    except BaseException:
        supervision.end()
        raise


def _mentions_pytorch(job: str) -> bool:
    path = job if os.path.exists(job) else job.rpartition(":")[0]
    if kind_of(path) != "file":
        return False
    try:
        with open(path, "rb") as file:
            return b"pytorch" in file.read(1 << 16).lower()
    except OSError:
        return False


_UNREAD = "cancelled because the reader of its output has closed the pipe"
"""Why a run ends if its lines go to a pipe that is closed, as by `| head`."""


class Interrupts:
    """Ctrl-C, `kill` or closing the terminal stops the run and waits for its end; a second one kills it.

    An ignored signal stays ignored, as `nohup` and a shell's `&` intend.
    """

    SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self) -> None:
        self.count = 0
        self.run: LocalRun | GroupRun | None = None

    def __enter__(self) -> Interrupts:
        heard = [signum for signum in self.SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
        self._before = {signum: signal.signal(signum, self._interrupt) for signum in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _interrupt(self, signum: int, _: object) -> None:
        self.count += 1
        if self.run is None or self.count > 2:
            raise KeyboardInterrupt
        from azml_dist.local.state import cancelled_by  # there is a run, so it is loaded

        # Not `print`: the signal may have interrupted one. A second signal may interrupt this, too.
        if self.count == 1:
            told = f"stopping {self.run.name}; press Ctrl-C again to kill it"
            if not post_above(told):
                os.write(2, f"\n{told}\n".encode())
            self.run.cancel(reason=cancelled_by(signum))
        else:
            self.run.kill(reason=cancelled_by(signum))


def follow(
    run: LocalRun, as_json: bool, foot: Live | None = None, rank: int | None = None, fold: bool | None = None
) -> list[str]:
    """Follow a run, or one rank of it, until it ends; returns the findings that were printed at its start."""
    from azml_dist.plan.world import World

    begun = run.state()
    say(f"run {run.name}: {World(**begun.world)}")
    for finding in begun.findings:
        say(f"note: {finding}")
    for service in begun.services:
        say(f"service {service.name}: {service.url}")
    ranks = None if rank is None else run.ranks(rank)
    if foot:
        foot.show(run.watching(ranks))
    with start_told(run, foot), faults_told(run), hangs_told(run), watched(run):
        safe, as_one = is_terminal(as_json), folds(as_json, fold)
        print_chunks(run.chunks(ranks, follow=True, colour=colours(as_json), safe=safe, fold=as_one), as_json)
    return begun.findings


def say_detached(run: LocalRun | GroupRun, as_json: bool) -> int:
    """Print the name of a run that has just started in the background, and what to type next."""
    if as_json:
        tell_json(run.describe())
    else:
        tell(run.name)
    rows = [("logs", "logs {} --follow"), ("status", "status {}"), ("cancel", "cancel {}")]
    say(f"run {run.name} runs in the background")
    for name, command in rows:
        say(f"  {name:<9}azml-dist {command.format(run.name)}")
    return DONE


@contextmanager
def watched(run: LocalRun | GroupRun) -> Iterator[None]:
    """Wait for the end of the run after this block prints its lines, even if they could not be written."""
    try:
        yield
    except BrokenPipeError:
        run.cancel(reason=_UNREAD)
        give_up(sys.stdout.fileno())
        try:
            run.wait()  # as the end of this process is a reason to cancel, too
        except RunFailed as failure:
            say(f"error: {failure.problems[0]}")
            raise Exit(FAILED) from None
        raise Exit(DONE) from None
    except OutputError as error:
        say(f"note: {error.problems[0].message}; the run continues, and its logs are in {run.folder}")
    with suppress(RunFailed):
        run.wait()


def exit_code(interrupts: Interrupts, status: str) -> int:
    """The exit code of a run that was followed."""
    return INTERRUPTED if interrupts.count else DONE if status == RunStatus.COMPLETED else FAILED


def report(run: LocalRun, after: Sequence[Row], said: Collection[str] = ()) -> None:
    """Print how the run ended, where everything is, and, if it completed, what comes `after` it.

    Findings in `said` are not repeated.
    """
    state = run.state()
    for number, attempt in enumerate(state.earlier, 1):
        say(f"attempt {number}: {attempt.status}, {attempt.error}")
    for finding in (finding for finding in state.findings if finding not in said):
        say(f"note: {finding}")
    if state.error:
        say(f"error: {state.error}")
    if recovery := run.recovery():
        say(f"recovery: {recovery.summary}")
    card = run.ending()
    if state.status == RunStatus.COMPLETED:
        card = card._replace(rows=[*card.rows, *after])
    say_card(card)
