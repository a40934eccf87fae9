"""Reads answers of Azure's services and checks each field: a proxy or a sign-in page may have answered instead."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_DEEP = 100
"""How deeply nested an answer may be; Azure's own have about ten levels."""


class BrokenAnswerError(Exception):
    """An answer that Azure would not give. The text says what is wrong with it, such as "is HTML"."""


class Answer:
    """A JSON object from the service. Reading a field checks its type, and raises if it is wrong."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise BrokenAnswerError(f"{path or 'it'} is {_kind(value)}, not an object")
        self._fields = value
        self._path = path

    @property
    def fields(self) -> Mapping[str, Any]:
        """All of it, unchecked."""
        return self._fields

    def text(self, name: str) -> str | None:
        """A text, or None if it is missing."""
        value: str | None = self._read(name, str)
        return value

    def needed(self, name: str) -> str:
        """A required text."""
        if not (text := self.text(name)):
            raise BrokenAnswerError(f"{self._name_of(name)} is missing")
        return text

    def count(self, name: str, most: int) -> int | None:
        """A count; the service may answer 0."""
        value: int | None = self._read(name, int)
        if value is not None and (isinstance(value, bool) or not 0 <= value <= most):
            raise BrokenAnswerError(f"{self._name_of(name)} is {_shown(value)}")
        return value

    def number(self, name: str) -> float:
        """A required number; MLflow writes NaN and infinities as texts."""
        value = self._fields.get(name)
        try:
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                return float(value)
        except (ValueError, OverflowError):
            pass
        raise BrokenAnswerError(f"{self._name_of(name)} is {_kind(value)}, not a number")

    def object(self, name: str, *, needed: bool = False) -> Answer:
        """An object; empty if it is missing and not required."""
        value = self._fields.get(name)
        return Answer({} if value is None and not needed else value, self._name_of(name))

    def objects(self, name: str, *, needed: bool = False) -> list[Answer]:
        """The objects in a list; empty if it is missing and not required."""
        found: list[Any] | None = self._read(name, list)
        if found is None and needed:
            raise BrokenAnswerError(f"{self._name_of(name)} is missing")
        found = found or []
        return [Answer(one, f"{self._name_of(name)}[{i}]") for i, one in enumerate(found)]

    def strings(self, name: str) -> list[str]:
        """The texts of a list; none where there is no list."""
        found: list[Any] = self._read(name, list) or []
        return [one for one in found if isinstance(one, str)]

    def texts(self) -> dict[str, str]:
        """All fields; each must be a text."""
        return {name: self.needed(name) for name in self._fields}

    def each_object(self) -> Iterator[tuple[str, Answer]]:
        """All fields; each must be an object."""
        return ((name, self.object(name)) for name in self._fields)

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def _read(self, name: str, kind: type) -> Any:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, kind):
            raise BrokenAnswerError(f"{self._name_of(name)} is {_kind(value)}")
        return value

    def _name_of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def json_of(body: bytes, content_type: str) -> Any:
    """The JSON of an answer; None if the answer is empty."""
    if not body.strip():
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise BrokenAnswerError("is nested too deeply") from None
        is_page = "html" in content_type.lower() or body.lstrip()[:1] == b"<"
        raise BrokenAnswerError("is HTML, a page for a browser" if is_page else "is not JSON, or was cut off") from None
    if _is_deep(value):
        raise BrokenAnswerError("is nested too deeply")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEP):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def _shown(value: int) -> str:
    return str(value) if abs(value) < 10**9 else "an impossible number"
