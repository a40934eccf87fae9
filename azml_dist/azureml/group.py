"""`AzureGroup`: the handle of a sweep or a pipeline on Azure ML. Its trials or steps are runs with their own names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.azureml.briefly import with_verdicts
from azml_dist.azureml.children import Child, Children, children_of, kind_of
from azml_dist.azureml.described import Details, Submitted
from azml_dist.azureml.download import Member, fetch, fetch_members
from azml_dist.azureml.judged import note_verdict
from azml_dist.azureml.material import Record, with_members
from azml_dist.azureml.models import register_output
from azml_dist.azureml.page import MOST_LOGS, Contents, Tail
from azml_dist.azureml.parallel import each
from azml_dist.azureml.run import AzureRun, KnownHere, Leaf
from azml_dist.azureml.runrecord import patiently
from azml_dist.azureml.together import Together
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import NotFound, SubmitError
from azml_dist.page.members import best_row, objective_of, table_of
from azml_dist.runs.download import Download
from azml_dist.runs.foot import Seen
from azml_dist.runs.logs import Reading
from azml_dist.runs.metrics import Metrics
from azml_dist.runs.run import pauses
from azml_dist.runs.selection import Selection
from azml_dist.runs.target import OWN, readable
from azml_dist.show import Block, Card, Facts, Page, Row, Told
from azml_dist.status import RunStatus
from azml_dist.words import plural

if TYPE_CHECKING:
    from azml_dist.plan.world import Service
    from azml_dist.runs.material import Material
    from azml_dist.runs.registered import Registered
    from azml_dist.verdict.verdict import Verdict

MOST_ASKED = 64
"""Of how many members a state has the metrics and values: of more, those of the best trial and the first ones."""
_MOST_ON_PAGE = 200
"""The same for its page."""
_MEMBERS_ON_PAGE, _BYTES_OF_LOG = 16, 50_000
"""Of how many members a page has logs, and how much of the end of each."""
_MEMBERS_IN_BUNDLE = 64
_AT_A_TIME = 16
_FOLLOWED = 32
"""How many members are followed at the same time; the next one when another has ended."""
_LOOKS = (1.0, 10.0)
"""Seconds until members that are followed are listed again."""
_PAUSE = 0.5


class _Listed(NamedTuple):
    """The members, as they were when the run had these details."""

    details: Details
    most: int
    children: Children | None


class AzureGroup(AzureRun):
    """A sweep or a pipeline on Azure ML, no matter who submitted it."""

    _listed: _Listed | None = None
    _done = ""
    """How many members were done when they were last listed to be waited for."""

    def __init__(
        self, workspace: Workspace, name: str, service: Service | None = None, known: KnownHere | None = None
    ) -> None:
        super().__init__(workspace, name, service, known)
        self._watch.listen = self._listen

    @cached_property
    def _handles(self) -> dict[str, AzureRun]:
        """Those of its members by name, which remember what they have read."""
        return {}

    @property
    def members(self) -> dict[str, AzureRun]:
        """The members that have a run, by label: `trial 3`, or the name of a step."""
        found = self._children(self._record.details(), 0)
        return {child.label: self._handle(child) for child in (found.members if found else ()) if child.has_run}

    def failed_member(self) -> AzureRun | None:
        """The first of its runs that failed."""
        failed = self._failed(self._record.details())
        return self._handle(failed) if failed else None

    def _failed(self, details: Details) -> Child | None:
        found = self._children(details, 0)
        return next((one for one in (found.members if found else ()) if one.status == RunStatus.FAILED), None)

    def _handle(self, child: Child) -> AzureRun:
        """A step may be a pipeline or a sweep; a trial is a single job."""
        if child.name not in self._handles:
            kind = AzureRun if self._record.submitted.is_sweep else handle_of(self._workspace, child.name)
            known = self._known._replace(submitted=None, above=self._known.above | {self.name})
            self._handles[child.name] = kind(self._workspace, child.name, self._record.service, known)
        return self._handles[child.name]

    def _list(self, job: Submitted, most: int = 0) -> Children:
        """Its members, with the metrics and values of so many of them; never a run that contains it."""
        found, above = children_of(self._workspace, job, most), self._known.above | {self.name}
        return found._replace(members=[child for child in found.members if child.name not in above])

    def _children(self, details: Details, most: int) -> Children | None:
        """Its members, with the metrics and values of so many of them; None if they cannot be listed.

        They are listed once for the same details, and once if the run has ended.
        """
        seen = self._listed
        is_same = seen and (seen.details is details or (seen.details.status.is_final and details.status.is_final))
        if not seen or not is_same or seen.most < most:
            found = None
            with suppress(SubmitError):
                found = self._list(self._record.job(), most)
            self._listed = seen = _Listed(details, most, found)
        return seen.children

    @property
    def _kind(self) -> str:
        return kind_of(self._record.submitted)

    # What it is

    def _described(self, details: Details, most: int | None = None) -> dict[str, Any]:
        found, children = super()._described(details), self._children(details, MOST_ASKED if most is None else most)
        members = [child.to_dict() for child in children.members] if children else None
        if failed := self._failed(details):
            for one in (one for one in members or () if one["name"] == failed.name):
                one["failed_rank"] = self._handle(failed).failed_rank()
        return {
            **found,
            "world": {},
            "findings": self._notes(children),
            "kind": self._record.submitted.kind,
            f"{self._kind}s": members,
            "details": dict(children.details) if children else None,
        }

    def _notes(self, children: Children | None) -> list[str]:
        if children is None:
            return [f"the {self._kind}s of this run cannot be listed; the studio has them"]
        return list(children.notes)

    def _live_page(self) -> Page:
        """Renewed every few seconds: while it runs, no member is asked for its metrics and values."""
        details = self._record.details()
        return self._page_of(details, None if details.status.is_final else 0)

    def _page_of(self, details: Details, most: int | None = None) -> Page:
        found, children = self._described(details, most), self._children(details, MOST_ASKED if most is None else most)
        title = [found["status"], objective_of(children.details) if children else "", self._phases.age(details)]
        blocks: list[Block] = [Facts(self._facts(details, found["wait"]))]
        if children:
            blocks.append(table_of(children.members, children.best, children.metric))
        blocks.append(Told([("note", note) for note in found["findings"]]))
        blocks.append(Told([("error", found["error"])]))
        if details.status.is_final and details.status != RunStatus.COMPLETED:
            blocks.append(self._ending(self._verdict(details), in_full=False))
        return Page(title, blocks, self.name, studio=self.url)

    def _contents(self) -> Contents:
        details = self._record.details()
        children = self._children(details, _MOST_ON_PAGE)
        found = super()._contents()
        if children:
            children = with_verdicts(children, lambda child: self._handle(child).failed_leaf())
        tails, left = list[Tail](), list[str]()
        with suppress(SubmitError):  # the page has everything else
            leaves, left = self.leaves(_MEMBERS_ON_PAGE)
            each_has = MOST_LOGS // max(1, len(leaves))

            def read(leaf: Leaf) -> list[Tail]:
                return leaf.run.few_tails(leaf, each_has, _BYTES_OF_LOG)

            done = dict(each(read, leaves, at_a_time=_AT_A_TIME, stop=threading.Event()))
            tails = [tail for place in range(len(leaves)) for tail in done[place]]
        if details.status not in (RunStatus.FAILED, RunStatus.CANCELED):  # what failed in it is in its table
            found = found._replace(verdict=None, ending=None)
        return found._replace(children=children, member_tails=tails, without_logs=left)

    def failed_leaf(self) -> AzureRun:
        member = self.failed_member()
        return member.failed_leaf() if member else self

    @property
    def outputs(self) -> Mapping[str, str]:
        """Those of the best trial, or of the pipeline."""
        job = self._record.job()
        if not job.is_sweep:
            return self._record.outputs(job)
        return AzureRun(self._workspace, job.best_trial, self._record.service).outputs if job.best_trial else {}

    def register(self, model: str, *, output: str, inside: str = "", version: str | None = None) -> Registered:
        """An output of a sweep is that of its best trial."""
        job = self._record.job()
        owner = job.best_trial if job.is_sweep and job.best_trial else self.name
        return register_output(self._workspace, owner, output, model, inside=inside, version=version)

    # Why it failed

    def _verdict(self, details: Details) -> Verdict | None:
        """That of the first member that failed, or else what the service says of the whole run."""
        failed = self._failed(details)
        found = self._handle(failed).verdict() if failed else None
        if found is None:
            return super()._verdict(details)
        if details.status == RunStatus.FAILED:
            note_verdict(self._workspace.arm_id, self.name, found)
        return found

    def _verdict_on_end(self, details: Details) -> Verdict | None:
        """A run that was cancelled was not ended by a member that had failed before."""
        return super()._verdict(details) if details.status == RunStatus.CANCELED else self._verdict(details)

    def _failed_rank(self, details: Details) -> int | None:
        failed = self._failed(details) if details.status == RunStatus.FAILED else None
        return self._handle(failed).failed_rank() if failed else None

    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card:
        """The best trial, and the ending of the first member that failed, under this run's own name and state."""
        details = self._record.details()
        found, failed = self._children(details, 0), self._failed(details)
        best = best_row(found.members, found.best) if found else []
        if not failed:
            card = super()._ending(verdict, in_full)
            return card._replace(rows=[*best, *card.rows])
        took = self._phases.age(details).removeprefix("took ") if details.status.is_final else ""
        head = f"run {self.name}: {details.status}" + (f" in {took}" if took else "")
        rows = self._handle(failed)._ending(verdict, in_full).rows
        good = None if details.status == RunStatus.COMPLETED else False
        return Card(head, [*best, Row("failed", f"{failed.label}, as run {failed.name}"), *rows], good)

    def _log_tail(self, details: Details, rank: int) -> str:
        failed = self._failed(details)
        if not failed:
            return super()._log_tail(details, rank)
        run = self._handle(failed)
        return run._log_tail(run._record.details(), rank)

    # What it wrote

    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        if rank is None and node is None:
            return frozenset()
        first = next(iter(self.members.values()), None)
        raise NotFound(
            f"run {self.name} is a group of runs, and ranks and nodes belong to one of them",
            hint=f"`azml-dist logs {first.name} --rank {rank or 0}`" if first else f"no {self._kind} has begun",
        )

    def _pieces(self, how: Reading) -> Iterator[bytes]:
        """The lines of its members: one after another, or as they are written if they are followed."""
        how = how._replace(ranks=None)
        if how.follow:
            yield from self._followed(how)
            return
        found = self._list(self._record.job())
        for child in (child for child in found.members if child.has_run):
            yield from self._handle(child)._pieces(self._reading(child, how))

    def _followed(self, how: Reading) -> Iterator[bytes]:
        begun, together, looks = set[str](), Together(), pauses(*_LOOKS)
        try:
            while True:
                # Checked before the members are listed: once the run has ended, it gets no new ones.
                job = patiently(self._record.job)
                ended = self._record.is_over(job.status)
                self._phases.saw(job.status)
                found = patiently(lambda job=job: self._list(job))  # type: ignore[misc] # a default
                self._note(found)
                waiting = [child for child in found.members if child.has_run and child.name not in begun]
                for child in waiting[: _FOLLOWED - together.open]:
                    begun.add(child.name)
                    together.begin(self._handle(child)._pieces(self._reading(child, how)))
                if ended and not together.open:
                    return
                until = time.monotonic() + next(looks)
                while not ended and (left := until - time.monotonic()) > 0:
                    yield from together.take(left)
                    if not together.open:
                        time.sleep(min(left, _PAUSE))
                        yield b""
                yield from together.take(_PAUSE)
        finally:
            together.end()

    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        """What is known already, with how many members are done: this asks the service nothing."""
        look = super().watching(ranks)
        return lambda: look()._replace(more=self._done)

    def _listen(self) -> None:
        with suppress(SubmitError):
            self._note(self._list(self._record.job()))

    def _note(self, found: Children) -> None:
        done = sum(RunStatus(child.status).is_final for child in found.members)
        so_far = " so far" if self._kind == "trial" else ""  # a sweep may make more of them
        self._done = f"{done} of {plural(len(found.members), self._kind)} done{so_far}"

    def _reading(self, child: Child, how: Reading) -> Reading:
        return how._replace(member="/".join(filter(None, (how.member, child.label.replace(" ", "")))))

    def _material(self) -> Material:
        """With the ends of the logs of its members, each in a folder of its own."""
        own, left = super()._material(), list[str]()
        try:
            leaves, left = self.leaves(_MEMBERS_IN_BUNDLE)
        except SubmitError as error:
            own.notes.append(f"the logs of its {self._kind}s are not in it: {error.problems[0].message}")
            return own

        def ask(leaf: Leaf) -> Record | SubmitError:
            try:
                return leaf.run._told()
            except SubmitError as error:
                return error

        done = dict(each(ask, leaves, at_a_time=_AT_A_TIME, stop=threading.Event()))
        return with_members(own, [(leaf.label, done[place]) for place, leaf in enumerate(leaves)], left)

    def _fetch(self, job: Submitted, folder: Path, only: Selection, so_far: bool) -> Download:
        """With the logs of its members and the outputs of its steps, each in a folder of its own, as those here."""
        wanted = self._wanted(job, only, so_far)
        own = self._fetch_sweep(job, folder, only, so_far) if job.is_sweep else fetch(self._workspace, wanted, folder)
        members = list(self._members_below(only, own, "", is_step=False))
        if members:
            own.add(fetch_members(self._workspace, wanted, members, folder))
        return own

    def _members_below(self, only: Selection, done: Download, place: str, is_step: bool) -> Iterator[Member]:
        if is_step and only.takes_some_of(f"{place}/outputs"):
            yield Member(place, outputs=self._output_addresses)
        try:
            found = self._list(self._record.job())
        except SubmitError as error:
            if only.misses(place):
                what = "/".join(filter(None, (place, f"logs of its {self._kind}s")))
                done.missing.append(f"{readable(what)}: {error.problems[0].message}")
            return
        done.left_out += found.notes
        for child, folder in _folders(found.members):
            inner = "/".join(filter(None, (place, folder)))
            if not only.takes_some_of(inner):
                continue
            try:
                run = self._handle(child)
            except SubmitError as error:
                if only.misses(inner):
                    done.missing.append(f"{readable(inner)}: {error.problems[0].message}")
                continue
            yield from run._members_below(only, done, inner, is_step=self._kind == "step")

    def metrics(self) -> Metrics:
        """Its own, and those of all its trials or steps, as `trial 0/loss`."""
        own, members = Metrics({}, lambda _: ()), self.member_metrics()
        with suppress(SubmitError):
            own = super().metrics()
        owners = {name: (own, name) for name in own}
        owners |= {f"{label}/{name}": (one, name) for label, one in members.items() for name in one}
        last = {full: one[name] for full, (one, name) in owners.items()}
        return Metrics(last, lambda full: owners[full][0].history(owners[full][1]), self.name)

    def member_metrics(self) -> dict[str, Metrics]:
        """The metrics of each member that has a run, by label; without those that cannot be read."""

        def ask(run: AzureRun) -> Metrics | None:
            with suppress(SubmitError):
                return run.metrics()
            return None

        members = self.members
        runs = list(members.values())
        found = dict(each(ask, runs, at_a_time=_AT_A_TIME, stop=threading.Event()))
        return {label: one for place, label in enumerate(members) if (one := found[place]) is not None}

    def leaves(self, most: int) -> tuple[list[Leaf], list[str]]:
        """Single runs in it, at most so many, and the labels of those that are left out.

        Those that failed are chosen first, then the best trial, those that run, and the others.
        """
        found = self._list(self._record.job())
        chosen, left, count = dict[str, list[Leaf]](), dict[str, list[str]](), 0
        begun = [child for child in found.members if child.has_run]
        for child in sorted(begun, key=lambda one: _importance(one, found)):
            if count >= most:
                left[child.label] = [child.label]
                continue
            inner, out = self._handle(child).leaves(most - count)
            chosen[child.label] = [leaf.below(child.label) for leaf in inner]
            left[child.label] = [f"{child.label}/{label}" for label in out]
            count += len(inner)
        labels = [child.label for child in begun]
        return (
            [leaf for label in labels for leaf in chosen.get(label, ())],
            [one for label in labels for one in left.get(label, ())],
        )


def _folders(members: Sequence[Child]) -> Iterator[tuple[Child, str]]:
    """The members that have a run, each with a folder that has the name of no other one, nor of a part of a run."""
    taken = {"outputs", "artifacts", "user_logs", OWN}
    for child in (child for child in members if child.has_run):
        folder = child.label.replace(" ", "_").replace("/", "_")
        while folder.casefold() in taken:
            folder = f"{folder}_{child.name}"
        taken.add(folder.casefold())
        yield child, folder


def _importance(child: Child, of: Children) -> int:
    status = RunStatus(child.status)
    if status == RunStatus.FAILED:
        return 0
    return 1 if child.name == of.best else 3 if status.is_final else 2


def handle_of(workspace: Workspace, name: str) -> type[AzureRun]:
    """The class of the handle of a run in the workspace."""
    return AzureGroup if AzureRun(workspace, name)._record.submitted.is_group else AzureRun


def azure_run(workspace: Workspace, name: str) -> AzureRun:
    """The run with this name, whatever kind it is; raises `NotFound` if the workspace has none."""
    return handle_of(workspace, name)(workspace, name)


def handle(workspace: Workspace, name: str, kind: str | None) -> AzureRun:
    """The run with this name and of this kind."""
    return (AzureGroup if kind in ("sweep", "pipeline") else AzureRun)(workspace, name)
