"""The jobs of a probe: small ones of ours, each limited to five minutes by the service itself."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from azml_dist.job import Input, Job, Mpi, PyTorch, Ray, TensorFlow

Kind = Literal["pytorch", "mpi", "tensorflow", "ray", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SECONDS = 300
"""The `timeout` of each job."""
EXPERIMENT = "azml-dist-probe"
ENVIRONMENT = "azureml://registries/azureml/environments/acpt-pytorch-2.8-cuda12.6/labels/latest"
"""A curated environment with Python, torch and Open MPI."""
_PROCESSES = 8
"""On each node of the PyTorch job: one for each GPU of the largest sizes, and ranks of two digits on two nodes."""
_SCRIPT = Path(__file__).parent / "there" / "look.py"


class Effort(NamedTuple):
    """How much a probe does."""

    processes: int = _PROCESSES
    """On each node of the PyTorch job."""
    data_mb: int = 32
    """The file that is uploaded once, mounted, and read."""
    megabytes: int = 64
    """What each node writes to its disk, and what GPUs reduce; with 0, neither is measured."""
    serve: float = 60.0
    """Seconds for which a parameter server stays, to see whether the run waits for it."""


class Sent(NamedTuple):
    """One job of a probe."""

    kind: Kind
    job: Job


def jobs_of(
    kinds: Sequence[Kind], cluster: str, nodes: int, environment: str, folder: Path, effort: Effort
) -> list[Sent]:
    """The jobs; `folder` gets what they upload."""
    code = folder / "code"
    code.mkdir()
    shutil.copy(_SCRIPT, code)
    data = _data(folder, effort.data_mb)
    shared: dict[str, Any] = {
        "code": str(code),
        "compute": cluster,
        "environment": environment,
        "experiment_name": EXPERIMENT,
        "timeout": SECONDS,
        "display_name": "probe",
    }
    found: list[Sent] = []
    for kind in (one for one in KINDS if one in kinds):
        for job in _jobs(kind, nodes, effort):
            inputs: dict[str, Any] = {"probe": 1}
            options = f"--serve {effort.serve:g}"
            if not found:  # one job measures: the others would only cost more, and read what is cached on the node
                inputs |= {"data": Input(type="uri_file", path=str(data))}
                options = f"--measure --megabytes {effort.megabytes} --data ${{{{inputs.data}}}}"
            found.append(
                Sent(kind, job.with_(command=f'python look.py --shell "$0" {options}', inputs=inputs, **shared))
            )
    return found


def _jobs(kind: Kind, nodes: int, effort: Effort) -> Iterator[Job]:
    if kind == "pytorch":  # first, as it measures most
        yield Job(command="x", node_count=nodes, distribution=PyTorch(process_count_per_node=effort.processes))
    elif kind == "mpi":
        yield Job(command="x", node_count=nodes, distribution=Mpi(process_count_per_node=2))
    elif kind == "tensorflow":
        for servers in (1, 0):
            yield Job(command="x", node_count=nodes, distribution=TensorFlow(parameter_server_count=servers))
    elif kind == "ray":
        yield Job(command="x", node_count=nodes, distribution=Ray())
    else:
        yield Job(command="x")


def _data(folder: Path, megabytes: int) -> Path:
    """Always the same bytes, so that they are uploaded once, which no storage can compress."""
    file = folder / "data.bin"
    file.write_bytes(random.Random(0).randbytes(megabytes << 20))
    return file
