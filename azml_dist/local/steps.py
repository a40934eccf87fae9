"""The steps of a pipeline on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import JobError, Problem
from azml_dist.inputs import refuse_open_inputs
from azml_dist.job import Input, Job
from azml_dist.local.group import Group
from azml_dist.local.run import LocalRun
from azml_dist.local.staging import keep_code, output_path
from azml_dist.local.state import CANCELED, COMPLETED, FAILED, NOT_STARTED, MemberState, RunState
from azml_dist.pipeline import Pipeline, Step, placed

if TYPE_CHECKING:
    from azml_dist.local.executor import Local
    from azml_dist.snapshot import Snapshot


class Steps(Group):
    """Started when those are done that they need, their outputs passed on."""

    kind = "pipeline"

    def __init__(self, pipeline: Pipeline, executor: Local, at_a_time: int) -> None:
        self._pipeline = pipeline.with_inputs(executor.inputs)
        self.job = self._pipeline.head.with_(code=None)
        self.at_a_time = at_a_time
        self.timeout = executor.timeout
        self._jobs: dict[str, Job] = {}
        self._codes: dict[str, Snapshot] = {}
        self._check(executor)

    def prepare(self, folder: Path, state: RunState) -> None:
        for name, job in self._jobs.items():
            self._jobs[name] = keep_code(job, self._codes[name], folder / "code" / name)
        state.members = [MemberState(name, f"{state.name}_{name}") for name in self._jobs]
        self._outputs = folder / "outputs"

    def ready(self, state: RunState) -> Iterator[tuple[MemberState, Job]]:
        members = {member.label: member for member in state.members}
        has_failed = any(member.status in (FAILED, CANCELED) for member in state.members)
        if has_failed and not self._pipeline.goes_on:
            return
        for member in state.members:
            step = self._pipeline.steps[member.label]
            if member.status == NOT_STARTED and all(members[need].status == COMPLETED for need in step.needs):
                yield member, self._placed(step, members, Path(state.folder).parent).with_(name=member.name)

    def ended(self, state: RunState, member: MemberState, run: LocalRun) -> None:
        """Outputs of the pipeline are the folders in which its steps wrote them."""
        for name, parent in self._pipeline.steps[member.label].bound.items():
            if name in run.outputs:
                self._outputs.mkdir(exist_ok=True)
                (self._outputs / parent).symlink_to(run.outputs[name])

    def conclude(self, state: RunState) -> None:
        state.status, state.exit_code = COMPLETED, 0
        failed = [m for m in state.members if m.status in (FAILED, CANCELED)]
        if failed:
            state.status, state.exit_code = FAILED, failed[0].exit_code or 1
            state.failed_rank = failed[0].failed_rank
            skipped = [m.label for m in state.members if m.status == NOT_STARTED]
            left = f"; not started: {', '.join(skipped)}" if skipped else ""
            state.error = f"step `{failed[0].label}`: {failed[0].error}{left}"
            state.hint = f"`azml-dist logs {failed[0].name}`"

    def _check(self, executor: Local) -> None:
        """All that is wrong with any step is said before the first one starts."""
        refuse_open_inputs(self.job)
        problems: list[Problem] = []
        here = str(Path(__file__).parent)
        checked = executor.member_of("")
        for step in self._pipeline.steps.values():
            if step.job is None:
                problems.append(self._pipeline.refusal(step))
                continue
            self._jobs[step.name] = step.job
            job = placed(step.job, dict.fromkeys(step.waiting, ("uri_folder", here)))
            try:
                self._codes[step.name] = checked.plan(job).code
            except JobError as error:
                problems += [self._pipeline.in_step(step.name, _of_step(step, problem)) for problem in error.problems]
        if problems:
            raise JobError.of(problems)

    def _placed(self, step: Step, members: dict[str, MemberState], root: Path) -> Job:
        paths = {}
        for name, (source, output) in step.waiting.items():
            kind = self._jobs[source].outputs[output].type
            paths[name] = kind, output_path(root / members[source].name / "outputs", output, kind)
        return placed(self._jobs[step.name], paths)


def _of_step(step: Step, problem: Problem) -> Problem:
    """What to give where an input has nothing that is here: it is asked for by the pipeline's name for it."""
    name = (problem.where or "").removeprefix("inputs.")
    if name == problem.where or not (problem.hint or "").startswith(("give it", "say where")) or not step.job:
        return problem
    parent = step.inputs.get(name)
    is_data = isinstance(step.job.inputs[name], Input)
    own = f"--set jobs.{step.name}.inputs.{name}{'.path=PATH' if is_data else '=VALUE'}"
    return problem._replace(hint=f"give it: `{f'--input {parent}=PATH' if parent else own}`")
