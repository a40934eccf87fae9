"""Why a run may have waited until its timeout: processes that wait for others that are never started."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from azml_dist.local.state import RunState

_BEGINNING = 1 << 18
_LIGHTNING = re.compile(rb"GLOBAL_RANK: \d+, MEMBER: \d+/(\d+)")
"""What Lightning prints in each process before its processes meet."""


def why_it_waited(run: RunState, folder: Path) -> str | None:
    """The hint for a run that reached its timeout, if its logs or its job show why."""
    if any(process.serves for process in run.processes):
        return _of_parameter_servers(run)
    started = len(run.processes)
    waits_for = next(filter(None, (_members(folder / process.log) for process in run.processes)), None)
    if waits_for and waits_for > started:
        each = run.world.get("process_count_per_node", 1)
        return (
            f"Lightning waits for {waits_for} processes, and the job starts {started}: give its Trainer"
            f" `devices={each}`, the number of processes per node, or start one process per device"
        )
    return None


def _of_parameter_servers(run: RunState) -> str | None:
    if any(process.exit_code is not None for process in run.processes if not process.serves):
        return None  # a worker finished, so the tasks had met
    return (
        "TF_CONFIG on Azure ML has no `chief`, and without one all tasks of a ParameterServerStrategy wait: make worker"
        " 0 the chief, as `samples/tensorflow_parameter_server/train.py` does"
    )


def _members(log: Path) -> int | None:
    """The number of processes that Lightning expects, according to the beginning of a log."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        if found := _LIGHTNING.search(file.read(_BEGINNING)):
            return int(found[1])
    return None
