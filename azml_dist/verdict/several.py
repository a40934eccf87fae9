"""Tells the logs of one run from those of several, such as the folder that has all runs of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from azml_dist.errors import DistError
from azml_dist.verdict.known import NAME
from azml_dist.words import shown


def without_copies(names: Sequence[str], folder: str) -> list[str]:
    """The files without logs of ranks deeper in the folder that has these logs already.

    Raises `DistError` if folders next to each other have logs of the same ranks: those are of several runs.
    """
    ranks: dict[str, set[tuple[str | None, ...]]] = {}
    whose = {name: base for name in names if (base := _base(name)) is not None}
    for name, base in whose.items():
        found = NAME.search(name)
        assert found
        ranks.setdefault(base, set()).add(found.group("rank", "node", "role"))
    seen: dict[tuple[str | None, ...], str] = {}
    kept: set[str] = set()
    for base in sorted(ranks, key=lambda one: (_depth(one), one)):
        other = next((seen[rank] for rank in ranks[base] if rank in seen), None)
        if other is not None:
            if _depth(other) == _depth(base):
                raise of_several(folder, [other, base])
            continue
        kept.add(base)
        seen |= dict.fromkeys(ranks[base], base)
    return [name for name in names if name not in whose or whose[name] in kept]


def outermost(names: Iterable[str]) -> list[str]:
    """Of these files, those that are least deep in the folder."""
    by_depth = groupby(sorted(names, key=lambda name: (_depth(name), name)), _depth)
    return list(next(by_depth, (0, iter(())))[1])


def of_several(folder: str, bases: Sequence[str]) -> DistError:
    """The error that there are logs of several runs."""
    such = " and ".join(shown(base) for base in bases[:2])
    return DistError(f"{shown(folder)} has the logs of several runs: {such}", hint="give the folder of one of them")


def _base(name: str) -> str | None:
    """The folder of the run that a log of a rank belongs to; None for any other file."""
    found = NAME.search(name)
    if found is None:
        return None
    folder = name[: found.start()].rstrip("/")
    above, _, last = folder.rpartition("/")
    if last == "user_logs":
        return above
    return folder if found["rank"] or found["node"] else None


def _depth(name: str) -> int:
    return name.count("/") + bool(name)
