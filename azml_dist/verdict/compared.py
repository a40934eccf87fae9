"""Whether a run that repeats another one failed in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from azml_dist.status import RunStatus

Outcome = Literal["same", "same-on-another-rank", "not-reproduced", "another", "unknown"]


class Compared(NamedTuple):
    """A run and its repetition."""

    outcome: Outcome
    summary: str
    """One line for people: `the same failure on the same rank`."""

    def to_dict(self, name: str) -> dict[str, Any]:
        """What `--json` prints: compared with the run of this name."""
        return {"with": name, **self._asdict()}


class Ended(NamedTuple):
    """How a run ended."""

    status: str
    verdict: Mapping[str, Any] | None
    """As `--json` prints it."""


def compared(first: Ended, again: Ended, changed: Sequence[str] = ()) -> Compared | None:
    """How the repetition compares with the first run; None while it runs. `changed` are the fields of its job."""
    if not RunStatus(again.status).is_final:
        return None
    if again.status == RunStatus.COMPLETED:
        if first.status == RunStatus.COMPLETED:
            return Compared("same", "both completed")
        if changed:
            return Compared("not-reproduced", f"it completed here, with another {_words(changed)}")
        return Compared("not-reproduced", "not reproduced: it completed here")
    there, here = first.verdict, again.verdict
    if first.status == RunStatus.COMPLETED:
        return Compared("another", f"it completed there; here: {_summary(here)}")
    if not there or not here or "unknown" in (there.get("certainty"), here.get("certainty")):
        return Compared("unknown", f"not known whether it is the same failure; there: {_summary(there)}")
    if not _is_same(there, here):
        return Compared("another", f"another failure; there: {_summary(there)}")
    if there.get("rank") == here.get("rank"):
        on_rank = " on the same rank" if here.get("rank") is not None else ""
        return Compared("same", f"the same failure{on_rank}")
    ranks = f"rank {here.get('rank')} instead of rank {there.get('rank')}"
    return Compared("same-on-another-rank", f"the same failure, on {ranks}")


def _words(fields: Sequence[str]) -> str:
    *names, last = [f"`{name}`" for name in fields]
    return f"{', '.join(names)} and {last}" if names else last


def _is_same(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """The same kind and exception, at the same line or with the same message; paths in messages may differ."""
    if any(there.get(name) != here.get(name) for name in ("kind", "exception")):
        return False
    place = ("file", "line")
    if there.get("file") and here.get("file"):
        return all(there.get(name) == here.get(name) for name in place)
    return there.get("message") == here.get("message")


def _summary(verdict: Mapping[str, Any] | None) -> str:
    return str(verdict.get("summary")) if verdict else "the reason is not known"
