"""What a pipeline means: the plan of each of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from azml_dist.errors import Finding, JobError, Problem
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Input
from azml_dist.model.pipeline import PipelineFields, Step
from azml_dist.plan.plan import LaunchPlan, plan_facts, plan_job
from azml_dist.show import Facts, Folded, Page, Shown, Table, told
from azml_dist.words import plural

_WITHOUT_COMPUTE = ("spark", "pipeline", "do_while", "parallel_for", "if_else")
"""Types of steps for which azure-ai-ml requires no compute."""


def plan_pipeline(pipeline: PipelineFields) -> PipelinePlan:
    """The plan of a pipeline: offline, without credentials. One error lists the problems of all steps."""
    plans: dict[str, LaunchPlan | None] = {}
    problems: list[Problem] = []
    for step in pipeline.steps.values():
        plans[step.name] = _plan_of(pipeline, step, problems)
    if problems:
        raise JobError.of(problems)
    return PipelinePlan(pipeline, plans)


def _plan_of(pipeline: PipelineFields, step: Step, problems: list[Problem]) -> LaunchPlan | None:
    try:
        return plan_job(step.job) if step.job else None
    except JobError as error:
        problems += [pipeline.in_step(step.name, problem) for problem in error.problems]
        return None


@dataclass(frozen=True)
class PipelinePlan(Shown):
    """The meaning of a pipeline: `print` it for a table; `plans` has the plan of each step."""

    pipeline: PipelineFields
    plans: Mapping[str, LaunchPlan | None]

    @cached_property
    def findings(self) -> Sequence[Finding]:
        """What is allowed, but probably a mistake."""
        return tuple(self._findings())

    def without_script(self) -> PipelinePlan:
        """The same plan, with no finding about what the training scripts say."""
        return replace(self, plans={name: plan and plan.without_script() for name, plan in self.plans.items()})

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
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _page(self) -> Page:
        head = self.pipeline.head
        inputs = [(f"input {name}", _input(name, value)) for name, value in head.inputs.items()]
        steps = [self._step(name, plan) for name, plan in self.plans.items() if plan]
        blocks = [Facts(inputs), _steps(self), *steps, *told(self.findings)]
        return Page([f"pipeline: {plural(len(self.plans), 'step')}"], blocks, head.display_name or head.name)

    def _step(self, name: str, plan: LaunchPlan) -> Folded:
        waiting = self.pipeline.steps[name].waiting.items()
        come = {f"input {key}": f"output {origin.output} of {origin.step}" for key, origin in waiting}
        return Folded(f"step {name}", Facts([(key, come.get(key, value)) for key, value in plan_facts(plan)]))

    def __repr__(self) -> str:
        return f"<PipelinePlan: {', '.join(self.plans)}>"

    def _findings(self) -> Iterator[Finding]:
        for step in self.pipeline.steps.values():
            if plan := self.plans[step.name]:
                yield from (self.pipeline.found_in_step(step.name, finding) for finding in plan.findings)
            else:
                yield Finding("step-does-not-run-here", "note", *self.pipeline.refusal(step), step=step.name)
        yield from self._without_compute()

    def _without_compute(self) -> Iterator[Finding]:
        """Looks where azure-ai-ml does: in the pipeline, in its settings, then in each step."""
        data = self.pipeline.document.data
        if self.pipeline.head.compute or (data.get("settings") or {}).get("default_compute"):
            return
        for name, step in data["jobs"].items():
            if not step.get("compute") and str(step.get("type")).lower() not in _WITHOUT_COMPUTE:
                yield Finding(
                    "no-compute",
                    "error",
                    f"step `{name}` has no compute, so azure-ai-ml does not submit the pipeline",
                    "write `settings: {default_compute: azureml:NAME}`, or `azureml:serverless`",
                    self.pipeline.document.where(("jobs", name)),
                    name,
                )


def _steps(plan: PipelinePlan) -> Table:
    rows = []
    for step in plan.pipeline.steps.values():
        found = plan.plans[step.name]
        world = f"{found.world}{f'  {found.world.distribution}' if found.world.distribution else ''}" if found else ""
        rows.append((step.name, world or f"not run locally: {step.kind}", ", ".join(step.needs)))
    return Table(("step", "world", "after"), rows)


def _input(name: str, value: Any) -> str:
    return f"<input {name}>" if isinstance(value, Parameter) else value.path if isinstance(value, Input) else str(value)
