"""The sense of a job, beyond the shape of its fields: what azure-ai-ml lets through and the cluster then fails on."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from glob import glob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist import shell
from azml_dist.errors import Problem
from azml_dist.model import nearest_or_all, shown
from azml_dist.snapshot import take_snapshot
from azml_dist.values import ExistingCommand, is_remote

if TYPE_CHECKING:
    from azml_dist.job import Job

_EXPRESSION = re.compile(r"(\$?)\$\{\{(.*?)\}\}", re.DOTALL)
_SINGLE_BRACE = re.compile(r"(?<!\{)(\$?)\{\s*((?:inputs|outputs|search_space)\.[^{}]*)\}(?!\})")
_LET_PASS = re.compile(r"\[[\w\.\s-]*\${{inputs\.([\w\.-]+)}}]")
_OPTIONAL = re.compile(r"\$\[\[.*?\]\]", re.DOTALL)


def problems_of(job: Job) -> Iterator[Problem]:
    """All that is wrong with a job whose fields have the right shape, without a look at any file."""
    yield from _expressions(job)
    if not isinstance(job.command, ExistingCommand):
        yield from torn_values(job)
    yield from _counts(job)
    yield from _launchers(job)


def file_problems(job: Job) -> Iterator[Problem]:
    """What is wrong with the files on this machine that a job names."""
    yield from _code_folder(job)
    for name in job.inputs:
        if (path := job.local_path(name)) is not None:
            yield from _input_path(path, f"inputs.{name}.path", getattr(job.inputs[name], "type", ""))
    environment = job.environment
    if environment is None or isinstance(environment, str):
        return
    if isinstance(environment.conda_file, str) and _kind_of(environment.conda_file) != "file":
        yield Problem(f"there is no file {environment.conda_file}", None, "environment.conda_file")
    if environment.build and not is_remote(environment.build.path):
        yield from _build(environment.build.path, environment.build.dockerfile_path or "Dockerfile")


def _expressions(job: Job) -> Iterator[Problem]:
    command = job.shell_command
    missing = _may_be_missing(job)
    for match in _EXPRESSION.finditer(command):
        dollar, inside = match[1], match[2].strip()
        if dollar:
            yield Problem(
                f"`{match[0]}` in the command has one `$` too many: the value would arrive with a `$` in front",
                f"write `{match[0][1:]}`; an f-string halves braces and leaves such a rest: use a plain string",
                "command",
            )
        else:
            if inside not in missing:
                yield from _expression(job, match[0], inside)
    for match in _SINGLE_BRACE.finditer(command):
        meant = "${{" + match[2].strip() + "}}"
        why = (
            "this is what an f-string makes of double braces, and azure-ai-ml would send a `$` too many"
            if match[1]
            else "single braces are the old spelling"
        )
        yield Problem(
            f"`{match[0]}` in the command is not an expression: {why}",
            f"write `{meant}`, in a plain string" if match[1] else f"write `{meant}`",
            "command",
        )
    for match in () if isinstance(job.command, ExistingCommand) else _OPTIONAL.finditer(command):
        hint = "they belong to components: write the argument without `$[[ ]]`, or leave it out"
        yield Problem(f"`{shorten(match[0])}`: a plain job has no optional parts", hint, "command")


def _may_be_missing(job: Job) -> set[str]:
    """Undeclared inputs that azure-ai-ml lets pass, since they stand in optional parts (`_validate_inputs_for`)."""
    if not isinstance(job.command, ExistingCommand):
        return set()
    return {f"inputs.{name}" for name in _LET_PASS.findall(job.command)}


def _expression(job: Job, text: str, inside: str) -> Iterator[Problem]:
    kind, _, name = inside.partition(".")
    if kind in ("inputs", "outputs") and name:
        declared = job.inputs if kind == "inputs" else job.outputs
        if name not in declared:
            other = job.outputs if kind == "inputs" else job.inputs
            hint = nearest_or_all(name, declared) or f"declare it under `{kind}`"
            if name in other:
                hint = f"`{name}` is one of the {'outputs' if kind == 'inputs' else 'inputs'}"
            yield Problem(f"`{text}` in the command: there is no {kind[:-1]} `{name}`", hint, "command")
        return
    hints = {
        "search_space": "a sweep chooses it: give an input of that name here, and make the sweep from the job",
        "parent": "it belongs to a pipeline: give the value as an input",
        "name": "the job's name is in the variable AZUREML_RUN_ID",
    }
    hint = hints.get(kind, "`${{inputs.NAME}}` and `${{outputs.NAME}}` are possible here")
    yield Problem(f"`{shorten(text)}` in the command means nothing in a plain job", hint, "command")


def torn_values(job: Job) -> Iterator[Problem]:
    """Literal inputs that do not arrive as one argument."""
    seen = set()
    for placeholder in shell.placeholders(job.shell_command):
        name = placeholder.name
        if placeholder.kind != "inputs" or name not in job.inputs or job.is_data(name):
            continue
        if job.is_left_out(name) or name in job.open_inputs:
            continue
        value = job.literal(name)
        broken = shell.broken_by(value, placeholder.quoting)
        if broken and (name, placeholder.quoting) not in seen:
            seen.add((name, placeholder.quoting))
            yield Problem(
                f"the shell would tear {shown(value)} apart: {broken}",
                _quoting_hint(job, name, value),
                f"inputs.{name}",
            )


def _quoting_hint(job: Job, name: str, value: str) -> str:
    if not isinstance(job.command, str):
        return "an argument with a ' in it cannot come from an input: write it into the command"
    expression = "${{inputs." + name + "}}"
    if not shell.broken_by(value, "'"):
        return f"put quotes around it in the command: '{expression}'"
    if not shell.broken_by(value, '"'):
        return f'put quotes around it in the command: "{expression}"'
    return "no quotes protect it: pass it in an environment variable, or in a file"


def _counts(job: Job) -> Iterator[Problem]:
    from azml_dist.job import TensorFlow

    nodes, distribution = job.node_count, job.distribution
    if nodes > 1 and distribution is None:
        yield Problem(
            f"{nodes} nodes without a distribution: Azure ML does not say what the other nodes would do",
            "for one process on each node, give it `PyTorch()`, in YAML `distribution: {type: pytorch}`; or `Mpi()`",
            "node_count",
        )
    if isinstance(distribution, TensorFlow):
        if "TF_CONFIG" in job.environment_variables:
            yield Problem(
                "`TF_CONFIG` is what Azure ML tells each TensorFlow task of its place; one of your own cannot be right",
                "leave it out",
                "environment_variables.TF_CONFIG",
            )
        workers, servers = distribution.worker_count, distribution.parameter_server_count
        if workers is not None and workers != nodes:
            hint = "leave `worker_count` out: it is the node count"
            yield Problem(
                f"{workers} workers on {_nodes(nodes)}: TensorFlow gets one worker on each node",
                hint,
                "distribution.worker_count",
            )
        if servers > nodes:
            hint = "Azure ML runs at most one parameter server on a node"
            yield Problem(
                f"{servers} parameter servers on {_nodes(nodes)}", hint, "distribution.parameter_server_count"
            )
    if job.max_node_count is not None and job.max_node_count < nodes:
        yield Problem(f"at most {job.max_node_count} nodes, but `node_count` is {nodes}", None, "max_node_count")


def _launchers(job: Job) -> Iterator[Problem]:
    from azml_dist.job import Mpi, PyTorch

    distribution, per_node = job.distribution, job.process_count_per_node
    if not isinstance(distribution, PyTorch | Mpi):
        return
    for launcher in shell.launchers(job.shell_command):
        own_mpi = isinstance(distribution, Mpi) and launcher.is_mpi
        if own_mpi or per_node > 1:
            kind = type(distribution).__name__
            hint = "let the command start your script: Azure ML starts every process"
            if not own_mpi:
                hint += ", or set `process_count_per_node` to 1 for one launcher on each node"
            yield Problem(
                f"`{launcher.text}` would run in each of the {per_node} processes that {kind} starts on a node",
                hint,
                "command",
            )


def _code_folder(job: Job) -> Iterator[Problem]:
    folder = job.code_folder
    if folder is None:
        return
    kind = _kind_of(folder)
    if kind is None:
        yield Problem(f"there is no code folder {folder}", None, "code")
    elif kind == "file":
        yield Problem(
            f"the code {folder} is a file; Azure ML takes a folder", f"its folder is {Path(folder).parent}", "code"
        )
    elif not _holds_a_file(folder):
        yield Problem(
            f"the code folder {folder} is empty, which azure-ai-ml refuses",
            "leave `code` out for an empty working directory",
            "code",
        )


def _holds_a_file(folder: str) -> bool:
    # Bounded, as links may lead in circles: the snapshot tells of those.
    walk = islice(os.walk(folder, followlinks=True), 10_000)
    return any(files for _, _, files in walk) or any(map(os.path.islink, glob(os.path.join(folder, "*"))))


def _input_path(path: str, where: str, kind: str) -> Iterator[Problem]:
    if _kind_of(path) is None:
        yield Problem(f"there is no file or folder {path}", None, where)
    elif kind == "uri_file" and _kind_of(path) == "folder":
        yield Problem(f"{path} is a folder, and the input's type is uri_file", "take `uri_folder`", where)
    elif kind in ("uri_folder", "mltable") and _kind_of(path) == "file":
        hint = "take `uri_file`, which has to be said, or give its folder"
        yield Problem(f"{path} is a file, and the input's type is {kind}", hint, where)


def _build(path: str, dockerfile: str) -> Iterator[Problem]:
    if _kind_of(path) != "folder":
        yield Problem(f"there is no folder {path}", None, "environment.build.path")
    elif _kind_of(str(Path(path, dockerfile))) != "file":
        yield Problem(f"there is no file {dockerfile} in {path}", None, "environment.build.dockerfile_path")
    elif rule := next((left.rule for left in take_snapshot(path).excluded if left.path == dockerfile), None):
        hint = f"let that ignore file keep it: `!{dockerfile}`, after the other lines"
        yield Problem(f"{dockerfile} is not uploaded: {rule}", hint, "environment.build.dockerfile_path")


def _kind_of(path: str) -> str | None:
    """`file` or `folder`; None where nothing is, or nothing that this user may see."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file"


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def shorten(text: str) -> str:
    """A piece of the command for a message, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."
