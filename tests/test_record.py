"""`Record` does what the standard library's `dataclasses` does, as far as it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import pytest

from azml_dist.local.record import Record, fresh


class Part(Record):
    name: str
    size: int | None = None


class Whole(Record):
    name: str
    parts: list[Part] = fresh(factory=list)
    more: dict[str, Any] = fresh(factory=dict)

    @property
    def count(self) -> int:
        return len(self.parts)


@dataclass
class UsualPart:
    name: str
    size: int | None = None


@dataclass
class UsualWhole:
    name: str
    parts: list[UsualPart] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.parts)


class Kind(NamedTuple):
    """The same two classes, made in one way or the other."""

    part: Any
    whole: Any


BOTH = pytest.mark.parametrize(
    "kind", [Kind(Part, Whole), Kind(UsualPart, UsualWhole)], ids=["Record", "the usual dataclass"]
)


@BOTH
def test_fields_are_given_by_place_or_by_name(kind: Kind) -> None:
    assert kind.part("a", 3) == kind.part(size=3, name="a")
    assert kind.part("a").size is None
    assert kind.part("a") != kind.part("b")


@BOTH
def test_a_default_is_made_anew_for_each_object(kind: Kind) -> None:
    one, other = kind.whole("a"), kind.whole("b")
    one.parts.append(kind.part("c"))

    assert (one.count, other.count) == (1, 0)


@BOTH
@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), (("a", 1, 2), {}), (("a",), {"name": "b"}), (("a",), {"weight": 3})],
    ids=["one is missing", "one too many", "one twice", "an unknown one"],
)
def test_other_fields_are_refused(kind: Kind, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind.part(*values, **named)


def test_its_dict_is_that_of_asdict_and_shares_nothing() -> None:
    it = Whole("a", [Part("b", 1)], {"c": {"d": [Part("e")]}, "f": (1, 2)})
    usual = UsualWhole("a", [UsualPart("b", 1)], {"c": {"d": [UsualPart("e")]}, "f": (1, 2)})
    values = it.to_dict()

    assert values == asdict(usual)
    values["parts"].clear()
    values["more"]["c"]["d"].clear()
    assert (it.count, it.more["c"]["d"]) == (1, [Part("e")])


def test_a_changed_copy_is_that_of_replace() -> None:
    it = Part("a", 3)

    assert vars(it.with_(size=4)) == vars(replace(UsualPart("a", 3), size=4))
    assert it.size == 3


@BOTH
def test_its_text_names_its_fields(kind: Kind) -> None:
    assert repr(kind.part("a", 3)).endswith("Part(name='a', size=3)")


@BOTH
def test_it_has_no_hash_since_it_can_change(kind: Kind) -> None:
    with pytest.raises(TypeError):
        hash(kind.part("a"))
