"""`Record`: a class with fields, as `@dataclass` makes them.

Each run starts a supervisor, which uses the standard library only. Importing `dataclasses` takes a sixth of its start,
since it imports the tools that inspect code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[type], type]:
        return lambda cls: cls


_T = TypeVar("_T")


class _Fresh:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def fresh(*, factory: Callable[[], _T]) -> _T:
    """The default of a field that is made for each record, such as a list."""
    return _Fresh(factory)  # type: ignore[return-value]  # `Record` puts what it makes in its place


@dataclass_transform(field_specifiers=(fresh,))
class Record:
    """A mutable record: the annotations of a subclass are its fields, in their order."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _required: ClassVar[frozenset[str]] = frozenset()
    _defaults: ClassVar[dict[str, Any]] = {}
    _makers: ClassVar[dict[str, Callable[[], Any]]] = {}

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)
        defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
        cls._required = frozenset(cls._fields) - defaults.keys()
        cls._makers = {name: value.make for name, value in defaults.items() if isinstance(value, _Fresh)}
        cls._defaults = {name: value for name, value in defaults.items() if name not in cls._makers}

    def __init__(self, *values: Any, **named: Any) -> None:
        given = {**dict(zip(self._fields, values, strict=False)), **named}
        if len(values) > len(self._fields) or len(given) < len(values) + len(named):
            raise TypeError(f"{type(self).__name__} got more values than it has fields, or one of them twice")
        if missing := self._required - given.keys():
            raise TypeError(f"{type(self).__name__} needs {', '.join(sorted(missing))}")
        if unknown := given.keys() - set(self._fields):
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        made = {name: make() for name, make in self._makers.items() if name not in given}
        vars(self).update({**self._defaults, **made, **given})

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it is mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def to_dict(self) -> dict[str, Any]:
        """All fields, with other records in them as dicts too; nothing in it is shared with the record."""
        return {name: _plain(getattr(self, name)) for name in self._fields}

    def with_(self, **changes: Any) -> Self:
        """A changed copy."""
        return type(self)(**{**vars(self), **changes})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
