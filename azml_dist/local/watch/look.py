"""Inspects a run: the stacks of all its processes, and the collectives that they have entered."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.errors import DistError
from azml_dist.local.state import RunState
from azml_dist.local.watch.place import place_of
from azml_dist.local.watch.spy import Taken, find_py_spy, take, with_source
from azml_dist.local.watch.table import TICKS, Member, libraries, members, processes
from azml_dist.verdict.collectives import Entry, Trace, read_trace
from azml_dist.verdict.hang import Picture, Seen
from azml_dist.verdict.plain import read_plain

_SHORTLY = 0.2
"""Seconds over which to measure how busy a process is."""
_PATIENCE = {b"s": 1.0, b"j": 3.0, b"p": 15.0}
"""Seconds for a process to answer, which needs its interpreter; torch needs some seconds to find lines of code."""
_MOST = 64_000_000
_WITH_SOURCE = 32
"""For how many collectives to read the source line."""


class Look(NamedTuple):
    """What was seen."""

    picture: Picture
    values: Mapping[int, str]
    """Values of variables in the user's frames, by process, as a text that changes when one of them does."""
    numbers: Mapping[int, str]
    """How many collectives of each group each rank has entered, also as a text."""


def look(
    folder: Path,
    state: RunState,
    ranks: Iterable[int] | None = None,
    *,
    values: bool = False,
    how: bytes = b"j",
    busy: Mapping[int, float] | None = None,
    taken: Mapping[int, Taken] | None = None,
) -> Look:
    """Inspect a running run.

    `values` also reads the values of variables. `how` is the request to its recorders: `s` for numbers, `j` for
    everything, `p` also for lines of code, for which a process stops for a second or more.
    `busy` is the share of a core that each process takes, if that was measured over a longer time, and `taken` are
    stacks that were taken just before.
    """
    wanted = None if ranks is None else set(ranks)
    running = {p.rank: p.pid for p in state.processes if p.pid and not _has_ended(p.exit_code, p.signal)}
    tree = members({rank: pid for rank, pid in running.items() if wanted is None or rank in wanted})
    place, roots = place_of(folder), code_roots(folder, state)
    begun = time.monotonic()
    kinds = {one.pid: libraries(one.pid) for one in tree}
    pythons = [one.pid for one in tree if kinds[one.pid][0]]
    py_spy = find_py_spy()
    before = taken or {}
    taken = {**before, **take([p for p in pythons if p not in before], place, roots, py_spy=py_spy, values=values)}
    if busy is None:
        time.sleep(max(0.0, _SHORTLY - (time.monotonic() - begun)))
        busy = _busy(tree, time.monotonic() - begun)
    asked = [one.pid for one in tree if one.pid in set(pythons) and not one.is_stopped]
    answers = _answers(place, asked, how=how, roots=roots)
    by_rank = {answer.trace.rank: answer for answer in answers.values()}
    picture = Picture(
        _seen(tree, kinds, taken, busy, roots),
        [answer.trace for answer in by_rank.values()],
        {p.rank: _how(p.exit_code, p.signal) for p in state.processes if _has_ended(p.exit_code, p.signal)},
        {p.rank: p.node_rank for p in state.processes},
        {p.rank: p.log for p in state.processes},
        frozenset(p.rank for p in state.processes if p.serves),
        ", ".join(sorted({one.by for one in taken.values() if one.by})),
    )
    picture = _as_launched_inside(picture, tree, {pid: answer.trace.rank for pid, answer in answers.items()})
    numbers = {rank: answer.numbers for rank, answer in by_rank.items()}
    return Look(picture, {pid: one.local for pid, one in taken.items()}, numbers)


def _as_launched_inside(picture: Picture, tree: Sequence[Member], ranks: Mapping[int, int]) -> Picture:
    """The picture with the ranks that a launcher in the command, such as torchrun, has given to what it started.

    `ranks` are those that processes themselves tell.
    """
    own = {one.pid: one.rank for one in picture.seen if not one.is_child}
    if all(own.get(pid) == rank for pid, rank in ranks.items()):
        return picture
    parents = {one.pid: one.process.parent for one in tree}
    outer = {ranks[one.pid]: one.rank for one in tree if one.pid in ranks}
    seen = []
    for one in picture.seen:
        pid: int | None = one.pid
        while pid is not None and pid not in ranks:
            pid = parents.get(pid)
        if pid is not None:  # what is left out is the launcher itself
            seen.append(replace(one, rank=ranks[pid], is_child=pid != one.pid))
    return replace(
        picture,
        seen=seen,
        ended={},
        nodes={rank: picture.nodes[outside] for rank, outside in outer.items()},
        logs={rank: picture.logs[outside] for rank, outside in outer.items()},
        outer=outer,
    )


def code_roots(folder: Path, state: RunState) -> list[str]:
    """The code folder of each node, with which paths in frames begin."""
    nodes = sorted({process.node_rank for process in state.processes})
    below = "nodes" if not state.retry else f"nodes/retry_{state.retry:03}"
    bases = dict.fromkeys([str(folder), os.path.realpath(folder)])
    return [f"{base}/{below}/{node}/" for base in bases for node in nodes]


def _has_ended(code: int | None, signum: int | None) -> bool:
    return code is not None or signum is not None


def _how(code: int | None, signum: int | None) -> str:
    return f"exit code {code}" if signum is None else f"signal {signum}"


def _busy(tree: Sequence[Member], seconds: float) -> dict[int, float]:
    now = processes()
    return {
        one.pid: (now[one.pid].ticks - one.process.ticks) / TICKS / seconds
        for one in tree
        if one.pid in now and seconds
    }


def _seen(
    tree: Sequence[Member],
    kinds: Mapping[int, tuple[bool, bool]],
    taken: Mapping[int, Taken],
    busy: Mapping[int, float],
    roots: Sequence[str],
) -> list[Seen]:
    """The first Python of each rank is the rank's own process; without one, its first process."""
    own: dict[int, int] = {}
    for one in tree:
        if kinds[one.pid][0]:
            own.setdefault(one.rank, one.pid)
    for one in tree:
        own.setdefault(one.rank, one.pid)
    sources: dict[str, list[str]] = {}
    folders = {root: root for root in roots}
    found = []
    for one in tree:
        is_python, uses_mpi = kinds[one.pid]
        if not is_python and own[one.rank] != one.pid and _is_shell(one):
            continue  # the shell around the command
        result = taken.get(one.pid, Taken((), problem="not a Python program: its stack is not shown"))
        threads = [with_source(stack, sources, folders) for stack in result.threads]
        found.append(
            Seen(
                one.rank,
                one.pid,
                one.what,
                threads,
                own[one.rank] != one.pid,
                is_python,
                one.is_stopped,
                busy.get(one.pid),
                uses_mpi,
                result.problem,
            )
        )
    return found


def _is_shell(one: Member) -> bool:
    return os.path.basename(one.words[0]) in ("bash", "sh", "dash", "nsenter", "setpriv")


# --- collectives


class _Answer(NamedTuple):
    trace: Trace
    numbers: str


def _answers(place: str | None, pids: Sequence[int], *, how: bytes, roots: Sequence[str]) -> dict[int, _Answer]:
    """The dump of each process that has a process group."""
    found = {}
    asked = {}
    for pid in pids:
        if place and (connection := _ask(os.path.join(place, f"{pid}.s"), how)):
            asked[pid] = connection
    deadline = time.monotonic() + _PATIENCE[how]
    for pid, connection in asked.items():
        with connection, contextlib.suppress(OSError, ValueError, DistError):
            found[pid] = _read(_received(connection, deadline), roots)
    return found


def is_in_a_collective(folder: Path, pid: int) -> bool:
    """Whether a process is inside a collective."""
    found = _answers(place_of(folder), [pid], how=b"j", roots=())
    return any(not one.left for answer in found.values() for one in answer.trace.entries)


def _ask(path: str, how: bytes) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(1)
        connection.connect(path)
        connection.sendall(how)
    except OSError:
        connection.close()
        return None
    return connection


def _received(connection: socket.socket, deadline: float) -> bytes:
    pieces, size = [], 0
    while size < _MOST:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        if not (piece := connection.recv(1 << 20)):
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _read(answer: bytes, roots: Sequence[str]) -> _Answer:
    head, _, data = answer.partition(b"\n")
    header: dict[str, Any] = json.loads(head)
    dump = json.loads(data) if data[:1] == b"{" else read_plain(data) if data else {}
    trace = read_trace(int(header["rank"]), dump, header["groups"], roots)
    sources: dict[str, list[str]] = {}
    entries = [
        *trace.entries[:-_WITH_SOURCE],
        *(_with_source(one, sources, roots) for one in trace.entries[-_WITH_SOURCE:]),
    ]
    return _Answer(replace(trace, entries=entries), json.dumps(dump.get("pg_status"), sort_keys=True))


def _with_source(entry: Entry, sources: dict[str, list[str]], roots: Sequence[str]) -> Entry:
    if entry.at is None:
        return entry
    return replace(entry, at=with_source((entry.at,), sources, {root: root for root in roots})[0])
