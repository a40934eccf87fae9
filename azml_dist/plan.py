"""What a job means: one world, the environment of every process in it, its command, files and request. Pure.

This is the only place that computes a world. The executors fill in what is known at the start alone, a `Place`.

Sources of the facts: "Distributed GPU training guide" and "CLI (v2) command job YAML schema" of Azure ML's
documentation where a docstring says *documented*; public logs and samples where it says *seen*. What is *inferred*
is a field of `Service`, to be changed in one place once somebody has seen it otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from azml_dist.errors import JobError, Problem
from azml_dist.findings import findings_of
from azml_dist.snapshot import NO_CODE, Snapshot, take_snapshot

if TYPE_CHECKING:
    from azml_dist.job import Job

FROM_YOUR_ENVIRONMENT = "<from your environment>"
"""Stands for the value of a variable that the job marks `None`; the value itself is never shown."""

_EXPRESSION = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")


@dataclass(frozen=True)
class Service:
    """What Azure ML is taken to do where no page of its documentation says so."""

    node_log_width: int = 2
    """Digits of the node in `std_log_node_00_worker.txt`. Seen in the SDK's own test data."""
    rank_log_width: Callable[[int], int] = lambda world_size: len(str(world_size - 1))
    """Digits of the rank in `std_log_process_0.txt`. Inferred: recent jobs show those of the largest rank."""
    process_name: str = "rank_{rank}"
    """`AZUREML_PROCESS_NAME`. Inferred: the number is the rank in the world, not the one on the node."""
    tensorflow_port: int = 2222
    """The first port of a node's tasks. Documented; that a second task gets the next one is seen."""
    tensorflow_first: str = "ps"
    """Which of two tasks on a node has the first port: `ps` or `worker`. Both are seen, each in one job."""
    serving_roles: tuple[str, ...] = ("ps",)
    """Roles that serve the others and never end by themselves: the run is over without them. Inferred."""
    ray_port: int = 6379
    """The port of Ray's head, where the job names none. Inferred: it is Ray's own default."""
    mpi_master_port: int = 6105
    """The port in `AZ_BATCH_MASTER_NODE`. Seen in the helpers that read it."""
    nccl_socket_ifname: str = "^docker0,lo"
    """`NCCL_SOCKET_IFNAME` of MPI jobs. That it is set is seen; the value is inferred."""


SERVICE = Service()


class World(NamedTuple):
    """How many processes there are, and where."""

    distribution: str | None
    node_count: int
    process_count_per_node: int
    world_size: int

    def __str__(self) -> str:
        nodes = _count(self.node_count, "node")
        if self.distribution == "TensorFlow":
            return f"{nodes}, {_count(self.world_size, 'task')}"
        if self.distribution == "Ray":
            return f"{nodes}, the command on the head alone"
        return f"{nodes} x {_count(self.process_count_per_node, 'process', 'processes')} = {self.world_size:,}"


class ProcessContext(NamedTuple):
    """One process: its place in the world, the environment the run gives it, and the name of its log."""

    rank: int
    node_rank: int
    local_rank: int
    role: str
    env: dict[str, str]
    log: str
    """Relative to the run's folder, under the name that Azure ML gives it."""


@dataclass(frozen=True)
class Place:
    """What is known only when a run starts. What a plan does not know yet stands as a mark in angle brackets."""

    run_id: str = "<run id>"
    root_run_id: str = ""
    """Of the sweep or pipeline that the run belongs to; its own where there is none."""
    experiment_id: str = "<experiment id>"
    experiment_name: str = "<experiment name>"
    """Of a job that names none; azure-ai-ml takes the name of the folder it is called in."""
    tracking_uri: str = "<MLflow tracking URI>"
    addresses: Sequence[str] = ()
    master_port: str = "<master port>"
    ports: Sequence[int] = ()
    """Where all nodes are one machine: the port of each TensorFlow task by rank, or that of Ray's head."""
    mpi_master_port: str | None = None
    """Where it cannot be the one of the service."""
    nccl_socket_ifname: str | None = None
    """Likewise: a machine without a network has `lo` alone."""
    working_dirs: Sequence[str] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    own_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of the variables that the job marks `None`. Not for printing."""

    def address(self, node: int) -> str:
        return self.addresses[node] if self.addresses else f"<address of node {node}>"

    def working_dir(self, node: int) -> str:
        return self.working_dirs[node] if self.working_dirs else f"<working directory of node {node}>"

    def value_of(self, job: Job, kind: str, name: str) -> str:
        """What `${{kind.name}}` becomes in the command."""
        if kind == "outputs":
            return self.outputs.get(name, f"<path of output {name}>")
        if not job.is_data(name):
            return job.literal(name)
        return self.inputs.get(name) or job.local_path(name) or f"<path of input {name}>"


@dataclass(frozen=True)
class LaunchPlan:
    """The meaning of a job: `print` it for a table; `processes[3].env`, `command` and `request` for the parts."""

    job: Job
    code: Snapshot
    place: Place = Place()
    service: Service = SERVICE

    @cached_property
    def world(self) -> World:
        """The number of nodes, of processes on each, and of all together."""
        job, kind = self.job, _kind(self.job)
        if kind == "TensorFlow":
            return World(kind, job.node_count, 1, len(self._tasks))
        if kind == "Ray":
            return World(kind, job.node_count, 1, 1)
        return World(kind, job.node_count, job.process_count_per_node, job.node_count * job.process_count_per_node)

    @property
    def processes(self) -> Sequence[ProcessContext]:
        """Every process of the world in order of rank; each is computed when it is asked for."""
        return _Processes(self)

    @cached_property
    def command(self) -> str:
        """The command as the shell of each process gets it, its expressions replaced."""
        command = self.job.without_optional_parts(self.job.shell_command)
        return _EXPRESSION.sub(lambda m: self.place.value_of(self.job, m[1], m[2]), command)

    @cached_property
    def request(self) -> dict[str, Any]:
        """The body that azure-ai-ml puts on the wire; ids that only the service knows are None."""
        from azml_dist.request import request_body

        return request_body(self.job)

    @cached_property
    def findings(self) -> tuple[Problem, ...]:
        """What is allowed, and worth a second look before it costs a queue."""
        return findings_of(self.job, self.code)

    def at(self, place: Place) -> LaunchPlan:
        """The same plan at a known place: every mark replaced by what it stands for."""
        return replace(self, place=place)

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist plan --json` prints."""
        return {
            "name": self.job.name,
            "world": self.world._asdict(),
            "processes": [process._asdict() for process in self.processes],
            "command": self.command,
            "request": self.request,
            "code": {
                "root": self.code.root,
                "files": len(self.code.files),
                "bytes": self.code.bytes,
                "paths": [file.path for file in self.code.files],
                "excluded": [excluded._asdict() for excluded in self.code.excluded],
            },
            "findings": [{"message": p.message, "hint": p.hint, "where": p.where} for p in self.findings],
        }

    def __str__(self) -> str:
        from azml_dist.render import plan_text

        return plan_text(self)

    def __repr__(self) -> str:
        name = self.job.display_name or self.job.name
        return f"<LaunchPlan {name}: {self.world}>" if name else f"<LaunchPlan: {self.world}>"

    def _repr_html_(self) -> str:
        from azml_dist.render import plan_html

        return plan_html(self)

    @cached_property
    def _tasks(self) -> Sequence[tuple[str, int]]:
        """TensorFlow's tasks, by rank: the workers, one a node, then the parameter servers, from node 0 on."""
        tf: Any = self.job.distribution
        servers = tf.parameter_server_count
        return [("worker", i) for i in range(self.job.node_count)] + [("ps", i) for i in range(servers)]

    @cached_property
    def _cluster(self) -> dict[str, list[str]]:
        """`cluster` of `TF_CONFIG`: the address of every task, and no `ps` where there is none."""
        cluster: dict[str, list[str]] = {role: [] for role in ("ps", "worker") if (role, 0) in self._tasks}
        for rank, (role, node) in enumerate(self._tasks):
            ports = self.place.ports
            port = ports[rank] if ports else self.service.tensorflow_port + _local_task(self, role, node)
            cluster[role].append(f"{self.place.address(node)}:{port}")
        return cluster

    @cached_property
    def _common_env(self) -> dict[str, str]:
        return _common_env(self)

    def _process(self, rank: int) -> ProcessContext:
        return _BUILDERS[_kind(self.job)](self, rank)


def plan_job(job: Job) -> LaunchPlan:
    """The plan of a job: offline, without credentials; reads the names and sizes of the code folder's files."""
    from azml_dist.inputs import open_problems
    from azml_dist.job import check_files

    if problems := [*open_problems(job), *check_files(job)]:
        raise JobError.of(problems)
    code = job.code_folder
    snapshot = take_snapshot(code) if code else NO_CODE
    if code and not snapshot.files and snapshot.excluded:
        raise JobError(
            f"every file of the code folder {code} is left out by {snapshot.excluded[0].rule!r} and its like",
            hint="azure-ai-ml refuses an empty upload: let the ignore file keep at least your script",
            where="code",
        )
    if snapshot.broken_links:
        raise JobError(
            f"the link {snapshot.broken_links[0]} in the code folder leads nowhere",
            hint="azure-ai-ml uploads what a link points at, and fails on this one: mend it, or list it in .amlignore",
            where="code",
        )
    return LaunchPlan(job, snapshot)


class _Processes(Sequence[ProcessContext]):
    """1,000 nodes x 8 processes are an ordinary plan: none is kept."""

    def __init__(self, plan: LaunchPlan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return self._plan.world.world_size

    @overload
    def __getitem__(self, index: int) -> ProcessContext: ...
    @overload
    def __getitem__(self, index: slice) -> list[ProcessContext]: ...
    def __getitem__(self, index: int | slice) -> ProcessContext | list[ProcessContext]:
        ranks = range(len(self))[index]
        return self._plan._process(ranks) if isinstance(ranks, int) else [self._plan._process(r) for r in ranks]

    def __iter__(self) -> Iterator[ProcessContext]:
        return map(self._plan._process, range(len(self)))


def _single(plan: LaunchPlan, rank: int) -> ProcessContext:
    env = plan._common_env | {"AZUREML_CR_NODE_RANK": "0", "AZUREML_PROCESS_NAME": "main"}
    return ProcessContext(rank, 0, 0, "main", _placed(plan, 0, env), "user_logs/std_log.txt")


def _pytorch(plan: LaunchPlan, rank: int) -> ProcessContext:
    """Documented: the six variables; not set are `LOCAL_WORLD_SIZE` and all that torchrun adds (inferred)."""
    node, local = divmod(rank, plan.world.process_count_per_node)
    env = plan._common_env | {
        **_who(plan, rank, node),
        "MASTER_ADDR": plan.place.address(0),
        "MASTER_PORT": plan.place.master_port,
        "WORLD_SIZE": str(plan.world.world_size),
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "NODE_RANK": str(node),
    }
    return ProcessContext(rank, node, local, "worker", _placed(plan, node, env), _rank_log(plan, rank))


def _mpi(plan: LaunchPlan, rank: int) -> ProcessContext:
    """Documented: Open MPI's own variables, and none of `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`."""
    world, place = plan.world, plan.place
    node, local = divmod(rank, world.process_count_per_node)
    if world.node_count > 1:
        hosts = ",".join(place.address(i) for i in range(world.node_count))
        master = {
            "AZ_BATCH_MASTER_NODE": f"{place.address(0)}:{place.mpi_master_port or plan.service.mpi_master_port}",
            "AZ_BATCH_HOST_LIST": hosts,
        }
    else:
        master = {"AZ_BATCHAI_MPI_MASTER_NODE": place.address(0)}
    env = plan._common_env | {
        **_who(plan, rank, node),
        **master,
        "NCCL_SOCKET_IFNAME": place.nccl_socket_ifname or plan.service.nccl_socket_ifname,
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(world.world_size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(world.process_count_per_node),
        # Open MPI's word for the rank among the job's processes on a node; never the index of the node.
        "OMPI_COMM_WORLD_NODE_RANK": str(local),
    }
    return ProcessContext(rank, node, local, "worker", _placed(plan, node, env), _rank_log(plan, rank))


def _tensorflow(plan: LaunchPlan, rank: int) -> ProcessContext:
    """Documented: `TF_CONFIG`. Seen: a parameter server shares its node with a worker, each on a port of its own.

    Left out, as nobody has seen it in such a job: `AZUREML_PROCESS_NAME`, and all that PyTorch jobs have.
    """
    role, node = plan._tasks[rank]
    config = {"cluster": plan._cluster, "task": {"type": role, "index": node}, "environment": "cloud"}
    env = plan._common_env | {
        "AZUREML_CR_NODE_RANK": str(node),
        "TF_CONFIG": json.dumps(config, separators=(",", ":")),
    }
    log = f"user_logs/std_log_node_{node:0{plan.service.node_log_width}}_{role}.txt"
    return ProcessContext(rank, node, _local_task(plan, role, node), role, _placed(plan, node, env), log)


def _local_task(plan: LaunchPlan, role: str, node: int) -> int:
    """0 for the task that has the first port of its node, 1 for the other."""
    tf: Any = plan.job.distribution
    return int(node < tf.parameter_server_count and role != plan.service.tensorflow_first)


def _ray(plan: LaunchPlan, rank: int) -> ProcessContext:
    """Inferred: the command runs once, on the head, where `ray.init()` finds the cluster by `RAY_ADDRESS`."""
    ray: Any = plan.job.distribution
    port = plan.place.ports[0] if plan.place.ports else ray.port or plan.service.ray_port
    address = ray.address or f"{plan.place.address(0)}:{port}"
    env = plan._common_env | {"AZUREML_CR_NODE_RANK": "0", "AZUREML_PROCESS_NAME": "main", "RAY_ADDRESS": address}
    return ProcessContext(rank, 0, 0, "head", _placed(plan, 0, env), "user_logs/std_log.txt")


_BUILDERS: dict[str | None, Callable[[LaunchPlan, int], ProcessContext]] = {
    None: _single,
    "PyTorch": _pytorch,
    "Mpi": _mpi,
    "TensorFlow": _tensorflow,
    "Ray": _ray,
}


def _common_env(plan: LaunchPlan) -> dict[str, str]:
    """What every process of a run sees, whatever the distribution. All of it seen in jobs of the service."""
    job, place = plan.job, plan.place
    own = place.own_variables
    env = {
        name: own.get(name, FROM_YOUR_ENVIRONMENT) if value is None else value
        for name, value in job.environment_variables.items()
    }
    experiment = job.experiment_name or place.experiment_name
    env |= {
        "AZUREML_RUN_ID": place.run_id,
        "AZUREML_ROOT_RUN_ID": place.root_run_id or place.run_id,
        "AZUREML_EXPERIMENT_ID": place.experiment_id,
        "AZUREML_ARM_PROJECT_NAME": experiment,
        "AZUREML_NODE_COUNT": str(job.node_count),
        "MLFLOW_TRACKING_URI": place.tracking_uri,
        "MLFLOW_RUN_ID": place.run_id,
        "MLFLOW_EXPERIMENT_ID": place.experiment_id,
        "MLFLOW_EXPERIMENT_NAME": experiment,
    }
    for name in filter(lambda name: not job.is_left_out(name), job.inputs):
        value = place.value_of(job, "inputs", name)
        if job.is_data(name):
            env |= {f"AZURE_ML_INPUT_{name}": value, f"AZUREML_DATAREFERENCE_{name}": value}
        else:
            env[f"AZUREML_PARAMETER_{name}"] = value
    for name in job.outputs:
        value = place.value_of(job, "outputs", name)
        env |= {f"AZURE_ML_OUTPUT_{name}": value, name: value}
    return env


def _who(plan: LaunchPlan, rank: int, node: int) -> dict[str, str]:
    return {"AZUREML_CR_NODE_RANK": str(node), "AZUREML_PROCESS_NAME": plan.service.process_name.format(rank=rank)}


def _placed(plan: LaunchPlan, node: int, env: dict[str, str]) -> dict[str, str]:
    env["AZUREML_CR_EXECUTION_WORKING_DIR_PATH"] = plan.place.working_dir(node)
    return env


def _rank_log(plan: LaunchPlan, rank: int) -> str:
    return f"user_logs/std_log_process_{rank:0{plan.service.rank_log_width(plan.world.world_size)}}.txt"


def _kind(job: Job) -> str | None:
    return type(job.distribution).__name__ if job.distribution else None


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
