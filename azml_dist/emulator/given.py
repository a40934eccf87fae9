"""Checks what a knob is set to: objects by name, each with the fields of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "a text"),
    "int": (int, "a whole number from 0"),
    "float": ((int, float), "a number from 0"),
    "dict": (Mapping, "an object"),
    "tuple": ((list, tuple), "a list"),
}


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A JSON object; raises `ValueError` with `what` it should be."""
    if not isinstance(value, Mapping):
        raise ValueError(f"it is an object, {what}")
    return value


def known(name: str, names: Any, what: str) -> str:
    """A name that exists; raises `ValueError` with the nearest one, or all."""
    if name in names:
        return name
    near = get_close_matches(name, names, n=1)
    raise ValueError(f"there is no {what} `{name}`" + (f", did you mean `{near[0]}`?" if near else _all(names)))


def _all(names: Any) -> str:
    return f"; there are {', '.join(names)}"


def made(kind: type[T], value: Any, like: str, **fixed: Any) -> T:
    """An object of this class from JSON; raises `ValueError` for what it does not take."""
    allowed = {one.name: one for one in fields(kind) if one.name not in fixed}  # type: ignore[arg-type]  # a dataclass
    for name, one in mapping(value, like).items():
        _check(allowed[known(name, allowed, "field")], one)
    missing = [
        name
        for name, one in allowed.items()
        if one.default is MISSING and one.default_factory is MISSING and name not in value
    ]
    if missing:
        raise ValueError(f"`{missing[0]}` is missing")
    return kind(**fixed, **value)


def _check(one: Field[Any], value: Any) -> None:
    base, _, rest = str(one.type).partition(" | ")
    if value is None and rest == "None":
        return
    kind, words = _KINDS[base.partition("[")[0]]
    is_negative = isinstance(value, int | float) and not value >= 0
    if not isinstance(value, kind) or isinstance(value, bool) or is_negative:
        raise ValueError(f"`{one.name}` is {words}, not {value!r}")
