"""The fields of a sweep: one job, run many times with different values of its inputs to find the best.

Facts come from Azure ML's "CLI (v2) sweep job YAML schema" and "Hyperparameter tuning a model (v2)".
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from azml_dist.errors import JobError, Problem
from azml_dist.model.base import Model, tag_of
from azml_dist.model.job import JobFields
from azml_dist.model.search_space import AnySpace, Choice, QUniform, Uniform
from azml_dist.model.termination import AnyPolicy
from azml_dist.model.values import AnyCase, Count, PortName, Text, frozen, kind_of, of_azure, one_of
from azml_dist.words import nearest_or_all

Values: TypeAlias = Mapping[str, Any]
"""The values of one trial: one for each hyperparameter."""

TRIALS = 1000
"""The maximum number of trials of a sweep, and the default if the limits do not set one."""


class RandomSampling(Model):
    """Each trial draws random values."""

    type: Annotated[Literal["random"], AnyCase] = Field(default="random", repr=False)
    """The kind of sampling."""
    seed: int | None = None
    """The same seed draws the same values."""
    rule: Annotated[Literal["random", "sobol"], AnyCase] | None = None
    """`sobol` spreads the values more evenly than `random`."""
    logbase: Text | Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A setting for Azure ML's Sobol sequence."""


class GridSampling(Model):
    """The trials try all combinations of the choices."""

    type: Annotated[Literal["grid"], AnyCase] = Field(default="grid", repr=False)
    """The kind of sampling."""


class BayesianSampling(Model):
    """Azure ML picks values based on the results of earlier trials."""

    type: Annotated[Literal["bayesian"], AnyCase] = Field(default="bayesian", repr=False)
    """The kind of sampling."""


SAMPLINGS: dict[str, type[Model]] = {"random": RandomSampling, "grid": GridSampling, "bayesian": BayesianSampling}

AnySampling: TypeAlias = Annotated[
    Annotated[RandomSampling, Tag(tag_of(RandomSampling))]
    | Annotated[GridSampling, Tag(tag_of(GridSampling))]
    | Annotated[BayesianSampling, Tag(tag_of(BayesianSampling))],
    Discriminator(kind_of(SAMPLINGS)),
    BeforeValidator(one_of(SAMPLINGS, "sampling algorithm")),
    BeforeValidator(lambda value: {"type": value} if isinstance(value, str) else of_azure(value)),
]


class Objective(Model):
    """The metric to minimize or maximize."""

    primary_metric: Text
    """The name under which the script logs the metric: `mlflow.log_metric(NAME, value)`."""
    goal: Annotated[Literal["minimize", "maximize"], AnyCase]
    """Whether a smaller or a larger value is better."""

    def best(self, values: Sequence[float]) -> float:
        """The best of the values, as `best_of` says."""
        return best_of(values, self.goal)


def best_of(values: Sequence[float], goal: str) -> float:
    """The best of the values of a metric, by which trials are compared; NaN only if there is no other value.

    This is the rule of Azure ML: its chart of the trials has the best metric value of each ("Hyperparameter tuning a
    model (v2)", Parallel Coordinates Chart), and SDK v1 sorts the trials by their best primary metric (`HyperDriveRun`,
    `get_children_sorted_by_primary_metric`). What becomes of NaN there is not documented.
    """
    known = [value for value in values if not math.isnan(value)] or values
    return min(known) if goal == "minimize" else max(known)


class Limits(Model):
    """The limits of a sweep."""

    max_total_trials: Annotated[Count, Field(le=TRIALS)] | None = None
    """The maximum number of trials."""
    max_concurrent_trials: Annotated[Count, Field(le=TRIALS)] | None = None
    """The maximum number of trials at the same time; all of them by default."""
    timeout: Count | None = None
    """How many seconds the sweep may take before it is cancelled with all of its trials."""
    trial_timeout: Count | None = None
    """How many seconds a trial may take before it is cancelled."""


class SweepFields(Model):
    """One job, run with different values for some of its literal inputs in each trial."""

    job: JobFields
    """What each trial runs. Inputs in the search space get the values of the trial; the name, compute, inputs, outputs
    and so on are those of the sweep."""
    search_space: Annotated[Mapping[PortName, AnySpace], frozen]
    """Where the values of each input come from, by name."""
    objective: Objective
    """What the sweep optimizes."""
    sampling_algorithm: AnySampling = Field(default_factory=RandomSampling)
    """How to pick values: `random`, `grid` or `bayesian`."""
    limits: Limits = Field(default_factory=Limits)
    """The limits of the sweep."""
    early_termination: AnyPolicy | None = None
    """Which trials are stopped early; none by default."""

    def first_trials(self, count: int) -> Self:
        """The sweep with at most this many trials."""
        least = min(count, self.limits.max_total_trials or TRIALS)
        return self.with_(limits=self.limits.with_(max_total_trials=least))

    @property
    def name(self) -> str | None:
        """The name of the sweep's run; generated by default."""
        return self.job.name

    def trials(self, seed: int | None = None) -> Iterator[Values]:
        """The values of each trial, up to the maximum. `seed` is used if the sampling has none."""
        count = self.limits.max_total_trials or TRIALS
        if self.sampling_algorithm.type == "grid":
            choices = (space.values for space in self.search_space.values() if isinstance(space, Choice))
            grid = (dict(zip(self.search_space, values, strict=True)) for values in itertools.product(*choices))
            return itertools.islice(grid, count)
        random = Random(self.seed if self.seed is not None else seed)
        return ({name: space.sample(random) for name, space in self.search_space.items()} for _ in range(count))

    @property
    def seed(self) -> int | None:
        """The seed of the sweep; None if each run should choose its own."""
        return getattr(self.sampling_algorithm, "seed", None)

    def trial(self, values: Values) -> JobFields:
        """The job of a trial, with its values.

        Each value is also in `AZUREML_SWEEP_<name>`, according to the docstring of azure-ai-ml's `SweepJob`.
        """
        if nested := [name for name, value in values.items() if isinstance(value, Mapping)]:
            raise JobError(
                f"`{nested[0]}` is a choice between mappings, and Azure ML does not document what the trials receive",
                hint="for a local run, use plain values",
                where=f"search_space.{nested[0]}",
            )
        texts = {f"AZUREML_SWEEP_{name}": str(value) for name, value in values.items()}
        limit = {"timeout": self.limits.trial_timeout} if self.limits.trial_timeout else {}
        return self.job.with_(
            inputs={**self.job.inputs, **values},
            environment_variables={**texts, **self.job.environment_variables},
            **limit,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._problems()):
            raise JobError.of(problems)
        return self

    def _problems(self) -> Iterator[Problem]:
        if not self.search_space:
            yield Problem("a sweep needs at least one hyperparameter", "add one with its values", "search_space")
        for name, space in self.search_space.items():
            at = f"search_space.{name}"
            if name not in self.job.inputs:
                hint = nearest_or_all(name, self.job.inputs) or "the job has no inputs"
                yield Problem(f"the job has no input `{name}` to vary", hint, at)
            elif self.job.is_data(name):
                yield Problem(f"`{name}` is data, but a sweep can only vary literal inputs", None, at)
            yield from self._sampling_problems(space, at)
        if self.job.services:
            yield Problem("the trials of a sweep cannot have services", "leave them out", "services")

    def _sampling_problems(self, space: Any, at: str) -> Iterator[Problem]:
        kind = self.sampling_algorithm.type
        if kind == "grid" and not isinstance(space, Choice):
            yield Problem(f"grid sampling accepts only `choice`, not `{space.type}`", "list the values", at)
        if kind == "bayesian" and not isinstance(space, Choice | Uniform | QUniform):
            hint = "use `sampling_algorithm: random`, or one of these three"
            yield Problem(f"bayesian sampling accepts `choice`, `uniform` and `quniform`, not `{space.type}`", hint, at)


def new_seed() -> int:
    """A seed for a sweep that sets none, short enough to type."""
    return secrets.randbelow(10**6)
