"""Starts a sweep or pipeline."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from azml_dist.errors import LaunchError
from azml_dist.local.groups.driver import Driver
from azml_dist.local.groups.group import Group, Starter
from azml_dist.local.groups.run import GroupRun
from azml_dist.local.groups.steps import Steps
from azml_dist.local.groups.trials import Trials
from azml_dist.local.state import RunState
from azml_dist.pipeline import Pipeline
from azml_dist.status import RunStatus
from azml_dist.sweep import Sweep

if TYPE_CHECKING:
    from azml_dist.local.supervision import Supervision


def start(
    what: Sweep | Pipeline, executor: Starter, at_a_time: int = 1, supervision: Supervision | None = None
) -> GroupRun:
    """Start a sweep or pipeline and return its run, which ends with this process at the latest.

    The first member gets the supervisor that was started ahead, if any. If a member cannot run on this machine, raises
    before anything starts.
    """
    if sys.platform == "win32":
        raise LaunchError("local runs are not supported on Windows", hint="run this inside WSL")
    group = group_of(what, executor, at_a_time)
    folder, lock = executor.make_folder(group.job)
    try:
        state = RunState(folder.path.name, str(folder.path), status=RunStatus.RUNNING, kind=group.kind)
        state.display_name = group.job.display_name
        state.file = group.job.file and os.path.abspath(group.job.file)
        state.created_at = state.started_at = time.time()
        group.prepare(folder.path, state)
        folder.write(state)
    except BaseException:
        os.close(lock)
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    driver = Driver(group, executor.member_of(state.name), folder, state, lock, supervision)
    driver.start()
    return GroupRun(folder, driver)


def group_of(what: Sweep | Pipeline, executor: Starter, at_a_time: int) -> Group:
    """The members and their order; raises `JobError` for a member that cannot run on this machine."""
    return Steps(what, executor, at_a_time) if isinstance(what, Pipeline) else Trials(what, executor, at_a_time)
