"""What is shown at the end of a run on this machine. Of one that completed, nothing has to be judged."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.contents.code import kept_code
from azml_dist.local.state import NOTHING_MOVED, RunState
from azml_dist.notation.shell import launchers
from azml_dist.regular import read_regular
from azml_dist.show import Card
from azml_dist.status import RunStatus
from azml_dist.verdict.card import ending
from azml_dist.verdict.compared import Compared, Ended, compared
from azml_dist.words import took_text

if TYPE_CHECKING:
    from azml_dist.verdict.verdict import Verdict

_PLAN = 64_000_000
"""More bytes than a plan of 100,000 processes takes."""


def comparison(state: RunState, verdict: Verdict | None) -> Compared | None:
    """How a run compares with the one that it repeats; None if it repeats none, or has not ended."""
    if state.origin is None:
        return None
    there = Ended(state.origin["status"], state.origin["verdict"])
    here = Ended(state.status, verdict.to_dict() if verdict else None)
    return compared(there, here, state.origin["changed"])


def ending_of(
    folder: Path, state: RunState, outputs: Mapping[str, Path], verdict: Verdict | None, *, in_full: bool
) -> Card:
    """How a run ended: who failed and why, where everything of it is, and what to type next."""
    blamed = [state.failed_rank, verdict.rank if verdict else None]
    last = len(state.processes) - 1
    rank = next((one for one in blamed if one is not None and one <= last), last)
    found = comparison(state, verdict)
    places = [("compared", f"{found.summary} (run {(state.origin or {})['name']})")] if found else []
    places += [("logs", str(folder / "user_logs"))]
    places += [("output", f"{name}: {path}") for name, path in outputs.items()]
    places += [("again", f"azml-dist logs {state.name} --rank {rank}")] if state.processes else []
    if state.status == RunStatus.FAILED and not in_full:
        places += [("next", f"azml-dist why {state.name}")]
    root = code_of(folder)
    code = (
        [Path(root)] if root and not kept_code(Path(root).parent) else []
    )  # a copy that others share is no place to edit
    return ending(
        f"run {state.name}",
        RunStatus(state.status),
        duration_text(state),
        verdict,
        places=places,
        hint=_hint(state, verdict),
        code=code,
        in_full=in_full,
        inside=_is_inside(folder, state, verdict),
    )


def _hint(state: RunState, verdict: Verdict | None) -> str | None:
    """That of the run's own error, unless it was ended because it hung: the verdict may know more of why."""
    if verdict and (state.error or "").startswith(NOTHING_MOVED):
        return verdict.hint
    return state.hint or (verdict.hint if verdict and verdict.kind == "hang" else None)


def _is_inside(folder: Path, state: RunState, verdict: Verdict | None) -> bool:
    """Whether a launcher in the command, such as torchrun, has started the rank that the verdict names."""
    if verdict is None or verdict.rank is None or state.failed_rank in (None, verdict.rank):
        return False
    return any(launchers(str(_planned(folder).get("command") or "")))


def code_of(folder: Path) -> str | None:
    """The code folder of a run, from which its nodes have their copies."""
    code = _planned(folder).get("code")
    root = code.get("root") if isinstance(code, dict) else None
    return root if isinstance(root, str) else None


def _planned(folder: Path) -> dict[str, Any]:
    try:
        plan = json.loads(read_regular(folder / "plan.json", _PLAN))
    except (OSError, ValueError, RecursionError):
        return {}
    return plan if isinstance(plan, dict) else {}


def duration_text(state: RunState) -> str:
    """How long a run took, or has taken so far."""
    if state.started_at is None:
        return ""
    return took_text((state.ended_at or time.time()) - state.started_at)
