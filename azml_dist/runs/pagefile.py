"""Pages as JSON, and back: what a bundle shows of its run is what the run has shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from azml_dist.show import Card, Facts, Folded, Page, Row, Table, Told, card_text, page_text

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Card, Facts, Folded, Page, Row, Table, Told)}


def to_json(shown: Any) -> Any:
    """A page, a card or a part of one as JSON values."""
    if kind := _KINDS.get(type(shown).__name__):
        return {"kind": kind.__name__, **{name: to_json(getattr(shown, name)) for name in kind._fields}}
    if isinstance(shown, Mapping):
        return {"links": dict(shown)}
    if isinstance(shown, str) or not isinstance(shown, Iterable):
        return shown
    return [to_json(one) for one in shown]


def page_of(value: Any) -> Page:
    """The page that was written; raises `ValueError` if it is none."""
    page: Page = _checked(value, Page, page_text)
    return page


def card_of(value: Any) -> Card:
    """The card that was written; raises `ValueError` if it is none."""
    card: Card = _checked(value, Card, card_text)
    return card


def _checked(value: Any, kind: Any, show: Any) -> Any:
    try:
        made = _from_json(value)
        if isinstance(made, kind):
            show(made)  # whatever is wrong with its parts
            return made
    except (TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"it is not a {kind.__name__.lower()}")


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "links" in value and "kind" not in value:
        return {str(text): str(link) for text, link in value["links"].items()}
    kind = _KINDS[value["kind"]]
    return kind(**{name: _from_json(one) for name, one in value.items() if name != "kind"})
