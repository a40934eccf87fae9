"""Starts a sweep or pipeline that outlives this process: another process starts its members and watches them."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.errors import DistError, JobError, LaunchError, Problem, RunFailed
from azml_dist.local.groups.group import Starter
from azml_dist.local.groups.run import GroupRun
from azml_dist.local.groups.start import group_of
from azml_dist.local.groups.start import start as start
from azml_dist.local.state import RunFolder

if TYPE_CHECKING:
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

_LOG = "driver.txt"
"""In the folder of the run: what went wrong in the process that starts its members."""


def start_detached(what: Sweep | Pipeline, executor: Starter, at_a_time: int = 1) -> GroupRun:
    """Start a sweep or pipeline in a process of its own, and return its run; raises like `start`."""
    group_of(what, executor, at_a_time)  # says what is wrong with a member
    package = str(Path(__file__).resolve().parents[3])
    code = f"import sys; sys.path.insert(0, {package!r}); from azml_dist.local.groups.detached import main; main()"
    try:
        order = pickle.dumps((what, executor, at_a_time))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise LaunchError(
            f"this cannot be handed over to another process: {error}", hint="leave `service` out, or do not detach"
        ) from error
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _left_behind.append(process)
    with suppress(BrokenPipeError):
        _send(process, order)
    return _answer(process)


_left_behind: list[subprocess.Popen[bytes]] = []
"""The processes that outlive this one; kept, since a `Popen` that is thrown away asks for its process."""


@atexit.register
def _let_run() -> None:
    for process in _left_behind:
        process.returncode = process.poll() or 0  # no warning that it is still running


def _send(process: subprocess.Popen[bytes], order: bytes) -> None:
    assert process.stdin
    with process.stdin as stdin:
        stdin.write(order)


def _answer(process: subprocess.Popen[bytes]) -> GroupRun:
    assert process.stdout
    with process.stdout as stdout:
        text = stdout.read()
    try:
        answer = json.loads(text)
    except ValueError:
        raise LaunchError(
            f"the process that was to start the members ended with exit code {process.wait()}",
            hint="run it without `--detach` to see why",
        ) from None
    if "folder" in answer:
        return GroupRun(RunFolder(os.fsdecode(answer["folder"].encode("utf-8", "surrogateescape"))))
    problems = [Problem(*problem) for problem in answer["problems"]]
    if answer["is_job"]:
        raise JobError.of(problems)
    error = LaunchError(problems[0].message)
    error.problems = problems
    raise error


def main() -> None:
    """The other process: gets its order on stdin, answers on stdout, and stays until the run has ended."""
    what, executor, at_a_time = pickle.load(sys.stdin.buffer)
    try:
        run = start(what, executor, at_a_time)
        answer: dict[str, Any] = {"folder": str(run.folder)}
    except DistError as error:
        answer = {"problems": error.problems, "is_job": isinstance(error, JobError)}
    os.write(1, json.dumps(answer).encode())
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if "folder" in answer:
        log = os.open(run.folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 2)
        with suppress(RunFailed):
            run.wait()
