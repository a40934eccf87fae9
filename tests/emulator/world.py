"""What a command job's wire body means: which processes, in what environment, and the rendered command. Pure.

Written from Azure's documentation, without a look at any other implementation, so that two readings can be compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .wire import Json


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
    ends: bool = True
    """Whether the job waits for it; a parameter server never ends by itself."""


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


def node_count(body: Json) -> int:
    """How many machines a job has; `body` is the `properties` of the wire body."""
    return int((body.get("resources") or {}).get("instanceCount") or 1)


def processes(body: Json, meeting: Meeting) -> list[Process]:
    """The processes of a job, by rank."""
    distribution = body.get("distribution") or {}
    kind = distribution.get("distributionType", "")
    if kind not in _LAUNCHES:
        raise NotEmulatedError(f"distribution {kind}")
    return _LAUNCHES[kind](distribution, node_count(body), meeting)


def _single(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    if nodes > 1:
        raise NotEmulatedError("several nodes without a distribution: what the service does is documented nowhere")
    env = {"AZUREML_PROCESS_NAME": "main", "AZUREML_CR_NODE_RANK": "0"}
    return [Process(0, 0, 0, "user_logs/std_log.txt", env)]


def _pytorch(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    def launched(rank: int, node: int, local: int, world: int, per_node: int) -> dict[str, str]:
        return {
            "MASTER_ADDR": meeting.addresses[0],
            "MASTER_PORT": str(meeting.port),
            "WORLD_SIZE": str(world),
            "NODE_RANK": str(node),
            "RANK": str(rank),
            "LOCAL_RANK": str(local),
        }

    return _ranks(distribution, nodes, launched)


def _mpi(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    """What Open MPI's launcher sets, and what the service sets before it. No launcher: there is no MPI between them."""
    if nodes == 1:
        meeting_place = {"AZ_BATCHAI_MPI_MASTER_NODE": meeting.addresses[0]}
    else:
        meeting_place = {
            "AZ_BATCH_MASTER_NODE": f"{meeting.addresses[0]}:{meeting.port}",
            "AZ_BATCH_HOST_LIST": ",".join(meeting.addresses),
        }

    def launched(rank: int, node: int, local: int, world: int, per_node: int) -> dict[str, str]:
        return {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": str(world),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(per_node),
            "OMPI_COMM_WORLD_NODE_RANK": str(local),  # among the processes of a node: not which node
            "NCCL_SOCKET_IFNAME": "^docker0,lo",  # DeepSpeed's helper for Azure fails where it is not set
            **meeting_place,
        }

    return _ranks(distribution, nodes, launched)


def _ranks(
    distribution: Json, nodes: int, launched: Callable[[int, int, int, int, int], dict[str, str]]
) -> list[Process]:
    """The same number of processes on every node, in blocks of ranks."""
    per_node = int(distribution.get("processCountPerInstance") or 1)  # one even where a node has eight GPUs
    world = nodes * per_node
    width = len(str(world - 1))
    found = []
    for rank in range(world):
        node, local = divmod(rank, per_node)
        named = {"AZUREML_CR_NODE_RANK": str(node), "AZUREML_PROCESS_NAME": f"rank_{rank}"}
        env = named | launched(rank, node, local, world, per_node)
        found.append(Process(node, local, rank, f"user_logs/std_log_process_{rank:0{width}d}.txt", env))
    return found


def _tensorflow(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    """A worker on each node; parameter servers share the first nodes with them, and come first there."""
    workers = int(distribution.get("workerCount") or nodes)
    servers = int(distribution.get("parameterServerCount") or 0)
    if workers != nodes:
        raise NotEmulatedError(f"{workers} workers on {nodes} nodes: the numbers must be the same")
    if servers > nodes:
        raise NotEmulatedError(f"{servers} parameter servers on {nodes} nodes: a node takes one at most")
    tasks = {
        "ps": [meeting.task_port(node, 0) for node in range(servers)],
        "worker": [meeting.task_port(node, 1 if node < servers else 0) for node in range(workers)],
    }
    cluster = {
        kind: [f"{meeting.addresses[node]}:{port}" for node, port in enumerate(ports)]
        for kind, ports in tasks.items()
        if ports
    }
    found: list[Process] = []
    for kind in ("worker", "ps"):
        for node in range(len(tasks[kind])):
            config = {"cluster": cluster, "task": {"type": kind, "index": node}, "environment": "cloud"}
            env = {"TF_CONFIG": json.dumps(config, separators=(",", ":")), "AZUREML_CR_NODE_RANK": str(node)}
            log = f"user_logs/std_log_node_{node:02d}_{kind}.txt"
            local = int(kind == "worker" and node < servers)
            found.append(Process(node, local, len(found), log, env, ends=kind == "worker"))
    return found


def _ray(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    """The command on the head alone, told where the cluster is; no cluster is started here."""
    address = distribution.get("address") or f"{meeting.addresses[0]}:{distribution.get('port') or 6379}"
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
