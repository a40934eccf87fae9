"""Reads a `Job` from a file: the command-job YAML of `az ml job create -f`.

The schema is azure-ai-ml's `CommandJobSchema`. Whatever it accepts has a field in `Job`, or is refused here by name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.files.component import component_of, is_component
from azml_dist.files.kinds import hint_for, other_kind
from azml_dist.model.job import JobFields
from azml_dist.notation.azml import OTHER_TYPES, Fields
from azml_dist.notation.document import Document, read_yaml
from azml_dist.words import nearest, shown

J = TypeVar("J", bound=JobFields)


def load_job(kind: type[J], ref: str | os.PathLike[str]) -> J:
    """The job in a YAML file."""
    return job_of(kind, read_yaml(os.fspath(ref)))


def job_of(kind: type[J], document: Document, folder: Path | None = None) -> J:
    """The job or component in a document; paths are relative to `folder`, by default the folder of the document."""
    refuse_other_kinds(document)
    if is_component(document.data):
        return component_of(kind, document, folder, is_asset=True)
    _check_type(document)
    fields = Fields(document, {})
    return fields.build(kind, _take_all(fields, folder)).read_from(document.file)


def refuse_other_kinds(document: Document) -> None:
    """Raises `JobError` if a file is clearly something other than a job."""
    if what := other_kind(document.data):
        at = next((key for key in ("type", "$schema") if key in document.data), None)
        raise JobError(f"this is {what}, not a job", hint=hint_for(what), where=document.where((at,) if at else ()))


def in_lines(document: Document, problems: Sequence[Problem]) -> JobError:
    """One error with everything wrong in the job of a document, by its lines and YAML's names."""
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
    if kind == "command":
        return
    if isinstance(kind, str) and kind.lower() in OTHER_TYPES:
        message = f"this is {OTHER_TYPES[kind.lower()]}; azml_dist runs command jobs"
        reader = {"sweep": "Sweep", "pipeline": "Pipeline"}.get(kind.lower())
        hint = f"`{reader}.load` reads it" if reader else "azml_dist runs command jobs, sweeps and pipelines"
    else:
        message = f"{shown(kind)} is not a type of job"
        near = None if str(kind).lower() == "command" else nearest(kind, ("command", *OTHER_TYPES))
        hint = near or "leave `type` out, or write `type: command`"
    raise JobError(message, hint=hint, where=document.where(("type",)))
