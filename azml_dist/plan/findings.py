"""Findings: what is allowed but probably a mistake, each with what to do about it, before the job waits in a queue."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import Finding
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Input
from azml_dist.notation import shell
from azml_dist.notation.expressions import WITHOUT_DOLLAR, ComponentCommand, ExistingCommand, expression
from azml_dist.plan.installs import of_installs
from azml_dist.plan.rules import torn_values
from azml_dist.plan.snapshot import Snapshot
from azml_dist.regular import kind_of
from azml_dist.vmsizes import VmSize, vm_size
from azml_dist.words import is_utf8, late, plural, shorten, similar_file

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields

LARGE_FILE = 100 * 2**20
"""azure-ai-ml warns about single files larger than this (`_artifact_utilities`)."""

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
        *(f"AZUREML_ARM_{name}" for name in ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME", "PROJECT_NAME")),
        *(f"AZ_BATCH_{name}" for name in ("MASTER_NODE", "HOST_LIST", "NODE_LIST", "IS_CURRENT_NODE_MASTER")),
        *(f"AZ_BATCHAI_{name}" for name in ("MPI_MASTER_NODE", "JOB_MASTER_NODE_IP", "NODE_IP", "TASK_INDEX")),
        *("AZUREML_CR_NODE_RANK", "AZUREML_CR_DATA_CAPABILITY_PATH", "AZUREML_CR_COMPUTE_CONTEXT"),
        "AZUREML_CR_DISTRIBUTED_CONFIG",
    ]
)


def findings_of(job: JobFields, code: Snapshot) -> tuple[Finding, ...]:
    """All findings of a job and its code folder."""
    size = vm_size(job.instance_type or "")
    return (*_of_the_job(job), *(size_findings(job, size) if size else ()), *_of_the_code(code))


def size_findings(job: JobFields, size: VmSize, compute: str | None = None) -> Iterator[Finding]:
    """The findings for a job on nodes of this size; `compute` is the cluster that has them."""
    where = "compute" if compute else "instance_type"
    if size.retired:
        yield Finding(
            "retired-size",
            "warning",
            f"Azure retired {size.name} on {size.retired}",
            "`az ml compute list-sizes` lists the sizes in your region",
            where,
        )
    yield from _gpus(job, size, compute)
    if job.node_count > 1 and not size.has_infiniband:
        yield Finding(
            "no-infiniband",
            "warning",
            f"{size.name} has no InfiniBand: {job.node_count} nodes exchange gradients over Ethernet",
            "use more GPUs per node before more nodes; sizes with an `r` in their name have InfiniBand",
            where,
        )
    if job.shm_size is None and _processes_for(job, size) > 1:
        hint = f"write `shm_size: {size.memory_gib // 2}g`, half of the node's memory" if size.memory_gib else None
        yield Finding(
            "little-shared-memory",
            "warning",
            "the processes of a node share 2 GB of shared memory, Azure ML's default;"
            " NCCL and the workers of data loaders need more",
            hint,
            "shm_size",
        )


def _gpus(job: JobFields, size: VmSize, compute: str | None) -> Iterator[Finding]:
    processes, gpus = job.process_count_per_node, size.gpu_count
    nodes = plural(job.node_count, "node")
    kind = type(job.distribution).__name__
    if kind not in ("PyTorch", "Mpi", "NoneType"):
        return  # TensorFlow and Ray have one process on each node, which uses every GPU
    if processes > gpus:
        place = f"`{compute}`: {size.name} has" if compute else f"{size.name}, which has"
        bigger = {2: "a 2-GPU", 4: "a 4-GPU", 8: "an 8-GPU"}.get(processes)
        yield Finding(
            "more-processes-than-gpus",
            "warning",
            f"{nodes} x {processes} processes do not fit on {place} {plural(gpus, 'GPU')}",
            f"set `distribution.process_count_per_node` to {gpus}" + (f", or use {bigger} size" if bigger else ""),
            "distribution",
        )
    elif processes < gpus and not any(shell.launchers(job.shell_command)):
        one = f"{plural(processes, 'process', 'processes')} on a node"
        yield Finding(
            "idle-gpus",
            "warning",
            f"{one}, but {size.name} has {gpus} GPUs: the others stay idle unless a process uses several",
            f"set `distribution.process_count_per_node` to {gpus}"
            if job.distribution
            else f"for one process per GPU, add `PyTorch(process_count_per_node={gpus})`",
            "distribution",
        )


def _processes_for(job: JobFields, size: VmSize) -> int:
    """How many processes a node will have; a launcher in the command counts as one per GPU."""
    return size.gpu_count if any(shell.launchers(job.shell_command)) else job.process_count_per_node


def _of_the_job(job: JobFields) -> Iterator[Finding]:
    if isinstance(job.command, ExistingCommand):
        yield from (Finding("torn-value", "warning", *problem) for problem in torn_values(job))
    if isinstance(job.command, ComponentCommand):
        yield from job.command.read_with
    yield from _outside_values(job)
    yield from _inputs(job)
    yield from _lines(job)
    yield from _without_dollar(job)
    if isinstance(job.command, ExistingCommand) and not isinstance(job.command, ComponentCommand):
        yield from _optional_parts(job)
    kind = type(job.distribution).__name__
    if job.environment is None:
        yield Finding(
            "no-environment",
            "warning",
            "the job has no environment, and azure-ai-ml does not submit it without one",
            "set an `azureml:` reference, an image, or `Environment.load(path)`",
            "environment",
        )
    if kind == "Mpi" and job.distribution and "process_count_per_node" not in job.distribution.model_fields_set:
        yield Finding(
            "mpi-process-count",
            "note",
            "Azure ML's reference requires a process count for MPI; one process per node is assumed here",
            "write `process_count_per_node: 1`, or the number of GPUs per node",
            "distribution",
        )
    yield from of_installs(job)
    yield from _restarts(job)
    yield from _accelerate(job)
    if kind == "Ray":
        yield Finding(
            "ray-preview",
            "note",
            "Ray is a preview feature of Azure ML; the command runs only on the head node (inferred)",
            None,
            "distribution",
        )
    yield from _lost(job)


def _lost(job: JobFields) -> Iterator[Finding]:
    """Settings that are overwritten, or never arrive."""
    for name in job.environment_variables.keys() & SET_BY_THE_SERVICE:
        yield Finding(
            "set-by-azure-ml",
            "warning",
            f"Azure ML sets `{name}` itself and ignores your value",
            "leave it out",
            f"environment_variables.{name}",
        )
    for name, output in job.outputs.items():
        if output.mode == "upload" and job.node_count > 1:
            yield Finding(
                "upload-from-several-nodes",
                "warning",
                "mode `upload` is for outputs that one node writes; several nodes overwrite each other's files",
                "write `mode: rw_mount`",
                f"outputs.{name}",
            )
    if isinstance(job.docker_args, tuple) and job.max_node_count:
        yield Finding(
            "max-instance-count-dropped",
            "warning",
            "azure-ai-ml drops `max_instance_count` if `docker_args` is a list",
            "write `docker_args` as one string",
            "docker_args",
        )


def _inputs(job: JobFields) -> Iterator[Finding]:
    for name, value in job.inputs.items():
        at = f"inputs.{name}"
        if isinstance(value, Input):
            if value.type in ("uri_folder", "mltable") and (web := _WEB.match(value.path)):
                yield Finding(
                    "folder-from-the-web",
                    "error",
                    f"{value.path} can only be the address of one file; mounting it as a {value.type} fails",
                    _other_address(web) or "use `uri_file`, or a datastore: `azureml://datastores/NAME/paths/FOLDER`",
                    at,
                )
            yield from _unknown_address(value.path, at)
            yield from _not_as_its_type(name, value)
        elif not job.is_data(name) and job.has_value(name) and not job.literal(name):
            # 51 of Microsoft's components have it as a default, and a pipeline leaves defaults to the component.
            yield Finding(
                "empty-input",
                "warning" if isinstance(value, Parameter) else "error",
                "it is an empty string, which Azure ML refuses: `The Value field is required`",
                "leave the input out, or use a word that stands for no value, such as `none`",
                at,
            )
        elif not job.is_data(name) and job.literal(name) == "CHANGE-ME":
            yield Finding(
                "placeholder",
                "warning",
                "it is still `CHANGE-ME`, which `azml-dist init` wrote because the script requires a value",
                "give it a value; for data, `type: uri_folder` and `path: PATH`",
                at,
            )


_NEEDS = {"mltable": ("MLTable", "uri_folder"), "mlflow_model": ("MLmodel", "custom_model")}
"""What the folder of a type has, by which it is loaded, and the type without it."""


def _not_as_its_type(name: str, value: Input) -> Iterator[Finding]:
    """A local folder without the file of its type: azure-ai-ml uploads it unseen, and nobody looks before the run."""
    file, plain = _NEEDS.get(value.type, ("", ""))
    if not file or not value.is_local or not _lacks(Path(value.path), file):
        return
    close = similar_file(Path(value.path, file))
    yield Finding(
        "not-as-its-type",
        "warning",
        f"there is no file `{file}` in {value.path}: Azure ML accepts the job, but loading it as {value.type} fails",
        f"write `type: {plain}` if your script reads the files itself" if close is None else close,
        f"inputs.{name}",
    )


def _lacks(folder: Path, file: str) -> bool:
    """Whether a folder that can be read has no such file, nor has a folder in it, which a script may load."""
    if kind_of(folder) != "folder" or not os.access(folder, os.R_OK | os.X_OK):
        return False
    return not (folder / file).exists() and not any(folder.glob(f"*/{file}"))


_WEB = late(r"(?i)https?://(?P<host>[^/]+)(?:/(?P<container>[^/]+)(?:/(?P<path>.*))?)?$")


_DATASTORE = late(r"azureml://datastores/(?![^/]+/paths(?:/|$))(?P<name>[^/]*)(?:/(?:paths?/)?(?P<path>.*))?$")
_ELSEWHERE = late(r"(?i)(s3a?|gs|gcs|hdfs|dbfs|ftp|hf)://")


def _unknown_address(path: str, at: str) -> Iterator[Finding]:
    """An address that Azure ML's documentation does not name."""
    if found := _DATASTORE.match(path):
        address = f"azureml://datastores/{found['name'] or 'NAME'}/paths/{found['path'] or 'FOLDER'}"
        yield Finding(
            "unknown-address",
            "warning",
            f"{path} is not the address of something in a datastore: `paths` is missing",
            f"write `{address}`",
            at,
        )
    elif found := _ELSEWHERE.match(path):
        yield Finding(
            "unknown-address",
            "warning",
            f"Azure ML mounts and downloads no {found[1]}:// addresses, as far as its documentation says",
            "copy the data to a datastore, or pass the address as text and let the script read it",
            at,
        )


def _other_address(web: re.Match[str]) -> str | None:
    host, container = web["host"], web["container"]
    if ".blob.core." not in host or not container:
        return None
    return f"write `wasbs://{container}@{host}/{web['path'] or ''}`, or use a datastore"


def _without_dollar(job: JobFields) -> Iterator[Finding]:
    for text, inside in {match[0]: match[1] for match in WITHOUT_DOLLAR.finditer(job.shell_command)}.items():
        yield Finding(
            "braces-without-dollar",
            "warning",
            f"`{text}` stays in the command as it is: Azure ML replaces only what has a `$` in front",
            f"write `{expression(inside)}`",
            "command",
        )


def _lines(job: JobFields) -> Iterator[Finding]:
    """Lines of a command that may fail unnoticed: bash exits with the status of the last one only."""
    lines = list(shell.lines(job.shell_command))
    for before, line in pairwise(lines):
        if line.text.startswith("-"):
            is_last, end = line is lines[-1], f"end line {before.number} with ` \\`"
            if before.text.endswith("\\"):
                end = f"remove the blank after the `\\` at the end of line {line.number - 1}"
            yield Finding(
                "line-without-backslash",
                "error" if is_last else "warning",
                f"bash runs line {line.number} of the command, `{shorten(line.text)}`, as a separate command"
                " and does not find it (exit code 127)",
                f"{end}, or write `command: >-`, which joins all lines into one",
                "command",
            )
            return
    commands = [command for line in lines for command in line.commands]
    if "pipefail" not in job.shell_command and "PIPESTATUS" not in job.shell_command:
        yield from _hidden_by_tee(commands)
    if any(command.stops_at_failures for command in commands):
        return
    unseen = (command for command, after in pairwise(commands) if "$?" not in after.text and after.text != "exit")
    if found := next((command for command in unseen if command.may_fail), None):
        yield Finding(
            "unchecked-line",
            "warning",
            f"if line {found.number} of the command, `{shorten(found.text)}`, fails, the job continues"
            " and may still complete",
            f"start the command with `set -e`, or join its {'lines' if len(lines) > 1 else 'parts'} with `&&`",
            "command",
        )


def _hidden_by_tee(commands: Iterable[shell.Line]) -> Iterator[Finding]:
    """bash exits with the status of the last command of a pipe, which is that of `tee`."""
    if found := next((text for command in commands if (text := command.into_tee)), None):
        yield Finding(
            "unchecked-pipe",
            "warning",
            f"if `{shorten(found)}` fails, the job may still complete: only `tee`, to which its output goes, counts",
            "start the command with `set -o pipefail`",
            "command",
        )


def _outside_values(job: JobFields) -> Iterator[Finding]:
    """azure-ai-ml 1.35 checks neither `enum` nor `min` and `max`, in a default or in a step (seen)."""
    for name, value in job.inputs.items():
        if isinstance(value, Parameter) and value.default is not None and (problem := value.outside(value.default)):
            message = f"{problem.message}; azure-ai-ml accepts it anyway"
            yield Finding("value-outside", "warning", message, problem.hint, f"inputs.{name}")


def _accelerate(job: JobFields) -> Iterator[Finding]:
    """accelerate 1.15 then uses its `simple_launcher`, which starts one process (seen in `launch_command`)."""
    for launcher in shell.launchers(job.shell_command):
        count = launcher.option("--num_processes", "--num-processes") or "1"
        if launcher.text != "accelerate launch" or (count.isdigit() and int(count) <= job.node_count):
            continue
        if launcher.option("--cpu") is not None:
            yield Finding(
                "accelerate-starts-one",
                "warning",
                f"`accelerate launch --cpu` starts one process per node and ignores `--num_processes {count}`",
                "write `torchrun --nproc-per-node`, with `ACCELERATE_USE_CPU: 'true'` in `environment_variables`",
                "command",
            )
        elif launcher.option(*_STARTS_SEVERAL) is None:
            yield Finding(
                "accelerate-starts-one",
                "warning",
                "without `--multi_gpu`, `accelerate launch` starts only one process on a node with fewer than 2 GPUs,"
                f" despite `--num_processes {count}`",
                "add `--multi_gpu`; without GPUs, also set `ACCELERATE_USE_CPU: 'true'` in `environment_variables`",
                "command",
            )


_STARTS_SEVERAL = tuple(
    f"--{name}"
    for words in ("multi_gpu", "use_deepspeed", "use_fsdp", "use_megatron_lm", "tpu", "config_file")
    for name in (words, words.replace("_", "-"))
)


def _optional_parts(job: JobFields) -> Iterator[Finding]:
    if "$[[" in job.command:
        yield Finding(
            "optional-part-in-a-job",
            "warning",
            "`$[[ ]]` belongs in components; that Azure ML also removes it from a plain job is inferred",
            "write the argument without `$[[ ]]`, or remove it",
            "command",
        )


_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def _restarts(job: JobFields) -> Iterator[Finding]:
    """A torchrun in the command. With torch 2.13 and gloo, its restarts hang or fail every time (seen)."""
    own = f"{job.shell_command} {dict(job.environment_variables)}"
    for launcher in shell.launchers(job.shell_command):
        if launcher.option("--max-restarts", "--max_restarts") in (None, "0") or launcher.text == "deepspeed":
            continue
        is_static = launcher.option("--rdzv-backend", "--rdzv_backend") in (None, "static") and (
            launcher.option("--master-port", "--master_port") or job.node_count > 1
        )
        if is_static:
            yield Finding(
                "restarts-at-a-fixed-port",
                "warning",
                "after a restart by torchrun, processes do not find each other again at a fixed `--master-port`",
                "write `--rdzv-backend c10d --rdzv-endpoint $MASTER_ADDR:$MASTER_PORT --rdzv-id $AZUREML_RUN_ID`,"
                f" and set the environment variable {_SHARED_STORE} to 1",
                "command",
            )
        elif _SHARED_STORE not in own:
            yield Finding(
                "restarts-share-a-store",
                "warning",
                "processes that torchrun restarts share its store with the previous ones, and fail or hang",
                f"set the environment variable {_SHARED_STORE} to 1: each start then gets its own store",
                "command",
            )


def _of_the_code(code: Snapshot) -> Iterator[Finding]:
    hidden = [f for f in code.files if f.path.startswith(".git/") or "/__pycache__/" in f"/{f.path}"]
    if hidden:
        size = sum(f.size for f in hidden) / 2**20
        yield Finding(
            "hidden-files-uploaded",
            "note",
            f"{plural(len(hidden), 'file')} in `.git` and `__pycache__` ({size:.1f} MB) "
            f"{'is' if len(hidden) == 1 else 'are'} uploaded with the code",
            "list them in an .amlignore; azure-ai-ml excludes nothing by default",
            "code",
        )
    for file in code.files:
        if file.size > LARGE_FILE:
            yield Finding(
                "large-file",
                "note",
                f"{file.path} ({file.size / 2**20:,.0f} MB) is uploaded with the code",
                "make it a data input, or list it in an .amlignore",
                "code",
            )
    if odd := [file.path for file in code.files if not is_utf8(file.path)]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        yield Finding(
            "file-name-not-utf-8",
            "error",
            f"the name of {odd[0]}{more} in the code is not UTF-8, and azure-ai-ml fails on it (seen with 1.35)",
            "rename it, or exclude it in an .amlignore",
            "code",
        )
    if code.unlisted:
        more = f" and {len(code.unlisted) - 1} more" if len(code.unlisted) > 1 else ""
        yield Finding(
            "unreadable-folder",
            "warning",
            f"you have no permission to list {code.unlisted[0]}{more}: azure-ai-ml silently skips what is inside",
            "give yourself permission, or move the folder out of the code",
            "code",
        )
    if code.outside:
        yield Finding(
            "links-out-of-the-code",
            "note",
            f"{len(code.outside)} files are reached through links that lead out of the code folder, such as"
            f" {code.outside[0]}; their contents are uploaded",
            None,
            "code",
        )
