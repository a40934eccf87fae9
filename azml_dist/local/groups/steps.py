"""Runs the steps of a pipeline on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import JobError, Problem
from azml_dist.local.groups.group import Group, Starter, inputs_of
from azml_dist.local.run import LocalRun
from azml_dist.local.staging import keep_code, output_path
from azml_dist.local.state import MemberState, RunState
from azml_dist.model.given import refuse_open_inputs
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Input
from azml_dist.model.pipeline import Step, placed
from azml_dist.pipeline import Pipeline
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.plan.snapshot import Snapshot


class Steps(Group):
    """Steps start when the steps that they need have finished, and get their outputs."""

    kind = "pipeline"

    def __init__(self, pipeline: Pipeline, executor: Starter, at_a_time: int) -> None:
        self._pipeline = pipeline.with_inputs(executor.inputs)
        self.job = self._pipeline.head.with_(code=None)
        self.at_a_time = at_a_time
        self.timeout = executor.timeout
        self._jobs: dict[str, JobFields] = {}
        self._codes: dict[str, Snapshot] = {}
        self._check(executor)

    def prepare(self, folder: Path, state: RunState) -> None:
        for name, job in self._jobs.items():
            self._jobs[name] = keep_code(job, self._codes[name], folder / "code" / name)
        state.members = [MemberState(name, f"{state.name}_{name}") for name in self._jobs]
        steps = [self._pipeline.steps[name] for name in self._jobs]
        state.details = {
            "links": [[*origin, step.name, name] for step in steps for name, origin in step.waiting.items()],
            "inputs": {**inputs_of(self.job), **{name: text for step in steps for name, text in _own_inputs(step)}},
        }
        self._outputs = folder / "outputs"

    def ready(self, state: RunState) -> Iterator[tuple[MemberState, JobFields]]:
        members = {member.label: member for member in state.members}
        has_failed = any(member.status in (RunStatus.FAILED, RunStatus.CANCELED) for member in state.members)
        if has_failed and not self._pipeline.goes_on:
            return
        for member in state.members:
            step = self._pipeline.steps[member.label]
            ready = all(members[need].status == RunStatus.COMPLETED for need in step.needs)
            if ready and member.status == RunStatus.NOT_STARTED:
                yield member, self._placed(step, members, Path(state.folder).parent).with_(name=member.name)

    def ended(self, state: RunState, member: MemberState, run: LocalRun) -> None:
        """The pipeline's outputs: the folders to which its steps wrote them."""
        for name, parent in self._pipeline.steps[member.label].bound.items():
            if name in run.outputs:
                self._outputs.mkdir(exist_ok=True)
                (self._outputs / parent).symlink_to(run.outputs[name])

    def conclude(self, state: RunState) -> None:
        state.status, state.exit_code = RunStatus.COMPLETED, 0
        failed = [m for m in state.members if m.status in (RunStatus.FAILED, RunStatus.CANCELED)]
        if failed:
            state.status, state.exit_code = RunStatus.FAILED, failed[0].exit_code or 1
            state.failed_rank = failed[0].failed_rank
            skipped = [m.label for m in state.members if m.status == RunStatus.NOT_STARTED]
            left = f"; not started: {', '.join(skipped)}" if skipped else ""
            state.error = f"step `{failed[0].label}`: {failed[0].error}{left}"
            state.hint = f"`azml-dist logs {failed[0].name}`"

    def _check(self, executor: Starter) -> None:
        """Report everything that is wrong with any step before the first one starts."""
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

    def _placed(self, step: Step, members: dict[str, MemberState], root: Path) -> JobFields:
        paths = {}
        for name, (source, output) in step.waiting.items():
            kind = self._jobs[source].outputs[output].type
            paths[name] = kind, output_path(root / members[source].name / "outputs", output, kind)
        return placed(self._jobs[step.name], paths)


def _own_inputs(step: Step) -> Iterator[tuple[str, str]]:
    """The inputs that a step has from nowhere else, as `train.epochs`."""
    for name, text in inputs_of(step.job, {*step.waiting, *step.inputs}).items() if step.job else ():
        yield f"{step.name}.{name}", text


def _of_step(step: Step, problem: Problem) -> Problem:
    """The hint for an input without data on this machine; it uses the pipeline's name for the input."""
    name = (problem.where or "").removeprefix("inputs.")
    if name == problem.where or not (problem.hint or "").startswith(("set it: `", "give a local path")) or not step.job:
        return problem
    parent = step.inputs.get(name)
    is_data = isinstance(step.job.inputs[name], Input)
    own = f"--set jobs.{step.name}.inputs.{name}{'.path=PATH' if is_data else '=VALUE'}"
    return problem._replace(hint=f"set it: `{f'--input {parent}=PATH' if parent else own}`")
