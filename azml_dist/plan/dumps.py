"""What `submit --watch-hangs` adds to a job: variables with which its ranks leave what they waited for."""

from __future__ import annotations

from typing import Any, TypeVar

J = TypeVar("J")

DUMPS = "./logs/flight_recorder_rank_"
"""Where a rank leaves its dump; torch appends the rank. Azure ML creates `./logs` and uploads its files as they appear.
torch creates no folder for it."""

WATCH_HANGS = {
    "PYTHONFAULTHANDLER": "1",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_FR_DUMP_TEMP_FILE": DUMPS,
    "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": DUMPS,
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_ENABLE_MONITORING": "1",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
}
"""The Flight Recorder of torch over NCCL, under its names of today and those before torch 2.9, and Python's stacks when
the watchdog of NCCL aborts a rank."""


def with_dumps(job: J) -> J:
    """The job with these variables, unless it sets them itself; of a sweep, each trial."""
    given: Any = job
    if hasattr(given, "environment_variables"):
        found = given.with_(environment_variables={**WATCH_HANGS, **given.environment_variables})
    else:
        found = given.with_(job=with_dumps(given.job))
    changed: J = found
    return changed
