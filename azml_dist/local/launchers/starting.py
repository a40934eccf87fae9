"""Starts processes, and says how one ended or why it could not start. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from azml_dist.local.processes import Limit, entering, prepare_child

FOLDER = Path(__file__).parent
"""The folder of the scripts that launchers start by path."""
REPORT_GRACE = 0.5
"""Seconds for a rank's own report to arrive after its launcher has given up."""
_LONGEST_WORD = 131071
"""The most bytes that Linux accepts in one argument, or in one variable with its name."""


class Exit(NamedTuple):
    """How the process of a rank ended. `stopped` if a stop signal had reached it before."""

    rank: int
    code: int | None
    signal: int | None
    stopped: bool = False
    time: float = 0.0
    unheard: bool = False
    """The wrapper of the rank was killed: how the rank itself would have ended is unknown."""


class LaunchFailed(Exception):
    """The processes could not be started, or their launcher failed."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def spawn(
    argv: list[str],
    cwd: str,
    env: dict[str, str],
    output: int,
    stdin: int = subprocess.DEVNULL,
    file_limit: Limit | None = None,
    within: Sequence[str] = (),
    namespaces: Sequence[int] = (),
) -> int:
    """Start a process in its own session, with stdout and stderr on one descriptor; returns its id.

    It ends when this process does. `file_limit` restores the limit for the user's programs; `within` are the words
    before the command that enter a node, and `namespaces` those that the process enters itself.
    """
    prepare = prepare_child(file_limit)
    enter = entering(namespaces, cwd) if namespaces else None

    def begin() -> None:
        if enter:
            enter()
        prepare()

    try:
        child = subprocess.Popen(
            [*within, *argv],
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=begin,
        )
    except OSError as error:
        raise cannot_start(argv, cwd, env, error.errno) from error
    child.returncode = 0  # the supervisor's loop reaps all its children, including this one
    return child.pid


def cannot_start(argv: list[str], cwd: str, env: dict[str, str], number: int | None) -> LaunchFailed:
    """The error for a program that could not be started, with a hint."""
    return LaunchFailed(
        f"{argv[0]} could not be started in {cwd}: {os.strerror(number or 0)}", hint_of(number, argv, env)
    )


def hint_of(number: int | None, argv: list[str], env: dict[str, str]) -> str | None:
    """What to do if the system cannot start a program."""
    if number == errno.E2BIG:
        return f"{_longest(argv, env)}; Linux allows {_LONGEST_WORD:,} for each: put it into a file"
    if number == errno.EAGAIN:
        return "the limit of processes is reached: check `ulimit -u`, and the pids limit of a container"
    if number == errno.ENOMEM:
        return "the machine is out of memory: check `free`, or run fewer processes"
    return None


def _longest(argv: list[str], env: dict[str, str]) -> str:
    sizes = {f"the variable {name}": len(os.fsencode(f"{name}={value}")) for name, value in env.items()}
    sizes["the command"] = max((len(os.fsencode(word)) for word in argv), default=0)
    longest = max(sizes, key=lambda what: sizes[what])
    if sizes[longest] <= _LONGEST_WORD:
        return f"the command and its variables have {sum(sizes.values()):,} bytes in total"
    return f"{longest} has {sizes[longest]:,} bytes"


def ending(status: int) -> tuple[int | None, int | None]:
    """Exit code and signal of a wait status; one of them is None."""
    code = os.waitstatus_to_exitcode(status)
    return (None, -code) if code < 0 else (code, None)


def ending_words(code: int | None, signum: int | None) -> str:
    """How a process ended, for a message."""
    return f"was ended by signal {signum}" if code is None else f"ended with exit code {code}"


_ERROR = re.compile(rb"^(?:\w+\.)*\w*(?:Error|Exception): .+", re.MULTILINE)


def last_error(log: str) -> str:
    """For a message: `: ` and the last error that Python printed at the end of a log, or an empty text."""
    errors = _ERROR.findall(tail(log))
    return f": {errors[-1].decode(errors='replace')}" if errors else ""


def tail(file: str | Path, size: int = 4096) -> bytes:
    """The last bytes of a file; empty if it does not exist."""
    try:
        with open(file, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - size))
            return log.read(size)
    except OSError:
        return b""
