"""Sweeps and pipelines as people see them: what they mean, and how their runs stand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from azml_dist.parameter import Parameter
from azml_dist.parts import Input
from azml_dist.render import (
    Table,
    duration_text,
    error_html,
    pairs_text,
    plan_facts,
    plan_html,
    plan_text,
    plural,
    table_html,
    table_text,
    title_html,
)

if TYPE_CHECKING:
    from azml_dist.errors import Problem
    from azml_dist.local.state import MemberState, RunState
    from azml_dist.pipeline import PipelinePlan
    from azml_dist.sweepplan import SweepPlan


def sweep_plan_text(plan: SweepPlan) -> str:
    """A sweep's plan as a person likes to read it: what is varied, the first trials, and one of them in full."""
    blocks = [_title(plan), pairs_text(_facts(plan)), table_text(_values(plan))]
    blocks += [pairs_text([("note", str(p)), ("hint", p.hint or "")]) for p in _own_findings(plan)]
    return "\n\n".join([*blocks, f"each trial, as trial 0:\n\n{plan_text(plan.trial)}"])


def sweep_plan_html(plan: SweepPlan) -> str:
    """The same for a notebook."""
    notes = "".join(f"<p><b>note</b> {escape(str(p))}</p>" for p in _own_findings(plan))
    head = f"{title_html(*_title_parts(plan))}{table_html(Table((), _facts(plan)))}{table_html(_values(plan))}{notes}"
    return f"{head}<details><summary>trial 0</summary>{plan_html(plan.trial)}</details>"


def value_text(value: Any) -> str:
    """A value of a hyperparameter or of a metric, short."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _title(plan: SweepPlan) -> str:
    return "  ".join(filter(None, _title_parts(plan)))


def _title_parts(plan: SweepPlan) -> tuple[str | None, str, str | None]:
    sweep, job = plan.sweep, plan.sweep.job
    trials = f"{plan.trial_count:,} trial{'s' * (plan.trial_count != 1)} of {plan.trial.world}"
    kind = plan.trial.world.distribution
    return job.display_name or sweep.name, f"sweep: {trials}", kind


def _facts(plan: SweepPlan) -> list[tuple[str, str]]:
    sweep = plan.sweep
    sampling, limits, policy = sweep.sampling_algorithm, sweep.limits, sweep.early_termination
    seed = "" if sampling.type == "grid" else f", seed {sweep.seed}" if sweep.seed is not None else ", no seed"
    at_once = limits.max_concurrent_trials or plan.trial_count
    facts = [("objective", f"{sweep.objective.goal} {sweep.objective.primary_metric}")]
    facts.append(("sampling", sampling.type + seed))
    facts += [(f"{name}", str(space)) for name, space in sweep.search_space.items()]
    facts.append(("at a time", f"{at_once:,} on Azure ML, 1 here unless `--parallel` says more"))
    facts += [("timeout", f"{limits.timeout:,} s")] if limits.timeout else []
    facts += [("trial timeout", f"{limits.trial_timeout:,} s")] if limits.trial_timeout else []
    facts += [("ended early", str(policy).replace(" ", ", "))] if policy else []
    return [(name, text) for name, text in facts]


def _values(plan: SweepPlan) -> Table:
    names = list(plan.sweep.search_space)
    rows: list[Sequence[str] | None] = [
        (str(i), *(value_text(values[name]) for name in names)) for i, values in enumerate(plan.values)
    ]
    rows += [None] if plan.trial_count > len(rows) else []
    return Table(("trial", *names), rows)


def _own_findings(plan: SweepPlan) -> Sequence[Problem]:
    return plan.findings[: len(plan.findings) - len(plan.trial.findings)]


def pipeline_plan_text(plan: PipelinePlan) -> str:
    """A pipeline's plan: its steps in order, then what each means."""
    head = plan.pipeline.head
    title = "  ".join(filter(None, (head.display_name or head.name, f"pipeline: {plural(len(plan.plans), 'step')}")))
    blocks = [title, pairs_text([(f"input {name}", _input(name, value)) for name, value in head.inputs.items()])]
    blocks.append(table_text(_steps(plan)))
    for name, step in plan.plans.items():
        if step:
            waiting = plan.pipeline.steps[name].waiting
            told = {f"input {key}": f"output {source.output} of {source.step}" for key, source in waiting.items()}
            blocks.append(f"step {name}\n" + pairs_text([(k, told.get(k, v)) for k, v in plan_facts(step)]))
    blocks += [pairs_text([("note", str(p)), ("hint", p.hint or "")]) for p in plan.findings]
    return "\n\n".join(filter(None, blocks))


def _steps(plan: PipelinePlan) -> Table:
    rows = []
    for step in plan.pipeline.steps.values():
        found = plan.plans[step.name]
        world = f"{found.world}{f'  {found.world.distribution}' if found.world.distribution else ''}" if found else ""
        rows.append((step.name, world or f"not here: {step.kind}", ", ".join(step.needs)))
    return Table(("step", "world", "after"), rows)


def _input(name: str, value: Any) -> str:
    return f"<input {name}>" if isinstance(value, Parameter) else value.path if isinstance(value, Input) else str(value)


def group_text(state: RunState) -> str:
    """How a sweep or a pipeline stands: its trials or steps."""
    blocks = ["  ".join(filter(None, (state.name, state.status, _objective(state), duration_text(state))))]
    blocks.append(table_text(_members(state)))
    if state.error:
        blocks.append(pairs_text([("error", state.error), ("hint", state.hint or "")]))
    blocks += [pairs_text([("note", finding)]) for finding in state.findings]
    return "\n\n".join(blocks)


def group_html(state: RunState) -> str:
    """The same for a notebook."""
    error = error_html(state.error, state.hint)
    notes = "".join(f"<p><b>note</b> {escape(finding)}</p>" for finding in state.findings)
    title = title_html(state.name, state.status, _objective(state), duration_text(state))
    return f"{title}{table_html(_members(state))}{error}{notes}"


def member_text(state: RunState, member: MemberState) -> str:
    """A trial or a step on one line."""
    values = ", ".join(f"{name}={value_text(value)}" for name, value in member.values.items())
    metric = f"{state.details['primary_metric']}={value_text(member.metric)}" if member.metric is not None else ""
    took = f"{member.ended_at - member.started_at:.1f} s" if member.ended_at and member.started_at else ""
    ending = f"{member.status}{f': {member.error}' if member.error else ''}"
    return f"{member.label}: " + "  ".join(filter(None, (ending, values, metric, took)))


def _members(state: RunState) -> Table:
    names = list(dict.fromkeys(name for member in state.members for name in member.values))
    metric = state.details.get("primary_metric")
    best = state.details.get("best")
    headings = ["trial", *names, str(metric), ""] if metric else ["step"]
    rows: list[Sequence[str] | None] = []
    for member in state.members:
        took = f"{member.ended_at - member.started_at:.1f} s" if member.ended_at and member.started_at else ""
        values = [value_text(member.values.get(name, "")) for name in names]
        value = value_text(member.metric) if member.metric is not None else "-"
        mark = "best" if member.name == best else ""
        how = [member.status, took, member.name]
        rows.append([member.label.split()[-1], *values, value, mark, *how] if metric else [member.label, *how])
    return Table([*headings, "status", "took", "run"], rows)


def _objective(state: RunState) -> str:
    details = state.details
    if "primary_metric" not in details:
        return ""
    seed = f", seed {details['seed']}" if details["seed"] is not None else ""
    return f"{details['goal']} {details['primary_metric']} ({details['sampling']}{seed})"
