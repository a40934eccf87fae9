"""The services of a job that can run on this machine: TensorBoard, on loopback, as long as the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from azml_dist.local.environment import has_module
from azml_dist.local.ports import Ports
from azml_dist.local.state import ServiceState
from azml_dist.model.job import JobFields

if TYPE_CHECKING:
    from azml_dist.local.spec import ServiceSpec

_TENSORBOARD = "tensor_board"
_HOST = "127.0.0.1"


class Services(NamedTuple):
    """What is started with a run."""

    specs: list[ServiceSpec]
    states: list[ServiceState]
    findings: list[str]


def services_of(job: JobFields, python: str, ports: Ports, *, keep_pythonpath: bool) -> Services:
    """The services of a job that are started here, and what to say about the others."""
    found = Services([], [], [])
    for name, service in job.services.items():
        if service.type != _TENSORBOARD:
            found.findings.append(f"service `{name}` ({service.type}) exists only on Azure ML")
        elif not has_module(python, "tensorboard", keep_pythonpath=keep_pythonpath):
            found.findings.append(f"service `{name}` was not started: {python} has no TensorBoard")
        else:
            port = ports.take()
            log_dir = getattr(service, "log_dir", None) or "."
            found.specs.append({"name": name, "log_dir": log_dir, "port": port})
            found.states.append(ServiceState(name, service.type, f"http://{_HOST}:{port}/"))
    if not job.services:
        found.findings.append("the job has no services to start")
    return found
