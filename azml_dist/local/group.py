"""Runs that consist of others: the trials of a sweep, the steps of a pipeline. Each is a run of its own, beside it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.errors import DistError, LaunchError, NotFound, RunFailed
from azml_dist.job import Job
from azml_dist.local import run as local_run
from azml_dist.local.merged import Reader
from azml_dist.local.run import LocalRun
from azml_dist.local.state import (
    CANCEL_REQUESTED,
    CANCELED,
    FAILED,
    FINAL,
    RUNNING,
    MemberState,
    RunFolder,
    RunState,
)
from azml_dist.logs import Labeller, Source

if TYPE_CHECKING:
    from azml_dist.local.executor import Local
    from azml_dist.local.supervision import Supervision
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

_PAUSE = 0.03
"""Seconds between two looks at the runs that are going on."""


class Group(ABC):
    """What a run consists of, and in which order."""

    kind: str
    job: Job
    """Whose name the run has."""
    at_a_time: int = 1
    timeout: float | None = None

    @abstractmethod
    def prepare(self, folder: Path, state: RunState) -> None:
        """Make ready what all members need, and note them in the state."""

    @abstractmethod
    def ready(self, state: RunState) -> Iterator[tuple[MemberState, Job]]:
        """Those that may start now, each with its job."""

    def look(self, member: MemberState, run: LocalRun) -> str | None:
        """Called again and again while a member runs; why it is to be ended early, or None."""
        return None

    @abstractmethod
    def ended(self, state: RunState, member: MemberState, run: LocalRun) -> None:
        """A member has ended, whichever way."""

    @abstractmethod
    def conclude(self, state: RunState) -> None:
        """Set status, exit code and error of a run whose members have all ended by themselves."""


def start(
    what: Sweep | Pipeline, executor: Local, at_a_time: int = 1, supervision: Supervision | None = None
) -> GroupRun:
    """Start a run of several, and return it; it goes on while this process lives.

    The first member gets the supervisor that was started ahead, if there is one. Raises for what cannot run here,
    before anything starts.
    """
    if sys.platform == "win32":
        raise LaunchError("jobs do not run on Windows itself", hint="run this inside WSL, where they do")
    group = _group(what, executor, at_a_time)
    folder = executor.make_folder(group.job)
    lock = folder.lock()
    try:
        state = RunState(folder.path.name, str(folder.path), status=RUNNING, kind=group.kind)
        state.display_name = group.job.display_name
        state.created_at = state.started_at = time.time()
        group.prepare(folder.path, state)
        folder.write(state)
    except BaseException:
        os.close(lock)
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    driver = _Driver(group, executor.member_of(state.name), folder, state, lock, supervision)
    driver.start()
    return GroupRun(folder, driver)


def _group(what: Sweep | Pipeline, executor: Local, at_a_time: int) -> Group:
    from azml_dist.local.steps import Steps
    from azml_dist.local.trials import Trials
    from azml_dist.pipeline import Pipeline

    return Steps(what, executor, at_a_time) if isinstance(what, Pipeline) else Trials(what, executor, at_a_time)


class _Driver(threading.Thread):
    """Starts members, watches them, and writes the state. The only one who does."""

    def __init__(
        self,
        group: Group,
        executor: Local,
        folder: RunFolder,
        state: RunState,
        lock: int,
        supervision: Supervision | None,
    ) -> None:
        super().__init__(name=f"azml_dist {state.name}", daemon=True)
        self._group, self._executor, self._folder, self._state, self._lock = group, executor, folder, state, lock
        self._supervision = supervision
        self._running: dict[str, tuple[MemberState, LocalRun]] = {}
        self._deadline = time.monotonic() + group.timeout if group.timeout else None

    def run(self) -> None:
        try:
            stopped = self._drive()
            ending = (CANCELED, stopped) if stopped else None
        except BaseException as error:
            message = str(error) if isinstance(error, DistError) else f"{type(error).__name__}: {error}"
            ending = (FAILED, message)
        try:
            if ending:
                # Not its last word yet: whoever waits for that takes its processes to be gone.
                self._state.status = CANCEL_REQUESTED
                self._stop_all()
                self._state.status, self._state.error = ending
                self._state.exit_code = 1
            if self._supervision:
                self._supervision.end()
            self._state.ended_at = time.time()
            self._folder.write(self._state)
        finally:
            os.close(self._lock)

    def _drive(self) -> str | None:
        """Why it was stopped; None where all members have ended by themselves."""
        while True:
            self._collect()
            if reason := self._reason_to_stop():
                return reason
            started = self._start_some()
            if not self._running and not started:
                self._group.conclude(self._state)
                return None
            time.sleep(_PAUSE)

    def _start_some(self) -> bool:
        """Whether anything was started, or failed to start."""
        tried = False
        while len(self._running) < self._group.at_a_time:
            found = next(self._group.ready(self._state), None)
            if found is None or self._reason_to_stop():
                break
            tried = True
            member, job = found
            member.started_at = time.time()
            try:
                ahead, self._supervision = self._supervision, None
                run = self._executor.submit(job, supervision=ahead)
            except DistError as error:
                member.status, member.error, member.exit_code = FAILED, str(error.problems[0]), 1
                member.ended_at = time.time()
            else:
                member.status = RUNNING
                self._running[member.name] = member, run
            self._folder.write(self._state)
        return tried

    def _collect(self) -> None:
        for member, run in list(self._running.values()):
            state = run.state()
            if state.is_final():
                self._end(member, run, state)
            elif member.status == RUNNING and (reason := self._group.look(member, run)):
                member.status, member.error = CANCEL_REQUESTED, reason
                run.cancel()
                self._folder.write(self._state)

    def _end(self, member: MemberState, run: LocalRun, state: RunState) -> None:
        del self._running[member.name]
        with suppress(RunFailed):
            run.wait()
        member.status, member.exit_code, member.failed_rank = state.status, state.exit_code, state.failed_rank
        member.error, member.ended_at = member.error or state.error, state.ended_at
        self._state.findings += [f for f in state.findings if f not in self._state.findings]
        self._group.ended(self._state, member, run)
        self._folder.write(self._state)

    def _reason_to_stop(self) -> str | None:
        if self._folder.cancel_request() is not None:
            return "canceled by the user"
        if self._deadline and time.monotonic() > self._deadline:
            return f"canceled after its timeout of {self._group.timeout:g} s"
        return None

    def _stop_all(self) -> None:
        while self._running:
            kill = self._folder.cancel_request() == "kill"
            for _, run in self._running.values():
                run.kill() if kill else run.cancel()
            self._collect()
            time.sleep(_PAUSE)


class Event(NamedTuple):
    """What happens in a run of several: a member starts or ends, or some lines of one."""

    member: MemberState
    lines: bytes = b""


class GroupRun(LocalRun):
    """A sweep or a pipeline on this machine. Its members are runs of their own, found by their names."""

    def __init__(self, folder: RunFolder, driver: _Driver | None = None) -> None:
        super().__init__(folder)
        self._driver = driver
        if driver:
            local_run.children.add(self)

    @property
    def members(self) -> dict[str, LocalRun]:
        """The runs that have started, by their label: `trial 3`, or the name of a step."""
        found = {m.label: LocalRun.find(m.name, self.folder.parent) for m in self.state().members}
        return {label: run for label, run in found.items() if run}

    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        if rank is None and node is None:
            return frozenset()
        raise NotFound(
            f"run {self.name} consists of others, which have ranks and nodes of their own",
            hint=f"`azml-dist logs {self.state().members[0].name} --rank {rank or 0}`",
        )

    def chunks(
        self,
        ranks: frozenset[int] | None = None,
        *,
        label: bool = True,
        colour: bool = False,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[bytes]:
        lines = (event.lines for event in self.events(follow=follow, colour=colour) if event.lines)
        if tail is None:
            yield from lines
        elif tail:
            yield b"".join(b"".join(lines).splitlines(keepends=True)[-tail:])

    def events(self, *, follow: bool = False, colour: bool = False) -> Iterator[Event]:
        """What has happened, in each member in the order in which it did; with `follow` what is still to come too."""
        readers: dict[str, _MemberReader] = {}
        done: set[str] = set()
        while True:
            state = self.state()
            for member in state.members:
                if member.started_at is None or member.name in done:
                    continue
                if member.name not in readers:
                    readers[member.name] = _MemberReader(self.folder.parent, member, colour)
                    yield Event(replace(member, status=RUNNING))
                if lines := readers[member.name].read(last=member.status in FINAL):
                    yield Event(member, lines)
                if member.status in FINAL:
                    readers[member.name].close()
                    done.add(member.name)
                    yield Event(member)
            if state.is_final() or not follow:
                return
            time.sleep(_PAUSE)

    def metrics(self) -> dict[str, float]:
        return {f"{label}/{name}": v for label, run in self.members.items() for name, v in run.metrics().items()}

    @property
    def outputs(self) -> Mapping[str, Path]:
        folder = self.folder / "outputs"
        own = {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}
        best = self.state().details.get("best")
        run = LocalRun.find(best, self.folder.parent) if best else None
        return {**(run.outputs if run else {}), **own}

    def download(self, folder: str | Path) -> Path:
        for label, run in self.members.items():
            run.download(Path(folder) / label.replace(" ", "_"))
        return Path(folder)

    def __str__(self) -> str:
        from azml_dist.tables import group_text

        return group_text(self.state())

    def __repr__(self) -> str:
        return f"<GroupRun {self.name}: {self.status}>"

    def _repr_html_(self) -> str:
        from azml_dist.tables import group_html

        return group_html(self.state())

    def _let_go(self) -> None:
        local_run.children.discard(self)
        if self._driver:
            self._driver.join()

    def _failure(self, state: RunState) -> RunFailed:
        failed = next((m for m in state.members if m.status == FAILED), None)
        run = LocalRun.find(failed.name, self.folder.parent) if failed else None
        tail = ""
        if run:
            try:
                run.wait()
            except RunFailed as failure:
                tail = failure.log_tail
        verb = "failed" if state.status == FAILED else "was canceled"
        return RunFailed(
            f"run {self.name} {verb}: {state.error}",
            run=self,
            failed_rank=failed.failed_rank if failed else None,
            log_tail=tail,
            hint=state.hint,
        )


class _MemberReader:
    """The lines of one member, labelled, as they come."""

    def __init__(self, root: Path, member: MemberState, colour: bool) -> None:
        self._folder, self._colour = root / member.name, colour
        self._label = member.label.replace(" ", "")
        self._reader: Reader | None = None
        self._labeller: Labeller | None = None

    def read(self, *, last: bool) -> bytes:
        if self._reader is None or self._labeller is None:
            try:
                processes = RunFolder(self._folder).read().processes
            except NotFound:  # it could not be started
                return b""
            self._reader = Reader(self._folder, [p.log for p in processes])
            sources = [Source(p.rank, p.node_rank, member=self._label) for p in processes]
            self._labeller = Labeller(sources, colour=self._colour)
        lines = b"".join(map(self._labeller.label, self._reader.read()))
        return lines + (self._labeller.end() if last else b"")

    def close(self) -> None:
        if self._reader:
            self._reader.close()
