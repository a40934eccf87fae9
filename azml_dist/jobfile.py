"""A `Job` from a file: the command-job YAML of `az ml job create -f`, or a Python file that makes one.

The schema is azure-ai-ml's `CommandJobSchema`. Whatever it takes has a place in `Job`, or is refused here by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azml_dist.errors import JobError, Problem
from azml_dist.job import Job
from azml_dist.model import shown
from azml_dist.yamlfields import OTHER_TYPES, Fields
from azml_dist.yamlfile import Document, read_yaml


def load_job(ref: str | os.PathLike[str]) -> Job:
    """The job in a YAML file, or the one called NAME in `path/to/file.py:NAME`."""
    text = os.fspath(ref)
    path, colon, name = text.rpartition(":")
    if colon and path.endswith(".py"):
        from azml_dist.pyfile import load_python_job

        return load_python_job(path, name)
    if text.endswith(".py"):
        raise JobError(f"{text}: which job in this file?", hint=f"`{text}:NAME`, where NAME is a variable of the file")
    return job_of(read_yaml(text))


@contextmanager
def lines_of(ref: str | os.PathLike[str]) -> Iterator[None]:
    """Say of what turns out to be wrong with a loaded job on which line of its YAML it stands."""
    try:
        yield
    except JobError as error:
        if ".py:" in os.fspath(ref) or not any(p.where for p in error.problems):
            raise
        raise in_lines(read_yaml(os.fspath(ref)), error.problems) from error.__cause__


def job_of(document: Document, folder: Path | None = None) -> Job:
    """The job, or the component, in a document; its paths are relative to `folder`, or to the document's own."""
    from azml_dist.component import component_of, is_component

    if is_component(document.data):
        return component_of(document, folder)
    _check_type(document)
    fields = Fields(document, {})
    return fields.build(Job, _take_all(fields, folder))


def in_lines(document: Document, problems: Sequence[Problem]) -> JobError:
    """One error for what is wrong with the job of a document, by its lines and YAML's names."""
    fields = Fields(document, {})
    _take_all(fields)
    return JobError.of(map(fields.in_yaml, problems))


def _take_all(fields: Fields, folder: Path | None = None) -> dict[str, Any]:
    folder = folder or Path(fields.document.file).absolute().parent
    values: dict[str, Any] = {}
    for key, value in fields.document.data.items():
        fields.take(key, value, values, folder)
    return values


def _check_type(document: Document) -> None:
    kind = document.data.get("type", "command")
    schema = str(document.data.get("$schema", ""))
    if "type" not in document.data and "environment" in schema:
        raise JobError(
            "this is an environment, not a job", hint="`Environment.load` reads it", where=document.where(())
        )
    if kind == "command":
        return
    if isinstance(kind, str) and kind.lower() in OTHER_TYPES:
        message = f"this is {OTHER_TYPES[kind.lower()]}; azml_dist runs command jobs"
        reader = {"sweep": "Sweep", "pipeline": "Pipeline"}.get(kind.lower())
        hint = f"`{reader}.load` reads it" if reader else "command jobs, sweeps and pipelines run here"
    else:
        message, hint = f"{shown(kind)} is not a type of job", "leave `type` out, or write `type: command`"
    raise JobError(message, hint=hint, where=document.where(("type",)))
