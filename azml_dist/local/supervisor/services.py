"""Starts the services of a run, which end with it. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from azml_dist.local.launchers.starting import LaunchFailed, spawn

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec


def start_services(spec: Spec) -> list[str]:
    """Start TensorBoard for each service, on the files of node 0; returns what could not be started."""
    failed = []
    for service in spec["services"]:
        log_dir = os.path.join(spec["nodes"][0], service["log_dir"])
        argv = [spec["python"], "-m", "tensorboard.main", "--logdir", log_dir]
        # It could take memory on the GPUs of the ranks.
        env = {**spec["base_env"], "CUDA_VISIBLE_DEVICES": ""}
        name = re.sub(r"\W", "_", service["name"])
        log = os.path.join(spec["folder"], "system_logs", f"service_{name}.txt")
        try:
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            with contextlib.closing(os.fdopen(fd, "wb")) as output:
                command = [*argv, "--host", "127.0.0.1", "--port", str(service["port"])]
                spawn(command, "/", env, output.fileno())
        except (OSError, LaunchFailed) as error:
            failed.append(f"service `{service['name']}` could not be started: {error}")
    return failed
