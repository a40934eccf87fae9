"""When a sweep stops a trial early: the policies of `az ml` sweep YAML, applied to what the trials have logged so far.

Definitions come from Azure ML's "Hyperparameter tuning a model (v2)". An interval is one more value of the primary
metric; a policy is applied to a trial at every multiple of `evaluation_interval`, from `delay_evaluation` on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from azml_dist.model.base import Model, tag_of, wrong
from azml_dist.model.values import AnyCase, NotNegative, kind_of, of_azure, one_of

History: TypeAlias = Mapping[int, Sequence[float]]
"""The values of the primary metric that each trial has logged, in order, by trial number; larger is better."""


class Policy(Model):
    """Which trials are stopped early."""

    evaluation_interval: NotNegative | None = None
    """How many values of the primary metric a trial logs between two checks; 1 by default."""
    delay_evaluation: NotNegative | None = None
    """How many values a trial logs before the first check."""

    def ends(self, trial: int, history: History, seen: int = 0) -> int | None:
        """The first interval, after the first `seen`, at which the trial falls behind the others, or None."""
        every, delay = self.evaluation_interval or 1, self.delay_evaluation or 0
        for interval in range(seen + 1, len(history[trial]) + 1):
            if interval % every == 0 and interval >= delay and self._is_behind(trial, interval, history):
                return interval
        return None

    def wire(self) -> dict[str, Any]:
        """The policy as azure-ai-ml sends it, with its defaults."""
        given = self.model_dump(exclude={"type"}, exclude_none=True)
        return {"delay_evaluation": 0, "evaluation_interval": 0} | given

    @abstractmethod
    def _is_behind(self, trial: int, interval: int, history: History) -> bool: ...


class Bandit(Policy):
    """Stops a trial if its best value is further from the best of all trials than the slack allows."""

    type: Annotated[Literal["bandit"], AnyCase] = Field(default="bandit", repr=False)
    """The kind of policy."""
    slack_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The allowed distance as a ratio: with 0.2 and a best value of 0.8, anything below 0.8 / 1.2 stops the trial."""
    slack_amount: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The allowed distance as an absolute value."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.slack_factor and not self.slack_amount:
            raise wrong("a bandit policy needs a `slack_factor` or a `slack_amount`")
        if self.slack_factor and self.slack_amount:
            raise wrong("a bandit policy cannot have both a `slack_factor` and a `slack_amount`")
        return self

    def wire(self) -> dict[str, Any]:
        return {"slack_factor": 0.0, "slack_amount": 0.0} | super().wire()

    def _is_behind(self, trial: int, interval: int, history: History) -> bool:
        best = max(max(values[:interval]) for values in history.values() if len(values) >= interval)
        return max(history[trial][:interval]) < best - self._slack(best)

    def _slack(self, best: float) -> float:
        if self.slack_amount:
            return self.slack_amount
        factor = self.slack_factor or 0.0
        # Documented for maximizing. To minimize, values are negated here: 1.2 times the best is then allowed.
        return best - best / (1 + factor) if best >= 0 else -best * factor


class MedianStopping(Policy):
    """Stops a trial if its best value is worse than the median of the running averages of all trials."""

    type: Annotated[Literal["median_stopping"], AnyCase] = Field(default="median_stopping", repr=False)
    """The kind of policy."""

    def wire(self) -> dict[str, Any]:
        every = 1 if self.evaluation_interval is None else self.evaluation_interval
        return super().wire() | {"evaluation_interval": every}

    def _is_behind(self, trial: int, interval: int, history: History) -> bool:
        averages = [fmean(values[:interval]) for values in history.values() if len(values) >= interval]
        return max(history[trial][:interval]) < median(averages)


class TruncationSelection(Policy):
    """Stops a percentage of the trials, those with the worst values, at each check."""

    type: Annotated[Literal["truncation_selection"], AnyCase] = Field(default="truncation_selection", repr=False)
    """The kind of policy."""
    truncation_percentage: Annotated[int, Field(ge=1, le=99)]
    """The percentage of trials to stop at each check."""

    def _is_behind(self, trial: int, interval: int, history: History) -> bool:
        values = sorted(values[interval - 1] for values in history.values() if len(values) >= interval)
        ended = len(values) * self.truncation_percentage // 100
        return ended > 0 and history[trial][interval - 1] <= values[ended - 1]


POLICIES: dict[str, type[Policy]] = {
    "bandit": Bandit,
    "median_stopping": MedianStopping,
    "truncation_selection": TruncationSelection,
}


def _policy_type(value: Any) -> Any:
    """Accepts `MedianStopping` for `median_stopping`, as azure-ai-ml does; its classes have 0 for an unset slack."""
    if isinstance(value, str):
        value = {"type": value}
    value = of_azure(value)
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        kind = value["type"].lower()
        known = {name.replace("_", ""): name for name in POLICIES}
        return {**value, "type": known.get(kind.replace("_", ""), kind)}
    return value


AnyPolicy: TypeAlias = Annotated[
    Annotated[Bandit, Tag(tag_of(Bandit))]
    | Annotated[MedianStopping, Tag(tag_of(MedianStopping))]
    | Annotated[TruncationSelection, Tag(tag_of(TruncationSelection))],
    Discriminator(kind_of(POLICIES)),
    BeforeValidator(one_of(POLICIES, "early termination policy")),
    BeforeValidator(_policy_type),
]
