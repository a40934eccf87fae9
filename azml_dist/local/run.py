"""`LocalRun`: the handle of a local run. Everything that it knows is in the run's folder."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from azml_dist.errors import DistError, JobError, RunFailed
from azml_dist.local.metrics import metrics_of
from azml_dist.local.replay import Reader
from azml_dist.local.state import ARTIFACTS, RunFolder, RunState, cancelled_by
from azml_dist.local.supervision import Supervision
from azml_dist.regular import end_of, open_inside
from azml_dist.runs.folding import labeller_of
from azml_dist.runs.limits import check_amount, check_timeout
from azml_dist.runs.logs import Reading, Source
from azml_dist.runs.notebook import interruptible
from azml_dist.runs.run import Run, pauses, still_going_on
from azml_dist.runs.selection import Selection
from azml_dist.runs.services import RunService
from azml_dist.show import Card, Page, Told, card_text
from azml_dist.status import RunStatus
from azml_dist.words import visible

if TYPE_CHECKING:
    from azml_dist.contents.code import KeptCode
    from azml_dist.job import Job
    from azml_dist.model.job import JobFields
    from azml_dist.page.html import RunPage
    from azml_dist.runs.download import Download
    from azml_dist.runs.foot import Seen
    from azml_dist.runs.material import Material
    from azml_dist.runs.metrics import Metrics
    from azml_dist.runs.rerun import Rerun
    from azml_dist.runs.system import System
    from azml_dist.verdict.compared import Compared
    from azml_dist.verdict.recovery import Recovery
    from azml_dist.verdict.stacked import Stacks
    from azml_dist.verdict.verdict import Verdict

_TAIL_LINES, _TAIL_BYTES = 20, 16384
_POLL = (0.005, 0.02)
"""Seconds between two polls of a run: at first, and at most while nothing happens."""

_children: set[LocalRun] = set()
"""Runs that this process has started and not waited for yet."""
_left_running: list[Supervision] = []
"""Of runs that outlive this process; kept until it ends, since a `Popen` that is thrown away asks for its process."""


class LocalRun(Run):
    """A run on this machine, started by this process or by another."""

    def __init__(self, folder: RunFolder, supervision: Supervision | None = None, *, outlives: bool = False) -> None:
        self._folder = folder
        self._supervision = supervision
        self.name = folder.path.name
        if supervision and outlives:
            _left_running.append(supervision)
        elif supervision:
            self._wait_at_exit()

    @property
    def folder(self) -> Path:
        """The folder that contains everything of the run."""
        return self._folder.path

    def state(self) -> RunState:
        """The current state of the run, from `run.json`."""
        return self._folder.read()

    @property
    def status(self) -> RunStatus:
        return RunStatus(self.state().status)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    @property
    def outputs(self) -> Mapping[str, Path]:
        folder = self.folder / "outputs"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: self.folder / ARTIFACTS if _means_artifacts(path) else path for path in found}

    def wait(self, timeout: float | None = None, *, max_wait: float | None = None) -> LocalRun:
        check_timeout(timeout)
        check_amount("max_wait", max_wait)
        deadline = None if timeout is None else time.monotonic() + timeout
        looks, table = pauses(*_POLL), self._shown_live()
        with interruptible():
            while not self._folder.has_ended():
                if deadline and time.monotonic() > deadline:
                    raise TimeoutError(f"run {self.name} is still {self.status} after {timeout:g} s")
                time.sleep(next(looks))
                if table:
                    table.renew()
        if table:
            table.renew(now=True)
        self._let_go()
        if (state := self.state()).status != RunStatus.COMPLETED:
            raise self._failure(state)
        return self

    def _processes(self) -> Sequence[Source]:
        return _sources(self.state())

    def _read(self, how: Reading) -> Iterator[bytes]:
        """Lines in the order in which they arrived."""
        state = self.state()
        reader = Reader(self.folder, state.first_logs, how.ranks)
        labeller = labeller_of(how, _sources(state))
        looks = pauses(*_POLL)
        try:
            if how.tail is not None:
                labeller.begin_after(reader.begin_at_last(how.tail))
            while True:
                # Checked before reading: once the run has ended, everything that it wrote can be read.
                ended = not how.follow or self._folder.has_ended()
                for piece in reader.read():
                    looks = pauses(*_POLL)
                    yield labeller.label(piece)
                if rest := labeller.ready():
                    yield rest
                if ended:
                    yield labeller.end()
                    return
                time.sleep(next(looks))
        finally:
            reader.close()

    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        look: Callable[[], Seen] = self._foot.watching(self.state, self.folder, ranks, self.metrics)
        return look

    def page(self) -> RunPage:
        from azml_dist.local.page.make import page_of

        return page_of(self)

    def cancel(self, *, reason: str | None = None) -> None:
        self._request_cancel(reason or "cancelled by `run.cancel()`", kill=False)

    def kill(self, *, reason: str = "cancelled by `run.kill()`") -> None:
        """Cancel the run without giving its processes time to end by themselves."""
        self._request_cancel(reason, kill=True)

    def _request_cancel(self, reason: str, *, kill: bool) -> None:
        if self.state().is_final():
            return
        try:
            self._folder.request_cancel(reason, kill=kill)
        except OSError as error:
            raise DistError(
                f"run {self.name} cannot be cancelled: {error.strerror} ({self.folder})",
                hint="cancel it as the user who started it, or press Ctrl-C where it was started",
            ) from error

    def _material(self) -> Material:
        from azml_dist.local.material import material

        return material(self.folder, self.state(), self.stacks)

    def fetch(self, folder: str | Path, *, only: Iterable[str] = (), so_far: bool = False) -> Download:
        if not so_far and not (status := self.status).is_final:
            raise still_going_on(self.name, status)
        return self._fetch(Path(folder), Selection(only), so_far)

    def _fetch(self, into: Path, only: Selection, so_far: bool, above: frozenset[str] = frozenset()) -> Download:
        """Copy it, or what is wanted of it; `above` are the runs that contain this one."""
        from azml_dist.local.download import copy_run

        return copy_run(self.folder, self.state(), into, only, so_far=so_far, check=not above)

    def metrics(self) -> Metrics:
        return metrics_of(self.folder)

    def job(self) -> Job:
        found: Job = self._kept.job_of(self.folder)
        return found

    @property
    def began_here(self) -> float | None:
        return self.state().created_at

    def code(self) -> KeptCode | None:
        found: KeptCode | None = self._kept.code_of_run(self.folder)
        return found

    def rerun(
        self,
        job: JobFields | None = None,
        *,
        download: Collection[str] | str = (),
        sample: int | None = None,
        resume: bool = False,
    ) -> Rerun:
        if sample is not None or download:
            hint = "leave out `--download` and `--sample`"
            raise JobError(f"run {self.name} read its data on this machine: there is nothing to download", hint=hint)
        found: Rerun = self._kept.rerun_of(self.state(), self.verdict(), self.job(), job, resume=resume)
        return found

    @property
    def _foot(self) -> Any:
        from azml_dist.local import lately  # only where something is renewed in place

        return lately

    @property
    def _pages(self) -> Any:
        from azml_dist.local import pages

        return pages

    @property
    def _end(self) -> Any:
        from azml_dist.local import ending  # what is only needed then

        return ending

    @property
    def _kept(self) -> Any:
        from azml_dist.local import kept  # reads and writes YAML

        return kept

    def system(self) -> System | None:
        found: System | None = self._pages.system_of(self.folder, self.state())
        return found

    @property
    def services(self) -> Mapping[str, RunService]:
        state = self.state()
        over = state.is_final()
        status = "Stopped" if over else "Running"
        return {one.name: RunService(one.type, None if over else one.url, status) for one in state.services}

    def verdict(self) -> Verdict | None:
        """Why the run failed or hangs, with the evidence; None if it does neither, and if it completed."""
        state = self.state()
        if state.status == RunStatus.COMPLETED or state.kind:
            return None
        from azml_dist.local.why import verdict_of  # reads logs and judges them

        return verdict_of(self.folder, state)

    def stacks(self, rank: int | None = None) -> Stacks:
        """What every process of the run is doing now, equal stacks together; of a run that has ended, its last known.

        Raises `NotFound` for a rank that there is not, and for a run that has ended and did not hang.
        """
        from azml_dist.local.watch.taking import stacks_of

        return stacks_of(self.folder, self.state(), None if rank is None else self.ranks(rank))

    def recovery(self) -> Recovery | None:
        """What became of the work after a fault on purpose; None while it runs, and where no fault came."""
        state = self.state()
        if not state.faults or not state.is_final():
            return None
        from azml_dist.local.faults.recovery import recovery

        return recovery(state, self.folder, self.metrics(), self.verdict())

    def compared(self) -> Compared | None:
        """How the run compares with the one that it repeats; None if it repeats none, or has not ended."""
        state = self.state()
        found: Compared | None = self._end.comparison(state, self.verdict()) if state.origin else None
        return found

    def describe(self) -> dict[str, Any]:
        found, recovery, system = self.verdict(), self.recovery(), self.system()
        compared, origin = self.compared(), self.state().origin
        return {
            **self.state().to_dict(),
            "verdict": found and found.to_dict(),
            "reason": self.reason(),
            "recovery": recovery and recovery.to_dict(),
            "system": system and system.to_dict(),
            "compared": compared and compared.to_dict((origin or {})["name"]),
        }

    def _page(self) -> Page:
        found, state, verdict = self.recovery(), self.state(), self.verdict()
        system, odd = self.system(), verdict.ranks if verdict else ()
        page: Page = self._pages.run_page(state, self._bad_ending(), found.summary if found else None, system, odd)
        hang = None if state.is_final() else verdict
        return page._replace(blocks=[*page.blocks, Told([("hangs", hang.summary)])]) if hang else page

    def _live_page(self) -> Page:
        return self._page() if self.state().is_final() else cast("Page", self._foot.seen_page(self._look()))

    @cached_property
    def _look(self) -> Callable[[], Seen]:
        return self.watching()

    def _bad_ending(self) -> Card | None:
        """The card of a run that failed or was cancelled."""
        state = self.state()
        return self.ending() if state.is_final() and state.status != RunStatus.COMPLETED else None

    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card:
        card: Card = self._end.ending_of(self.folder, self.state(), self.outputs, verdict, in_full=in_full)
        return card

    def __repr__(self) -> str:
        return f"<LocalRun {self.name}: {self.status}>"

    def _failure(self, state: RunState) -> RunFailed:
        tail = ""
        if state.failed_rank is not None:
            tail = _end_of_log(self.folder, state.processes[state.failed_rank].log)
        return RunFailed(
            f"run {self.name} {how_it_ended(state)}",
            run=self,
            failed_rank=state.failed_rank,
            exit_codes={p.rank: p.exit_code for p in state.processes},
            log_tail=tail,
            hint=state.hint,
            ending=card_text(self.ending()),
        )

    def _wait_at_exit(self) -> None:
        """Remember that this process started the run, so that it does not exit before the run ends."""
        _children.add(self)

    def _let_go(self) -> None:
        """The run has ended: let its supervisor, a child of this process, end too."""
        _children.discard(self)
        if self._supervision:
            self._supervision.end()
            self._supervision = None


def how_it_ended(state: RunState) -> str:
    """`failed: rank 2 failed with exit code 7`, or `was cancelled with Ctrl-C`."""
    if state.status == RunStatus.FAILED:
        return f"failed: {state.error}"
    return f"was {state.error}" if (state.error or "").startswith("cancelled") else f"was cancelled: {state.error}"


def _means_artifacts(output: Path) -> bool:
    return output.is_symlink() and os.readlink(output) == os.path.join("..", ARTIFACTS)


def _sources(state: RunState) -> list[Source]:
    return [Source(p.rank, p.node_rank, "ps" if p.serves else "") for p in state.processes]


def _end_of_log(folder: Path, log: str) -> str:
    try:
        end = end_of(open_inside(folder, log), _TAIL_BYTES)
    except OSError:
        return ""
    lines = end.decode(errors="replace").splitlines()
    # The first line may be cut off: leave it out if there are others.
    return "\n".join(lines[1:][-_TAIL_LINES:] if len(end) == _TAIL_BYTES and len(lines) > 1 else lines[-_TAIL_LINES:])


@atexit.register
def _let_run() -> None:
    """Let the detached runs go."""
    for supervision in _left_running:
        supervision.leave()


@atexit.register
def _wait_for_children() -> None:
    """Wait at the end of a script that did not call `wait()`: its runs would end with it, unfinished."""
    for run in list(_children):
        try:
            try:
                if not run.state().is_final():
                    print(f"waiting for run {run.name}; press Ctrl-C to cancel it", file=sys.stderr)
                run.wait()
            except KeyboardInterrupt:
                run.cancel(reason=cancelled_by(signal.SIGINT))
                run.wait()
        except DistError as failure:  # noqa: PERF203 (a run that failed keeps no other from being waited for)
            # RunFailed, or NotFound if the run's folder has been deleted.
            print(visible(f"error: {failure.problems[0].message}"), file=sys.stderr)
