"""How many processes a job has and where, and what is known about them only when a run starts. Pure.

Sources of the facts: *documented* means Azure ML's "Distributed GPU training guide" and "CLI (v2) command job YAML
schema"; *seen* means public logs and samples. What is *inferred* is a field of `Service` (`plan/service.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from azml_dist.model.job import JobFields
from azml_dist.plan.service import SERVICE as SERVICE
from azml_dist.plan.service import Service as Service
from azml_dist.words import plural

FROM_YOUR_ENVIRONMENT = "<from your environment>"
"""Placeholder for the value of a variable that the job sets to `None`; the value itself is never shown."""
_SHOWN_ADDRESSES = 8


class World(NamedTuple):
    """How many processes there are, and where."""

    distribution: str | None
    node_count: int
    process_count_per_node: int
    world_size: int

    def __str__(self) -> str:
        nodes = plural(self.node_count, "node")
        if self.distribution == "TensorFlow":
            return f"{nodes}, {plural(self.world_size, 'task')}"
        if self.distribution == "Ray":
            return f"{nodes}, the command on the head only"
        return f"{nodes} x {plural(self.process_count_per_node, 'process', 'processes')} = {self.world_size:,}"


class ProcessContext(NamedTuple):
    """One process: its rank, the environment that the run sets for it, and the name of its log."""

    rank: int
    node_rank: int
    local_rank: int
    role: str
    env: dict[str, str]
    log: str
    """Relative to the folder of the run, with the name that Azure ML would use."""


@dataclass(frozen=True)
class Place:
    """What is known only when a run starts. Until then, a plan shows placeholders in angle brackets."""

    run_id: str = "<run id>"
    root_run_id: str = ""
    """The id of the sweep or pipeline that the run belongs to; by default its own."""
    experiment_id: str = "<experiment id>"
    experiment_name: str = "<experiment name>"
    """For a job that sets none; azure-ai-ml uses the name of the current folder."""
    tracking_uri: str = "<MLflow tracking URI>"
    addresses: Sequence[str] = ()
    master_port: str = "<master port>"
    ports: Sequence[int] = ()
    """If all nodes are one machine: the port of each TensorFlow task by rank, or the port of Ray's head."""
    batch_master_port: str | None = None
    """Set where the port of the service cannot be used."""
    mpi_master_port: str | None = None
    """`MASTER_PORT` of an MPI job, which Azure ML does not set: only where the port that libraries choose is in use."""
    nccl_socket_ifname: str | None = None
    """Likewise: a machine without a network has only `lo`."""
    subscription: str = "<subscription of the workspace>"
    resource_group: str = "<resource group of the workspace>"
    workspace: str = "<name of the workspace>"
    attempt: int = 1
    """1, or more if the run was restarted on other nodes."""
    gpu_count: int | None = None
    """How many GPUs the processes of a node see; by default, those of the job's VM size."""
    working_dirs: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    """The folder on each node with its inputs, each as `INPUT_<name>`."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    own_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of the variables that the job sets to `None`. Never print them."""
    mark: str = "<{}>"
    """How a placeholder is written."""

    def address(self, node: int) -> str:
        return self.addresses[node] if self.addresses else self.mark.format(f"address of node {node}")

    def all_addresses(self, node_count: int) -> list[str]:
        """The address of every node; while many are still unknown, only the first and the last."""
        if self.addresses or node_count <= _SHOWN_ADDRESSES:
            return [self.address(node) for node in range(node_count)]
        return [self.address(0), f"<addresses of nodes 1 to {node_count - 2}>", self.address(node_count - 1)]

    def capability(self, node: int) -> str:
        return self.capabilities[node] if self.capabilities else f"<folder of inputs on node {node}>"

    def working_dir(self, node: int) -> str:
        return self.working_dirs[node] if self.working_dirs else self.mark.format(f"working directory of node {node}")

    def own_variable(self, name: str) -> str:
        """The value of a variable that the job sets to `None`."""
        return self.own_variables.get(name, self.mark.format(FROM_YOUR_ENVIRONMENT.strip("<>")))

    def value_of(self, job: JobFields, kind: str, name: str) -> str:
        """What `${{kind.name}}` becomes in the command."""
        if kind == "outputs":
            return self.outputs.get(name) or self.mark.format(f"path of output {name}")
        if job.is_data(name):
            return self.inputs.get(name) or job.local_path(name) or self.mark.format(f"path of input {name}")
        return job.literal(name) if job.has_value(name) else self.mark.format(f"input {name}")

    def with_marks_as(self, mark: str) -> Place:
        """The same place, with its placeholders written in another way."""
        unknown: dict[str, Any] = {
            name: mark.format(default.strip("<>"))
            for name, default in vars(Place()).items()
            if isinstance(default, str) and default.startswith("<") and getattr(self, name) == default
        }
        return replace(self, **unknown | {"mark": mark})


NOWHERE = Place()
"""Before a run starts: everything is still a placeholder."""


@dataclass(frozen=True)
class PlacedJob:
    """A job, the place where it runs, and our assumptions about the service: together they determine its processes."""

    job: JobFields
    place: Place = NOWHERE
    service: Service = SERVICE

    @cached_property
    def world(self) -> World:
        """The number of nodes, of processes per node, and of processes in all."""
        job, kind = self.job, self.kind
        if kind == "TensorFlow":
            return World(kind, job.node_count, 1, len(self.tasks))
        if kind == "Ray":
            return World(kind, job.node_count, 1, 1)
        return World(kind, job.node_count, job.process_count_per_node, job.node_count * job.process_count_per_node)

    @property
    def kind(self) -> str | None:
        """The distribution's name; None for a single process."""
        return type(self.job.distribution).__name__ if self.job.distribution else None

    @cached_property
    def tasks(self) -> Sequence[tuple[str, int]]:
        """TensorFlow's tasks, by rank: first the workers, one per node, then the parameter servers from node 0 on."""
        tf: Any = self.job.distribution
        return [("worker", i) for i in range(self.job.node_count)] + [
            ("ps", i) for i in range(tf.parameter_server_count)
        ]
