"""Rules beyond the shape of single fields: what azure-ai-ml accepts although the cluster then fails on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from glob import glob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import Problem
from azml_dist.model.parts import Mpi, PyTorch, TensorFlow
from azml_dist.notation import shell
from azml_dist.notation.expressions import (
    ANY_EXPRESSION,
    LET_PASS,
    OPTIONAL,
    SINGLE_BRACES,
    ExistingCommand,
    expression,
    inputs_in,
    is_remote,
)
from azml_dist.plan.snapshot import take_snapshot
from azml_dist.regular import kind_of
from azml_dist.words import found_instead, nearest_or_all, plural, shorten, shown

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields

MAX_PROCESSES = 100_000
"""More than this is a typo, and planning it would use up the memory."""


def problems_of(job: JobFields) -> Iterator[Problem]:
    """All problems of a job whose fields have the right shape, without looking at any file."""
    yield from _expressions(job)
    if not isinstance(job.command, ExistingCommand):
        yield from torn_values(job)
    yield from _too_many(job)
    yield from _counts(job)
    yield from _launchers(job)


def _too_many(job: JobFields) -> Iterator[Problem]:
    """More processes than anybody starts, so a typo."""
    kind = job.distribution
    tasks = (kind.worker_count or 0) + kind.parameter_server_count if isinstance(kind, TensorFlow) else 0
    count = max(job.node_count * job.process_count_per_node, tasks)
    if count > MAX_PROCESSES:
        figure = f"{count:,}" if count < 10**12 else "more than a trillion"
        message = f"the job would start {figure} processes; azml_dist plans at most {MAX_PROCESSES:,}"
        yield Problem(message, "check the number of nodes and of processes per node", "node_count")


def unfilled(job: JobFields) -> Iterator[Problem]:
    """Inputs in the command that have no value to replace them with."""
    command = job.without_optional_parts(job.shell_command)
    if (at := command.find("$[[")) >= 0:
        hint = "an optional part ends with `]]`, and cannot contain another one"
        yield Problem(f"`{shorten(command[at : at + 100])}`: this `$[[` is never closed", hint, "command")
    for name in inputs_in(command):
        written = expression(f"inputs.{name}")
        if name not in job.inputs:
            hint = f"declare it under `inputs`, or remove `{written}`"
            yield Problem(f"`{written}` in the command: there is no input `{name}`", hint, "command")
        elif job.is_left_out(name):
            given = f"--input {name}={'PATH' if job.is_data(name) else 'VALUE'}"
            yield Problem(
                f"`{written}` has no value: the input is optional, but used outside `$[[ ]]`",
                f"write `$[[--{name} {written}]]`, which is dropped if there is no value, or set one: `{given}`",
                "command",
            )


def file_problems(job: JobFields) -> Iterator[Problem]:
    """Problems with the local files that a job refers to."""
    yield from _code_folder(job)
    for name in job.inputs:
        if (path := job.local_path(name)) is not None:
            yield from _input_path(path, f"inputs.{name}.path", getattr(job.inputs[name], "type", ""))
    environment = job.environment
    if environment is None or isinstance(environment, str):
        return
    if isinstance(conda := environment.conda_file, str) and kind_of(conda) != "file":
        yield _missing("file", conda, "environment.conda_file")
    if environment.build and not is_remote(environment.build.path):
        yield from _build(environment.build.path, environment.build.dockerfile_path or "Dockerfile")


def _expressions(job: JobFields) -> Iterator[Problem]:
    command = job.shell_command
    missing = _may_be_missing(job)
    for match in ANY_EXPRESSION.finditer(command):
        dollar, inside = match[1], match[2].strip()
        if dollar:
            yield Problem(
                f"`{match[0]}` in the command has one `$` too many: a `$` would stay in front of the value",
                f"write `{match[0][1:]}`, in a plain string: an f-string halves the braces and causes this",
                "command",
            )
        else:
            if inside not in missing:
                yield from _expression(job, match[0], inside)
    for match in SINGLE_BRACES.finditer(command):
        meant = expression(match[2].strip())
        why = (
            "an f-string turns double braces into this, and azure-ai-ml would send a `$` too many"
            if match[1]
            else "single braces are the old spelling"
        )
        yield Problem(
            f"`{match[0]}` in the command is not an expression: {why}",
            f"write `{meant}`, in a plain string" if match[1] else f"write `{meant}`",
            "command",
        )
    for match in () if isinstance(job.command, ExistingCommand) else OPTIONAL.finditer(command):
        hint = "they belong in components: write the argument without `$[[ ]]`, or remove it"
        yield Problem(f"`{shorten(match[0])}`: a plain job cannot have optional parts", hint, "command")


def _may_be_missing(job: JobFields) -> set[str]:
    """Undeclared inputs that azure-ai-ml accepts because they are in optional parts (`_validate_inputs_for`)."""
    if not isinstance(job.command, ExistingCommand):
        return set()
    return {f"inputs.{name}" for name in LET_PASS.findall(job.command)}


def _expression(job: JobFields, text: str, inside: str) -> Iterator[Problem]:
    kind, _, name = inside.partition(".")
    if kind in ("inputs", "outputs") and name:
        declared = job.inputs if kind == "inputs" else job.outputs
        if name not in declared:
            other = job.outputs if kind == "inputs" else job.inputs
            hint = nearest_or_all(name, declared) or f"declare it under `{kind}`"
            if name in other:
                hint = f"`{name}` is an {'output' if kind == 'inputs' else 'input'}"
            yield Problem(f"`{text}` in the command: there is no {kind[:-1]} `{name}`", hint, "command")
        return
    hints = {
        "search_space": "a sweep sets it: give the job an input with that name, and make the sweep from the job",
        "parent": "it belongs in a pipeline: pass the value as an input",
        "name": "the job's name is in the variable AZUREML_RUN_ID",
    }
    hint = hints.get(kind, "a command can use `${{inputs.NAME}}` and `${{outputs.NAME}}`")
    yield Problem(f"`{shorten(text)}` in the command has no meaning in a plain job", hint, "command")


def torn_values(job: JobFields) -> Iterator[Problem]:
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
                f"the shell would not pass {shown(value)} on as one argument: {broken}",
                _quoting_hint(job, name, value),
                f"inputs.{name}",
            )


def _quoting_hint(job: JobFields, name: str, value: str) -> str:
    if not isinstance(job.command, str):
        return "an argument that contains a ' cannot come from an input: write it in the command"
    written = expression(f"inputs.{name}")
    if not shell.broken_by(value, "'"):
        return f"put quotes around it in the command: '{written}'"
    if not shell.broken_by(value, '"'):
        return f'put quotes around it in the command: "{written}"'
    return "no quotes can protect it: pass it in an environment variable or a file"


def _counts(job: JobFields) -> Iterator[Problem]:
    nodes, distribution = job.node_count, job.distribution
    if nodes > 1 and distribution is None:
        yield Problem(
            f"{nodes} nodes without a distribution: Azure ML does not say what the other nodes would do",
            "for one process per node, add `PyTorch()`, in YAML `distribution: {type: pytorch}`; or `Mpi()`",
            "node_count",
        )
    if isinstance(distribution, TensorFlow):
        if "TF_CONFIG" in job.environment_variables:
            yield Problem(
                "Azure ML sets `TF_CONFIG` for each TensorFlow task; one value for all of them cannot be right",
                "leave it out",
                "environment_variables.TF_CONFIG",
            )
        workers, servers = distribution.worker_count, distribution.parameter_server_count
        if workers is not None and workers != nodes:
            hint = "leave `worker_count` out: it defaults to the node count"
            yield Problem(
                f"{workers} workers on {plural(nodes, 'node')}: TensorFlow runs one worker per node",
                hint,
                "distribution.worker_count",
            )
        if servers > nodes:
            hint = "Azure ML runs at most one parameter server per node"
            yield Problem(
                f"{servers} parameter servers on {plural(nodes, 'node')}", hint, "distribution.parameter_server_count"
            )
    if job.max_node_count is not None and job.max_node_count < nodes:
        yield Problem(f"`max_node_count` is {job.max_node_count}, but `node_count` is {nodes}", None, "max_node_count")


def _launchers(job: JobFields) -> Iterator[Problem]:
    distribution, per_node = job.distribution, job.process_count_per_node
    if not isinstance(distribution, PyTorch | Mpi):
        return
    for launcher in shell.launchers(job.shell_command):
        own_mpi = isinstance(distribution, Mpi) and launcher.is_mpi
        if own_mpi or per_node > 1:
            kind = type(distribution).__name__
            hint = "let the command start your script directly: Azure ML starts every process"
            if not own_mpi:
                hint += ", or set `process_count_per_node` to 1 for one launcher on each node"
            yield Problem(
                f"`{launcher.text}` would run in each of the {per_node} processes that {kind} starts per node",
                hint,
                "command",
            )


def _code_folder(job: JobFields) -> Iterator[Problem]:
    folder = job.local_code
    if folder is None:
        return
    kind = kind_of(folder)
    if kind is None:
        yield Problem(f"there is no code folder {folder}", found_instead(folder), "code")
    elif kind not in ("file", "folder"):
        yield Problem(f"the code {folder} is a {kind}", "set it to a folder or a file", "code")
    elif kind == "folder" and not _holds_a_file(folder):
        yield Problem(
            f"the code folder {folder} is empty, which azure-ai-ml refuses",
            "leave `code` out for an empty working directory",
            "code",
        )


def _holds_a_file(folder: str) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:
        if any(entry.is_file() for entry in entries):
            return True
    # Bounded, since links may form circles; the snapshot reports those.
    walk = islice(os.walk(folder, followlinks=True), 10_000)
    return any(files for _, _, files in walk) or any(map(os.path.islink, glob(os.path.join(folder, "*"))))


def _input_path(path: str, where: str, kind: str) -> Iterator[Problem]:
    found = kind_of(path)
    if found is None:
        yield Problem(f"there is no file or folder {path}", found_instead(path), where)
    elif found not in ("file", "folder"):
        yield Problem(f"{path} is a {found}; data must be a file or a folder", None, where)
    elif kind == "uri_file" and found == "folder":
        yield Problem(f"{path} is a folder, but the type of the input is uri_file", "use `uri_folder`", where)
    elif kind in ("uri_folder", "mltable") and found == "file":
        hint = "write `type: uri_file` (the default is `uri_folder`), or use its folder"
        yield Problem(f"{path} is a file, but the type of the input is {kind}", hint, where)


def _build(path: str, dockerfile: str) -> Iterator[Problem]:
    if kind_of(path) != "folder":
        yield _missing("folder", path, "environment.build.path")
    elif kind_of(str(Path(path, dockerfile))) != "file":
        hint = found_instead(Path(path, dockerfile))
        yield Problem(f"there is no file {dockerfile} in {path}", hint, "environment.build.dockerfile_path")
    elif rule := next((left.rule for left in take_snapshot(path).excluded if left.path == dockerfile), None):
        hint = f"keep it: add `!{dockerfile}` as the last line of the ignore file"
        yield Problem(f"{dockerfile} is not uploaded: {rule}", hint, "environment.build.dockerfile_path")


def _missing(what: str, path: str, where: str) -> Problem:
    """The problem that there is no such `file` or `folder`."""
    if kind := kind_of(path):
        return Problem(f"{path} is a {kind}, not a {what}", f"name a {what}", where)
    return Problem(f"there is no {what} {path}", found_instead(path), where)
