"""Makes the faults of an attempt happen at their time, and records them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from azml_dist.local import processes
from azml_dist.local.faults import network
from azml_dist.local.faults.disk import SmallDisk
from azml_dist.local.faults.inputs import Gone
from azml_dist.local.faults.none import SELDOM
from azml_dist.local.faults.said import Said
from azml_dist.local.faults.saves import Saves
from azml_dist.local.faults.slow import Slow
from azml_dist.local.launchers.hosts import Hosts
from azml_dist.local.launchers.starting import LaunchFailed
from azml_dist.local.state import FaultState, ProcessState, RunState
from azml_dist.model.fault import FROM_THE_START, Fault
from azml_dist.words import plural

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

_OF_RANKS = ("kill", "stop", "exit", "slow")
"""Faults that happen to the processes of ranks."""
_LONGEST_HOLD = 10.0
"""Seconds for which ranks may be held in an attempt, in all."""


class Run(Protocol):
    """What faults need from their attempt."""

    @property
    def stopping(self) -> bool: ...
    @property
    def hosts(self) -> Hosts: ...
    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def processes_of(self, rank: int) -> list[int]:
        """The processes of a rank, its command first, without any of ours."""

    def ends_with(self, rank: int, code: int) -> None:
        """Make the launcher of a rank report this exit code, however the rank ends."""

    def take_away(self, error: str, ranks: Collection[int]) -> None:
        """End the attempt as if the nodes of these ranks had been evicted."""

    def happened(self) -> None:
        """Save the record."""


class Faults:
    """Waits for the trigger of each fault. A fault that does not happen in one attempt may happen in the next."""

    def __init__(self, spec: Spec, state: RunState, run: Run) -> None:
        self._spec, self._state, self._run = spec, state, run
        faults = [Fault(**one) for one in spec["faults"]]
        self._waiting = [
            (fault, record) for fault, record in zip(faults, state.faults, strict=True) if record.at is None
        ]
        self._lasting: list[tuple[float, Callable[[], object]]] = []
        """What ends a lasting fault, and when."""
        self._slow: list[Slow] = []
        self._disks: list[SmallDisk] = []
        self._gone: list[Gone] = []
        self._saves: list[Saves] = []
        self._missed = 0
        """How many files were written too quickly for a `save` to catch the writer."""
        waiting = [fault for fault, _ in self._waiting]
        lines = [fault.line for fault in waiting if fault.line is not None]
        self._said = Said(spec["step_pattern"], lines, [fault.step for fault in waiting if fault.step is not None])
        self._held: set[int] = set()
        """Ranks that wait until it is known whether a fault counts their steps."""
        self._hold_until: float | None = None
        self._begun: float | None = None
        self._all_started: float | None = None
        self._started: set[int] = set()
        self._ended: set[int] = set()
        self._acts: dict[str, Callable[[Fault, list[int]], str | None]] = {
            "kill": self._kill,
            "stop": self._halt,
            "exit": self._exit,
            "preempt": self._preempt,
            "slow": self._slow_down,
            "partition": self._cut_off,
            "rate": self._limit,
            "disk": self._shrink,
            "input": self._hide,
        }

    # Called by the supervisor.

    def begin(self) -> None:
        """Before the first process: faults from the start. Raises `LaunchFailed`."""
        for fault, record in list(self._waiting):
            if fault.kind == "save":
                self._watch_saves(fault, record)
            elif fault.kind == "disk" or (fault.kind == "input" and fault.when == FROM_THE_START):
                self._waiting.remove((fault, record))
                self._happen(fault, record, FROM_THE_START)

    def started(self, rank: int) -> None:
        now = time.monotonic()
        self._begun = self._begun or now
        self._started.add(rank)
        self._said.started(rank)
        if len(self._started) == len(self._state.processes):
            self._all_started = now

    def heard(self, rank: int, data: bytes) -> None:
        if self._waiting:
            self._said.hear(rank, data)

    def ended(self, rank: int) -> None:
        self._ended.add(rank)

    def turn(self) -> float:
        """Make the faults happen that are due; returns the seconds until the next check."""
        now = time.monotonic()
        for entry in [entry for entry in self._lasting if now >= entry[0]]:
            self._lasting.remove(entry)
            entry[1]()
        if not self._run.stopping:
            for fault, record in list(self._waiting):
                if (why := self._due(fault, now)) and self._is_there(fault) and not self._run.stopping:
                    self._waiting.remove((fault, record))
                    self._happen(fault, record, why)
        for saves in self._saves:
            saves.turn(now)
        self._hold(now)
        return min((slow.turn(now) for slow in self._slow), default=SELDOM)

    def stop(self) -> None:
        """The attempt is ending: slow ranks run at full speed again."""
        self._hold(time.monotonic())
        for slow in self._slow:
            slow.end()
        self._slow = []

    def close(self) -> list[str]:
        """No process is left: keep everything that was written, and undo the faults for the next attempt."""
        for gone in self._gone:
            gone.give_back()
        return [problem for disk in self._disks if (problem := disk.take_back())]

    def never_came(self) -> list[str]:
        """What to report about faults that did not happen."""
        return [_never(fault, self._missed) for fault, _ in self._waiting]

    def reason(self, process: ProcessState) -> str | None:
        """What to report about a rank that a fault ended in this attempt."""
        for record in self._state.faults:
            if record.at is not None and record.attempt == self._state.retry and process.rank in record.ended:
                did = f"ended with exit code {process.exit_code}" if record.spec.startswith("exit") else "was killed"
                return f"rank {process.rank} {did} on purpose (`{record.spec}`)"
        return None

    # When.

    def _due(self, fault: Fault, now: float) -> str | None:
        """Why a fault is due, as written in its record."""
        ranks = self._ranks_of(fault)
        if fault.kind == "save" or not ranks or not self._started.issuperset(ranks):
            return None
        if fault.line is not None:
            said = self._said.line(fault.line)
            return said and f"{said.words}: {said.line[:200]}"
        if fault.step is not None:
            said = self._said.step(fault.step, ranks)
            return said and f"{said.words}: {said.line[:200]}"
        if self._all_started is None or now < self._all_started + (fault.after or 0):
            return None
        return f"{fault.after:g} s after all processes had started" if fault.after else "all processes had started"

    def _hold(self, now: float) -> None:
        """Stop a rank that is ahead while it is open whether its steps count: a fault at step 3 comes at step 3."""
        ahead = set() if self._run.stopping else self._ahead()
        if ahead and self._hold_until is None:
            self._hold_until = now + _LONGEST_HOLD
        if self._hold_until is not None and now > self._hold_until:
            ahead = set()
        self._send(self._held - ahead, signal.SIGCONT)
        self._send(ahead - self._held, signal.SIGSTOP)
        self._held = ahead

    def _ahead(self) -> set[int]:
        about = [(fault.step, self._ranks_of(fault)) for fault, _ in self._waiting if fault.step is not None]
        found = {self._said.ahead(step, ranks) for step, ranks in about if ranks}
        return {rank for rank in found if rank is not None and rank not in self._ended}

    def _is_there(self, fault: Fault) -> bool:
        """Whether the commands of the ranks run by now: under torchrun and mpirun, `rank.py` starts before them."""
        return fault.kind not in _OF_RANKS or all(self._run.processes_of(rank) for rank in self._ranks_of(fault))

    def _ranks_of(self, fault: Fault) -> list[int]:
        """The running ranks that a fault affects."""
        living = [p for p in self._state.processes if p.rank not in self._ended]
        if fault.rank is not None:
            return [p.rank for p in living if p.rank == fault.rank]
        if fault.node is not None:
            return [p.rank for p in living if p.node_rank == fault.node]
        return [p.rank for p in living]

    # What.

    def _happen(self, fault: Fault, record: FaultState, why: str) -> None:
        ranks = self._ranks_of(fault)
        at = round(time.monotonic() - self._begun, 3) if self._begun else 0.0
        record.attempt, record.trigger, record.step = self._state.retry, why, self._said.last_step
        record.pid = next(iter(self._run.processes_of(ranks[0])), None) if fault.rank is not None else None
        record.ended = ranks if fault.kind in ("kill", "exit") else []
        record.note = self._acts[fault.kind](fault, ranks)
        record.at = at
        self._run.happened()

    def _kill(self, _: Fault, ranks: list[int]) -> None:
        self._send(ranks, signal.SIGKILL)

    def _exit(self, fault: Fault, ranks: list[int]) -> None:
        for rank in ranks:
            self._run.ends_with(rank, fault.code)
        self._send(ranks, signal.SIGKILL)

    def _halt(self, fault: Fault, ranks: list[int]) -> None:
        self._send(ranks, signal.SIGSTOP)
        self._after(fault.seconds, lambda: self._send(ranks, signal.SIGCONT))

    def _preempt(self, fault: Fault, ranks: list[int]) -> None:
        which = "its nodes were" if fault.node is None else f"node {fault.node} was"
        when = f" after {fault.after:g} s" if fault.after else ""
        self._run.take_away(f"{which} evicted{when}", ranks)

    def _slow_down(self, fault: Fault, ranks: list[int]) -> None:
        slow = Slow(fault.times, lambda: [pid for rank in ranks for pid in self._run.processes_of(rank)])
        self._slow.append(slow)
        self._after(fault.seconds, lambda: self._at_full_speed(slow))

    def _at_full_speed(self, slow: Slow) -> None:
        if slow in self._slow:  # the attempt is not ending already
            slow.end()
            self._slow.remove(slow)

    def _cut_off(self, fault: Fault, _: list[int]) -> str | None:
        node = _number(fault.node)
        self._after(fault.seconds, lambda: network.cut_off(self._run.hosts, node, again=True))
        return network.cut_off(self._run.hosts, node)

    def _limit(self, fault: Fault, _: list[int]) -> str | None:
        node = _number(fault.node)
        self._after(fault.seconds, lambda: network.limit(self._run.hosts, node, None))
        return network.limit(self._run.hosts, node, fault.mbit)

    def _shrink(self, fault: Fault, _: list[int]) -> None:
        node, rooms = _number(fault.node), self._run.hosts.rooms
        if not rooms:
            raise LaunchFailed("this system does not allow a node to have its own disk", f"leave out `{fault.spec}`")
        folder = self._spec["folder"]
        folders = [self._spec["nodes"][node], *filter(os.path.isdir, [os.path.join(folder, "outputs")])]
        disk = SmallDisk(rooms[node], fault.size, folders, os.path.join(folder, f".disk-{node}"))
        try:
            disk.mount()
        except OSError as error:
            raise LaunchFailed(f"the small disk could not be created: {error}", f"leave out `{fault.spec}`") from error
        self._disks.append(disk)

    def _hide(self, fault: Fault, _: list[int]) -> None:
        self._gone.append(Gone(self._spec["inputs"][fault.name or ""]))

    def _watch_saves(self, fault: Fault, record: FaultState) -> None:
        outputs = os.path.join(self._spec["folder"], "outputs")
        folder = os.path.realpath(os.path.join(outputs, fault.name) if fault.name else outputs)

        def ranks_of() -> dict[int, list[int]]:
            wanted = self._ranks_of(fault if isinstance(fault.rank, int) else Fault(fault.spec, fault.kind))
            return {rank: self._run.processes_of(rank) for rank in wanted if rank in self._started}

        saves = Saves([folder], fault.count, ranks_of, os.path.realpath(self._spec["folder"]))

        self._saves.append(saves)

        def look() -> None:
            if (fault, record) not in self._waiting:
                self._run.unwatch(saves.fd)
                return
            caught = saves.read()
            self._missed = saves.missed
            if caught and not self._run.stopping:
                self._saves.remove(saves)
                self._waiting.remove((fault, record))
                record.rank, record.ended, record.attempt = caught.rank, [caught.rank], self._state.retry
                record.pid = next(iter(self._run.processes_of(caught.rank)), None)
                self._send([caught.rank], signal.SIGKILL)
                record.at = round(time.monotonic() - (self._begun or 0), 3)
                record.trigger, record.note, record.step = "a file was being written", caught.note, self._said.last_step
                self._run.happened()

        self._run.watch(saves.fd, look)

    def _send(self, ranks: Collection[int], signum: int) -> None:
        # The command of a rank first: a shell that outlived its program would turn the signal into an exit code.
        processes.send([pid for rank in ranks for pid in self._run.processes_of(rank)], signum)

    def _after(self, seconds: float | None, undo: Callable[[], object]) -> None:
        if seconds:
            self._lasting.append((time.monotonic() + seconds, undo))


def _number(place: int | str | None) -> int:
    assert isinstance(place, int)  # random values were drawn before the start
    return place


def _never(fault: Fault, missed: int) -> str:
    if fault.kind == "preempt" and fault.after and fault.node is None:
        return f"it finished before the simulated eviction after {fault.after:g} s"
    if fault.kind == "save" and missed:
        return (
            f"the fault `{fault.spec}` never happened: {plural(missed, 'file')} were closed before they could be caught"
        )
    late = "; lines that a script buffers arrive late (`python -u`, `flush=True`)" if fault.waits_for_lines else ""
    return f"the fault `{fault.spec}` never happened: {fault.what}, {fault.when}{late}"
