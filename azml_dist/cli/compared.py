"""How a run compares with the run that it repeats, and with those here that repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from azml_dist.show import Facts

if TYPE_CHECKING:
    from azml_dist.runs.run import Run
    from azml_dist.verdict.compared import Compared
    from azml_dist.verdict.reason import Reason
    from azml_dist.verdict.verdict import Kind


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
    """What to type after the verdict on a run on Azure ML: its repetition here, if nobody has tried and it can show
    something."""
    is_there = run is not None and getattr(run, "folder", None) is None and not getattr(run, "is_bundle", False)
    if not run or not is_there or found:
        return None
    whole = run
    while inner := getattr(run, "failed_member", lambda: None)():  # a group cannot run again, but its member can
        run = inner
    verdict = run.verdict()
    if hasattr(run, "members") or verdict is None:
        return None
    if verdict.kind in _MAY_PASS:
        return f"`azml-dist submit {run.name}` submits its job again, as a new run" if run is whole else None
    if verdict.kind not in _SHOWN_HERE or run.reason() in _NOT_HERE:
        return None
    return f"`azml-dist rerun {run.name}` repeats it on this machine"


_SHOWN_HERE: frozenset[Kind] = frozenset(
    {
        *("user-code", "missing-module", "missing-file", "permission", "bad-arguments", "checkpoint-mismatch"),
        *("shape-mismatch", "not-a-number", "crash", "exit-code", "launcher", "rendezvous", "hang"),
        *("collective-timeout", "collective-mismatch", "unknown"),
    }
)
"""Kinds of failures that a repetition here shows or rules out. What an image, a node or data of Azure ML lacked, or who
ended a run, it cannot show."""
_MAY_PASS: frozenset[Kind] = frozenset({"preempted", "gpu-hardware"})
"""Kinds that are gone with other nodes."""
_NOT_HERE: frozenset[Reason | None] = frozenset({"capacity", "preempted", "timeout", "canceled", "service"})
"""What Azure ML may say of a run whose logs explain nothing."""


def as_json(run: Run | None, found: list[tuple[str, Compared]]) -> dict[str, Any]:
    """The same as JSON values."""
    values: dict[str, Any] = {"repetitions": [{"name": name, **one._asdict()} for name, one in found]}
    own = getattr(run, "compared", lambda: None)()
    return values | ({"compared": own._asdict()} if own else {})
