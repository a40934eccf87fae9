"""The context of every process: its rank, its environment, the name of its log. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from azml_dist.plan.platform import node_variables, of_the_cluster, one_line
from azml_dist.plan.world import PlacedJob, ProcessContext


class Processes(PlacedJob, Sequence[ProcessContext]):
    """Every process of a job, by rank, each computed on access: a job may well have 1,000 nodes x 8 processes."""

    def __len__(self) -> int:
        return self.world.world_size

    @overload
    def __getitem__(self, index: int) -> ProcessContext: ...
    @overload
    def __getitem__(self, index: slice) -> list[ProcessContext]: ...
    def __getitem__(self, index: int | slice) -> ProcessContext | list[ProcessContext]:
        ranks = range(len(self))[index]
        return self._process(ranks) if isinstance(ranks, int) else [self._process(rank) for rank in ranks]

    def __iter__(self) -> Iterator[ProcessContext]:
        return map(self._process, range(len(self)))

    @cached_property
    def common_env(self) -> dict[str, str]:
        """What every process sees."""
        return _common_env(self)

    @cached_property
    def tensorflow_cluster(self) -> dict[str, list[str]]:
        """`cluster` of `TF_CONFIG`: the address of every task."""
        roles = [role for role in ("ps", "worker") if (role, 0) in self.tasks or self.service.tensorflow_empty_ps]
        cluster: dict[str, list[str]] = {role: [] for role in roles}
        for rank, (role, node) in enumerate(self.tasks):
            ports = self.place.ports
            port = ports[rank] if ports else self.service.tensorflow_port + _local_task(self, role, node)
            cluster[role].append(f"{self.place.address(node)}:{port}")
        return cluster

    def _process(self, rank: int) -> ProcessContext:
        process = _BUILDERS[self.kind](self, rank)
        if not self.service.unset:
            return process
        unset = self.service.is_unset(self.kind, self.world.node_count) - self.job.environment_variables.keys()
        return process._replace(env={name: value for name, value in process.env.items() if name not in unset})


def _single(at: Processes, rank: int) -> ProcessContext:
    env = at.common_env | _on_node(at, 0, index=0) | {"AZUREML_PROCESS_NAME": "main"}
    return ProcessContext(rank, 0, 0, "main", env, "user_logs/std_log.txt")


def _pytorch(at: Processes, rank: int) -> ProcessContext:
    """Documented: the six variables. `LOCAL_WORLD_SIZE` and whatever else torchrun adds are not set (inferred)."""
    node, local = divmod(rank, at.world.process_count_per_node)
    env = at.common_env | {
        **_on_node(at, node, index=rank),
        **_name(at, rank, node, local),
        "MASTER_ADDR": at.place.address(0),
        "MASTER_PORT": at.place.master_port,
        "WORLD_SIZE": str(at.world.world_size),
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "NODE_RANK": str(node),
    }
    if at.service.local_world_size:
        env["LOCAL_WORLD_SIZE"] = str(at.world.process_count_per_node)
    return ProcessContext(rank, node, local, "worker", env, _rank_log(at, rank))


def _mpi(at: Processes, rank: int) -> ProcessContext:
    """Documented: Open MPI's own variables, and none of `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`."""
    world, place = at.world, at.place
    node, local = divmod(rank, world.process_count_per_node)
    env = at.common_env | {
        **_on_node(at, node, index=rank),
        **_name(at, rank, node, local),
        "NCCL_SOCKET_IFNAME": place.nccl_socket_ifname or at.service.nccl_socket_ifname,
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(world.world_size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(world.process_count_per_node),
        # Open MPI's name for the rank among the job's processes on a node; never the index of the node.
        "OMPI_COMM_WORLD_NODE_RANK": str(local),
    }
    if place.mpi_master_port:
        env.setdefault("MASTER_PORT", place.mpi_master_port)
    return ProcessContext(rank, node, local, "worker", env, _rank_log(at, rank))


def _tensorflow(at: Processes, rank: int) -> ProcessContext:
    """Documented: `TF_CONFIG`. Seen: a parameter server shares its node with a worker, each on its own port.

    `AZUREML_PROCESS_NAME` and the variables of PyTorch jobs are left out: they have not been seen in such a job.
    """
    role, node = at.tasks[rank]
    config = {"cluster": at.tensorflow_cluster, "task": {"type": role, "index": node}, "environment": "cloud"}
    env = at.common_env | _on_node(at, node, index=node) | {"TF_CONFIG": one_line(config)}
    log = f"user_logs/std_log_node_{node:0{at.service.node_log_width}}_{role}.txt"
    return ProcessContext(rank, node, _local_task(at, role, node), role, env, log)


def _local_task(at: Processes, role: str, node: int) -> int:
    """0 for the task with the first port of its node, 1 for the other."""
    tf: Any = at.job.distribution
    return int(node < tf.parameter_server_count and role != at.service.tensorflow_first)


def _ray(at: Processes, rank: int) -> ProcessContext:
    """Inferred: the command runs once, on the head, where `ray.init()` finds the cluster through `RAY_ADDRESS`."""
    ray: Any = at.job.distribution
    port = at.place.ports[0] if at.place.ports else ray.port or at.service.ray_port
    address = ray.address or f"{at.place.address(0)}:{port}"
    env = at.common_env | _on_node(at, 0, index=0) | {"AZUREML_PROCESS_NAME": "main", "RAY_ADDRESS": address}
    return ProcessContext(rank, 0, 0, "head", env, "user_logs/std_log.txt")


_BUILDERS: dict[str | None, Callable[[Processes, int], ProcessContext]] = {
    None: _single,
    "PyTorch": _pytorch,
    "Mpi": _mpi,
    "TensorFlow": _tensorflow,
    "Ray": _ray,
}


def _common_env(at: Processes) -> dict[str, str]:
    """What every process of a run sees, whatever the distribution. All of it is seen in jobs on the service."""
    job, place = at.job, at.place
    env = {
        name: place.own_variable(name) if value is None else value for name, value in job.environment_variables.items()
    }
    experiment = job.experiment_name or place.experiment_name
    env |= {
        "AZUREML_RUN_ID": place.run_id,
        "AZUREML_ROOT_RUN_ID": place.root_run_id or place.run_id,
        "AZUREML_EXPERIMENT_ID": place.experiment_id,
        "AZUREML_ARM_SUBSCRIPTION": place.subscription,
        "AZUREML_ARM_RESOURCEGROUP": place.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": place.workspace,
        "AZUREML_ARM_PROJECT_NAME": experiment,
        "AZUREML_NODE_COUNT": str(job.node_count),
        "MLFLOW_TRACKING_URI": place.tracking_uri,
        "MLFLOW_RUN_ID": place.run_id,
        "MLFLOW_EXPERIMENT_ID": place.experiment_id,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        **of_the_cluster(at),
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


def _on_node(at: Processes, node: int, index: int) -> dict[str, str]:
    """What one process sees: the variables of its node, and its index among the processes of the run (documented)."""
    return node_variables(at, node) | {"AZ_BATCHAI_TASK_INDEX": str(index)}


def _name(at: Processes, rank: int, node: int, local: int) -> dict[str, str]:
    name = at.service.process_name.format(rank=rank, node_rank=node, local_rank=local)
    return {"AZUREML_PROCESS_NAME": name}


def _rank_log(at: Processes, rank: int) -> str:
    return f"user_logs/std_log_process_{rank:0{at.service.rank_log_width(at.world.world_size)}}.txt"
