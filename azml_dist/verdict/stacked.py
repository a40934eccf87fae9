"""Where all processes of a run are, as people and programs read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from azml_dist.show import Block, Facts, Page, Shown, Told
from azml_dist.verdict.collectives import Difference, Entry
from azml_dist.verdict.hang import Alike, Diagnosis, Picture, diagnose, grouped
from azml_dist.words import ranks_text

_WIDTH = 100


class Stacks(Shown):
    """Where every process of a run is, equal stacks together. `print` it; `to_dict()` is what `--json` prints."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = dict(data)

    @classmethod
    def of(
        cls,
        name: str,
        status: str,
        picture: Picture,
        ranks: Iterable[int] | None = None,
        *,
        at: float | None = None,
        hangs: bool = False,
    ) -> Stacks:
        """From a picture of the run; only these ranks if given."""
        found = diagnose(picture)
        return cls(
            {
                "name": name,
                "status": status,
                "at": at,
                "by": picture.by,
                "summary": found.summary if found else None,
                "certainty": found.certainty if found else "unknown",
                "is_moving": not hangs or not found or found.is_moving,
                "hint": found.hint if found else None,
                "odd_ranks": list(found.odd) if found else [],
                "waiting_ranks": list(found.waiting) if found else [],
                "groups": [_with_text(one) for one in grouped(picture, ranks)],
                "collective": _collective(found),
                "collectives": [
                    {"rank": trace.rank, **_entry(trace.entries[-1])}
                    for trace in sorted(picture.traces, key=lambda one: one.rank)
                    if trace.entries and (ranks is None or picture.outer.get(trace.rank, trace.rank) in set(ranks))
                ],
            }
        )

    def without_diagnosis(self) -> Stacks:
        """The same of a run that gets on: no rank keeps another waiting for long."""
        none: dict[str, Any] = {"summary": None, "hint": None, "collective": None, "odd_ranks": [], "waiting_ranks": []}
        return Stacks({**self._data, **none, "certainty": "unknown", "is_moving": True})

    @property
    def summary(self) -> str | None:
        """Which rank keeps which waiting; None if no rank waits for another."""
        summary: str | None = self._data.get("summary")
        return summary

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Processes with equal stacks: `ranks`, `frame` (the user's line), `stack`, and more; the odd ones first."""
        groups: list[dict[str, Any]] = self._data["groups"]
        return groups

    @property
    def odd_ranks(self) -> list[int]:
        """The ranks that keep the others waiting; empty if unknown."""
        odd: list[int] = self._data["odd_ranks"]
        return odd

    @property
    def collective(self) -> dict[str, Any] | None:
        """The collective in which ranks wait, and how it differs between them."""
        return self._data.get("collective")

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist stacks --json` prints."""
        return dict(self._data)

    def _page(self) -> Page:
        said = [("waits" if self._data.get("is_moving") else "hangs", self.summary), ("hint", self._data.get("hint"))]
        blocks: list[Block] = [Told(said)] if self.summary else []
        blocks.append(Facts([(one["who"], _group_text(one)) for one in self.groups]))
        if rows := self._data.get("collectives"):
            blocks.append(Facts([(f"rank {one['rank']}", _entry_text(one)) for one in rows[:_MOST_ROWS]]))
        taken = f"by {self._data['by']}" if self._data.get("by") else None
        return Page([self._data["status"], taken], blocks, self._data["name"])


_MOST_ROWS = 16
_FRAMES = 6
"""The user's frames that are shown of each stack."""


def _with_text(group: Alike) -> dict[str, Any]:
    return group.to_dict() | {"who": group.who, "own": [str(one) for one in group.stack if one.own]}


def _group_text(group: Mapping[str, Any]) -> str:
    """The user's own frames, the innermost first, and in a word what is above and between them."""
    own = list(group.get("own") or ())
    lines = [_cut(line) for line in own[:_FRAMES]]
    if len(own) > _FRAMES:
        lines.append(f"… {len(own) - _FRAMES} more of your own")
    if group.get("problem"):
        lines.append(f"{group['process']}: {group['problem']}")
    elif not own:
        lines.append(_cut(group["stack"][0]) if group.get("stack") else f"{group['process']}: no frame, at its end")
    if (folded := len(group.get("stack") or ()) - len(own)) > 0 and own:
        inside = f" in {group['waits_in']}," if group.get("waits_in") else ""
        lines.append(f"  ({inside.strip()} {folded} of libraries)".replace("( ", "("))
    lines += [f"thread: {_cut(next((line for line in stack), ''))}" for stack in (group.get("threads") or ())[:_FRAMES]]
    return "\n".join(lines)


def _cut(line: str) -> str:
    return textwrap.shorten(line, _WIDTH, placeholder=" …")


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "op": entry.op,
        "number": entry.number,
        "group": list(entry.group.ranks),
        "sizes": entry.sizes,
        "left": entry.left,
        "at": entry.at.at if entry.at else None,
    }


def _entry_text(one: Mapping[str, Any]) -> str:
    at = f" at {one['at']}" if one.get("at") else ""
    return f"{'last left' if one['left'] else 'is in'} {one['op']} #{one['number']}{at}  {one['sizes']}".rstrip()


def _collective(found: Diagnosis | None) -> dict[str, Any] | None:
    if not found or not found.collective:
        return None
    one: Difference = found.collective
    return {
        "difference": one.what,
        "op": one.op,
        "number": one.number,
        "group": list(one.group.ranks),
        "sizes": one.sizes,
        "waiting_ranks": list(one.waiting),
        "odd_ranks": list(one.odd),
        "lines": {ranks_text([rank]).removeprefix("rank "): frame.at for rank, frame in one.at.items()},
        "text": one.text,
    }
