"""What is allowed, and worth a second look before it costs a queue: each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from azml_dist.errors import Problem
from azml_dist.snapshot import Snapshot

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
    return (*_of_the_job(job), *_of_the_code(code))


def _of_the_job(job: Job) -> Iterator[Problem]:
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
