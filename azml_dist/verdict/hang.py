"""Why a run hangs: which rank is the odd one out, where it is, and what the others wait for. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from azml_dist.verdict.collectives import Difference, Trace, compare
from azml_dist.verdict.stacks import (
    FOR_OTHERS,
    Frame,
    Stack,
    Wait,
    library_text,
    own_frame,
    since_start,
    wait_of,
)
from azml_dist.verdict.verdict import Certainty, Evidence, Verdict
from azml_dist.words import ranks_text

AT_ITS_END = "at its end: its Python has finished"
"""Instead of a stack: what is left of a process are libraries that wait, as MPI does for all ranks to come to this."""
BUSY = 0.1
"""The share of a core from which a process counts as busy."""


@dataclass(frozen=True)
class Seen:
    """A process of a run, at a moment."""

    rank: int
    pid: int
    what: str
    """Its command, short."""
    threads: Sequence[Stack] = ()
    """The main thread first; empty if it is not Python, or gave no stack."""
    is_child: bool = False
    """Started by the rank's own process: a worker of a DataLoader, a subprocess."""
    is_python: bool = True
    is_stopped: bool = False
    """By SIGSTOP, or a debugger."""
    busy: float | None = None
    """The share of a core that it takes; None if unknown."""
    uses_mpi: bool = False
    problem: str = ""
    """Why there is no stack."""

    @property
    def main(self) -> Stack:
        return self.threads[0] if self.threads else ()

    @property
    def wait(self) -> Wait | None:
        if self.problem == AT_ITS_END and self.uses_mpi:
            return Wait("mpi", "MPI_Finalize")
        return wait_of(self.main, uses_mpi=self.uses_mpi)


@dataclass(frozen=True)
class Picture:
    """A run at a moment."""

    seen: Sequence[Seen]
    traces: Sequence[Trace] = ()
    ended: Mapping[int, str] = field(default_factory=dict)
    """How ranks that are gone ended: `exit code 0`."""
    nodes: Mapping[int, int] = field(default_factory=dict)
    logs: Mapping[int, str] = field(default_factory=dict)
    serving: frozenset[int] = frozenset()
    """Ranks that serve the others, such as parameter servers, and are always waiting."""
    by: str = ""
    """What took the stacks."""

    outer: Mapping[int, int] = field(default_factory=dict)
    """The rank in the run of each rank that a launcher in the command, such as torchrun, has started."""

    @property
    def ranks(self) -> dict[int, Seen]:
        """The main process of each running rank."""
        own = (one for one in reversed(self.seen) if not one.is_child)
        return {one.rank: one for one in own if one.rank not in self.serving}

    def children(self, rank: int) -> list[Seen]:
        return [one for one in self.seen if one.is_child and one.rank == rank]


@dataclass(frozen=True)
class Diagnosis:
    """Who keeps whom waiting."""

    summary: str
    certainty: Certainty
    odd: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    frame: Frame | None = None
    """Where the odd one is; if there is none, where all are."""
    hint: str | None = None
    collective: Difference | None = None
    is_moving: bool = False
    """The odd one computes while the others wait, so nothing hangs."""


def diagnose(picture: Picture) -> Diagnosis | None:
    """The best answer; None if no rank waits, or nothing is known."""
    return (
        _stopped(picture)
        or _by_collectives(picture)
        or _by_ends(picture)
        or _by_meeting(picture)
        or _by_waits(picture)
        or _by_places(picture)
    )


def _stopped(picture: Picture) -> Diagnosis | None:
    ranks = picture.ranks
    stopped = sorted(rank for rank, one in ranks.items() if one.is_stopped)
    if not stopped:
        return None
    pids = " ".join(str(ranks[rank].pid) for rank in stopped)
    is_are = "is" if len(stopped) == 1 else "are"
    return Diagnosis(
        f"{ranks_text(stopped)} {is_are} stopped (SIGSTOP, or a debugger){_at(_place(picture, stopped[0]))}",
        "certain",
        tuple(stopped),
        tuple(sorted(ranks.keys() - {*stopped})),
        _place(picture, stopped[0]),
        f"`kill -CONT {pids}` lets {'it' if len(stopped) == 1 else 'them'} continue",
    )


# --- by what torch has recorded


def _by_collectives(picture: Picture) -> Diagnosis | None:
    found = compare(picture.traces, picture.ended)
    if not found:
        return None
    first = found[0]
    if absent := _elsewhere(picture, first):
        return _undecided(picture, first, absent)
    odd = first.odd
    place = _line_of(picture, first, odd[0] if odd else None)
    moving = first.what == "missing" and bool(odd) and odd != first.waiting and _is_moving(picture, odd)
    text = first.text + _where(picture, first, place)
    hint = _HINTS[first.what]
    waiting = tuple(rank for rank in first.waiting if rank not in odd)
    certainty: Certainty = "certain" if first.certain and odd else "likely"
    return Diagnosis(text, certainty, odd, waiting, place, hint, first, moving)


def _elsewhere(picture: Picture, difference: Difference) -> list[int]:
    """The ranks that have not entered a collective, if they are the most, and none of them waits for other ranks."""
    if difference.what != "missing" or difference.odd != difference.waiting:
        return []
    absent = sorted((set(difference.group.ranks) or picture.ranks.keys()) - {*difference.waiting})
    is_known = all(rank in picture.ranks and _place(picture, rank) for rank in absent)
    together = {rank for rank, wait in _waiting(picture).items() if not _PAIR.search(wait.call)}
    return absent if is_known and not together & {*absent} else []


def _undecided(picture: Picture, difference: Difference, absent: Sequence[int]) -> Diagnosis:
    """Few wait for many that are elsewhere: these keep them waiting, or the few should not be there."""
    there, here = _first_place(picture, absent), next(iter(difference.at.values()), None)
    told = [
        f"{ranks_text(ranks)} {'is' if len(ranks) == 1 else 'are'}{f' at {at}' if at else ' elsewhere'}"
        for at, ranks in _by_place(picture, absent).items()
    ]
    told += [f"{ranks_text(difference.waiting)} at {here.at}"] if here else []
    text = f"{difference.text} ({', '.join(told)})"
    moving = _is_moving(picture, absent)
    odd = tuple(absent) if moving else ()
    return Diagnosis(text, "likely", odd, difference.waiting, there, _HINTS["missing"], difference, moving)


_PAIR = re.compile(r"send|recv", re.IGNORECASE)
"""Calls that wait for one other rank, and not for all of them."""
_HINTS = {
    "missing": "all ranks of a group must make the same calls in the same order: look for a branch that some skip",
    "ended": "all ranks must make the same number of calls: a rank with fewer batches ends sooner",
    "operation": "all ranks of a group must make the same calls in the same order",
    "shapes": "give all ranks tensors of the same size: pad the last batch, or use `drop_last=True`",
    "crossed": "let all ranks use the groups in the same order",
}


def _line_of(picture: Picture, difference: Difference, rank: int | None) -> Frame | None:
    """Where a rank is; if it is in the collective, its call."""
    if rank is None:
        return next(iter(difference.at.values()), None) or _first_place(picture, difference.waiting)
    if difference.what == "ended" and rank in picture.ended:
        return difference.at.get(difference.waiting[0]) or _place(picture, difference.waiting[0])
    if rank in difference.waiting:
        return difference.at.get(rank) or _place(picture, rank)
    return _place(picture, rank)


def _where(picture: Picture, difference: Difference, place: Frame | None) -> str:
    """Where the odd one is, and where the others wait."""
    told = []
    if difference.odd and place and not (difference.what == "ended" and difference.odd[0] in picture.ended):
        told.append(f"{ranks_text(difference.odd)} {'is' if len(difference.odd) == 1 else 'are'} at {place.at}")
    lines = {rank: difference.at.get(rank) or _place(picture, rank) for rank in difference.waiting}
    others = [rank for rank in difference.waiting if rank not in difference.odd]
    there = lines[others[0]] if others else None
    # Some may wait in a later one: only the root of a gather waits in it.
    others = [rank for rank in others if (line := lines[rank]) is None or there is None or line.at == there.at]
    if there and there != place:
        told.append(f"{ranks_text(others)} at {there.at}")
    elif there and not told:
        told.append(f"at {there.at}")
    return f" ({', '.join(told)})" if told else ""


def _is_moving(picture: Picture, ranks: Iterable[int]) -> bool:
    """One of them computes, in its own process or in a child, and waits for no other."""
    for rank in ranks:
        own = picture.ranks.get(rank)
        if own and (own.busy or 0) >= BUSY and not (own.wait and own.wait.kind in FOR_OTHERS):
            return True
        if any((one.busy or 0) >= BUSY for one in picture.children(rank)):
            return True
    return False


# --- only by stacks


def _waiting(picture: Picture) -> dict[int, Wait]:
    waits = {rank: one.wait for rank, one in picture.ranks.items()}
    return {rank: wait for rank, wait in waits.items() if wait and wait.kind in FOR_OTHERS}


def _by_ends(picture: Picture) -> Diagnosis | None:
    waiting = _waiting(picture)
    if not picture.ended or not waiting:
        return None
    ended = sorted(picture.ended)
    if sorted([*waiting, *ended]) != sorted([*picture.ranks, *ended]):
        return None
    how = {picture.ended[rank] for rank in ended}
    why = f" ({how.pop()})" if len(how) == 1 else ""
    place = _first_place(picture, waiting)
    return Diagnosis(
        f"{ranks_text(ended)} {'has' if len(ended) == 1 else 'have'} ended{why}, and {_wait_text(picture, waiting)}",
        "likely",
        tuple(ended) if len(ended) <= len(waiting) else tuple(sorted(waiting)),
        tuple(sorted(waiting)),
        place,
        _HINTS["ended"],
    )


def _by_meeting(picture: Picture) -> Diagnosis | None:
    """Ranks that wait for the others to reach `init_process_group`, or TensorFlow's strategy."""
    waiting = _waiting(picture)
    meeting = {rank: wait for rank, wait in waiting.items() if wait.kind == "rendezvous"}
    if not meeting:
        return None
    absent = sorted(picture.ranks.keys() - meeting.keys())
    if not absent:
        place = _first_place(picture, meeting)
        return Diagnosis(
            f"every rank waits in {next(iter(meeting.values())).call}{_at(place)} for processes that do not arrive",
            "likely",
            (),
            tuple(sorted(meeting)),
            place,
            "compare its `world_size`, `rank` and address with `azml-dist plan`: it expects other processes",
        )
    return _apart(picture, absent, meeting, few=len(absent) < len(meeting))


def _by_waits(picture: Picture) -> Diagnosis | None:
    """Ranks that wait for others, by their frames, and those that do not."""
    waiting = _waiting(picture)
    if not waiting:
        return None
    others = sorted(picture.ranks.keys() - waiting.keys())
    if others:
        return _apart(picture, others, waiting, few=len(others) < len(waiting))
    by_place = _by_place(picture, waiting)
    if len(by_place) == 1 or len(picture.ranks) == 1:
        place = _first_place(picture, waiting)
        return Diagnosis(
            f"every rank waits in {next(iter(waiting.values())).call}{_at(place)}"
            if len(waiting) > 1
            else _wait_text(picture, waiting),
            "likely",
            (),
            tuple(sorted(waiting)),
            place,
            "a receive needs a send on another rank; if two ranks both send or receive first, swap the order on one",
        )
    smallest = sorted(by_place.values(), key=len)
    odd = sorted(smallest[0]) if len(smallest[0]) < len(smallest[1]) else []
    told = [_wait_text(picture, {rank: waiting[rank] for rank in ranks}) for ranks in smallest]
    place = _first_place(picture, odd) or _first_place(picture, waiting)
    rest = tuple(sorted(waiting.keys() - {*odd}))
    return Diagnosis("; ".join(told), "likely", tuple(odd), rest, place, _HINTS["operation"])


def _apart(picture: Picture, odd: list[int], waiting: Mapping[int, Wait], *, few: bool) -> Diagnosis:
    """Some wait, and some are elsewhere."""
    there = _first_place(picture, odd)
    moving = _is_moving(picture, odd)
    doing = "computing" if moving else "elsewhere"
    text = f"{_wait_text(picture, waiting)}, and {ranks_text(odd)} "
    text += f"{'is' if len(odd) == 1 else 'are'} {f'at {there.at}' if there else doing}"
    at_fault = odd if few or moving or len(odd) == len(waiting) else sorted(waiting)
    if at_fault is not odd and all(_TOGETHER.search(wait.call) for wait in waiting.values()):
        at_fault = []  # they are in the wrong place, or the others are
    place = _first_place(picture, waiting) if at_fault and at_fault is not odd else there
    rest = tuple(sorted((({*odd} if at_fault else set()) | waiting.keys()) - {*at_fault}))
    return Diagnosis(text, "likely", tuple(at_fault), rest, place, _HINTS["missing"], None, moving)


def _by_places(picture: Picture) -> Diagnosis | None:
    """No rank waits for another: the rank that is alone at its line, or all of them."""
    ranks = {rank: one for rank, one in picture.ranks.items() if one.threads}
    if not ranks or _is_moving(picture, ranks):
        return None
    by_place = sorted(_by_place(picture, ranks).values(), key=len)
    odd = sorted(by_place[0]) if len(by_place) == 1 or len(by_place[0]) < len(by_place[1]) else sorted(ranks)
    told = [f"{ranks_text(group)} {_doing(picture, group)}" for group in by_place[:4]]
    return Diagnosis("; ".join(told), "likely", tuple(odd), (), _first_place(picture, odd))


def _by_place(picture: Picture, ranks: Iterable[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for rank in sorted(ranks):
        place = _place(picture, rank)
        found[place.at if place else ""].append(rank)
    return found


def _place(picture: Picture, rank: int) -> Frame | None:
    """The line of a rank; if it waits for a DataLoader worker in the user's code, the worker's line."""
    own = picture.ranks.get(rank)
    if own is None:
        return None
    if own.wait and own.wait.kind in ("data-loader", "process", "lock"):
        for child in picture.children(rank):
            # A line of `python -c` says less than the one that started it.
            if (place := own_frame(since_start(child.main))) and not place.file.startswith("<"):
                return place
    return next((place for stack in own.threads if (place := own_frame(stack))), None)


def _first_place(picture: Picture, ranks: Iterable[int]) -> Frame | None:
    return next((place for rank in sorted(ranks) if (place := _place(picture, rank))), None)


def _at(place: Frame | None) -> str:
    return f" ({place.at})" if place else ""


def _wait_text(picture: Picture, waiting: Mapping[int, Wait]) -> str:
    """`ranks 0 and 1 wait in comm.recv (train.py:9)`."""
    call = next(iter(dict.fromkeys(wait.call for wait in waiting.values())))
    wait = "waits" if len(waiting) == 1 else "wait"
    return f"{ranks_text(waiting)} {wait} in {call}{_at(_first_place(picture, waiting))}"


def _doing(picture: Picture, ranks: Sequence[int]) -> str:
    one, place = picture.ranks[ranks[0]], _place(picture, ranks[0])
    wait, is_one = one.wait, len(ranks) == 1
    at = f" at {place.at}" if place else ""
    source = f": {place.source}" if place and place.source else ""
    if wait and wait.kind != "sleep":
        return f"{'waits' if is_one else 'wait'} in {wait.call}{at}{source}"
    return f"{'is' if is_one else 'are'}{at}{source}"


# --- as a verdict, and as groups


def verdict_of(found: Diagnosis, picture: Picture) -> Verdict:
    """The diagnosis in the form of every verdict."""
    rank = found.odd[0] if found.odd else None
    place = found.frame
    inside = " (as the launcher in the command counts ranks)" if picture.outer else ""
    return Verdict(
        kind="hang",
        certainty=found.certainty,
        rank=None if rank is None else picture.outer.get(rank, rank),
        ranks=_in_the_run(picture, found.odd),
        node=picture.nodes.get(rank) if rank is not None else None,
        exception=None,
        message=None,
        file=place.file if place else None,
        line=place.line if place else None,
        source=place.source or None if place else None,
        summary=found.summary + inside,
        hint=found.hint,
        followers=_in_the_run(picture, found.waiting),
        evidence=[
            Evidence(_in_the_run(picture, one.ranks)[0], picture.logs.get(one.ranks[0], ""), None, one.text)
            for one in grouped(picture)
        ],
    )


def _in_the_run(picture: Picture, ranks: Iterable[int]) -> list[int]:
    return sorted({picture.outer.get(rank, rank) for rank in ranks})


_TOGETHER = re.compile(r"barrier|bcast|gather|scatter|reduce|alltoall|scan", re.IGNORECASE)


def is_passing_through(picture: Picture) -> bool:
    """Every rank is in the same collective of MPI, which ends as all have come: they make one call after another."""
    ranks = picture.ranks
    waits = [one.wait for one in ranks.values()]
    if len(ranks) < 2 or picture.ended or not all(wait and wait.kind == "mpi" for wait in waits):
        return False
    calls = {wait.call for wait in waits if wait}
    places = {place.at if (place := own_frame(one.main)) else "" for one in ranks.values()}
    return len(calls) == len(places) == 1 and bool(_TOGETHER.search(calls.pop()))


@dataclass(frozen=True)
class Alike:
    """Processes with the same stack."""

    ranks: tuple[int, ...]
    pids: tuple[int, ...]
    what: str
    stack: Stack
    is_child: bool
    wait: Wait | None
    problem: str
    others: tuple[Stack, ...] = ()
    """Further threads that are in the user's own code."""

    @property
    def who(self) -> str:
        return f"{'children of ' if self.is_child else ''}{ranks_text(self.ranks)}"

    @property
    def text(self) -> str:
        """One line."""
        own = own_frame(self.stack)
        inside = library_text(self.stack)
        at = f"{own}{f' ({inside})' if inside else ''}" if own else inside or self.problem or "at its end"
        return f"{self.who}: {at}"

    def to_dict(self) -> dict[str, Any]:
        own = own_frame(self.stack)
        return {
            "ranks": list(self.ranks),
            "pids": list(self.pids),
            "process": self.what,
            "is_child": self.is_child,
            "frame": str(own) if own else None,
            "file": own.file if own else None,
            "line": own.line if own else None,
            "waits_in": self.wait.call if self.wait else None,
            "stack": [str(frame) for frame in self.stack],
            "threads": [[str(frame) for frame in stack] for stack in self.others],
            "problem": self.problem or None,
        }


def grouped(picture: Picture, ranks: Iterable[int] | None = None) -> list[Alike]:
    """Groups of equal stacks: ranks before their children, and the smallest groups first, since they are odd."""
    wanted = None if ranks is None else set(ranks)
    found: dict[tuple[Any, ...], list[Seen]] = defaultdict(list)
    for one in picture.seen:
        if wanted is None or picture.outer.get(one.rank, one.rank) in wanted:
            others = tuple(stack for stack in one.threads[1:] if own_frame(stack))
            found[one.is_child, one.main, others, one.problem, one.what if one.is_child else ""].append(one)
    groups = [
        Alike(
            tuple(sorted({one.rank for one in alike})),
            tuple(one.pid for one in alike),
            alike[0].what,
            main,
            is_child,
            alike[0].wait,
            problem,
            others,
        )
        for (is_child, main, others, problem, _), alike in found.items()
    ]
    return sorted(groups, key=lambda one: (one.is_child, len(one.ranks), one.ranks))
