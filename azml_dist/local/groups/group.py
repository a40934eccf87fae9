"""What a run of several members consists of, and in which order they run."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from azml_dist.local.run import LocalRun
from azml_dist.local.state import MemberState, RunFolder, RunState
from azml_dist.local.supervision import Supervision
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Input
from azml_dist.plan.plan import LaunchPlan
from azml_dist.verdict.hidden import masked


class Starter(Protocol):
    """What sweeps and pipelines need from the executor, `Local`: it starts one job."""

    @property
    def timeout(self) -> float | None: ...

    @property
    def inputs(self) -> Mapping[str, str | os.PathLike[str]]: ...

    def plan(self, job: JobFields) -> LaunchPlan: ...

    def submit(self, job: JobFields, *, supervision: Supervision | None = None) -> LocalRun: ...

    def make_folder(self, job: JobFields) -> tuple[RunFolder, int]: ...

    def member_of(self, parent: str) -> Starter: ...


def inputs_of(job: JobFields, without: Collection[str] = ()) -> dict[str, str]:
    """The value of each input, or the path of its data; what is secret is masked."""
    found = {name: one for name, one in job.inputs.items() if name not in without and not job.is_left_out(name)}
    texts = {name: one.path if isinstance(one, Input) else job.literal(name) for name, one in found.items()}
    return {name: masked(name, text) for name, text in texts.items()}


class Group(ABC):
    """The members of a run, and the order in which they run."""

    kind: str
    job: JobFields
    """The run is named after this job."""
    at_a_time: int = 1
    timeout: float | None = None

    @abstractmethod
    def prepare(self, folder: Path, state: RunState) -> None:
        """Prepare what all members need, and add them to the state."""

    @abstractmethod
    def ready(self, state: RunState) -> Iterator[tuple[MemberState, JobFields]]:
        """The members that may start now, each with its job."""

    def look(self, member: MemberState, run: LocalRun) -> str | None:
        """Called repeatedly while a member runs: the reason to end it early, or None."""
        return None

    @abstractmethod
    def ended(self, state: RunState, member: MemberState, run: LocalRun) -> None:
        """Called when a member has ended, successfully or not."""

    @abstractmethod
    def conclude(self, state: RunState) -> None:
        """Set status, exit code and error after all members have ended by themselves."""
