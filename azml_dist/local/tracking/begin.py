"""Prepares MLflow before a run starts: its MLflow run, the address to log to, and the token."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.local.tracking.endpoint import HOST, address, listen
from azml_dist.local.tracking.store import Refused, begin_run
from azml_dist.model.job import JobFields
from azml_dist.plan.world import Service

if TYPE_CHECKING:
    from azml_dist.local.spec import TrackingSpec


class Tracking(NamedTuple):
    """Where a run logs with MLflow."""

    listener: socket.socket
    run: Path
    """The folder of its MLflow run."""
    experiment: str
    token: str
    """The token, known only to the processes of the run; never written to a file."""
    service: Service

    @property
    def uri(self) -> str:
        return address(self.listener)

    @property
    def experiment_id(self) -> str:
        return self.run.parent.name

    def environment(self, known: Mapping[str, str]) -> dict[str, str]:
        """Further variables for MLflow in a process."""
        return {
            **_past_proxies(known),
            "MLFLOW_TRACKING_TOKEN": self.token,
            # Otherwise each rank prints the address of a page that does not exist.
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }

    def specification(self) -> TrackingSpec:
        """What the supervisor needs to know."""
        limits = {"parameters": self.service.parameters_a_run, "metric_rows": self.service.metric_rows_a_batch}
        return {"run": str(self.run), "token": self.token, "service": limits}


def begin_tracking(job: JobFields, folder: Path, service: Service) -> Tracking:
    """Create the MLflow run for a job that will run in the given folder."""
    experiment = job.experiment_name or "Default"
    literals = [name for name in job.inputs if not job.is_data(name)] if service.logs_inputs else []
    parameters = {name: job.literal(name) for name in literals}
    try:
        run = begin_run(folder, experiment, job.display_name or folder.name, parameters)
    except Refused as refused:
        raise LaunchError(str(refused), hint="stop the process that hangs, or choose another `--root`") from refused
    return Tracking(listen(), run, experiment, secrets.token_urlsafe(), service)


def _past_proxies(known: Mapping[str, str]) -> dict[str, str]:
    """Keeps MLflow's requests to this machine from going through a proxy, which could not deliver them."""
    if not any(known.get(name) for word in ("http_proxy", "all_proxy") for name in (word, word.upper())):
        return {}
    direct = known.get("no_proxy") or known.get("NO_PROXY")
    return dict.fromkeys(("no_proxy", "NO_PROXY"), f"{direct},{HOST}" if direct else HOST)
