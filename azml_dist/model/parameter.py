"""An input that a component declares and that gets its value from outside.

Facts come from Azure ML's "CLI (v2) command component YAML schema" (reference-yaml-component-command).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Literal

from pydantic import model_validator
from typing_extensions import Self

from azml_dist.errors import JobError, Problem
from azml_dist.model.base import Model, wrong
from azml_dist.model.values import Text, Value
from azml_dist.words import nearest_or_all, shown

VALUE_TYPES = ("string", "integer", "number", "boolean")
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
    """An input of a component. Unless it is optional or has a default, it needs a value before a run."""

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
    """The type of the value, or of the data; `path` is an old name for a file or a folder."""
    optional: bool = False
    """Whether it may have no value: the parts of the command in `$[[ ... ]]` that use it are then removed."""
    default: Value | None = None
    """The value to use if none is set."""
    min: float | None = None
    """The smallest number allowed."""
    max: float | None = None
    """The largest number allowed."""
    enum: tuple[Text, ...] | None = None
    """The only values allowed."""
    mode: Literal["ro_mount", "rw_mount", "mount", "download", "direct", "eval_mount", "eval_download"] | None = None
    """How data gets to the node; `ro_mount` by default."""
    description: Text | None = None
    """What the input is for."""

    @property
    def is_data(self) -> bool:
        """Whether it is data rather than a literal value."""
        return self.type not in VALUE_TYPES

    @property
    def default_text(self) -> str:
        """The default as it appears in the command. azure-ai-ml converts it to its type: 3 is `3.0` for a `number`."""
        value = self.typed(self.default)
        return str(float(value)) if self.type == "number" else str(value)

    @property
    def is_open(self) -> bool:
        """Whether a run needs a value for it and there is none yet."""
        return self.default is None and not self.optional

    def checked(self, value: Any) -> str | int | float | bool:
        """The value, converted from text if needed; raises `JobError` if this parameter does not allow it."""
        if problem := self.outside(value):
            raise JobError.of([problem])
        return self.typed(value)

    def outside(self, value: Any) -> Problem | None:
        """Why a value of the right type is not allowed; None if it is."""
        typed = self.typed(value)
        if self.min is not None and not isinstance(typed, str) and typed < self.min:
            return Problem(f"{shown(typed)} is too small; the minimum is {self.min:g}")
        if self.max is not None and not isinstance(typed, str) and typed > self.max:
            return Problem(f"{shown(typed)} is too large; the maximum is {self.max:g}")
        if self.enum is not None and self._word(typed) not in map(self._word, self.enum):
            return Problem(f"{shown(typed)} is not one of {', '.join(self.enum)}", nearest_or_all(typed, self.enum))
        return None

    def _word(self, value: Any) -> str:
        # `true` and `True` are the same value.
        return str(value).lower() if self.type == "boolean" else str(value)

    def typed(self, value: Any) -> str | int | float | bool:
        """The value, converted from text if needed; raises `JobError` if it does not have this parameter's type."""
        if self.type not in _WORDS:
            return str(value)
        try:
            return _READ[self.type](value)
        except (KeyError, ValueError, OverflowError):
            raise JobError(f"{shown(value)} is not {_WORDS[self.type]}") from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.default is not None and self.is_data:
            raise wrong("data cannot have a default", "set its path for each run, or write `optional: true`")
        if self.default is not None:
            try:
                self.typed(self.default)
            except JobError as error:
                raise wrong(f"the default: {error.problems[0].message}", error.hint) from None
        return self
