"""Numbers that callers give as limits. NaN compares with nothing, so as a limit it would never or always be reached."""

from __future__ import annotations

from math import isfinite, isnan
from numbers import Integral, Real
from typing import TypeGuard

from azml_dist.errors import JobError

_SECONDS = "give a number of seconds"


def check_amount(name: str, value: object, *, zero: bool = False, hint: str = _SECONDS) -> None:
    """Refuse what is not a finite number above 0, or 0 if `zero` has a meaning. None is no limit."""
    if value is None:
        return
    if not _is_number(value):
        raise JobError(f"`{name}` must be a number, not {value!r}", hint=hint)
    if not isfinite(value):
        raise JobError(f"`{name}` must be a finite number, not {value:g}", hint=hint)
    if value < 0 or (value == 0 and not zero):
        raise JobError(f"`{name}` must be {'0 or more' if zero else 'greater than 0'}, not {value:g}", hint=hint)


def check_timeout(timeout: object) -> None:
    """Refuse a `timeout` of a wait that is no number. Callers may subtract what is over, so it can be less than 0."""
    if timeout is not None and (not _is_number(timeout) or isnan(timeout)):
        raise JobError(f"`timeout` must be a number, not {timeout!r}", hint=f"{_SECONDS}, or leave it out")


def check_count(name: str, value: object, least: int, *, hint: str) -> None:
    """Refuse what is not a whole number of at least this size. None is no limit."""
    if value is None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise JobError(f"`{name}` must be a whole number, not {value!r}", hint=hint)
    if int(value) < least:
        raise JobError(f"`{name}` must be {least} or more, not {value}", hint=hint)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
