"""Reads the stacks of a Python process from outside: with py-spy, or with the start-up module's signal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from azml_dist.local.watch.startup import SIGNAL
from azml_dist.regular import NO_LINK, open_regular
from azml_dist.verdict.hang import AT_ITS_END
from azml_dist.verdict.stacks import Frame, Stack, from_faulthandler, from_py_spy

_AT_A_TIME = 8
_PATIENCE = 10.0
"""Seconds for py-spy to answer: it takes one or two for libraries with large symbol tables."""
_WRITING = 1.0
"""Seconds for a process to write its stacks after the signal."""
_MOST = 1 << 20
_NEEDS = {
    "Permission denied": "may not read this process",
    "Operation not permitted": "may not read this process",
    "ptrace": "may not read this process",
}


class Taken(NamedTuple):
    """The threads of a process, or why there are none."""

    threads: Sequence[Stack]
    by: str = ""
    problem: str = ""
    local: str = ""
    """The values of variables in the user's frames, as one text that changes when one of them does."""


def find_py_spy() -> str | None:
    """The path of py-spy: next to this Python, or on `PATH`."""
    return shutil.which("py-spy", path=os.path.dirname(sys.executable)) or shutil.which("py-spy")


def take(
    pids: Sequence[int], place: str | None, roots: Sequence[str], *, py_spy: str | None, values: bool = False
) -> dict[int, Taken]:
    """The stacks of these processes. `place` is the folder of the start-up module's files."""
    found: dict[int, Taken] = {}
    if py_spy:
        for at in range(0, len(pids), _AT_A_TIME):
            found |= _by_py_spy(py_spy, pids[at : at + _AT_A_TIME], roots, values)
    left = [pid for pid in pids if pid not in found or (found[pid].problem and not found[pid].threads)]
    if place and left:
        for pid, taken in _by_signal(left, place, roots).items():
            if taken.threads or pid not in found:
                found[pid] = taken
    nothing = Taken((), problem="py-spy is not installed" if not py_spy else "gave no stack")
    return {pid: found.get(pid, nothing) for pid in pids}


# --- py-spy


def _by_py_spy(py_spy: str, pids: Sequence[int], roots: Sequence[str], values: bool) -> dict[int, Taken]:
    # Without `--nonblocking`, it would stop the process while reading.
    options = ["dump", "--json", "--nonblocking", *(["--locals"] if values else [])]
    running = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            running[pid] = subprocess.Popen(
                [py_spy, *options, "--pid", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
    found = {}
    deadline = time.monotonic() + _PATIENCE
    for pid, process in running.items():
        try:
            out, said = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            found[pid] = _read_py_spy(out, said, roots)
        except subprocess.TimeoutExpired:  # noqa: PERF203 (one that gives no answer keeps no other from it)
            process.kill()
            process.communicate()
            found[pid] = Taken((), problem=f"py-spy gave no answer within {_PATIENCE:g} s")
    return found


def _read_py_spy(out: bytes, said: bytes, roots: Sequence[str]) -> Taken:
    try:
        threads = json.loads(out) if out.strip() else []
    except ValueError:
        threads = []
    if threads:
        stacks = [_without_ours(stack) for stack in from_py_spy(threads, roots)]
        return Taken([stack for stack in stacks if stack], "py-spy", "", _values(threads, roots))
    text = said.decode(errors="replace")
    for words, meaning in _NEEDS.items():
        if words in text:
            return Taken((), problem=f"py-spy {meaning}")
    if "Failed to find a python interpreter" in text:
        return Taken((), problem=AT_ITS_END)
    if "python version" in text or not text.strip():
        return Taken((), problem="py-spy finds no Python in it")
    reasons = [line for line in text.splitlines() if line.strip() and "thread 'main'" not in line]
    return Taken((), problem=f"py-spy: {reasons[0].removeprefix('Error: ')[:120]}" if reasons else "py-spy failed")


def _without_ours(stack: Stack) -> Stack:
    """The threads without the start-up module's own."""
    return () if any(frame.file.endswith("/watch/startup/sitecustomize.py") for frame in stack) else stack


def _values(threads: Sequence[Mapping[str, Any]], roots: Sequence[str]) -> str:
    told = []
    for thread in threads:
        for one in thread.get("frames") or ():
            if str(one.get("filename")).startswith(tuple(roots)) and one.get("locals"):
                told += [f"{local.get('name')}={local.get('repr')}" for local in one["locals"]]
    return "\n".join(told)


# --- the signal


def _by_signal(pids: Sequence[int], place: str, roots: Sequence[str]) -> dict[int, Taken]:
    """Send the signal to the processes that handle it, and wait until they have written."""
    asked = {}
    for pid in pids:
        path = os.path.join(place, str(pid))
        if (before := _size_if_open(pid, path)) is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, SIGNAL)
                asked[pid] = (path, before)
    deadline = time.monotonic() + _WRITING
    sizes: dict[int, int] = {}
    while time.monotonic() < deadline:
        time.sleep(0.03)
        now = {pid: _size(path) for pid, (path, _) in asked.items()}
        if now == sizes and all(now[pid] > before for pid, (_, before) in asked.items()):
            break
        sizes = now
    found = {}
    for pid, (path, before) in asked.items():
        stacks = [_without_ours(stack) for stack in from_faulthandler(_text(path, before), roots)]
        if stacks := [stack for stack in stacks if stack]:
            found[pid] = Taken(stacks, "signal")
    return found


def _size_if_open(pid: int, path: str) -> int | None:
    """The size of a process's file, if the process still has it open at the descriptor that it reported.

    The process may have closed all descriptors and opened a checkpoint there: a signal would write into that.
    """
    try:
        with open(open_regular(path, NO_LINK), "rb") as file:
            begun = file.readline(64).split()
        if len(begun) != 2 or begun[0] != b"fd":
            return None
        number = int(begun[1])
        if os.path.isdir("/proc/self") and not os.path.samefile(f"/proc/{pid}/fd/{number}", path):
            return None
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _text(path: str, begin: int) -> str:
    try:
        with open(open_regular(path, NO_LINK), "rb") as file:
            file.seek(begin)
            return file.read(_MOST).decode(errors="replace")
    except OSError:
        return ""


def with_source(stack: Stack, lines: dict[str, list[str]], folders: Mapping[str, str]) -> Stack:
    """The stack with the source of the user's lines. `folders` are the code folders, seen from the rank's own root."""
    return tuple(_with_source(frame, lines, folders) if frame.own else frame for frame in stack)


def _with_source(frame: Frame, lines: dict[str, list[str]], folders: Mapping[str, str]) -> Frame:
    for root in ("", *folders.values()):
        path = os.path.join(root, frame.file)
        if path not in lines:
            lines[path] = _lines(path)
        if 0 < frame.line <= len(lines[path]):
            text = lines[path][frame.line - 1].strip()
            return Frame(frame.file, frame.line, frame.function, True, text[:200])
    return frame


def _lines(path: str) -> list[str]:
    try:
        with open(open_regular(path), "rb") as file:
            return file.read(4 * _MOST).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return []
