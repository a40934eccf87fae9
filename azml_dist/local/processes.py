"""Processes of a run and their descendants: finding them, and ending them all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own, however it was started (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """The living descendants of a process, zombies left out."""
    by_parent = defaultdict(list)
    for child, parent in _living():
        by_parent[parent].append(child)
    found = list(by_parent[pid])
    for process in found:  # grows while it is read
        found += by_parent[process]
    return found


def children(pid: int) -> list[int]:
    """The living children of a process."""
    return [child for child, parent in _living() if parent == pid]


def end_descendants(deadline: float) -> list[int]:
    """Kill all descendants of this process, also those they start meanwhile; the ones left at the deadline."""
    while left := descendants(os.getpid()):
        send(left, signal.SIGKILL)
        reap()
        if time.monotonic() > deadline:
            return left
        time.sleep(0.005)
    reap()
    return []


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def send_group(pgid: int, signum: int) -> None:
    """Send a signal to each process of a group, if there is one left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended: its id and its status as `os.waitpid` gives it."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(result)
    return ended


def _living() -> Iterable[tuple[int, int]]:
    """Every process of this machine that has not ended, with its parent."""
    if not os.path.isdir("/proc/self"):
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=False)
        rows = [line.split() for line in table.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if not state.startswith("Z")]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command, in brackets, may hold anything.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in b"ZX":
                    found.append((int(name), int(parent)))
    return found
