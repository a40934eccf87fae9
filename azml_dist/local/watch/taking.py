"""`azml-dist stacks`: what the processes of a run are doing, or did last if it has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from azml_dist.errors import DistError, NotFound
from azml_dist.local.state import RunState
from azml_dist.local.supervisor.watch import HANG
from azml_dist.local.watch.look import Look, look
from azml_dist.local.watch.spy import find_py_spy
from azml_dist.regular import read_regular
from azml_dist.verdict.hang import grouped
from azml_dist.verdict.kept import read
from azml_dist.verdict.stacked import Stacks
from azml_dist.verdict.verdict import Verdict

HUNG = frozenset(["canceled", "timeout", "hang", "unknown", "collective-timeout", "rendezvous", "launcher"])
"""Kinds of verdicts for which the hang says more about a run that hung when it ended."""
_MOST = 16_000_000


def stacks_of(folder: Path, state: RunState, ranks: Iterable[int] | None = None) -> Stacks:
    """The stacks of a run on this machine."""
    if state.kind:
        raise DistError(
            f"run {state.name} is a {state.kind}", hint="name one of its runs: `azml-dist status` lists them"
        )
    if state.is_final():
        return _last_known(folder, state, ranks)
    seen = look(folder, state)
    if not grouped(seen.picture, ranks):
        raise NotFound(
            f"run {state.name} has no process yet"
            if ranks is None
            else f"no process of {', '.join(f'rank {rank}' for rank in ranks)} is running",
            hint="`azml-dist status` shows which processes run",
        )
    if not any(one.threads for one in seen.picture.seen) and any(one.is_python for one in seen.picture.seen):
        raise DistError(f"cannot read any stack: {_why_not(seen.picture.seen)}", hint=how_to_allow())
    hangs = saved(folder) is not None
    found = Stacks.of(state.name, state.status, seen.picture, ranks, at=time.time(), hangs=hangs)
    if found.summary and seen.numbers and not hangs and _gets_on(seen, look(folder, state, how=b"s")):
        # Ranks are asked one after another: one that was asked sooner had only not come so far yet.
        return found.without_diagnosis()
    return found


def _gets_on(before: Look, after: Look) -> bool:
    """Whether a rank has entered or left a collective between two looks."""
    both = before.numbers.keys() & after.numbers.keys()
    return any(before.numbers[rank] != after.numbers[rank] for rank in both)


def _why_not(seen: Iterable[Any]) -> str:
    return next((one.problem for one in seen if one.is_python and one.problem), "py-spy gave none")


def how_to_allow() -> str:
    """What to do if neither py-spy nor the signal returns a stack."""
    if not find_py_spy():
        return "`pip install 'azml-dist[debug]'` installs py-spy, which reads the stacks of any Python process"
    return (
        "run this as root, or set `sysctl kernel.yama.ptrace_scope=0`; a container needs `--cap-add SYS_PTRACE`;"
        " a run that is watched (without `--no-watch`) needs none of this"
    )


def _last_known(folder: Path, state: RunState, ranks: Iterable[int] | None) -> Stacks:
    data = saved(folder)
    if data is None:
        raise NotFound(
            f"run {state.name} has ended ({state.status}) and was not seen to hang",
            hint="stacks exist only while a run is running; `azml-dist why` explains failures",
        )
    wanted = None if ranks is None else set(ranks)
    groups = [one for one in data["groups"] if wanted is None or wanted & {*one.get("ranks", ())}]
    return Stacks({**data, "groups": groups, "status": f"{state.status}, and this is where it hung"})


def hang_of(folder: Path) -> Verdict | None:
    """Why a run hangs, or hung when it ended; None if it does not."""
    return read(_saved(folder).get("verdict"), None)


def still_for(folder: Path) -> float:
    """For how many seconds nothing had moved when the hang was seen."""
    seconds = _saved(folder).get("still_for")
    return seconds if isinstance(seconds, int | float) else 0.0


def _saved(folder: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(read_regular(folder / HANG, _MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, Mapping) else {}


def saved(folder: Path) -> dict[str, Any] | None:
    """The stacks of a run that hangs or hung; None if it did not, or the file is not ours."""
    stacks = _saved(folder).get("stacks")
    if not isinstance(stacks, Mapping) or not isinstance(stacks.get("groups"), list):
        return None
    return {"name": folder.name, "status": "", **stacks}
