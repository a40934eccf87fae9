"""What a fault requires of the job and of this machine; otherwise it is refused before the start, with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from azml_dist.errors import JobError
from azml_dist.local.faults.network import cannot_limit
from azml_dist.model.fault import Fault, check_places
from azml_dist.plan.plan import LaunchPlan
from azml_dist.words import nearest_or_all, size_text


def check(fault: Fault, plan: LaunchPlan, *, apart: bool) -> None:
    """Raises `JobError` if a fault cannot happen in a run of this plan on this machine."""
    check_places(fault, len(plan.processes), plan.world.node_count)
    with_processes = {process.node_rank for process in plan.processes}
    if isinstance(fault.node, int) and fault.node not in with_processes and fault.kind in ("kill", "preempt"):
        raise _cannot(fault, f"no process of the job runs on node {fault.node}", "its command runs only on node 0")
    if fault.kind in ("partition", "rate"):
        _check_network(fault, apart)
    if fault.kind == "disk":
        _check_disk(fault, plan)
    if fault.kind == "input":
        _check_input(fault, plan)
    if fault.kind == "save":
        _check_outputs(fault, plan)


def _cannot(fault: Fault, why: str, hint: str | None) -> JobError:
    return JobError(f"fault `{fault.spec}`: {why}", hint=hint)


def _check_network(fault: Fault, apart: bool) -> None:
    if not apart:
        why = "all nodes share the network of this machine"
        raise _cannot(fault, why, 'add `--apart`, in Python `hosts="apart"` (Linux, as root): each node gets its own')
    if fault.kind == "rate" and (why_not := cannot_limit()):
        raise _cannot(fault, f"this system cannot limit a network: {why_not}", "use `partition`, or another machine")


def _check_disk(fault: Fault, plan: LaunchPlan) -> None:
    if sys.platform != "linux" or os.geteuid():
        raise _cannot(fault, "only root on Linux can give a node its own disk", "run as root, or leave the fault out")
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode
    ):
        raise _cannot(
            fault,
            "this system does not allow you to mount anything",
            "run on a system that allows it, or leave the fault out",
        )
    if (code := sum(file.size for file in plan.code.files)) >= fault.size:
        raise _cannot(fault, f"the code needs {size_text(code)} already", "set a larger `size`")


def _check_input(fault: Fault, plan: LaunchPlan) -> None:
    names = [name for name in plan.job.inputs if plan.job.is_data(name)]
    if fault.name in plan.job.inputs and fault.name not in names:
        raise _cannot(fault, f"the input `{fault.name}` is a value, not data", nearest_or_all(fault.name, names))
    if fault.name not in names:
        hint = nearest_or_all(fault.name, names) or "the job has no data inputs: leave the fault out"
        raise _cannot(fault, f"the job has no data input `{fault.name}`", hint)


def _check_outputs(fault: Fault, plan: LaunchPlan) -> None:
    if sys.platform != "linux":
        raise _cannot(fault, "only Linux reports files that are being written", "use `kill` with `@line=REGEX`")
    if not plan.job.outputs:
        raise _cannot(
            fault, "the job has no named output", "declare one under `outputs`, and write the checkpoints to it"
        )
    if fault.name and fault.name not in plan.job.outputs:
        raise _cannot(fault, f"the job has no output `{fault.name}`", nearest_or_all(fault.name, plan.job.outputs))
