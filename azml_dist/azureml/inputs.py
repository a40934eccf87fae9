"""Data of this machine that a job reads, in the workspace's own storage: uploaded once for each content.

Next to where azure-ai-ml puts it, and not to the very same place: that is named by another hash than code's, which
does not cover every file (what a rule brings back from an ignored folder is not in it).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.azureml.arm import retrying
from azml_dist.azureml.code import content_hash
from azml_dist.azureml.upload import Upload, container_of, upload
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import JobError
from azml_dist.job import Job
from azml_dist.snapshot import CodeFile, Snapshot, take_snapshot

_STORE = "workspaceblobstore"
_UPLOADED = {"upload_status": "completed"}
"""Metadata of the first file of a folder that is whole, as azure-ai-ml sets and reads it."""


class Stored(NamedTuple):
    """Where a folder or a file is now."""

    path: str
    """In the datastore."""
    url: str
    digest: str
    """Of its content."""


def with_uploaded_inputs(workspace: Workspace, job: Job, stop: threading.Event) -> Job:
    """The job with an address in the workspace for each local path."""
    inputs = dict(job.inputs)
    for name in inputs:
        if path := job.local_path(name):
            data: Any = inputs[name]
            store = data.datastore or _STORE
            place = stored(workspace, path, f"input {name}", f"inputs.{name}", stop, store)
            end = "/" if Path(path).is_dir() else ""
            inputs[name] = data.with_(path=f"azureml://datastores/{store}/paths/{place.path}{end}")
    return job.with_(inputs=inputs) if inputs != job.inputs else job


def stored(
    workspace: Workspace, path: str, what: str, where: str, stop: threading.Event, store: str = _STORE
) -> Stored:
    """A file or folder in a datastore of the workspace, uploaded if it is not there yet; `where` is the job's field."""
    files = _snapshot(Path(path), where)
    digest = content_hash(files)
    prefix = f"LocalUpload/{digest}/{Path(path).resolve().name}"
    with workspace.lock_of(digest):
        if (key := f"{store}/{prefix}") not in workspace.known:
            workspace.known[key] = _upload(workspace, files, store, prefix, what, stop)
    return Stored(prefix, workspace.known[key], digest)


def _snapshot(path: Path, where: str) -> Snapshot:
    if not path.is_dir():
        return Snapshot(None, (CodeFile("", str(path.resolve()), path.stat().st_size),), ())
    found = take_snapshot(path)
    if found.broken_links:
        raise JobError(
            f"the link {found.broken_links[0]} in {path} leads nowhere",
            hint="mend it, or list it in .amlignore there",
            where=where,
        )
    if not found.files:
        raise JobError(f"the folder {path} has no files", hint="Azure ML refuses empty data", where=where)
    return found


def _upload(
    workspace: Workspace, files: Snapshot, datastore: str, prefix: str, what: str, stop: threading.Event
) -> str:
    # azure-ai-ml asks for the secrets by POST, which azure-core does not try again.
    store: Any = retrying(lambda: workspace.client.datastores.get(datastore, include_secrets=True), stop=stop)
    secret = getattr(store.credentials, "account_key", None) or getattr(store.credentials, "sas_token", None)
    url = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}/{store.container_name}"
    inside = f"{prefix}/" if files.root else prefix
    order = Upload(url, inside, files.files, what, secret or workspace.credential)
    first = container_of(order).get_blob_client(f"{inside}{files.files[0].path}")
    if not retrying(lambda: _is_whole(first), stop=stop):
        upload(order, stop)
        retrying(lambda: first.set_blob_metadata(_UPLOADED), stop=stop)
    return f"{url}/{prefix}"


def _is_whole(first: Any) -> bool:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        metadata = first.get_blob_properties().metadata or {}
    except ResourceNotFoundError:
        return False
    return _UPLOADED.items() <= metadata.items()
