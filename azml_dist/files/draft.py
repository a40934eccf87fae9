"""Writes a commented `job.yml` and an `.amlignore` for a training script."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from azml_dist.script.proposal import Proposed, Value
from azml_dist.words import slug, visible

_CURATED = "azureml://registries/azureml/environments/{}/labels/latest"
_ENVIRONMENTS = {"TensorFlow": "tensorflow-2.16-cuda12"}
_USUAL = "acpt-pytorch-2.8-cuda12.6"
_INSTALLED = ("torch", "TensorFlow", "DeepSpeed")
"""What those images are made for."""
_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
CONDA_FILES = ("conda.yml", "conda.yaml", "environment.yml", "environment.yaml")
_SAFE = re.compile(r"[\w./:=@%+,-]+")
_HELP = 60

IGNORED = (
    *("__pycache__/", ".git/", ".venv/", "venv/", ".env", ".ipynb_checkpoints/", ".vscode/", ".idea/"),
    *("outputs/", "logs/", "runs/", "mlruns/", "wandb/", "lightning_logs/"),
)
"""What runs, editors and version control leave in a folder; and `.env`, which usually has secrets."""


def job_text(found: Proposed, files: Sequence[str]) -> str:
    """The text of a `job.yml` in the folder that has these files."""
    return "\n".join([*_head(found), *_command(found), *_ports(found), *_place(found, files), ""])


def ignore_text(gitignore: str | None) -> str:
    """The text of an `.amlignore`; with one, Azure ML no longer reads the `.gitignore` beside it."""
    lines = ["# Files that are not uploaded with the code, and that local runs do not see.", *IGNORED]
    if gitignore is not None:
        lines += ["", "# From .gitignore, which has no effect beside this file.", *gitignore.splitlines()]
    return "\n".join([*lines, ""])


def _head(found: Proposed) -> Iterator[str]:
    name = slug(posixpath.splitext(posixpath.basename(found.script))[0]) or "train"
    yield "$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
    yield "type: command"
    yield f"experiment_name: {name}"
    yield ""


def _command(found: Proposed) -> Iterator[str]:
    yield "code: . # this folder is uploaded, without what .amlignore excludes"
    script = f"./{found.script}" if found.script.startswith("-") else found.script
    start = f"python {shlex.quote(script)}"
    if not found.values:
        yield f"command: {_scalar(start)}"
    else:
        yield "command: >-"
        yield f"  {start}"
        for value in found.values:
            yield f"  {' '.join(filter(None, (value.flag, _reference(value))))}"
    for left in found.left:
        yield f"# Left to the script: {_comment(left)}"
    for note in found.notes:
        yield f"# Note: {note}"


def _reference(value: Value) -> str:
    """The expression for a value, in quotes if the shell might read more than one word."""
    text = f"${{{{{'outputs' if value.kind == 'output' else 'inputs'}.{value.name}}}}}"
    return text if value.kind != "value" or _SAFE.fullmatch(str(value.default)) else f"'{text}'"


def _ports(found: Proposed) -> Iterator[str]:
    inputs = [value for value in found.values if value.kind != "output"]
    outputs = [value for value in found.values if value.kind == "output"]
    if inputs:
        yield "inputs:"
    for value in inputs:
        said = "the script requires it, and has no default" if value.open else value.help
        note = f" # {_comment(said)}" if said else ""
        if value.kind == "data":
            yield f"  {value.name}:{note}"
            yield "    type: uri_folder" if not posixpath.splitext(value.default)[1] else "    type: uri_file"
            yield f"    path: {_scalar(value.default)}"
        else:
            yield f"  {value.name}: {_scalar(value.default)}{note}"
    if outputs:
        yield "outputs: # kept by Azure ML; everything else that the script writes is lost, except ./outputs and ./logs"
    for value in outputs:
        yield f"  {value.name}:"
        yield "    type: uri_folder"


def _place(found: Proposed, files: Sequence[str]) -> Iterator[str]:
    yield ""
    if conda := next((name for name in CONDA_FILES if name in files), None):
        yield "environment:"
        yield f"  image: {_IMAGE}"
        yield f"  conda_file: {conda}"
    else:
        kind = next((name for name in found.frameworks if name in _ENVIRONMENTS), "")
        curated = _ENVIRONMENTS.get(kind, _USUAL) if "torch" not in found.frameworks else _USUAL
        others = [name for name in found.frameworks if name not in _INSTALLED]
        check = f"; check that it has {' and '.join(others)}" if others else ""
        yield f"environment: {_CURATED.format(curated)} # what Azure ML runs it in{check}"
    yield "compute: azureml:gpu-cluster # your cluster"
    if found.variables:
        yield "environment_variables:"
    for name, text in found.variables.items():
        yield f"  {name}: {_scalar(text)} # for a run without a GPU: leave it out on GPUs"
    yield "resources:"
    yield "  instance_count: 1 # nodes"
    yield from _DISTRIBUTIONS[found.distribution](found)


def _nothing(_: Proposed) -> Iterator[str]:
    yield "# The script starts as one process. For several, say how:"
    yield "# distribution:"
    yield "#   type: pytorch # or mpi, tensorflow, ray"
    yield "#   process_count_per_instance: 2"


def _by_processes(found: Proposed) -> Iterator[str]:
    yield "distribution:"
    yield f"  type: {found.distribution}"
    yield f"  process_count_per_instance: {found.processes} # on each node; usually its GPU count"


def _tensorflow(found: Proposed) -> Iterator[str]:
    yield "distribution:"
    yield "  type: tensorflow"
    if found.parameter_servers:
        yield f"  parameter_server_count: {found.parameter_servers}"


def _ray(_: Proposed) -> Iterator[str]:
    yield "distribution:"
    yield "  type: ray"


_DISTRIBUTIONS: Any = {
    None: _nothing,
    "pytorch": _by_processes,
    "mpi": _by_processes,
    "tensorflow": _tensorflow,
    "ray": _ray,
}


def _scalar(value: Any) -> str:
    """A value that YAML reads as it is."""
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")  # YAML 1.1 wants the point
    if isinstance(value, str) and yaml.safe_load(f"[{value}]" if _SAFE.fullmatch(value) else "[]") != [value]:
        return json.dumps(value, ensure_ascii=not value.isprintable())
    return str(value).lower() if isinstance(value, bool) else str(value)


def _comment(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= _HELP else f"{line[: _HELP - 3]}..."
