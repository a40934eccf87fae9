"""What a command job's wire body means: which processes, in what environment, and the rendered command. Pure.

Written from Azure's documentation, without a look at any other implementation, so that two readings can be compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from azml_dist.emulator.wire import Json


class NotEmulatedError(Exception):
    """The job asks for something that this emulator cannot run."""


@dataclass(frozen=True)
class Process:
    """One process that the service starts: where it is in the world, its log, and what its launcher tells it."""

    node: int
    local_rank: int
    rank: int
    log: str
    """Path of its log among the job's files."""
    env: Mapping[str, str]
    index: int = 0
    """Among the processes of its kind."""
    ends: bool = True
    """Whether the job waits for it; a parameter server never ends by itself."""


@dataclass(frozen=True)
class Runtime:
    """What the service does where its documentation leaves it open; a test may have it otherwise."""

    process_name: str = "rank_{rank}"
    """Of the processes of PyTorch and MPI; `{rank}`, `{local_rank}` and `{node}` are replaced."""
    rank_digits: int | None = None
    """Of the rank in the names of logs; as many as the largest rank has by default."""
    node_digits: int = 2
    batch_port: int = 6000
    """Azure Batch's own, in its documentation's example of `AZ_BATCH_MASTER_NODE`."""
    task_index_variable: str = "AZUREML_CR_NODE_RANK"
    master_of_one_node: str = "localhost"
    mpi_interface: str = "eth0"
    """As a job printed it; DeepSpeed's helper for Azure fails where it is not set."""
    first_task: str = "ps"
    empty_ps: bool = True
    """Whether a job without parameter servers has `"ps":[]`, which azureml-examples' samples take out."""
    task_port: int | None = None
    """Of the first TensorFlow task on a node; by default each task here gets a free port of this machine."""
    waits_for_ps: bool = False
    """Whether a job goes on until its parameter servers end."""
    ray_port: int = 6379
    logs_parameters: bool = True
    """Whether literal inputs become MLflow parameters."""
    local_world_size: bool = False
    """Whether PyTorch jobs have `LOCAL_WORLD_SIZE`."""
    unset: frozenset[str] = frozenset()
    """Variables that no process gets."""


RUNTIME = Runtime()


def _as_the_service(node: int, nth: int) -> int:
    return 2222 + nth


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a job meet."""

    addresses: tuple[str, ...]
    """Of each node."""
    port: int = 6105
    """Of processes that meet at one place on node 0."""
    task_port: Callable[[int, int], int] = _as_the_service
    """Of the nth TensorFlow task on a node. On one machine each needs another one."""
    runtime: Runtime = RUNTIME


def node_count(body: Json) -> int:
    """How many machines a job has; `body` is the `properties` of the wire body."""
    return int((body.get("resources") or {}).get("instanceCount") or 1)


def processes(body: Json, meeting: Meeting) -> list[Process]:
    """The processes of a job, by rank."""
    distribution = body.get("distribution") or {}
    kind = distribution.get("distributionType", "")
    if kind not in _LAUNCHES:
        raise NotEmulatedError(f"distribution {kind}")
    nodes = node_count(body)
    launched = _LAUNCHES[kind](distribution, nodes, meeting)
    return [replace(one, env=_set({**_batch(one, kind, nodes, meeting), **one.env}, meeting)) for one in launched]


def _set(env: Mapping[str, str], meeting: Meeting) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in meeting.runtime.unset}


def _batch(process: Process, kind: str, nodes: int, meeting: Meeting) -> dict[str, str]:
    """What the layers below set, Azure Batch, Batch AI and the common runtime, whatever launches the processes.

    Batch documents its own for tasks of several instances only. The rest is what public scripts read.
    """
    head, here = meeting.addresses[0], meeting.addresses[process.node]
    env = {
        "AZ_BATCHAI_TASK_INDEX": str(process.index),
        "AZ_BATCHAI_NODE_IP": here,
        "AZ_BATCHAI_JOB_MASTER_NODE_IP": head,
        "AZ_BATCHAI_MPI_MASTER_NODE": head if nodes > 1 or kind == "Mpi" else meeting.runtime.master_of_one_node,
        "AZUREML_CR_DISTRIBUTED_CONFIG": json.dumps(
            {"rank": meeting.runtime.task_index_variable, "host_list": list(meeting.addresses)}, separators=(",", ":")
        ),
    }
    if nodes > 1:
        master = "true" if process.node == 0 else "false"
        env["AZ_BATCH_MASTER_NODE"] = f"{head}:{meeting.runtime.batch_port}"
        env["AZ_BATCH_HOST_LIST"] = ",".join(meeting.addresses)
        env["AZ_BATCH_NODE_LIST"] = ";".join(meeting.addresses)
        env["AZ_BATCH_IS_CURRENT_NODE_MASTER"] = env["AZ_BATCHAI_IS_CURRENT_NODE_MASTER"] = master
    return env


def _single(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    if nodes > 1:
        raise NotEmulatedError("several nodes without a distribution: what the service does is documented nowhere")
    env = {"AZUREML_PROCESS_NAME": "main", "AZUREML_CR_NODE_RANK": "0"}
    return [Process(0, 0, 0, "user_logs/std_log.txt", env)]


def _pytorch(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    def launched(rank: int, node: int, local: int, world: int, per_node: int) -> dict[str, str]:
        more = {"LOCAL_WORLD_SIZE": str(per_node)} if meeting.runtime.local_world_size else {}
        return {
            **more,
            "MASTER_ADDR": meeting.addresses[0],
            "MASTER_PORT": str(meeting.port),
            "WORLD_SIZE": str(world),
            "NODE_RANK": str(node),
            "RANK": str(rank),
            "LOCAL_RANK": str(local),
        }

    return _ranks(distribution, nodes, launched, meeting.runtime)


def _mpi(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    """What Open MPI's launcher sets, and what the service sets before it. No launcher: there is no MPI between them."""

    def launched(rank: int, node: int, local: int, world: int, per_node: int) -> dict[str, str]:
        return {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": str(world),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(per_node),
            "OMPI_COMM_WORLD_NODE_RANK": str(local),  # among the processes of a node: not which node
            "NCCL_SOCKET_IFNAME": meeting.runtime.mpi_interface,
        }

    return _ranks(distribution, nodes, launched, meeting.runtime)


def _ranks(
    distribution: Json,
    nodes: int,
    launched: Callable[[int, int, int, int, int], dict[str, str]],
    runtime: Runtime,
) -> list[Process]:
    """The same number of processes on every node, in blocks of ranks."""
    per_node = int(distribution.get("processCountPerInstance") or 1)  # one even where a node has eight GPUs
    world = nodes * per_node
    width = runtime.rank_digits or len(str(world - 1))
    found = []
    for rank in range(world):
        node, local = divmod(rank, per_node)
        name = runtime.process_name.format(rank=rank, local_rank=local, node=node)
        named = {"AZUREML_CR_NODE_RANK": str(node), "AZUREML_PROCESS_NAME": name}
        env = named | launched(rank, node, local, world, per_node)
        found.append(Process(node, local, rank, f"user_logs/std_log_process_{rank:0{width}d}.txt", env, index=rank))
    return found


def _tensorflow(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    """A worker on each node; parameter servers share the first nodes with them, and come first there."""
    workers = int(distribution.get("workerCount") or nodes)
    servers = int(distribution.get("parameterServerCount") or 0)
    if workers != nodes:
        raise NotEmulatedError(f"{workers} workers on {nodes} nodes: the numbers must be the same")
    if servers > nodes:
        raise NotEmulatedError(f"{servers} parameter servers on {nodes} nodes: a node takes one at most")
    runtime = meeting.runtime
    comes_first = runtime.first_task == "ps"
    tasks = {
        "ps": [meeting.task_port(node, int(not comes_first)) for node in range(servers)],
        "worker": [meeting.task_port(node, int(comes_first and node < servers)) for node in range(workers)],
    }
    cluster = {
        kind: [f"{meeting.addresses[node]}:{port}" for node, port in enumerate(ports)]
        for kind, ports in tasks.items()
        if ports or runtime.empty_ps
    }
    found: list[Process] = []
    for kind in ("worker", "ps"):
        for node in range(len(tasks[kind])):
            config = {"cluster": cluster, "task": {"type": kind, "index": node}, "environment": "cloud"}
            env = {"TF_CONFIG": json.dumps(config, separators=(",", ":")), "AZUREML_CR_NODE_RANK": str(node)}
            log = f"user_logs/std_log_node_{node:0{runtime.node_digits}d}_{kind}.txt"
            local = int(node < servers and kind != runtime.first_task)
            ends = kind == "worker" or runtime.waits_for_ps
            found.append(Process(node, local, len(found), log, env, index=node, ends=ends))
    return found


def _ray(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    """Only the command on the head, with the cluster's address; no cluster is started here."""
    address = (
        distribution.get("address") or f"{meeting.addresses[0]}:{distribution.get('port') or meeting.runtime.ray_port}"
    )
    env = {"AZUREML_PROCESS_NAME": "main", "AZUREML_CR_NODE_RANK": "0", "RAY_ADDRESS": address}
    return [Process(0, 0, 0, "user_logs/std_log.txt", env)]


_LAUNCHES: dict[str, Callable[[Json, int, Meeting], list[Process]]] = {
    "": _single,
    "PyTorch": _pytorch,
    "Mpi": _mpi,
    "TensorFlow": _tensorflow,
    "Ray": _ray,
}
"""By distribution type as the wire has it."""


def literals(body: Json) -> dict[str, str]:
    """The inputs that are plain values."""
    inputs: dict[str, Any] = body.get("inputs") or {}
    return {name: str(one["value"]) for name, one in inputs.items() if one["jobInputType"] == "literal"}


def render(command: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """The command with every `${{…}}` replaced as text, and each `$[[…]]` kept only where its inputs have values."""

    def optional(match: re.Match[str]) -> str:
        return match[1] if all(name in inputs for name in re.findall(r"inputs\.(\w+)", match[1])) else ""

    def value(match: re.Match[str]) -> str:
        known = {"inputs": inputs, "outputs": outputs}[match[1]]
        if match[2] not in known:
            raise NotEmulatedError(f"{match[0]} in the command names no {match[1][:-1]} of the job")
        return known[match[2]]

    command = re.sub(r"\$\[\[(.*?)\]\]", optional, command, flags=re.DOTALL)
    return re.sub(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}", value, command)


def seconds(duration: str | None) -> float | None:
    """An ISO 8601 duration as `limits.timeout` has it, such as `P1DT1H1M1S`."""
    if not duration:
        return None
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", duration)
    if found is None:
        raise NotEmulatedError(f"duration {duration}")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
