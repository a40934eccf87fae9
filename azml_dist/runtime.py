"""Finds the rank of this process under any launcher, and sets up torch.distributed with it.

    from azml_dist.runtime import process_group

    with process_group() as ctx:
        model = DistributedDataParallel(Model().to(ctx.device))
        ...
        if ctx.is_main:
            save(model)

It needs only the standard library and nothing else from the package: you can copy this one file next to your script,
into any image with Python 3.8 or later. `python -m azml_dist.runtime` (or `python runtime.py`) prints what it finds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

__all__ = ["Context", "ContextError", "context", "process_group"]

SEVERAL_NODES_PORT, ONE_NODE_PORT = 6105, 54965
"""Where rank 0 of an MPI job listens unless `MASTER_PORT` is set. DeepSpeed (`deepspeed/comm/comm.py`, its branch for
Azure ML) and hi-ml (`health_azure/utils.py`) use the same ports."""


class ContextError(ValueError):
    """The environment variables define no rank, or contradict each other. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\n\nhint: {hint}")
        self.message, self.hint = message, hint


@dataclasses.dataclass(frozen=True)
class Context:
    """The rank of a process, and everything that belongs to it."""

    rank: int
    """The number of the process in the run, from 0."""
    world_size: int
    """How many processes the run has."""
    local_rank: int
    """The number of the process on its node; if each process has a GPU, also the index of its GPU."""
    local_world_size: int | None
    """How many processes its node has; None if unknown."""
    node_rank: int | None
    """The number of its node; None if unknown."""
    node_count: int | None
    """How many nodes the run has; None if unknown."""
    launcher: str
    """What started the process: `torchrun`, `pytorch` (Azure ML itself), `mpirun`, `tensorflow`, `ray` or `python`."""
    role: str
    """`worker`; `chief` or `ps` with TensorFlow; `head` with Ray; `main` for a single process."""
    master_addr: str | None
    """The address of rank 0; None if unknown."""
    master_port: int | None
    """A port at that address on which rank 0 can listen; None if unknown."""
    run_id: str | None
    """The name of the run (`AZUREML_RUN_ID`)."""
    restart_count: int = 0
    """How often torchrun has restarted the processes."""
    device: str | None = None
    """`cuda:1` or `cpu`, as chosen by `process_group`; None before that."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0: the process that should write checkpoints and metrics."""
        return self.rank == 0

    @property
    def is_local_main(self) -> bool:
        """Whether this is the first process on its node: the one that should unpack data there."""
        return self.local_rank == 0

    def __str__(self) -> str:
        node = "" if self.node_rank is None else f" on node {self.node_rank}"
        nodes = f" of {self.node_count}" if node and self.node_count is not None else ""
        started = f"{self.role}, started by {_STARTED_BY[self.launcher]}"
        return f"rank {self.rank} of {self.world_size}{node}{nodes}, local rank {self.local_rank} ({started})"


def context(environ: Mapping[str, str] | None = None) -> Context:
    """The context of this process, from the variables that torchrun, Azure ML, mpirun, TensorFlow or Ray have set.

    Raises ContextError if they are incomplete, impossible or contradictory. Never guesses: a wrong rank is worse than
    a stop.
    """
    env = os.environ if environ is None else environ
    if "TORCHELASTIC_RUN_ID" in env:
        # torchrun is the innermost launcher; what started it (a job with one process per node) does not count.
        return _from_names(env, _TORCHRUN)
    told = {"TF_CONFIG": _from_tf_config(env)} if "TF_CONFIG" in env else {}
    told.update({_said(env, names): _from_names(env, names) for names in _BY_NAMES if _said(env, names)})
    if len({(found.rank, found.world_size) for found in told.values()}) > 1:
        raise ContextError(
            "; ".join(f"{said} means rank {found.rank} of {found.world_size}" for said, found in told.items()),
            "unset the variables that are left over from another launcher",
        )
    return next(iter(told.values()), None) or _alone(env)


@contextlib.contextmanager
def process_group(backend: str | None = None, timeout: float | timedelta | None = None) -> Iterator[Context]:
    """Sets up torch.distributed for this process and shuts it down at the end; yields the context, with its `device`.

    The default `backend` is `nccl` if each process of the node has a GPU, otherwise `gloo` on the CPU. `timeout` is the
    timeout of collectives, in seconds or as a timedelta; torch's own default is 10 minutes for nccl, 30 for gloo.
    An existing process group is used and left as it is. While the group exists, the variables that libraries read
    (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`) are also set under mpirun and with `TF_CONFIG`.
    Raises ContextError, also if torch is missing.
    """
    dist, ctx = _torch_distributed(), _with_device(context(), backend)
    if dist.is_initialized():
        yield ctx
        return
    options: dict[str, Any] = {} if timeout is None else {"timeout": _timedelta(timeout)}
    with _torch_variables(ctx):
        _set_up(dist, ctx, backend or ("gloo" if ctx.device == "cpu" else "nccl"), options)
        try:
            yield ctx
        except BaseException:
            # Others may be waiting in a collective, and shutting nccl down would wait for them. We exit anyway.
            if dist.is_initialized() and "nccl" not in str(dist.get_backend()):
                _take_down(dist)
            raise
        _take_down(dist)


def main() -> int:
    """Print the context of this process, as text or with `--json`."""
    words = sys.argv[1:]
    if words not in ([], ["--json"]):
        print("usage: python -m azml_dist.runtime [--json]", file=sys.stderr)
        return 0 if words in (["--help"], ["-h"]) else 2
    try:
        found = context()
    except ContextError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    facts = dict(dataclasses.asdict(found), is_main=found.is_main, is_local_main=found.is_local_main)
    del facts["device"]
    if words:
        print(json.dumps(facts))
        return 0
    print(found)
    for name, value in facts.items():
        print(f"  {name:<17} {'unknown' if value is None else value}")
    return 0


class _Names(NamedTuple):
    """The variables with which one launcher tells a process its rank."""

    launcher: str
    rank: str
    world_size: str
    local_rank: str
    local_world_size: str
    node_rank: str | None = None
    node_count: str = "AZUREML_NODE_COUNT"


_TORCHRUN = _Names("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
# Azure ML does not set LOCAL_WORLD_SIZE. Other launchers, such as DeepSpeed's, set the same variables.
_PYTORCH = _Names("pytorch", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
# No node_rank: OMPI_COMM_WORLD_NODE_RANK is the rank among the processes of a node, never the index of the node.
_OPEN_MPI = _Names(
    "mpirun",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
_INTEL_MPI = _Names("mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
_BY_NAMES = (_OPEN_MPI, _INTEL_MPI, _PYTORCH)
_STARTED_BY = {
    "torchrun": "torchrun",
    "pytorch": "Azure ML",
    "mpirun": "mpirun",
    "tensorflow": "Azure ML, with TF_CONFIG",
    "ray": "Azure ML, on the head of a Ray cluster",
    "python": "nothing but python",
}


def _said(env: Mapping[str, str], names: _Names) -> str:
    """`RANK=1, WORLD_SIZE=4`: those variables for the rank that are set."""
    return ", ".join(f"{name}={env[name]}" for name in (names.rank, names.world_size, names.local_rank) if name in env)


def _from_names(env: Mapping[str, str], names: _Names) -> Context:
    rank, world_size = _needed(env, names.rank, names), _needed(env, names.world_size, names)
    _below(names.rank, rank, names.world_size, world_size)
    node_count = _number(env, names.node_count)
    local_world_size = _number(env, names.local_world_size)
    nodes = 1 if world_size == 1 else node_count
    if local_world_size is None and nodes and world_size % nodes == 0:
        local_world_size = world_size // nodes
    local_rank = _number(env, names.local_rank)
    if local_rank is None:
        local_rank = _local_rank_of(env, names, rank, local_world_size)
    if names.local_world_size in env and local_world_size is not None:
        _below(names.local_rank, local_rank, names.local_world_size, local_world_size)
    node_rank = _number(env, names.node_rank) if names.node_rank else None
    if local_world_size and world_size % local_world_size == 0:
        # In blocks: Azure ML's "Distributed GPU training guide" derives the node of an MPI process this way.
        node_count = world_size // local_world_size if node_count is None or names in _MPI else node_count
        node_rank = rank // local_world_size if node_rank is None else node_rank
    if node_rank is not None and node_count is not None:
        _below(names.node_rank or names.rank, node_rank, names.node_count, node_count)
    master_addr, master_port = _mpi_master(env, node_count) if names in _MPI else _master(env)
    return Context(
        rank,
        world_size,
        local_rank,
        local_world_size,
        node_rank,
        node_count,
        names.launcher,
        "worker",
        master_addr,
        master_port,
        env.get("AZUREML_RUN_ID"),
        _number(env, "TORCHELASTIC_RESTART_COUNT") or 0,
    )


_MPI = (_OPEN_MPI, _INTEL_MPI)


def _local_rank_of(env: Mapping[str, str], names: _Names, rank: int, local_world_size: int | None) -> int:
    if local_world_size is None:
        raise ContextError(
            f"{_said(env, names)}, but {names.local_rank} is not set",
            f"set {names.local_rank} to the number of this process on its node",
        )
    return rank % local_world_size


def _from_tf_config(env: Mapping[str, str]) -> Context:
    """Documented: `TF_CONFIG`. Seen: worker i and parameter server i share node i, and worker 0 is the chief."""
    cluster, role, index = _tf_config(env["TF_CONFIG"])
    tasks = [
        (kind, i, address)
        for kind in sorted(cluster, key=lambda k: (_TF_ORDER.index(k) if k in _TF_ORDER else len(_TF_ORDER), k))
        for i, address in enumerate(cluster[kind])
    ]
    places = {(kind, i): place for place, (kind, i, _) in enumerate(tasks)}
    if (role, index) not in places:
        raise ContextError(
            f"the task in TF_CONFIG, {role} {index}, is not in its cluster: {json.dumps(cluster)}",
            "`task` must have a type from `cluster`, and an index into its list of addresses",
        )
    rank = places[role, index]
    node_count = _number(env, "AZUREML_NODE_COUNT")
    if node_count == len(cluster.get("worker", ())):
        nodes = [str(i) for _, i, _ in tasks]
    else:
        nodes = [address.rpartition(":")[0] for _, _, address in tasks]
    # If a node has two tasks, the parameter server comes first: seen, from its port.
    beside = sorted((tasks[i][0] != "ps", i) for i in range(len(tasks)) if nodes[i] == nodes[rank])
    host, _, port = tasks[0][2].rpartition(":")
    return Context(
        rank,
        len(tasks),
        [i for _, i in beside].index(rank),
        len(beside),
        list(dict.fromkeys(nodes)).index(nodes[rank]),
        len(set(nodes)),
        "tensorflow",
        role,
        host,
        int(port),
        env.get("AZUREML_RUN_ID"),
    )


_TF_ORDER = ("chief", "master", "worker", "ps")


def _tf_config(text: str) -> tuple[dict[str, list[str]], str, int]:
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        role, index = task["type"], int(task["index"])
        if not all(int(a.rpartition(":")[2]) >= 0 for addresses in cluster.values() for a in addresses):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        shown = text if len(text) <= 200 else text[:200] + "..."
        raise ContextError(
            f"TF_CONFIG={shown} cannot be read",
            'it must be JSON: {"cluster":{"worker":["host:port",...]},"task":{"type":"worker","index":0}}',
        ) from error
    return cluster, role, index


def _alone(env: Mapping[str, str]) -> Context:
    head = "RAY_ADDRESS" in env
    nodes = _number(env, "AZUREML_NODE_COUNT") or 1
    if nodes > 1 and not head and env.get("AZUREML_PROCESS_NAME") != "main":
        raise ContextError(
            f"AZUREML_NODE_COUNT={nodes}, but no variable tells this process its rank",
            "add a distribution to the job: `type: pytorch` sets RANK, WORLD_SIZE and LOCAL_RANK",
        )
    launcher, role = ("ray", "head") if head else ("python", "main")
    return Context(0, 1, 0, 1, 0, nodes, launcher, role, None, None, env.get("AZUREML_RUN_ID"))


def _master(env: Mapping[str, str]) -> tuple[str | None, int | None]:
    return env.get("MASTER_ADDR") or None, _number(env, "MASTER_PORT")


def _mpi_master(env: Mapping[str, str], node_count: int | None) -> tuple[str | None, int | None]:
    """Where rank 0 listens. Azure ML does not set `MASTER_ADDR` in MPI jobs; the port in `AZ_BATCH_MASTER_NODE` is not
    for the job (DeepSpeed: "Do not overwrite master port with that")."""
    addr, port = _master(env)
    if "AZ_BATCH_MASTER_NODE" in env:
        return addr or env["AZ_BATCH_MASTER_NODE"].partition(":")[0], port or SEVERAL_NODES_PORT
    if "AZ_BATCHAI_MPI_MASTER_NODE" in env:
        return addr or env["AZ_BATCHAI_MPI_MASTER_NODE"], port or ONE_NODE_PORT
    if node_count == 1:
        return addr or "127.0.0.1", port or ONE_NODE_PORT
    return addr, port


def _needed(env: Mapping[str, str], name: str, names: _Names) -> int:
    value = _number(env, name)
    if value is None:
        said = _said(env, names) or f"TORCHELASTIC_RUN_ID={env['TORCHELASTIC_RUN_ID']}"
        raise ContextError(
            f"{said}, but {name} is not set",
            f"set all of {names.rank}, {names.world_size} and {names.local_rank}, or none of them",
        )
    return value


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if text is None:
        return None
    # `int()` would also accept "1_0" and " 1 ".
    if not (text.isascii() and text.isdigit()):
        raise ContextError(f"{name}={text!r} is not a whole number", "unset it, or set it to a number from 0 up")
    return int(text)


def _below(name: str, value: int, limit_name: str, limit: int) -> None:
    if value >= limit:
        raise ContextError(
            f"{name}={value} must be less than {limit_name}={limit}", f"the numbers go from 0 to {limit_name} - 1"
        )


# torch.distributed


def _torch_distributed() -> Any:
    try:
        import torch.distributed
    except ImportError as error:
        raise ContextError(f"torch cannot be imported: {error}", "pip install torch") from error
    return torch.distributed


def _with_device(ctx: Context, backend: str | None) -> Context:
    """Adds the device of this process. All processes of a node must agree, so only their number counts."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    each = ctx.local_rank + 1 if ctx.local_world_size is None else ctx.local_world_size
    if 0 < gpus >= each:
        torch.cuda.set_device(ctx.local_rank)
        return dataclasses.replace(ctx, device=f"cuda:{ctx.local_rank}")
    if gpus and ctx.local_world_size is None:
        raise ContextError(
            f"LOCAL_RANK={ctx.local_rank}, but this process sees {gpus} GPU(s)",
            "start as many processes per node as it has GPUs, or hide all GPUs with CUDA_VISIBLE_DEVICES=",
        )
    if backend and "nccl" in backend:
        raise ContextError(
            f"nccl needs a GPU for each process, but this node has {gpus} for {each}",
            "leave `backend` out to use gloo on the CPU",
        )
    return dataclasses.replace(ctx, device="cpu")


@contextlib.contextmanager
def _torch_variables(ctx: Context) -> Iterator[None]:
    wanted = {
        "RANK": ctx.rank,
        "WORLD_SIZE": ctx.world_size,
        "LOCAL_RANK": ctx.local_rank,
        "MASTER_ADDR": ctx.master_addr,
        "MASTER_PORT": ctx.master_port,
    }
    if ctx.launcher in ("python", "ray"):
        wanted = {}  # there are no other processes for libraries to find
    new = {name: str(value) for name, value in wanted.items() if value is not None and name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _set_up(dist: Any, ctx: Context, backend: str, options: dict[str, Any]) -> None:
    if ctx.world_size == 1:
        # A single process needs no address, and no port that could be in use.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, **options)
        return
    if ctx.master_addr is None or ctx.master_port is None:
        missing = "MASTER_ADDR" if ctx.master_addr is None else "MASTER_PORT"
        raise ContextError(
            f"{missing} is not set: rank {ctx.rank} of {ctx.world_size} does not know where to find rank 0",
            "set MASTER_ADDR and MASTER_PORT, in all processes, to the address of rank 0's node and a free port there",
        )
    try:
        dist.init_process_group(backend, init_method="env://", **options)
    except (dist.DistNetworkError, OSError) as error:
        if ctx.is_main and "EADDRINUSE" in str(error):
            raise ContextError(
                f"port {ctx.master_port}, on which rank 0 should listen, is in use",
                "stop the program that uses it, or set MASTER_PORT to a free port in all processes",
            ) from error
        raise


def _take_down(dist: Any) -> None:
    """Destroy the group in a way that lets the process exit.

    A DistributedDataParallel model that still exists holds the group. If it were the last to hold it, deleting it would
    join a thread of gloo that waits for Python, and sometimes the process would hang or abort after its work is done
    (seen with torch 2.13). So we collect unused models, and keep the group itself until the process exits.
    """
    import ctypes
    import gc

    gc.collect()
    if not dist.is_initialized():
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(dist.group.WORLD))
    dist.destroy_process_group()


def _timedelta(timeout: float | timedelta) -> timedelta:
    from datetime import timedelta

    return timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)


if __name__ == "__main__":
    sys.exit(main())
