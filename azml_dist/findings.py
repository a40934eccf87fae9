"""What is allowed, and worth a second look before it costs a queue: each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from azml_dist import shell
from azml_dist.errors import Problem
from azml_dist.rules import torn_values
from azml_dist.snapshot import Snapshot
from azml_dist.values import ComponentCommand, ExistingCommand
from azml_dist.vmsizes import VmSize, vm_size

if TYPE_CHECKING:
    from azml_dist.job import Job

LARGE_FILE = 100 * 2**20
"""azure-ai-ml warns of single files above this size (`_artifact_utilities`)."""

SET_BY_THE_SERVICE = frozenset(
    [
        "RANK",
        "LOCAL_RANK",
        "NODE_RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TF_CONFIG",
        "AZUREML_RUN_ID",
        "MLFLOW_RUN_ID",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_ID",
        "MLFLOW_EXPERIMENT_NAME",
        "AZUREML_NODE_COUNT",
    ]
)


def findings_of(job: Job, code: Snapshot) -> tuple[Problem, ...]:
    """Everything worth a second look in a job and its code folder."""
    size = vm_size(job.instance_type or "")
    return (*_of_the_job(job), *(size_findings(job, size) if size else ()), *_of_the_code(code))


def size_findings(job: Job, size: VmSize, compute: str | None = None) -> Iterator[Problem]:
    """What is worth a second look when a job runs on nodes of that size; `compute` is the cluster that has them."""
    where = "compute" if compute else "instance_type"
    if size.retired:
        yield Problem(
            f"Azure retired {size.name} on {size.retired}",
            "`az ml compute list-sizes` lists what there is in your region",
            where,
        )
    yield from _gpus(job, size, compute)
    if job.node_count > 1 and not size.has_infiniband:
        yield Problem(
            f"{size.name} has no InfiniBand: {job.node_count} nodes exchange gradients over Ethernet",
            "more GPUs in one node come before more nodes; sizes with an `r` in their name have InfiniBand",
            where,
        )
    if job.shm_size is None and _processes_for(job, size) > 1:
        hint = f"write `shm_size: {size.memory_gib // 2}g`, half of the node's memory" if size.memory_gib else None
        yield Problem(
            "the processes of a node share 2 GB of shared memory, which is what Azure ML gives where `shm_size` is not"
            " given; NCCL and the workers of data loaders need more",
            hint,
            "shm_size",
        )


def _gpus(job: Job, size: VmSize, compute: str | None) -> Iterator[Problem]:
    processes, gpus = job.process_count_per_node, size.gpu_count
    nodes = f"{job.node_count:,} node{'s' * (job.node_count != 1)}"
    kind = type(job.distribution).__name__
    if kind not in ("PyTorch", "Mpi", "NoneType"):
        return  # TensorFlow and Ray have one process on each node that takes every GPU
    if processes > gpus:
        place = f"`{compute}`: {size.name} has" if compute else f"{size.name}, which has"
        bigger = {2: "a 2-GPU", 4: "a 4-GPU", 8: "an 8-GPU"}.get(processes)
        yield Problem(
            f"{nodes} x {processes} processes do not fit {place} {gpus} GPU{'s' * (gpus != 1)}",
            f"set `distribution.process_count_per_node` to {gpus}" + (f", or use {bigger} size" if bigger else ""),
            "distribution",
        )
    elif processes < gpus and not any(shell.launchers(job.shell_command)):
        one = f"{processes} process{'es' * (processes != 1)} on a node"
        yield Problem(
            f"{one}, and {size.name} has {gpus} GPUs: the others do nothing, unless a process takes several",
            f"set `distribution.process_count_per_node` to {gpus}"
            if job.distribution
            else f"for one process a GPU, give it `PyTorch(process_count_per_node={gpus})`",
            "distribution",
        )


def _processes_for(job: Job, size: VmSize) -> int:
    """How many processes a node will have, those that a launcher in the command starts counted as one a GPU."""
    return size.gpu_count if any(shell.launchers(job.shell_command)) else job.process_count_per_node


def _of_the_job(job: Job) -> Iterator[Problem]:
    if isinstance(job.command, ExistingCommand):
        yield from torn_values(job)
    if isinstance(job.command, ExistingCommand) and not isinstance(job.command, ComponentCommand):
        yield from _optional_parts(job)
    kind = type(job.distribution).__name__
    if job.environment is None:
        yield Problem(
            "the job has no environment; azure-ai-ml does not send it without one",
            "an `azureml:` reference, an image, or `Environment.load(path)`",
            "environment",
        )
    if kind == "Mpi" and job.distribution and "process_count_per_node" not in job.distribution.model_fields_set:
        yield Problem(
            "Azure ML's reference calls the process count of MPI required; without it one process a node is assumed",
            "write `process_count_per_node: 1`, or the number of GPUs of a node",
            "distribution",
        )
    yield from _restarts(job)
    yield from _accelerate(job)
    if kind == "Ray":
        yield Problem(
            "Ray is a preview feature of Azure ML; that the command runs on the head alone is inferred",
            None,
            "distribution",
        )
    for name in job.environment_variables.keys() & SET_BY_THE_SERVICE:
        yield Problem(
            f"`{name}` is set by Azure ML itself, which takes no notice of yours",
            "leave it out",
            f"environment_variables.{name}",
        )
    for name, output in job.outputs.items():
        if output.mode == "upload" and job.node_count > 1:
            yield Problem(
                "an output of mode `upload` is written by one node; several nodes overwrite each other",
                "write `mode: rw_mount`",
                f"outputs.{name}",
            )
    if isinstance(job.docker_args, tuple) and job.max_node_count:
        yield Problem(
            "azure-ai-ml drops `max_instance_count` where `docker_args` is a list",
            "write `docker_args` as one text",
            "docker_args",
        )


def _accelerate(job: Job) -> Iterator[Problem]:
    """Seen with accelerate 1.15: `launch_command` takes its `simple_launcher`, which starts one process."""
    for launcher in shell.launchers(job.shell_command):
        count = launcher.option("--num_processes", "--num-processes") or "1"
        if launcher.text != "accelerate launch" or (count.isdigit() and int(count) <= job.node_count):
            continue
        if launcher.option("--cpu") is not None:
            yield Problem(
                f"`accelerate launch --cpu` starts one process a node; `--num_processes {count}` is not looked at",
                "write `torchrun --nproc-per-node`, with ACCELERATE_USE_CPU: 'true' in `environment_variables`",
                "command",
            )
        elif launcher.option(*_STARTS_SEVERAL) is None:
            yield Problem(
                "without `--multi_gpu`, `accelerate launch` starts one process on a node where it finds no second GPU,"
                f" whatever `--num_processes {count}` says",
                "write `--multi_gpu`; without GPUs, ACCELERATE_USE_CPU: 'true' in `environment_variables` too",
                "command",
            )


_STARTS_SEVERAL = tuple(
    f"--{name}"
    for words in ("multi_gpu", "use_deepspeed", "use_fsdp", "use_megatron_lm", "tpu", "config_file")
    for name in (words, words.replace("_", "-"))
)


def _optional_parts(job: Job) -> Iterator[Problem]:
    if "$[[" in job.command:
        yield Problem(
            "`$[[ ]]` belongs to components; that Azure ML leaves it out of a plain job too is inferred",
            "write the argument without `$[[ ]]`, or leave it out",
            "command",
        )


_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def _restarts(job: Job) -> Iterator[Problem]:
    """A torchrun of the user's own. That its restarts hang or fail is seen with torch 2.13 on gloo, every time."""
    own = f"{job.shell_command} {dict(job.environment_variables)}"
    for launcher in shell.launchers(job.shell_command):
        if launcher.option("--max-restarts", "--max_restarts") in (None, "0") or launcher.text == "deepspeed":
            continue
        is_static = launcher.option("--rdzv-backend", "--rdzv_backend") in (None, "static") and (
            launcher.option("--master-port", "--master_port") or job.node_count > 1
        )
        if is_static:
            yield Problem(
                "processes that torchrun restarts do not find one another again at a fixed `--master-port`",
                "write `--rdzv-backend c10d --rdzv-endpoint $MASTER_ADDR:$MASTER_PORT --rdzv-id $AZUREML_RUN_ID`,"
                f" and set the environment variable {_SHARED_STORE} to 1",
                "command",
            )
        elif _SHARED_STORE not in own:
            yield Problem(
                "processes that torchrun restarts meet those of before in its store, and fail or hang",
                f"set the environment variable {_SHARED_STORE} to 1: each start then has a store of its own",
                "command",
            )


def _of_the_code(code: Snapshot) -> Iterator[Problem]:
    hidden = [f for f in code.files if f.path.startswith(".git/") or "/__pycache__/" in f"/{f.path}"]
    if hidden:
        size = sum(f.size for f in hidden) / 2**20
        yield Problem(
            f"{len(hidden)} files of `.git` and `__pycache__` ({size:.1f} MB) are uploaded with the code",
            "list them in an .amlignore; azure-ai-ml leaves nothing out by itself",
            "code",
        )
    for file in code.files:
        if file.size > LARGE_FILE:
            yield Problem(
                f"{file.path} has {file.size / 2**20:,.0f} MB and is uploaded with the code",
                "make it a data input, or list it in an .amlignore",
                "code",
            )
    if code.outside:
        yield Problem(
            f"{len(code.outside)} files lie behind links out of the code folder, {code.outside[0]} first; "
            "their contents are uploaded",
            None,
            "code",
        )
