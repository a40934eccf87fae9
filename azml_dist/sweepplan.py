"""What a sweep means: the values of its trials, the plan of each, and the request. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from azml_dist.errors import Problem
from azml_dist.model import Model
from azml_dist.plan import LaunchPlan, plan_job
from azml_dist.request import camel, duration, request_body
from azml_dist.search_space import Choice, LogUniform, QLogUniform, Space
from azml_dist.sweep import TRIALS, Sweep, Values

_SHOWN = 8
"""Trials whose values a plan shows."""


@dataclass(frozen=True)
class SweepPlan:
    """The meaning of a sweep: `print` it for a table; `trial` is the plan of one of its trials."""

    sweep: Sweep
    trial: LaunchPlan
    """Of the first trial; the others differ in their values alone."""

    @cached_property
    def values(self) -> Sequence[Values]:
        """What the first trials try; where the sweep has no seed, each run tries other values."""
        return list(islice(self.sweep.trials(seed=0), _SHOWN))

    @property
    def trial_count(self) -> int:
        """How many trials there are at most."""
        limit = self.sweep.limits.max_total_trials or TRIALS
        if self.sweep.sampling_algorithm.type != "grid":
            return limit
        sizes = [len(space.values) for space in self.sweep.search_space.values() if isinstance(space, Choice)]
        return min(limit, math.prod(sizes))

    @cached_property
    def request(self) -> dict[str, Any]:
        """The body that azure-ai-ml puts on the wire; ids that only the service knows are None."""
        return sweep_request(self.sweep)

    @cached_property
    def findings(self) -> tuple[Problem, ...]:
        """What is allowed, and worth a second look before it costs a queue."""
        return (*_findings(self.sweep), *self.trial.findings)

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist plan --json` prints: the plan of the first trial, and what the sweep adds."""
        return {
            **self.trial.to_dict(),
            "type": "sweep",
            "trial_count": self.trial_count,
            "trials": [dict(values) for values in self.values],
            "request": self.request,
            "findings": [{"message": p.message, "hint": p.hint, "where": p.where} for p in self.findings],
        }

    def __str__(self) -> str:
        from azml_dist.tables import sweep_plan_text

        return sweep_plan_text(self)

    def __repr__(self) -> str:
        return f"<SweepPlan: at most {self.trial_count} trials of {self.trial.world}>"

    def _repr_html_(self) -> str:
        from azml_dist.tables import sweep_plan_html

        return sweep_plan_html(self)


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """The plan of a sweep: offline, without credentials."""
    first = next(iter(sweep.trials(seed=0)))
    is_plain = not any(isinstance(value, dict) for value in first.values())
    return SweepPlan(sweep, plan_job(sweep.trial(first) if is_plain else sweep.job))


def sweep_request(sweep: Sweep) -> dict[str, Any]:
    """What is sent for a sweep, as azure-ai-ml 1.35 does: `{"properties": {…}}`."""
    job = request_body(sweep.job)["properties"]
    command = job["command"]
    for name in sweep.search_space:
        command = command.replace("${{inputs." + name + "}}", "${{search_space." + name + "}}")
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


def _limits(sweep: Sweep) -> dict[str, Any]:
    limits = sweep.limits
    trial_timeout = limits.trial_timeout or sweep.job.timeout
    floor = 60  # azure-ai-ml's, since the service takes less for 60 days
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


def _findings(sweep: Sweep) -> Iterator[Problem]:
    for name, space in sweep.search_space.items():
        at = f"search_space.{name}"
        if "${{inputs." + name + "}}" not in "".join(sweep.job.shell_command.split()):
            hint = f"write `${{{{search_space.{name}}}}}` where the script takes it, or read AZUREML_SWEEP_{name}"
            yield Problem(f"the command does not use `{name}`: the trials may all be the same", hint, at)
        yield from _bounds(space, at)
    for name in ("timeout", "trial_timeout"):
        if (seconds := getattr(sweep.limits, name)) and seconds < 60:
            yield Problem(f"azure-ai-ml makes 60 s of {seconds} s", None, f"limits.{name}")
    if sweep.sampling_algorithm.type == "bayesian":
        hint = "`sampling_algorithm: random` says what a run here does"
        yield Problem("bayesian sampling is Azure ML's own: a run here draws values at random", hint)
    if getattr(sweep.sampling_algorithm, "rule", None) == "sobol":
        yield Problem("the Sobol sequence is Azure ML's own: a run here draws values at random")


def _bounds(space: Space, at: str) -> Iterator[Problem]:
    if isinstance(space, LogUniform | QLogUniform) and 0 <= space.min_value <= space.max_value <= 1:
        least, greatest = math.exp(space.min_value), math.exp(space.max_value)
        hint = "its bounds are those of the logarithm"
        if space.min_value > 0:
            hint += f": for {space.min_value:g} to {space.max_value:g} write {math.log(space.min_value):.2f}"
            hint += f" and {math.log(space.max_value):.2f}"
        yield Problem(f"`{space}` gives values from {least:.4g} to {greatest:.4g}", hint, at)
