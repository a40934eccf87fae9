"""Why the trials of a sweep or the steps of a pipeline failed, each in a line, for their page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from azml_dist.azureml.children import Child, Children, which
from azml_dist.azureml.parallel import each
from azml_dist.errors import SubmitError
from azml_dist.status import RunStatus

_MOST, _MOST_LOGS = 16, 256
"""Of how many members the logs are read, and how many logs in all."""


class InBrief(NamedTuple):
    """Why a run failed."""

    text: str | None
    """None if neither the service nor the logs say it."""
    unread: str | None = None
    """Which logs could not be read, if any."""


class Judged(Protocol):
    """A single run that failed."""

    def in_brief(self) -> InBrief: ...

    @property
    def process_count(self) -> int: ...


def with_verdicts(found: Children, leaf_of: Callable[[Child], Judged]) -> Children:
    """The members, those that failed with their verdicts in place of the service's error.

    Of many members, and of many logs, only the first ones are read; the others, and a note, say so. `leaf_of` finds the
    single run that failed in a member.
    """
    failed = [child for child in found.members if child.status == RunStatus.FAILED and child.has_run]
    told = _told(failed, leaf_of)
    errors = {child.name: _error(child, told.get(child.name)) for child in failed}
    members = [child._replace(error=errors.get(child.name, child.error)) for child in found.members]
    return found._replace(
        members=members, notes=[*found.notes, *_left([one for one in failed if one.name not in told])]
    )


def _told(failed: Sequence[Child], leaf_of: Callable[[Child], Judged]) -> Mapping[str, InBrief]:
    """By the names of the members that were asked."""

    def size(child: Child) -> tuple[Judged, int] | None:
        with suppress(SubmitError):
            leaf = leaf_of(child)
            return leaf, leaf.process_count
        return None

    first = failed[:_MOST]
    sized = dict(each(size, first, at_a_time=_MOST, stop=threading.Event()))
    asked, room = dict[str, Judged](), _MOST_LOGS
    for place, child in enumerate(first):
        if (one := sized[place]) and (one[1] <= room or not asked):
            asked[child.name], room = one[0], room - one[1]
    leaves = list(asked.values())
    told = dict(each(lambda leaf: leaf.in_brief(), leaves, at_a_time=_MOST, stop=threading.Event()))
    return {name: told[place] for place, name in enumerate(asked)}


def _error(child: Child, told: InBrief | None) -> str | None:
    said = (told.text if told else None) or child.error
    unread = told.unread if told else "its logs were not read"
    return " ".join(filter(None, (said, unread and f"({unread})"))) or None


def _left(left: Sequence[Child]) -> list[str]:
    if not left:
        return []
    how = f"`azml-dist why {left[0].name}`" + (" and so on" if left[1:] else "")
    return [f"the logs of {which([one.label for one in left])} were not read to find out what failed: {how}"]
