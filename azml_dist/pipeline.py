"""A `Pipeline`: jobs that pass data on, and what it means. Pure.

Facts are those of Azure ML's "CLI (v2) pipeline job YAML schema" and "CLI (v2) core YAML syntax".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from os import PathLike
from typing import Any, NamedTuple

from azml_dist.errors import JobError, Problem
from azml_dist.inputs import with_inputs
from azml_dist.job import Input, Job
from azml_dist.model import nearest_or_all
from azml_dist.plan import LaunchPlan, plan_job
from azml_dist.yamlfile import Document

_OUTPUT = re.compile(r"\$\{\{\s*parent\.jobs\.(\w+)\.outputs\.(\w+)\s*\}\}")


class Source(NamedTuple):
    """Where the data of a step's input comes from: another step's output."""

    step: str
    output: str


@dataclass(frozen=True)
class Step:
    """One job of a pipeline. Its inputs that wait for another step have `${{parent.jobs.…}}` as their path."""

    name: str
    job: Job | None
    """None where the step is of another kind."""
    kind: str = "a command"
    """In words: `a sweep`, `a Spark job`."""
    bound: Mapping[str, str] = field(default_factory=dict)
    """Which output of the pipeline an output of the step is."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Which input of the pipeline an input of the step is."""
    needs: tuple[str, ...] = ()
    """The steps that have to be done before, in order."""

    @property
    def waiting(self) -> dict[str, Source]:
        """The inputs that come from other steps."""
        inputs = self.job.inputs.items() if self.job else ()
        found = {name: _OUTPUT.fullmatch(value.path) for name, value in inputs if isinstance(value, Input)}
        return {name: Source(match[1], match[2]) for name, match in found.items() if match}


@dataclass(frozen=True)
class Pipeline:
    """Several jobs, each started when those are done whose outputs it reads."""

    document: Document
    """What it was read from."""
    head: Job
    """What the pipeline itself has: its name, inputs, outputs and the like. Its command is never run."""
    steps: Mapping[str, Step]
    goes_on: bool = True
    """Whether steps that do not depend on a failed one still run; on Azure ML they do, unless
    `settings.continue_on_step_failure` is false."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Pipeline:
        """The pipeline in an `az ml` YAML, whose paths are relative to its folder."""
        from azml_dist.pipelinefile import load_pipeline

        return load_pipeline(path)

    @property
    def name(self) -> str | None:
        """The name of the pipeline's run; generated where it is not given."""
        return self.head.name

    def step(self, name: str) -> Job:
        """The job of one step; what it would get from others is to be given, as any data that is not here."""
        if name not in self.steps:
            hint = nearest_or_all(name, self.steps)
            raise JobError(f"the pipeline has no step {name!r}", hint=hint, where=self.document.where(("jobs",)))
        step = self.steps[name]
        if step.job is None:
            raise JobError.of([self.refusal(step)])
        return step.job

    def refusal(self, step: Step) -> Problem:
        """Why a step cannot run here."""
        hint = f"run one of its commands: `{self.document.file}:STEP`"
        at = self.document.where(("jobs", step.name))
        return Problem(f"step `{step.name}` is {step.kind}; command steps run here", hint, at)

    def with_inputs(self, given: Mapping[str, Any]) -> Pipeline:
        """The pipeline with other inputs of its own: the path of data, the value of a literal."""
        from azml_dist.pipelinefile import pipeline_of

        return pipeline_of(self.document, with_inputs(self.head, given)) if given else self

    def with_set(self, *settings: str) -> Pipeline:
        """A variant by the texts of `--set FIELD=VALUE`, with the file's own names: `jobs.train.inputs.epochs=3`."""
        from azml_dist.pipelinefile import with_settings

        return with_settings(self, settings)

    def plan(self) -> PipelinePlan:
        """What this pipeline means: offline, without credentials. `print` it."""
        plans: dict[str, LaunchPlan | None] = {}
        problems: list[Problem] = []
        for step in self.steps.values():
            plans[step.name] = self._plan_of(step, problems)
        if problems:
            raise JobError.of(problems)
        return PipelinePlan(self, plans)

    def _plan_of(self, step: Step, problems: list[Problem]) -> LaunchPlan | None:
        try:
            return plan_job(step.job) if step.job else None
        except JobError as error:
            problems += [self.in_step(step.name, problem) for problem in error.problems]
            return None

    def in_step(self, name: str, problem: Problem) -> Problem:
        """A problem of a step's job, with the step's place in the file."""
        if problem.where and ":" in problem.where:
            return problem
        inside = tuple(problem.where.split(".")) if problem.where else ()
        return problem._replace(where=self.document.where(("jobs", name, *inside)))


@dataclass(frozen=True)
class PipelinePlan:
    """The meaning of a pipeline: `print` it for a table; `plans` has that of each step."""

    pipeline: Pipeline
    plans: Mapping[str, LaunchPlan | None]

    @cached_property
    def findings(self) -> Sequence[Problem]:
        """What is allowed, and worth a second look."""
        return tuple(self._findings())

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist plan --json` prints."""
        return {
            "type": "pipeline",
            "name": self.pipeline.name,
            "steps": [
                {
                    "name": step.name,
                    "kind": step.kind,
                    "needs": list(step.needs),
                    "plan": plan.to_dict() if (plan := self.plans[step.name]) else None,
                }
                for step in self.pipeline.steps.values()
            ],
            "findings": [{"message": p.message, "hint": p.hint, "where": p.where} for p in self.findings],
        }

    def __str__(self) -> str:
        from azml_dist.tables import pipeline_plan_text

        return pipeline_plan_text(self)

    def __repr__(self) -> str:
        return f"<PipelinePlan: {', '.join(self.plans)}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def _findings(self) -> Iterator[Problem]:
        for step in self.pipeline.steps.values():
            if plan := self.plans[step.name]:
                yield from (self.pipeline.in_step(step.name, finding) for finding in plan.findings)
            else:
                yield self.pipeline.refusal(step)


def in_order(steps: Mapping[str, Step], document: Document) -> dict[str, Step]:
    """The steps, each behind those that it needs, otherwise in the order of the file."""
    ordered: dict[str, Step] = {}
    while len(ordered) < len(steps):
        free = [step for name, step in steps.items() if name not in ordered and set(step.needs) <= set(ordered)]
        if not free:
            circle = [name for name in steps if name not in ordered]
            raise JobError(f"steps wait for each other: {', '.join(circle)}", where=document.where(("jobs", circle[0])))
        ordered[free[0].name] = free[0]
    return ordered


def placed(job: Job, paths: Mapping[str, tuple[str, str]]) -> Job:
    """The job with the type and path of inputs that came from other steps."""
    inputs = dict(job.inputs)
    for name, (kind, path) in paths.items():
        data = inputs[name]
        if isinstance(data, Input):
            inputs[name] = data.with_(path=path, type=kind)
    return job.with_(inputs=inputs) if paths else job
