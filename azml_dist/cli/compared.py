"""How a run compares with the run that it repeats, and with those here that repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from azml_dist.show import Facts

if TYPE_CHECKING:
    from azml_dist.runs.run import Run
    from azml_dist.verdict.compared import Compared


def repetitions(run: Run, root: str | None) -> list[tuple[str, Compared]]:
    """The runs on this machine that repeat a run and have ended, each with how it compares."""
    return list(_repetitions(run, root))


def _repetitions(run: Run, root: str | None) -> Iterator[tuple[str, Compared]]:
    from azml_dist.local.find import runs

    is_here = getattr(run, "folder", None) is not None
    for one in runs(root):
        origin = one.state().origin
        is_of_it = origin and origin["name"] == run.name and (origin["workspace"] is None) == is_here
        if is_of_it and (found := one.compared()):
            yield one.name, found


def facts(found: list[tuple[str, Compared]]) -> list[Facts]:
    """The same for people."""
    return [Facts([("again here", f"{name}: {one.summary}") for name, one in found])] if found else []


def suggestion(run: Run | None, found: list[tuple[str, Compared]]) -> str | None:
    """How to repeat a run on Azure ML here, if nobody has."""
    is_there = run is not None and getattr(run, "folder", None) is None and not getattr(run, "is_bundle", False)
    if not run or not is_there or found:
        return None
    while inner := getattr(run, "failed_member", lambda: None)():  # a group cannot run again, but its member can
        run = inner
    return None if hasattr(run, "members") else f"`azml-dist rerun {run.name}` repeats it on this machine"


def as_json(run: Run | None, found: list[tuple[str, Compared]]) -> dict[str, Any]:
    """The same as JSON values."""
    values: dict[str, Any] = {"repetitions": [{"name": name, **one._asdict()} for name, one in found]}
    own = getattr(run, "compared", lambda: None)()
    return values | ({"compared": own._asdict()} if own else {})
