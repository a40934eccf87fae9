"""A `Sweep`: one job, run again and again with other values of its inputs, to find the best.

Facts are those of Azure ML's "CLI (v2) sweep job YAML schema" and "Hyperparameter tuning a model (v2)".
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from azml_dist.errors import JobError, Problem
from azml_dist.inputs import with_inputs
from azml_dist.job import Job
from azml_dist.model import Model, nearest_or_all, tag_of
from azml_dist.search_space import AnySpace, Choice, QUniform, Uniform
from azml_dist.termination import AnyPolicy
from azml_dist.values import Count, PortName, Text, any_case, frozen, kind_of, of_azure, one_of

if TYPE_CHECKING:
    from azure.ai.ml.entities import Sweep as AzureSweep

    from azml_dist.sweepplan import SweepPlan

AnyCase = BeforeValidator(any_case)
Values: TypeAlias = Mapping[str, Any]
"""What a trial tries: a value for each hyperparameter."""

TRIALS = 1000
"""The most trials of a sweep, and as many as there are where the limits do not say."""


class RandomSampling(Model):
    """Each trial draws its values anew."""

    type: Annotated[Literal["random"], AnyCase] = Field(default="random", repr=False)
    """The kind of sampling."""
    seed: int | None = None
    """With the same seed, the same values."""
    rule: Annotated[Literal["random", "sobol"], AnyCase] | None = None
    """`sobol` spreads the values more evenly than `random`."""
    logbase: Text | float | None = None
    """A setting of Azure ML's Sobol sequence."""


class GridSampling(Model):
    """The trials are all combinations of the choices."""

    type: Annotated[Literal["grid"], AnyCase] = Field(default="grid", repr=False)
    """The kind of sampling."""


class BayesianSampling(Model):
    """Azure ML picks values by how earlier trials went."""

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
    """What is to become as small, or as large, as possible."""

    primary_metric: Text
    """The name under which the script logs it: `mlflow.log_metric(NAME, value)`."""
    goal: Annotated[Literal["minimize", "maximize"], AnyCase]
    """Whether less is better, or more."""

    def best(self, values: Sequence[float]) -> float:
        """The best of some values."""
        return min(values) if self.goal == "minimize" else max(values)


class Limits(Model):
    """What a sweep may not exceed."""

    max_total_trials: Annotated[Count, Field(le=TRIALS)] | None = None
    """The most trials."""
    max_concurrent_trials: Annotated[Count, Field(le=TRIALS)] | None = None
    """The most trials at the same time; all of them where it is not given."""
    timeout: Count | None = None
    """Seconds after which the sweep is canceled, with all of its trials."""
    trial_timeout: Count | None = None
    """Seconds after which a trial is canceled."""


class Sweep(Model):
    """One job, run with other values of some of its literal inputs in each trial."""

    job: Job
    """What each trial runs. Its inputs that are in the search space take a trial's values; name, compute, inputs,
    outputs and the like are the sweep's."""
    search_space: Annotated[Mapping[PortName, AnySpace], frozen]
    """Where the values of an input come from, by its name."""
    objective: Objective
    """What is to be found."""
    sampling_algorithm: AnySampling = Field(default_factory=RandomSampling)
    """How values are picked: `random`, `grid` or `bayesian`."""
    limits: Limits = Field(default_factory=Limits)
    """What the sweep may not exceed."""
    early_termination: AnyPolicy | None = None
    """Which trials are ended before they are done; none where it is not given."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Sweep:
        """The sweep in an `az ml` YAML, whose paths are relative to its folder."""
        from azml_dist.sweepfile import load_sweep

        return load_sweep(path)

    def plan(self) -> SweepPlan:
        """What this sweep means: offline, without credentials. `print` it."""
        from azml_dist.sweepplan import plan_sweep

        return plan_sweep(self)

    def to_azure(self) -> AzureSweep:
        """azure-ai-ml's own sweep, to be submitted by its client or to stand in a pipeline."""
        from azml_dist.azureml.sweep import to_azure

        return to_azure(self)

    def with_inputs(self, given: Mapping[str, Any]) -> Sweep:
        """The sweep with other inputs of its job: the path of data, the value of a literal."""
        return self.with_(job=with_inputs(self.job, given)) if given else self

    def first_trials(self, count: int) -> Sweep:
        """The sweep with no more trials than these."""
        least = min(count, self.limits.max_total_trials or TRIALS)
        return self.with_(limits=self.limits.with_(max_total_trials=least))

    def with_set(self, *settings: str) -> Sweep:
        """A variant by the texts of `--set FIELD=VALUE`: the sweep's own fields, and those of its job."""
        from azml_dist.settings import with_sweep_settings

        return with_sweep_settings(self, settings)

    @property
    def name(self) -> str | None:
        """The name of the sweep's run; generated where it is not given."""
        return self.job.name

    def trials(self, seed: int | None = None) -> Iterator[Values]:
        """The values of each trial, as many as there may be. `seed` is for a sampling that has none of its own."""
        count = self.limits.max_total_trials or TRIALS
        if self.sampling_algorithm.type == "grid":
            choices = (space.values for space in self.search_space.values() if isinstance(space, Choice))
            grid = (dict(zip(self.search_space, values, strict=True)) for values in itertools.product(*choices))
            return itertools.islice(grid, count)
        random = Random(self.seed if self.seed is not None else seed)
        return ({name: space.sample(random) for name, space in self.search_space.items()} for _ in range(count))

    @property
    def seed(self) -> int | None:
        """The seed that the sweep gives; None where each run is to have its own."""
        return getattr(self.sampling_algorithm, "seed", None)

    def trial(self, values: Values) -> Job:
        """The job of a trial, its values in place.

        Each is in `AZUREML_SWEEP_<name>` too, as the docstring of azure-ai-ml's `SweepJob` says.
        """
        if nested := [name for name, value in values.items() if isinstance(value, Mapping)]:
            raise JobError(
                f"`{nested[0]}` is a choice between mappings, and Azure ML does not say what its trials get",
                hint="for a run here, vary plain values",
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
            yield Problem("a sweep needs a hyperparameter", "name one with its values", "search_space")
        for name, space in self.search_space.items():
            at = f"search_space.{name}"
            if name not in self.job.inputs:
                hint = nearest_or_all(name, self.job.inputs) or "the job has no inputs"
                yield Problem(f"the job has no input `{name}` to be varied", hint, at)
            elif self.job.is_data(name):
                yield Problem(f"`{name}` is data, and a sweep varies literal inputs", None, at)
            yield from self._sampling_problems(space, at)
        if self.job.services:
            yield Problem("the trials of a sweep have no services", "leave them out", "services")

    def _sampling_problems(self, space: Any, at: str) -> Iterator[Problem]:
        kind = self.sampling_algorithm.type
        if kind == "grid" and not isinstance(space, Choice):
            yield Problem(f"grid sampling takes `choice` alone, not `{space.type}`", "list the values", at)
        if kind == "bayesian" and not isinstance(space, Choice | Uniform | QUniform):
            hint = "take `sampling_algorithm: random`, or one of these three"
            yield Problem(f"bayesian sampling takes `choice`, `uniform` and `quniform`, not `{space.type}`", hint, at)


def new_seed() -> int:
    """A seed for a sweep that gives none, small enough to be typed."""
    return secrets.randbelow(10**6)
