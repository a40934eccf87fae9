"""The values that the trials of a sweep try: the parameter expressions of `az ml` sweep YAML, and how to sample them.

Definitions come from Azure ML's "Hyperparameter tuning a model (v2)", fields from its "CLI (v2) sweep job YAML
schema". If a page has the formula but not the type of number, the type follows from the formula: a multiple of a
whole `q` is a whole number.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from azml_dist.model.base import Model, tag_of, wrong
from azml_dist.model.values import AnyCase, Count, kind_of, of_azure, one_of
from azml_dist.words import shown


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(f"{shown(value)} is not a number")
    return value


Number = Annotated[int | float, BeforeValidator(_number)]


class Space(Model):
    """Where the values of a hyperparameter come from."""

    @abstractmethod
    def sample(self, random: Random) -> Any:
        """One value."""

    def wire(self) -> list[Any]:
        """The expression as azure-ai-ml sends it: its type, and its arguments in order."""
        arguments = [getattr(self, name) for name in type(self).model_fields if name != "type"]
        return [getattr(self, "type", ""), arguments]

    def __str__(self) -> str:
        kind, arguments = self.wire()
        return f"{kind}({', '.join(map(str, arguments))})"


def _choices(values: Any) -> Any:
    if isinstance(values, range):
        values = list(values)
    if not isinstance(values, list | tuple) or not values:
        raise wrong("`values` must be a list of at least one value")
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong(f"azure-ai-ml does not accept {value} as a number")
        if not isinstance(value, str | int | float | Mapping):
            raise wrong(f"{shown(value)} is not a string, a number or a mapping")
    return tuple(values)


class Choice(Space):
    """One of these values, each as likely as the others."""

    type: Annotated[Literal["choice"], AnyCase] = Field(default="choice", repr=False)
    """The kind of expression."""
    values: Annotated[Sequence[Any], BeforeValidator(_choices)]
    """The values."""

    def sample(self, random: Random) -> Any:
        return random.choice(self.values)

    def wire(self) -> list[Any]:
        return [self.type, [list(self.values)]]

    def __str__(self) -> str:
        return f"choice({', '.join(map(str, self.values))})"


class Randint(Space):
    """A whole number from 0 to `upper` - 1."""

    type: Annotated[Literal["randint"], AnyCase] = Field(default="randint", repr=False)
    """The kind of expression."""
    upper: Count
    """The smallest number that is too large."""

    def sample(self, random: Random) -> int:
        return random.randrange(self.upper)


class _Between(Space):
    min_value: Number
    """The smallest value; in a logarithmic expression, its natural logarithm."""
    max_value: Number
    """The largest value; in a logarithmic expression, its natural logarithm."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_value > self.max_value:
            raise wrong(f"`min_value` {self.min_value} is greater than `max_value` {self.max_value}")
        return self


class Uniform(_Between):
    """Any number between two, each as likely as the others."""

    type: Annotated[Literal["uniform"], AnyCase] = Field(default="uniform", repr=False)
    """The kind of expression."""

    def sample(self, random: Random) -> float:
        return random.uniform(self.min_value, self.max_value)


class _BetweenExponents(_Between):
    @model_validator(mode="after")
    def _check_exponents(self) -> Self:
        if self.max_value > _LARGEST_EXPONENT:
            hint = "the bounds of a logarithmic expression are logarithms: for 1000 write 6.9"
            raise wrong(f"exp({self.max_value}) is too large for a number", hint)
        return self


class LogUniform(_BetweenExponents):
    """exp(uniform(min_value, max_value)): the bounds are logarithms, so -9.2 to -2.3 means 0.0001 to 0.1."""

    type: Annotated[Literal["loguniform"], AnyCase] = Field(default="loguniform", repr=False)
    """The kind of expression."""

    def sample(self, random: Random) -> float:
        return _exp(random.uniform(self.min_value, self.max_value))


class QUniform(_Between):
    """round(uniform(min_value, max_value) / q) * q."""

    type: Annotated[Literal["quniform"], AnyCase] = Field(default="quniform", repr=False)
    """The kind of expression."""
    q: Annotated[Number, Field(gt=0)]
    """The distance between two values."""

    def sample(self, random: Random) -> int | float:
        return _rounded(random.uniform(self.min_value, self.max_value), self.q)


class QLogUniform(_BetweenExponents):
    """round(exp(uniform(min_value, max_value)) / q) * q: the bounds are logarithms."""

    type: Annotated[Literal["qloguniform"], AnyCase] = Field(default="qloguniform", repr=False)
    """The kind of expression."""
    q: Annotated[Number, Field(gt=0)]
    """The distance between two values."""

    def sample(self, random: Random) -> int | float:
        return _rounded(_exp(random.uniform(self.min_value, self.max_value)), self.q)


class _Around(Space):
    mu: Number
    """The mean; in a logarithmic expression, the mean of the logarithm."""
    sigma: Annotated[Number, Field(ge=0)]
    """The standard deviation; in a logarithmic expression, that of the logarithm."""


class Normal(_Around):
    """A number from the normal distribution with this mean and standard deviation."""

    type: Annotated[Literal["normal"], AnyCase] = Field(default="normal", repr=False)
    """The kind of expression."""

    def sample(self, random: Random) -> float:
        return random.gauss(self.mu, self.sigma)


class LogNormal(_Around):
    """exp(normal(mu, sigma))."""

    type: Annotated[Literal["lognormal"], AnyCase] = Field(default="lognormal", repr=False)
    """The kind of expression."""

    def sample(self, random: Random) -> float:
        return _exp(random.gauss(self.mu, self.sigma))


class QNormal(_Around):
    """round(normal(mu, sigma) / q) * q."""

    type: Annotated[Literal["qnormal"], AnyCase] = Field(default="qnormal", repr=False)
    """The kind of expression."""
    q: Annotated[Number, Field(gt=0)]
    """The distance between two values."""

    def sample(self, random: Random) -> int | float:
        return _rounded(random.gauss(self.mu, self.sigma), self.q)


class QLogNormal(_Around):
    """round(exp(normal(mu, sigma)) / q) * q."""

    type: Annotated[Literal["qlognormal"], AnyCase] = Field(default="qlognormal", repr=False)
    """The kind of expression."""
    q: Annotated[Number, Field(gt=0)]
    """The distance between two values."""

    def sample(self, random: Random) -> int | float:
        return _rounded(_exp(random.gauss(self.mu, self.sigma)), self.q)


def _rounded(value: float, q: int | float) -> int | float:
    multiple = round(value / q)
    # 7 * 0.1 is 0.7000000000000001, but 0.7 is meant.
    return multiple * q if isinstance(q, int) else float(f"{multiple * q:.12g}")


_LARGEST_EXPONENT = 709
"""exp(710) is too large for a float."""


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, _LARGEST_EXPONENT))


SPACES: dict[str, type[Space]] = {
    "choice": Choice,
    "randint": Randint,
    "uniform": Uniform,
    "quniform": QUniform,
    "loguniform": LogUniform,
    "qloguniform": QLogUniform,
    "normal": Normal,
    "qnormal": QNormal,
    "lognormal": LogNormal,
    "qlognormal": QLogNormal,
}


AnySpace: TypeAlias = Annotated[
    Annotated[Choice, Tag(tag_of(Choice))]
    | Annotated[Randint, Tag(tag_of(Randint))]
    | Annotated[Uniform, Tag(tag_of(Uniform))]
    | Annotated[QUniform, Tag(tag_of(QUniform))]
    | Annotated[LogUniform, Tag(tag_of(LogUniform))]
    | Annotated[QLogUniform, Tag(tag_of(QLogUniform))]
    | Annotated[Normal, Tag(tag_of(Normal))]
    | Annotated[QNormal, Tag(tag_of(QNormal))]
    | Annotated[LogNormal, Tag(tag_of(LogNormal))]
    | Annotated[QLogNormal, Tag(tag_of(QLogNormal))],
    Discriminator(kind_of(SPACES)),
    BeforeValidator(one_of(SPACES, "parameter expression")),
    BeforeValidator(of_azure),
]
