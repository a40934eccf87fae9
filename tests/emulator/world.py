"""What a command job's wire body means: which processes, in what environment, and the rendered command. Pure.

Written from Azure's documentation, without a look at any other implementation, so that two readings can be compared.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a job meet."""

    address: str = "127.0.0.1"
    port: int = 6105


def processes(body: Json, meeting: Meeting) -> list[Process]:
    """The processes of a job, by rank; `body` is the `properties` of the wire body."""
    distribution = body.get("distribution") or {}
    kind = distribution.get("distributionType", "")
    nodes = int((body.get("resources") or {}).get("instanceCount") or 1)
    if kind not in _LAUNCHES:
        raise NotEmulatedError(f"distribution {kind}")
    return _LAUNCHES[kind](distribution, nodes, meeting)


def _single(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    if nodes > 1:
        raise NotEmulatedError("several nodes without a distribution: what the service does is documented nowhere")
    env = {"AZUREML_PROCESS_NAME": "main", "AZUREML_CR_NODE_RANK": "0"}
    return [Process(0, 0, 0, "user_logs/std_log.txt", env)]


def _pytorch(distribution: Json, nodes: int, meeting: Meeting) -> list[Process]:
    per_node = int(distribution.get("processCountPerInstance") or 1)  # one even where a node has eight GPUs
    world = nodes * per_node
    width = len(str(world - 1))
    return [
        Process(
            rank // per_node,
            rank % per_node,
            rank,
            f"user_logs/std_log_process_{rank:0{width}d}.txt",
            {
                "MASTER_ADDR": meeting.address,
                "MASTER_PORT": str(meeting.port),
                "WORLD_SIZE": str(world),
                "NODE_RANK": str(rank // per_node),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % per_node),
                "AZUREML_CR_NODE_RANK": str(rank // per_node),
                "AZUREML_PROCESS_NAME": f"rank_{rank}",
            },
        )
        for rank in range(world)
    ]


_LAUNCHES: dict[str, Callable[[Json, int, Meeting], list[Process]]] = {"": _single, "PyTorch": _pytorch}
"""By distribution type as the wire has it; Mpi and TensorFlow would go here."""


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
