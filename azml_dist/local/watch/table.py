"""The processes of each rank according to the system: their commands, states and CPU times."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_STAND_INS = ("rank.pyc",)
"""azml_dist's own processes, which start the user's command."""


class Process(NamedTuple):
    """One of them."""

    pid: int
    parent: int
    state: str
    """As in `ps`: `R` runs, `S` sleeps, `D` waits for a disk, `T` is stopped."""
    ticks: int
    """CPU time."""


class Member(NamedTuple):
    """A process of a rank."""

    rank: int
    process: Process
    words: tuple[str, ...]
    """Its command line."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_stopped(self) -> bool:
        return self.process.state in ("T", "t")

    @property
    def what(self) -> str:
        """Its command, short."""
        name = os.path.basename(self.words[0]) if self.words else "?"
        text = " ".join([name, *self.words[1:]])
        return text if len(text) <= 60 else text[:57] + "..."


def members(pids: Mapping[int, int]) -> list[Member]:
    """The processes of each rank from its given first one: parents before children, without azml_dist's own."""
    table = processes()
    by_parent: dict[int, list[int]] = defaultdict(list)
    for process in table.values():
        by_parent[process.parent].append(process.pid)
    found = []
    for rank, first in pids.items():
        tree = [first] if first in table else []
        for pid in tree:  # grows during the loop
            tree += sorted(by_parent[pid])
        for pid in tree:
            words = command_of(pid)
            if words and not any(word.endswith(_STAND_INS) for word in words):
                found.append(Member(rank, table[pid], words))
    return found


def processes() -> dict[int, Process]:
    """All living processes."""
    if not os.path.isdir("/proc/self"):
        return _by_ps()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command, in parentheses, may contain anything.
                    parts = file.read().rpartition(b")")[2].split()
                state = parts[0].decode()
                if state not in "ZX":
                    found[int(name)] = Process(int(name), int(parts[1]), state, int(parts[11]) + int(parts[12]))
    return found


def _by_ps() -> dict[int, Process]:
    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,time="], capture_output=True, text=True, check=False)
    found = {}
    for line in said.stdout.splitlines():
        pid, parent, state, took = line.split()
        seconds = 0.0
        for part in took.replace("-", ":").split(":"):
            seconds = seconds * 60 + float(part)
        if not state.startswith("Z"):
            found[int(pid)] = Process(int(pid), int(parent), state[0], int(seconds * TICKS))
    return found


def command_of(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(1 << 16).rstrip(b"\0").split(b"\0")
    except OSError:
        if os.path.isdir("/proc/self"):
            return ()
        said = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return tuple(said.stdout.split())
    return tuple(word.decode(errors="replace") for word in words)


def bytes_moved(pids: Iterable[int]) -> int:
    """How many bytes processes have read and written so far, if the system reports it."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/io", "rb") as file:
            lines = dict(line.split(b": ") for line in file.read().splitlines())
            total += int(lines[b"rchar"]) + int(lines[b"wchar"])
    return total


def wakings(pid: int) -> int | None:
    """How often the main thread of a process has waited and continued; None if the system does not count that."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"voluntary_ctxt_switches:"):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def libraries(pid: int) -> tuple[bool, bool]:
    """Whether a process is a Python, and whether it has loaded MPI."""
    try:
        exe = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        exe = os.path.basename((command_of(pid) or ("",))[0])
    is_python = exe.startswith("python")
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            maps = file.read()
    except OSError:
        return is_python, False
    return is_python or b"libpython3" in maps, b"/libmpi" in maps
