"""Finds the processes of a run and their descendants, and ends them all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ENOUGH_FILES = 1 << 20
"""More open files than any run has: without a limit, some systems refuse to set "none"."""
Limit = tuple[int, int]
"""The soft and the hard limit."""


def begin_with_default_signals() -> None:
    """Reset inherited signal settings: no signal is blocked or ignored, in this process and its children.

    `nohup`, a shell's `&` and some servers leave signals ignored. A rank would never get SIGINT, and a process that
    ignores SIGCHLD never learns how its children end.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for signum in signal.valid_signals():
        # Python itself ignores these two, and restores them in the processes that it starts.
        if signal.getsignal(signum) == signal.SIG_IGN and signum not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_DFL)


def file_limit() -> Limit:
    """How many files this process may have open."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/dev/fd"))


def files_of(launcher: str, node_count: int, process_count: int) -> int:
    """How many open files the neediest process of a run needs: its supervisor, or a daemon of Open MPI.

    Observed: the supervisor has two for each rank, a third if the rank runs under `rank.py`, and 14 more; a daemon of
    Open MPI 5 has six for each of its ranks and 17 more.
    """
    of_supervisor = (2 if launcher == "direct" else 3) * node_count * process_count
    return max(of_supervisor, 6 * process_count if launcher == "mpirun" else 0) + 3 * node_count + 30


def raise_file_limit() -> Limit:
    """Raise this process's limit of open files as far as possible; returns the old limit, for its children."""
    import resource

    before = file_limit()
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files(before), before[1]))
    return before


def most_files(limit: Limit) -> int:
    """The most files that a process can be allowed to open: the hard limit."""
    import resource

    soft, hard = limit
    if soft == resource.RLIM_INFINITY:
        return soft
    return max(soft, _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES))


def prepare_child(file_limit: Limit | None) -> Callable[[], None]:
    """What a child does before its program begins: unblock all signals, and set the given limit of open files.

    It also asks to be killed when this process ends (Linux). The system watches the thread that created the child, and
    the request does not apply to the child's own children.
    """
    import ctypes
    import resource

    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if file_limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, file_limit)
        if prctl:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def entering(namespaces: Iterable[int], cwd: str) -> Callable[[], None]:
    """What a child does before its program begins, to run it in other namespaces and in a folder of theirs (Linux)."""
    import ctypes

    setns = ctypes.CDLL(None, use_errno=True).setns

    def enter() -> None:
        try:
            for namespace in namespaces:
                if setns(namespace, 0):
                    raise OSError(ctypes.get_errno(), "cannot enter a namespace of the node")
            # After entering a mount namespace, the working directory is its root.
            os.chdir(cwd)
        except OSError as error:
            os.write(2, f"{cwd}: {error.strerror}\n".encode(errors="backslashreplace"))
            os._exit(1)

    return enter


def adopt_orphans() -> None:
    """Make this process adopt every descendant that loses its parent, however it was started (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """The living descendants of a process, without zombies."""
    by_parent = defaultdict(list)
    for child, parent in _living():
        by_parent[parent].append(child)
    found = list(by_parent[pid])
    for process in found:  # grows during the loop
        found += by_parent[process]
    return found


def children(pid: int) -> list[int]:
    """The living children of a process."""
    return [child for child, parent in _living() if parent == pid]


def end_descendants(deadline: float) -> list[int]:
    """Kill all descendants of this process, including new ones; returns those left at the deadline."""
    # Without children there are no descendants, and no reason to read the state of every process of the machine.
    while has_children() and (left := descendants(os.getpid())):
        send(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.005)
    reap()
    return []


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def send_group(pgid: int, signum: int) -> None:
    """Send a signal to each process of a group, if any is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def reap() -> list[tuple[int, int]]:
    """Reap every child that has ended: its id, and its status as `os.waitpid` returns it."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(result)
    return ended


def has_children() -> bool:
    """Whether this process has children; reaps those that have ended."""
    reap()
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _living() -> Iterable[tuple[int, int]]:
    """Every living process of this machine, with its parent."""
    if not os.path.isdir("/proc/self"):
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=False)
        rows = [line.split() for line in table.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if not state.startswith("Z")]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command, in parentheses, may contain anything.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in b"ZX":
                    found.append((int(name), int(parent)))
    return found
