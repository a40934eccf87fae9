"""An input that a component declares, and somebody else gives a value for.

Facts are those of Azure ML's "CLI (v2) command component YAML schema" (reference-yaml-component-command).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Literal

from pydantic import model_validator
from typing_extensions import Self

from azml_dist.errors import JobError
from azml_dist.model import Model, nearest_or_all, shown, wrong
from azml_dist.values import Text, Value

_VALUES = ("string", "integer", "number", "boolean")
_WORDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}


def _integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").isdigit()):
        return int(value)
    number = float(value)
    if not isfinite(number):
        raise ValueError
    return number


_READ: dict[str, Callable[[Any], int | float | bool]] = {
    "boolean": lambda value: {"true": True, "false": False}[str(value).lower()],
    "integer": _integer,
    "number": _number,
}


class Parameter(Model):
    """An input of a component: without a default, and if it is not optional, it needs a value before a run."""

    type: Literal[
        "string",
        "integer",
        "number",
        "boolean",
        "uri_file",
        "uri_folder",
        "mltable",
        "mlflow_model",
        "custom_model",
        "triton_model",
        "path",
    ]
    """What is to be given: a value of that kind, or data; `path` is an old name for a file or a folder."""
    optional: bool = False
    """Whether the command can do without it: its `$[[ ... ]]` are then left out."""
    default: Value | None = None
    """Taken where no value is given."""
    min: float | None = None
    """The least number that is possible."""
    max: float | None = None
    """The largest number that is possible."""
    enum: tuple[Text, ...] | None = None
    """The only values that are possible."""
    mode: Literal["ro_mount", "rw_mount", "mount", "download", "direct", "eval_mount", "eval_download"] | None = None
    """How data gets to the node; `ro_mount` where it is not given."""
    description: Text | None = None
    """What it is for."""

    @property
    def is_data(self) -> bool:
        """Whether it is data, not a literal value."""
        return self.type not in _VALUES

    @property
    def default_text(self) -> str:
        """What the default becomes in the command: azure-ai-ml keeps it as its type, so 3 is `3.0` for a `number`."""
        value = self.checked(self.default)
        return str(float(value)) if self.type == "number" else str(value)

    @property
    def is_open(self) -> bool:
        """Whether a run needs a value for it, and there is none."""
        return self.default is None and not self.optional

    def checked(self, value: Any) -> str | int | float | bool:
        """The value as this parameter takes it, text read as its type; a `JobError` where it is not possible."""
        typed = self._typed(value)
        if self.min is not None and not isinstance(typed, str) and typed < self.min:
            raise JobError(f"{shown(typed)} is too small; at least {self.min:g} is needed")
        if self.max is not None and not isinstance(typed, str) and typed > self.max:
            raise JobError(f"{shown(typed)} is too large; at most {self.max:g} is possible")
        if self.enum is not None and str(typed) not in self.enum:
            raise JobError(
                f"{shown(typed)} is not one of {', '.join(self.enum)}", hint=nearest_or_all(typed, self.enum)
            )
        return typed

    def _typed(self, value: Any) -> str | int | float | bool:
        if self.type not in _WORDS:
            return str(value)
        try:
            return _READ[self.type](value)
        except (KeyError, ValueError, OverflowError):
            raise JobError(f"{shown(value)} is not {_WORDS[self.type]}") from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.default is not None and self.is_data:
            raise wrong("data has no default", "name its place when it is run; `optional: true` is possible")
        if self.default is not None:
            try:
                self.checked(self.default)
            except JobError as error:
                raise wrong(f"the default: {error.problems[0].message}", error.hint) from None
        return self
