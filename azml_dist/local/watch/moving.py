"""Whether a silent run makes progress: compares one look with the look before. Runs as a separate process.

Progress is cheap to see: a process that computes, data that is read or written, a process that starts or ends.
Only if there is none, the stacks of all processes are taken. A run hangs if two such looks, half of `stall_after`
apart, show the same lines, the same values of variables and the same number of collectives.

CPU time inside a wait for other ranks is not progress: Open MPI polls, and takes a whole core.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.local.state import RunFolder, RunState
from azml_dist.local.watch.look import Look, code_roots, is_in_a_collective, look
from azml_dist.local.watch.loops import loop_around
from azml_dist.local.watch.place import place_of, sweep
from azml_dist.local.watch.spy import Taken, find_py_spy, take, with_source
from azml_dist.local.watch.table import TICKS, Member, bytes_moved, libraries, members, processes, wakings
from azml_dist.verdict.hang import BUSY, Picture, Seen, diagnose, is_passing_through, verdict_of
from azml_dist.verdict.stacked import Stacks
from azml_dist.verdict.stacks import FOR_OTHERS, Stack

SEEN, RESULT = "seen.json", "result.json"
_MUCH = 1 << 18
"""More bytes than processes read and write just to check on others."""
_LEAST = 0.02
"""The share of a core that idle processes do not take, however many they are."""
_AT_ONCE = 0.3
"""Seconds between two measurements if there was no look before."""
_BETWEEN = 1.0
"""Seconds between the two looks that tell who waits for whom."""


class Before(NamedTuple):
    """What the look before has stored."""

    at: float
    ticks: Mapping[str, int]
    moved: int
    places: Any
    """Stacks, values and numbers; None if that look saw progress."""


def main(folder: str, scratch: str, how: str, last: str = "") -> None:
    """Entry point: look, and store the result in `scratch`. If the run hangs, `how` is the request to recorders.

    If it is the `last` look before the run is ended, it also tells who waits for whom in a run that makes progress.
    """
    run = RunFolder(folder)
    state = run.read()
    before = _before(Path(scratch, SEEN))
    running = {
        p.rank: p.pid for p in state.processes if p.pid and not p.serves and p.exit_code is None and not p.signal
    }
    tree = members(running)
    if place := place_of(run.path):
        sweep(place, processes)
    inspected: dict[int, Taken] = {}
    moves, now = _moves(run.path, state, tree, before, inspected), None
    result: dict[str, Any] = {"is": "moving", "why": moves}
    if not moves:
        was_still = before is not None and before.places is not None
        seen = look(run.path, state, values=True, how=b"j" if was_still else b"s", busy={}, taken=inspected)
        now = _places(seen, code_roots(run.path, state))
        is_still = before is not None and was_still and _are_same(before.places, now)
        result = {"is": "still" if is_still else "moving" if was_still else "first"}
        if is_still and is_passing_through(seen.picture):
            result = {"is": "moving", "why": "all ranks are in one collective"}
        elif is_still:
            seen = seen if how == "j" else look(run.path, state, how=how.encode(), busy={})
            result |= _what_hangs(state, seen.picture)
    if last and result["is"] == "moving":
        result["waits"] = _who_waits(run.path, state)
    _leave(Path(scratch, SEEN), _snapshot(tree, now))
    _leave(Path(scratch, RESULT), result)


def _before(path: Path) -> Before | None:
    try:
        data = json.loads(path.read_bytes())
        return Before(data["at"], data["ticks"], data["moved"], data["places"])
    except (OSError, ValueError, LookupError):
        return None


def _snapshot(tree: Sequence[Member], places: Any) -> dict[str, Any]:
    table = processes()
    return {
        "at": time.monotonic(),
        "ticks": {str(one.pid): table[one.pid].ticks for one in tree if one.pid in table},
        "moved": bytes_moved(one.pid for one in tree),
        "places": places,
    }


def _leave(path: Path, value: Any) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(value))
    draft.rename(path)


# --- progress that is cheap to see


def _moves(
    folder: Path, state: RunState, tree: Sequence[Member], before: Before | None, inspected: dict[int, Taken]
) -> str:
    """What makes progress; empty if nothing does. Stacks that it takes are added to `inspected`."""
    if not tree:
        return "no process has started yet"
    if before is None:
        before = Before(time.monotonic(), {str(one.pid): one.process.ticks for one in tree}, 0, None)
        time.sleep(_AT_ONCE)
    elif before.ticks.keys() != {str(one.pid) for one in tree}:
        return "a process has started or ended"
    elif bytes_moved(one.pid for one in tree) - before.moved > _MUCH:
        return "data is read or written"
    busy = _busy(tree, before)
    if not busy:
        return ""
    kinds = {one.pid: libraries(one.pid) for one in busy}
    for one in busy:
        if not kinds[one.pid][0]:
            return f"rank {one.rank} computes: {one.what}"
    return _computes(folder, state, busy, {pid: kind[1] for pid, kind in kinds.items()}, inspected)


def _busy(tree: Sequence[Member], before: Before) -> list[Member]:
    """The processes that take a core, or want one; the busiest first.

    Many ranks on few cores get little each: of those, a small share counts, and so does one that is ready to run.
    """
    table, seconds = processes(), max(0.01, time.monotonic() - before.at)
    enough = max(_LEAST, BUSY * min(1.0, (os.cpu_count() or 1) / max(1, len(tree))))
    spent = {
        one.pid: (table[one.pid].ticks - before.ticks.get(str(one.pid), 0)) / TICKS / seconds
        for one in tree
        if one.pid in table
    }
    ready = {pid for pid, share in spent.items() if share > 0 and table[pid].state == "R"}
    busy = [one for one in tree if spent.get(one.pid, 0) >= enough or one.pid in ready]
    return sorted(busy, key=lambda one: -spent[one.pid])


def _computes(
    folder: Path,
    state: RunState,
    busy: Sequence[Member],
    mpi: Mapping[int, bool],
    inspected: dict[int, Taken],
) -> str:
    """The first of them that does not wait for others. Mostly the busiest one does not, so it is inspected first."""
    py_spy, place, roots = find_py_spy(), place_of(folder), code_roots(folder, state)
    for one in busy:
        if one.pid not in inspected:
            due = [other.pid for other in (busy if inspected else [one]) if other.pid not in inspected]
            inspected.update(take(due, place, roots, py_spy=py_spy, values=True))
        taken = inspected[one.pid]
        stacks, problem = _with_lines(taken.threads, roots), taken.problem
        wait = Seen(one.rank, one.pid, one.what, stacks, uses_mpi=mpi[one.pid], problem=problem).wait
        # Under NCCL, a process may poll in any line for a collective that it has entered.
        if not (wait and wait.kind in FOR_OTHERS - {"tensorflow"}) and not is_in_a_collective(folder, one.pid):
            return f"rank {one.rank} computes"
    return ""


def _with_lines(threads: Sequence[Stack], roots: Sequence[str]) -> list[Stack]:
    """The stacks with the text of the user's lines, by which a call of MPI is known."""
    lines: dict[str, list[str]] = {}
    return [with_source(stack, lines, {root: root for root in roots}) for stack in threads]


# --- what hangs


def _places(seen: Look, roots: Sequence[str]) -> Any:
    """What two looks compare."""
    return {
        "lines": {str(one.pid): _lines(one, roots) for one in seen.picture.seen if one.main},
        "values": {str(pid): text for pid, text in seen.values.items()},
        "numbers": {str(rank): text for rank, text in sorted(seen.numbers.items())},
        "wakings": {str(one.pid): count for one in seen.picture.seen if (count := _wakings(one, roots)) is not None},
    }


def _lines(one: Seen, roots: Sequence[str]) -> list[tuple[str, int]]:
    """The user's own lines that the main thread is in; those of a loop that only polls count as one."""
    own = [frame for frame in one.main if frame.own]
    if not own:
        return [(frame.file, frame.line) for frame in one.main]
    lines = [(frame.file, frame.line) for frame in own]
    loop = loop_around(own[0], roots)
    return [(own[0].file, loop.line), *lines[1:]] if loop and not loop.gets_on else lines


def _wakings(one: Seen, roots: Sequence[str]) -> int | None:
    """How often a process has woken that is in a loop of the user's own that gets on, and waits for no other rank."""
    innermost = one.main[0] if one.main else None
    is_waiting = one.wait is not None and one.wait.kind in FOR_OTHERS
    if innermost is None or not innermost.own or is_waiting:
        return None
    loop = loop_around(innermost, roots)
    return wakings(one.pid) if loop and loop.gets_on else None


def _are_same(before: Any, now: Any) -> bool:
    """Whether everything that both looks saw is unchanged; what one of them could not read does not count."""
    now = json.loads(json.dumps(now))
    return all(before[kind][key] == value for kind in now for key, value in now[kind].items() if before[kind].get(key))


def _what_hangs(state: RunState, picture: Picture) -> dict[str, Any]:
    """The diagnosis, as stored for readers."""
    found = diagnose(picture)
    stacks = Stacks.of(state.name, state.status, picture, at=time.time()).to_dict()
    verdict = asdict(verdict_of(found, picture)) if found else None
    return {"verdict": verdict, "stacks": stacks | {"is_moving": False}}


def _who_waits(folder: Path, state: RunState) -> str:
    """Which ranks wait for which, though those compute; empty unless two looks show the same."""
    looks = [look(folder, state)]
    time.sleep(_BETWEEN)
    looks += [look(folder, state)]
    first, second = (diagnose(one.picture) for one in looks)
    if first is None or second is None or not (second.odd and second.waiting):
        return ""
    is_same = (first.odd, first.waiting) == (second.odd, second.waiting)
    have_gone_on = any(looks[0].numbers.get(rank) != looks[1].numbers.get(rank) for rank in second.waiting)
    if not is_same or have_gone_on:
        return ""
    return (second if second.frame else first).summary  # the stack of a busy process cannot always be read


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
