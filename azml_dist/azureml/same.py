"""Whether data on this machine is what a run on Azure ML got as an input: the address of an upload has its hash."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from azml_dist.azureml.content import content_hash, local_files
from azml_dist.azureml.inputs import STORE
from azml_dist.errors import JobError
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Input
from azml_dist.plan.snapshot import Snapshot
from azml_dist.words import plural, size_text

_UPLOADED = re.compile(r"azureml://datastores/([^/]+)/paths/LocalUpload/([0-9a-f]{64})/([^/]+)/?")
_MOST = 2 << 30
"""Bytes that are read to find out; more would take too long for a comparison."""


def with_uploaded_inputs_of(there: JobFields, job: JobFields, began: float | None) -> tuple[JobFields, list[str]]:
    """A job with the addresses that its local inputs have in a run that got the same data, and what is not known.

    `began` is when the job began on this machine, if it did: then its data must not have changed since.
    """
    inputs, notes = dict(job.inputs), []
    for name, data in job.inputs.items():
        uploaded, path = there.inputs.get(name), job.local_path(name)
        found = _UPLOADED.fullmatch(uploaded.path) if path and isinstance(uploaded, Input) else None
        if not found or not isinstance(data, Input) or not isinstance(uploaded, Input):
            continue
        if (data.datastore or STORE) != found[1]:
            continue
        if note := _unlike(Path(data.path), digest=found[2], file_name=found[3], began=began):
            notes.append(f"input {name}: {note}")
        else:
            inputs[name] = data.with_(path=uploaded.path, datastore=None)
    return (job.with_(inputs=inputs) if inputs != job.inputs else job), notes


def _unlike(path: Path, *, digest: str, file_name: str, began: float | None) -> str | None:
    """What keeps data from being what was uploaded, or from being known to be that."""
    unknown = f"whether {path} is what was uploaded is not known"
    try:
        files = local_files(path, "inputs")
        if files.bytes > _MOST:
            return f"{unknown}: it has {size_text(files.bytes)}, too much to compare"
        if content_hash(files) != digest:
            return f"{unknown}: it has another hash now, as it was changed since or another client uploaded it"
        if began is not None and any(changed >= began for changed in _changes(path, files)):
            return f"{unknown}: it was changed after the run here began"
    except OSError as error:
        return f"{unknown}: it cannot be read ({error.strerror})"
    except JobError as error:
        return f"{unknown}: {error.problems[0].message}"
    if path.is_file() and path.resolve().name != file_name:
        return f"{path} has the content that was uploaded as {file_name}"
    if began is not None and files.excluded:  # a run here reads the folder itself
        count, first = len(files.excluded), files.excluded[0].path
        return f"{plural(count, 'file')} of {path}, such as {first}, {'was' if count == 1 else 'were'} not uploaded"
    return None


def _changes(path: Path, files: Snapshot) -> Iterator[float]:
    """When each file and each folder was changed last, which nobody can set back."""
    for file in files.files:
        yield os.stat(file.source).st_ctime
    for folder, _, _ in os.walk(path):
        yield os.stat(folder).st_ctime
