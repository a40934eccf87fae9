"""What a sweep means: the values of its trials, the plan of each, and the request. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from azml_dist.errors import Finding
from azml_dist.model.base import Model
from azml_dist.model.search_space import Choice, LogUniform, QLogUniform, Space
from azml_dist.model.sweep import TRIALS, SweepFields, Values
from azml_dist.notation.expressions import expression
from azml_dist.plan.plan import LaunchPlan, plan_job
from azml_dist.plan.request import camel, duration, request_body
from azml_dist.show import Facts, Folded, Page, Shown, Table, told
from azml_dist.words import plural, value_text

_SHOWN = 8
"""How many trials a plan shows the values of."""


@dataclass(frozen=True)
class SweepPlan(Shown):
    """The meaning of a sweep: `print` it for a table; `trial` is the plan of one of its trials."""

    sweep: SweepFields
    trial: LaunchPlan
    """The plan of the first trial; the others differ only in their values."""

    @cached_property
    def values(self) -> Sequence[Values]:
        """The values of the first trials; without a seed, each run of the sweep tries different ones."""
        return list(islice(self.sweep.trials(seed=0), _SHOWN))

    @property
    def trial_count(self) -> int:
        """The maximum number of trials."""
        limit = self.sweep.limits.max_total_trials or TRIALS
        if self.sweep.sampling_algorithm.type != "grid":
            return limit
        sizes = [len(space.values) for space in self.sweep.search_space.values() if isinstance(space, Choice)]
        return min(limit, math.prod(sizes))

    @cached_property
    def request(self) -> dict[str, Any]:
        """The request body that azure-ai-ml sends; ids that only the service knows are None."""
        return sweep_request(self.sweep)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is allowed but probably a mistake, to be fixed before the job waits in a queue."""
        return (*_findings(self.sweep), *self.trial.findings)

    def without_script(self) -> SweepPlan:
        """The same plan, with no finding about what the training script says."""
        return replace(self, trial=self.trial.without_script())

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist plan --json` prints: the plan of the first trial, and the fields of the sweep."""
        return {
            **self.trial.to_dict(),
            "type": "sweep",
            "trial_count": self.trial_count,
            "trials": [dict(values) for values in self.values],
            "request": self.request,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _page(self) -> Page:
        own = self.findings[: len(self.findings) - len(self.trial.findings)]
        blocks = [Facts(_facts(self)), _values(self), *told(own), Folded("each trial, as trial 0", self.trial._page())]
        trials = f"sweep: {plural(self.trial_count, 'trial')} of {self.trial.world}"
        name = self.sweep.job.display_name or self.sweep.name
        return Page([trials, self.trial.world.distribution], blocks, name)

    def __repr__(self) -> str:
        return f"<SweepPlan: at most {self.trial_count} trials of {self.trial.world}>"


def plan_sweep(sweep: SweepFields) -> SweepPlan:
    """The plan of a sweep: offline, without credentials."""
    first = next(iter(sweep.trials(seed=0)))
    is_plain = not any(isinstance(value, dict) for value in first.values())
    return SweepPlan(sweep, plan_job(sweep.trial(first) if is_plain else sweep.job))


def sweep_request(sweep: SweepFields) -> dict[str, Any]:
    """The request body that azure-ai-ml 1.35 sends for a sweep: `{"properties": {…}}`."""
    job = request_body(sweep.job)["properties"]
    command = job["command"]
    for name in sweep.search_space:
        command = command.replace(expression(f"inputs.{name}"), expression(f"search_space.{name}"))
    trial = {name: job[name] for name in _OF_TRIAL if name in job} | {"command": command}
    inputs = {name: value for name, value in job["inputs"].items() if name not in sweep.search_space}
    properties = {name: value for name, value in job.items() if name not in (*_OF_TRIAL, "command", "limits")}
    properties |= {
        "jobType": "Sweep",
        "inputs": inputs,
        "searchSpace": {name: space.wire() for name, space in sweep.search_space.items()},
        "samplingAlgorithm": _typed("samplingAlgorithmType", sweep.sampling_algorithm),
        "objective": {"goal": sweep.objective.goal, "primaryMetric": sweep.objective.primary_metric},
        "limits": _limits(sweep),
        "trial": trial,
    }
    if sweep.early_termination:
        policy = {camel(name): value for name, value in sweep.early_termination.wire().items()}
        properties["earlyTermination"] = {"policyType": _wire_name(sweep.early_termination), **policy}
    if "resources" in job:
        properties["resources"] = job["resources"]
    return {"properties": properties}


_OF_TRIAL = ("codeId", "distribution", "environmentId", "environmentVariables", "resources")


def _limits(sweep: SweepFields) -> dict[str, Any]:
    limits = sweep.limits
    trial_timeout = limits.trial_timeout or sweep.job.timeout
    floor = 60  # as in azure-ai-ml: the service reads less as 60 days
    body = {
        "jobLimitsType": "Sweep",
        "maxConcurrentTrials": limits.max_concurrent_trials,
        "maxTotalTrials": limits.max_total_trials,
        "timeout": duration(max(limits.timeout, floor)) if limits.timeout else None,
        "trialTimeout": duration(max(trial_timeout, floor)) if trial_timeout else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _typed(kind: str, model: Model) -> dict[str, Any]:
    fields = model.model_dump(exclude={"type"}, exclude_none=True)
    return {kind: _wire_name(model), **{camel(key): value for key, value in fields.items()}}


def _wire_name(model: Model) -> str:
    return "".join(part.capitalize() for part in getattr(model, "type", "").split("_"))


def _findings(sweep: SweepFields) -> Iterator[Finding]:
    for name, space in sweep.search_space.items():
        at = f"search_space.{name}"
        if expression(f"inputs.{name}") not in "".join(sweep.job.shell_command.split()):
            chosen = expression(f"search_space.{name}")
            hint = f"pass `{chosen}` to the script, or read AZUREML_SWEEP_{name}"
            yield Finding(
                "unused-hyperparameter",
                "warning",
                f"the command does not use `{name}`: all trials may be the same",
                hint,
                at,
            )
        yield from _bounds(space, at)
    for name in ("timeout", "trial_timeout"):
        if (seconds := getattr(sweep.limits, name)) and seconds < 60:
            yield Finding(
                "short-timeout",
                "note",
                f"azure-ai-ml raises {seconds} s to its minimum of 60 s",
                None,
                f"limits.{name}",
            )
    if sweep.sampling_algorithm.type == "bayesian":
        hint = "`sampling_algorithm: random` samples in the same way in both places"
        yield Finding(
            "sampled-at-random-here",
            "note",
            "only Azure ML has bayesian sampling: a local run draws values at random",
            hint,
        )
    if getattr(sweep.sampling_algorithm, "rule", None) == "sobol":
        yield Finding(
            "sampled-at-random-here", "note", "only Azure ML has the Sobol sequence: a local run draws values at random"
        )


def _bounds(space: Space, at: str) -> Iterator[Finding]:
    if isinstance(space, LogUniform | QLogUniform) and 0 <= space.min_value <= space.max_value <= 1:
        least, greatest = math.exp(space.min_value), math.exp(space.max_value)
        hint = "the bounds are logarithms"
        if space.min_value > 0:
            hint += f": for {space.min_value:g} to {space.max_value:g} write {math.log(space.min_value):.2f}"
            hint += f" and {math.log(space.max_value):.2f}"
        yield Finding(
            "bounds-of-the-logarithm", "warning", f"`{space}` draws values from {least:.4g} to {greatest:.4g}", hint, at
        )


def _facts(plan: SweepPlan) -> list[tuple[str, str]]:
    sweep = plan.sweep
    sampling, limits, policy = sweep.sampling_algorithm, sweep.limits, sweep.early_termination
    seed = "" if sampling.type == "grid" else f", seed {sweep.seed}" if sweep.seed is not None else ", no seed"
    at_once = limits.max_concurrent_trials or plan.trial_count
    facts = [("objective", f"{sweep.objective.goal} {sweep.objective.primary_metric}")]
    facts.append(("sampling", sampling.type + seed))
    facts += [(f"{name}", str(space)) for name, space in sweep.search_space.items()]
    facts.append(("at a time", f"{at_once:,} on Azure ML, 1 locally unless you set `--parallel`"))
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
