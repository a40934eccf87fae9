"""The processes that own a local run, as tests find them below its command line, to kill one or another."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from running import children

Victim = Callable[["subprocess.Popen[str]"], int]
"""Finds one process of a run by its command line."""


def the_command_line(process: subprocess.Popen[str]) -> int:
    return process.pid


def the_warden(process: subprocess.Popen[str]) -> int:
    return _only_child(process.pid)


def the_guard(process: subprocess.Popen[str]) -> int:
    return _only_child(the_warden(process))


def the_supervisor(process: subprocess.Popen[str]) -> int:
    return _only_child(the_guard(process))


def _only_child(pid: int) -> int:
    [child] = children(pid, "guard_supervisor")
    return child
