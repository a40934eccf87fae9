"""Variables that a command uses but no run sets, and expressions in variables, which nothing replaces."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from azml_dist.errors import Finding
from azml_dist.notation import shell
from azml_dist.notation.expressions import INPUT_OR_OUTPUT
from azml_dist.words import late, nearest

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields

_READ = late(r"\$\{?((?:AZ|AZUREML|AZURE_ML)_\w+)")
"""A variable with one of the platform's prefixes, as the shell reads it."""
_PREPARED = r"(?:\$\{{{0}:?[-+=]|\b{0}=|-[nzv] +[\"']?\$?\{{?{0}\b|\bread\b[^;&|\n]*\b{0}\b)"
"""Where a command sets the variable itself, has a default for it, or tests whether it is set."""

_ON_SEVERAL_NODES = frozenset(
    [
        *(f"AZ_BATCH_{name}" for name in ("MASTER_NODE", "HOST_LIST", "NODE_LIST", "IS_CURRENT_NODE_MASTER")),
        "AZ_BATCHAI_IS_CURRENT_NODE_MASTER",
    ]
)
_THERE_ONLY = frozenset(
    [
        *(f"AZUREML_{name}" for name in ("RUN_TOKEN", "RUN_TOKEN_EXPIRY", "SERVICE_ENDPOINT", "WORKSPACE_ID")),
        *(f"AZUREML_{name}" for name in ("DISCOVERY_SERVICE_ENDPOINT", "RUN_HISTORY_SERVICE_ENDPOINT")),
        *(f"AZUREML_{name}" for name in ("WORKSPACE_SCOPE", "EXPERIMENT_SCOPE", "DATA_CONTAINER_ID", "OBO_ENABLED")),
        *(f"AZ_BATCH_{name}" for name in ("NODE_ID", "JOB_ID", "POOL_ID", "TASK_ID", "NODE_ROOT_DIR", "TASK_DIR")),
        *(f"AZ_BATCHAI_{name}" for name in ("CLUSTER_NAME", "JOB_WORK_DIR", "JOB_TEMP", "TASK_TYPE", "MPI_HOST_FILE")),
        *(f"AZ_BATCHAI_{name}" for name in ("GPU_COUNT_FOUND", "GPU_COUNT_NEED", "GPU_COUNT")),
    ]
)
"""Seen on Azure ML, but not set by a local run."""


def unset_variables(job: JobFields, known: Collection[str]) -> Iterator[Finding]:
    """Variables in the command that nothing sets; `known` are those of the job's processes."""
    command = job.shell_command
    names = dict.fromkeys(_READ.findall(command))
    for name in names:
        if name not in known and not re.search(_PREPARED.format(name), command):
            yield _unset(name, known)
    if _MAY_SET_RANKS.search(command):
        return
    # A launcher sets them for what it starts, but its own options are read before it does.
    read = re.sub("'[^']*'", "", command) if any(shell.launchers(command)) else command
    for name in dict.fromkeys(_OF_RANKS.findall(read)):
        if name not in known and not re.search(_PREPARED.format(name), command):
            of = job.distribution and type(job.distribution).__name__
            which = f"whose distribution is {of}" if of else "which has no distribution"
            message = f"`${name}` is not set in this job, {which}: it is empty"
            yield Finding("unset-variable", "warning", message, _of_another(job, name, known), "command")


_OF_RANKS = late(
    r"(?<!\\)\$\{?((?:LOCAL_|NODE_|GROUP_)?RANK|(?:LOCAL_)?WORLD_SIZE|MASTER_(?:ADDR|PORT)|TF_CONFIG"
    r"|OMPI_COMM_WORLD_(?:LOCAL_|NODE_)?(?:RANK|SIZE))\b"
)
"""A variable that a launcher or a distribution sets, as the shell reads it."""
_MAY_SET_RANKS = late(r"(?:^|[\s;&|(])(?:source|eval|\.)\s|\bsrun\b")
_MPI_FOR = {
    "RANK": "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}


def _of_another(job: JobFields, name: str, known: Collection[str]) -> str:
    """What to write for a variable of another distribution."""
    torch_for = {theirs: ours for ours, theirs in _MPI_FOR.items()}
    if (other := _MPI_FOR.get(name) or torch_for.get(name)) and other in known:
        return f"write `${other}`"
    if name == "LOCAL_WORLD_SIZE" and job.distribution:
        return f"only torchrun sets it: write the number, {job.process_count_per_node}"
    if job.distribution:
        return "each distribution sets variables of its own: `azml-dist plan` shows those of this job"
    return "leave it out, or add a `distribution` to the job"


def _unset(name: str, known: Collection[str]) -> Finding:
    if name in _ON_SEVERAL_NODES:
        message = f"`${name}` is set only in jobs with several nodes: here it is empty"
        return Finding(
            "unset-variable", "warning", message, f"write `${{{name}:-…}}` with a default for one node", "command"
        )
    if name in _THERE_ONLY:
        message = f"`${name}` has been seen on Azure ML, but a local run does not set it"
        return Finding(
            "unset-variable", "warning", message, f"write `${{{name}:-…}}` with a default for local runs", "command"
        )
    hint = nearest(f"${name}", [f"${one}" for one in known if one.startswith("AZ")])
    return Finding(
        "unset-variable", "warning", f"no run sets `${name}`, locally or on Azure ML: it is empty", hint, "command"
    )


def unrendered_values(job: JobFields) -> Iterator[Finding]:
    """Azure ML replaces `${{…}}` only in the command: a variable keeps it as it is."""
    for name, value in job.environment_variables.items():
        if value and "${{" in value:
            yield Finding(
                "unrendered-variable",
                "warning",
                f"`${{{{…}}}}` is replaced only in the command: the value of `{name}` stays {value}",
                _instead(job, name, value),
                f"environment_variables.{name}",
            )


def unexpanded_values(job: JobFields) -> Iterator[Finding]:
    """No shell reads the values of variables, so one that adds to its own old value replaces it."""
    for name, value in job.environment_variables.items():
        if value and re.search(rf"\$(?:{re.escape(name)}\b|{{{re.escape(name)}}})", value):
            yield Finding(
                "unexpanded-variable",
                "warning",
                f"`${name}` is not replaced there: the value of `{name}` becomes {value}",
                f'start the command with `export {name}="{value}" &&`, and leave it out here',
                f"environment_variables.{name}",
            )


def _instead(job: JobFields, variable: str, value: str) -> str:
    """How to get that value: from variables that the run sets, in the script or in the command."""
    sources = [_source(job, match[1], match[2]) for match in INPUT_OR_OUTPUT.finditer(value)]
    if not sources:
        return "write the value itself"
    rendered = INPUT_OR_OUTPUT.sub(lambda match: f"${{{_source(job, match[1], match[2])}}}", value)
    read = " and ".join(f"`${source}`" for source in dict.fromkeys(sources))
    return f'read {read} in the script, or start the command with `export {variable}="{rendered}" &&`'


def _source(job: JobFields, kind: str, name: str) -> str:
    """The variable that has the value of an expression."""
    if kind == "outputs":
        return f"AZURE_ML_OUTPUT_{name}"
    return f"AZURE_ML_INPUT_{name}" if name in job.inputs and job.is_data(name) else f"AZUREML_PARAMETER_{name}"
