"""`GroupRun`: the handle of a sweep or pipeline on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.errors import JobError, NotFound, RunFailed
from azml_dist.local.checking import is_plain_name
from azml_dist.local.ending import duration_text
from azml_dist.local.lately import Lately
from azml_dist.local.pages import group_page
from azml_dist.local.replay import Reader
from azml_dist.local.run import LocalRun, how_it_ended
from azml_dist.local.state import MEMBERS_PAUSE, MemberState, RunFolder, RunState, is_run
from azml_dist.page.members import best_row
from azml_dist.runs.download import Download
from azml_dist.runs.foot import RankLine, Seen
from azml_dist.runs.logs import Labeller, Reading, Source
from azml_dist.runs.metrics import Metrics
from azml_dist.runs.selection import Selection
from azml_dist.runs.target import is_name, readable
from azml_dist.show import Card, Page, Row
from azml_dist.status import RunStatus
from azml_dist.verdict.known import Log
from azml_dist.verdict.reason import reason_of
from azml_dist.words import duration, plural

if TYPE_CHECKING:
    from azml_dist.job import Job
    from azml_dist.local.groups.driver import Driver
    from azml_dist.runs.material import Material
    from azml_dist.verdict.reason import Reason
    from azml_dist.verdict.verdict import Verdict


class Event(NamedTuple):
    """An event in a sweep or pipeline: a member starts or ends, or writes lines."""

    member: MemberState
    lines: bytes = b""


class GroupRun(LocalRun):
    """A sweep or a pipeline on this machine. Each member is a run with a name of its own."""

    def __init__(self, folder: RunFolder, driver: Driver | None = None) -> None:
        super().__init__(folder)
        self._driver = driver
        if driver:
            self._wait_at_exit()

    @property
    def members(self) -> dict[str, LocalRun]:
        """The members that have started, by label: `trial 3`, or the name of a step."""
        found = {m.label: member_run(self.folder.parent, m.name) for m in self.state().members}
        return {label: run for label, run in found.items() if run}

    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        if rank is None and node is None:
            return frozenset()
        raise NotFound(
            f"run {self.name} is a group of runs, and ranks and nodes belong to one of them",
            hint=f"`azml-dist logs {self.state().members[0].name} --rank {rank or 0}`",
        )

    def _read(self, how: Reading) -> Iterator[bytes]:
        yield from (e.lines for e in self.events(follow=how.follow, colour=how.colour, tail=how.tail) if e.lines)

    def events(self, *, follow: bool = False, colour: bool = False, tail: int | None = None) -> Iterator[Event]:
        """The events so far, in order within each member; with `follow` also new ones, until the run ends.

        `tail` keeps only the last existing lines of each rank of each member.
        """
        readers: dict[str, _MemberReader] = {}
        done: set[str] = set()
        if tail is not None:
            for member in [m for m in self.state().members if m.started_at]:
                readers[member.name] = _MemberReader(self.folder.parent, member, colour)
                readers[member.name].begin_at_last(tail)
        try:
            while True:
                state = self.state()
                for member in state.members:
                    if member.started_at is None or member.name in done:
                        continue
                    if member.name not in readers:
                        readers[member.name] = _MemberReader(self.folder.parent, member, colour)
                        yield Event(member.with_(status=RunStatus.RUNNING))
                    for lines in readers[member.name].read(last=member.is_final()):
                        yield Event(member, lines)
                    if member.is_final():
                        readers[member.name].close()
                        done.add(member.name)
                        yield Event(member)
                if state.is_final() or not follow:
                    return
                time.sleep(MEMBERS_PAUSE)
        finally:
            for reader in readers.values():
                reader.close()

    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        """Its state, and the last lines of the members that are running."""
        lately: dict[str, Lately] = {}

        def look() -> Seen:
            state = self.state()
            done = sum(member.is_final() for member in state.members)
            kind = plural(len(state.members), "trial" if state.kind == "sweep" else "step")
            lines = [line for m in state.members if m.started_at and not m.is_final() for line in self._last(m, lately)]
            age = duration((state.ended_at or time.time()) - state.created_at)
            return Seen(state.name, f"{state.status.lower()} {age}", f"{done} of {kind} done", lines)

        return look

    def _last(self, member: MemberState, lately: dict[str, Lately]) -> list[RankLine]:
        """The last line of each rank of a member, under the label of its lines."""
        run = member_run(self.folder.parent, member.name)
        if not run or (state := run.state()).kind:
            return []
        lines = lately.setdefault(member.name, Lately(run.folder)).lines(state)
        label = _label_of(member)
        return [line._replace(source=line.source and line.source._replace(member=label)) for line in lines]

    def metrics(self) -> Metrics:
        """Those of all its trials or steps, as `trial 0/loss`."""
        found = self.member_metrics()
        owners = {f"{label}/{name}": (one, name) for label, one in found.items() for name in one}
        last = {full: one[name] for full, (one, name) in owners.items()}
        return Metrics(last, lambda full: owners[full][0].history(owners[full][1]), self.name)

    def member_metrics(self) -> dict[str, Metrics]:
        """The metrics of each member that has started, by label."""
        return {label: run.metrics() for label, run in self.members.items()}

    @property
    def outputs(self) -> Mapping[str, Path]:
        folder = self.folder / "outputs"
        own = {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}
        best = self.state().details.get("best")
        run = member_run(self.folder.parent, best) if best else None
        return {**(run.outputs if run else {}), **own}

    def job(self) -> Job:
        """Raises `JobError`: its members have jobs."""
        state = self.state()
        names = ", ".join(member.name for member in state.members[:5] if member.started_at)
        kind = "trial" if state.kind == "sweep" else "step"
        raise JobError(f"run {self.name} is a {state.kind}, not a single job", hint=f"use one {kind}: {names}")

    def verdict(self) -> Verdict | None:
        """That of the first member that failed."""
        run = self.failed_member()
        return run.verdict() if run else None

    def reason(self) -> Reason | None:
        """A run that was cancelled was not ended by a member that had failed before."""
        status = self.status
        return reason_of(status, None if status == RunStatus.CANCELED else self.verdict())

    def failed_member(self) -> LocalRun | None:
        """The first of its runs that failed, if it is still there."""
        failed = next((one for one in self.state().members if one.status == RunStatus.FAILED), None)
        return member_run(self.folder.parent, failed.name) if failed and failed.name != self.name else None

    def _fetch(self, into: Path, only: Selection, so_far: bool, above: frozenset[str] = frozenset()) -> Download:
        """Copy each member into its own folder; `above` are the runs that contain this one."""
        found = Download(into)
        for member in self.state().members:
            place = member.label.replace(" ", "_")
            if not only.takes_some_of(place):
                continue
            run = member_run(self.folder.parent, member.name) if is_name(member.name) else None
            if not is_name(place) or (into / place).is_symlink():
                found.missing.append(f"{readable(member.label)}: not a valid folder name, or a link")
            elif run and run.name not in above | {self.name}:
                found.add(run._fetch(into / place, only.below(place), so_far, above | {self.name}), place)
            elif member.started_at:
                found.missing.append(f"{readable(member.label)}: its run {readable(member.name)} no longer exists")
        if not above:
            only.must_be_found(self.name)
        return found

    def _material(self) -> Material:
        """With the logs of its members, each in a folder of its own."""
        own, sources, logs = super()._material(), list[Source](), list[Log]()
        for label, run in self.members.items():
            inner, place = run._material(), label.replace(" ", "_")
            below = inner.sources or run._processes()
            for log in inner.logs:
                number = None if log.rank is None else len(sources) + log.rank
                logs.append(replace(log, name=f"{place}/{log.name}", rank=number, arrived={}))
            called = label.replace(" ", "")
            sources += [one._replace(member="/".join(filter(None, (called, one.member)))) for one in below]
            own.notes += [f"{label}: {note}" for note in inner.notes]
            own = replace(own, secrets=[*own.secrets, *inner.secrets], unknown=[*own.unknown, *inner.unknown])
        return replace(own, logs=logs, sources=sources)

    def _page(self) -> Page:
        return group_page(self.state(), self._bad_ending())

    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card:
        """The best trial, and the ending of the first member that failed, under this run's own name and state."""
        state, member = self.state(), self.failed_member()
        took = duration_text(state)
        head = f"run {self.name}: {state.status}" + (f" in {took}" if took else "")
        best, has_completed = best_row(state.members, state.details.get("best")), state.status == RunStatus.COMPLETED
        if not member:
            return Card(head, best, has_completed or None)
        label = next(one.label for one in state.members if one.name == member.name)
        # A sweep may have failed though trials completed: then no trial that failed explains it.
        has_some = any(one.status == RunStatus.COMPLETED for one in state.members)
        is_its_own = state.kind == "sweep" and bool(state.hint) and has_some
        own = [Row("sweep", state.error or "")] if is_its_own and in_full else []
        own += [Row("hint", state.hint or "")] if is_its_own else []
        rows = [*best, *own, Row("failed", f"{label}, as run {member.name}"), *member._ending(verdict, in_full).rows]
        return Card(head, rows, None if has_completed else False)

    def __repr__(self) -> str:
        return f"<GroupRun {self.name}: {self.status}>"

    def _let_go(self) -> None:
        super()._let_go()
        if self._driver:
            self._driver.join()

    def _failure(self, state: RunState) -> RunFailed:
        failed = next((m for m in state.members if m.status == RunStatus.FAILED), None)
        run = member_run(self.folder.parent, failed.name) if failed else None
        tail = ""
        if run:
            try:
                run.wait()
            except RunFailed as failure:
                tail = failure.log_tail
        return RunFailed(
            f"run {self.name} {how_it_ended(state)}",
            run=self,
            failed_rank=failed.failed_rank if failed else None,
            log_tail=tail,
            hint=state.hint,
        )


def handle(folder: RunFolder) -> LocalRun:
    """The handle of a run: `GroupRun` for a sweep or pipeline, otherwise `LocalRun`."""
    with suppress(NotFound):
        return handle_of(folder, folder.read().kind)
    return LocalRun(folder)


def handle_of(folder: RunFolder, kind: str | None) -> LocalRun:
    """The same for a kind that is known."""
    return GroupRun(folder) if kind else LocalRun(folder)


def member_run(root: Path, name: str) -> LocalRun | None:
    """The run with this name in a folder of runs, if it exists."""
    return handle(RunFolder(root / name)) if is_plain_name(name) and is_run(root / name) else None


def _label_of(member: MemberState) -> str:
    return member.label.replace(" ", "")


class _MemberReader:
    """The labelled lines of one member, as they arrive."""

    def __init__(self, root: Path, member: MemberState, colour: bool) -> None:
        self._folder, self._colour = root / member.name, colour
        self._label = _label_of(member)
        self._open: tuple[Reader, Labeller] | None = None

    def read(self, *, last: bool) -> Iterator[bytes]:
        """The pieces that have arrived since the last call."""
        if opened := self._opened():
            reader, labeller = opened
            yield from filter(None, map(labeller.label, reader.read()))  # nothing yet of a line that has not ended
            if last and (ending := labeller.end()):
                yield ending

    def begin_at_last(self, count: int) -> None:
        """Let the next `read()` begin with the last existing lines of each rank."""
        if opened := self._opened():
            reader, labeller = opened
            labeller.begin_after(reader.begin_at_last(count))

    def _opened(self) -> tuple[Reader, Labeller] | None:
        if self._open is None:
            try:
                state = RunFolder(self._folder).read()
            except NotFound:  # it could not be started
                return None
            sources = [Source(p.rank, p.node_rank, member=self._label) for p in state.processes]
            self._open = Reader(self._folder, state.first_logs), Labeller(sources, colour=self._colour)
        return self._open

    def close(self) -> None:
        if self._open:
            self._open[0].close()
