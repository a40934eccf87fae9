"""The specification of a run, which the executor sends to the supervisor: the boundary between two processes.

It contains the values of variables that a job marks `None`, so it is sent over a socket and never written to a file.
Standard library only: the supervisor imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class Context(TypedDict):
    """One process of an attempt."""

    rank: int
    node_rank: int
    local_rank: int
    env: dict[str, str]


class TrackingSpec(TypedDict, total=False):
    """The MLflow server of the run."""

    run: str
    token: str
    service: Mapping[str, Any]
    listener: int
    """The descriptor of its socket, after it has been handed over."""


class ServiceSpec(TypedDict):
    """A TensorBoard that runs with the job."""

    name: str
    log_dir: str
    """Relative to the working directory of node 0, or absolute."""
    port: int


class OwnTmp(TypedDict):
    """How each node gets its own `/tmp`."""

    kept: list[str]
    used_by: str | None
    hidden: list[str]


class AttemptSpec(TypedDict, total=False):
    """What differs between the attempts of a run."""

    nodes: list[str]
    """The working directory of each node."""
    tmp_folders: list[str]
    contexts: list[Context]
    launcher_port: int
    port_in_use: int | None
    ray: Any
    """The commands that create the cluster of a Ray job."""
    node_env: list[dict[str, str]]
    containers: list[list[str]] | None
    """The words before a command that run it in the container of each node; None where nodes are none."""


class RunSpec(TypedDict):
    """What is the same in all attempts of a run."""

    folder: str
    temp: str
    memory: str | None
    """The run's folder in shared memory."""
    launcher: str
    launcher_is_chosen: bool
    python: str
    argv: list[str]
    base_env: dict[str, str]
    node_count: int
    process_count: int
    """The number on each node."""
    apart: bool
    hosts: list[str]
    """The address of each node."""
    mpirun: Any
    naming_hosts: list[str] | None
    slices: Any
    """The `CUDA_VISIBLE_DEVICES` of each node."""
    staged: Any
    from_outside: list[str]
    """Findings about modules that the code imports from outside its snapshot."""
    keep_pythonpath: bool
    tmp: OwnTmp | None
    timeout: float | None
    retries: int
    faults: list[dict[str, Any]]
    """What happens to the run on purpose: the fields of each `Fault`."""
    step_pattern: str
    """The pattern of log lines that contain the step."""
    inputs: dict[str, str]
    """The path of each data input."""
    grace: float
    detached: bool
    """Whether it outlives the process that started it."""
    tracking: TrackingSpec
    services: list[ServiceSpec]
    watch: str | None
    """Where the start-up module of a watched run is."""
    stall_after: float
    """Seconds in which nothing moves, after which that is said; 0 for never."""
    stall_timeout: float | None
    file_limit: Any
    """The limit of open files for the user's processes. Set by the guard."""


class WholeSpec(RunSpec):
    """A run with all its attempts, as it is handed to the supervisor."""

    attempts: list[AttemptSpec]


class Spec(WholeSpec, AttemptSpec):
    """A run, as one of its attempts sees it."""
