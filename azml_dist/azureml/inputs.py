"""Data of this machine that a job reads: uploaded once for each content, next to where azure-ai-ml puts it.

Not to the very same place: azure-ai-ml names that by another hash than code's.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

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


def with_uploaded_inputs(workspace: Workspace, job: Job, stop: threading.Event) -> Job:
    """The job with an address in the workspace for each local path."""
    inputs = dict(job.inputs)
    for name in inputs:
        if path := job.local_path(name):
            data: Any = inputs[name]
            inputs[name] = data.with_(path=_address(workspace, name, path, stop))
    return job.with_(inputs=inputs) if inputs != job.inputs else job


def _address(workspace: Workspace, name: str, path: str, stop: threading.Event) -> str:
    folder = _snapshot(name, Path(path))
    digest = content_hash(folder)
    prefix = f"LocalUpload/{digest}/{Path(path).resolve().name}"
    with workspace.lock_of(digest):
        if prefix not in workspace.known:
            _upload(workspace, folder, prefix, f"input {name}", stop)
            workspace.known[prefix] = prefix
    return f"azureml://datastores/{_STORE}/paths/{prefix}" + ("/" if folder.root else "")


def _snapshot(name: str, path: Path) -> Snapshot:
    if path.is_dir():
        if (found := take_snapshot(path)).files:
            return found
        raise JobError(f"the folder {path} has no files", hint="Azure ML refuses empty data", where=f"inputs.{name}")
    return Snapshot(None, (CodeFile("", str(path.resolve()), path.stat().st_size),), ())


def _upload(workspace: Workspace, folder: Snapshot, prefix: str, what: str, stop: threading.Event) -> None:
    # azure-ai-ml asks for the secrets by POST, which azure-core does not try again.
    store: Any = retrying(lambda: workspace.client.datastores.get(_STORE, include_secrets=True), stop=stop)
    secret = getattr(store.credentials, "account_key", None) or getattr(store.credentials, "sas_token", None)
    url = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}/{store.container_name}"
    inside = f"{prefix}/" if folder.root else prefix
    order = Upload(url, inside, folder.files, what, secret or workspace.credential)
    first = container_of(order).get_blob_client(f"{inside}{folder.files[0].path}")
    if not retrying(lambda: _is_whole(first), stop=stop):
        upload(order, stop)
        retrying(lambda: first.set_blob_metadata(_UPLOADED), stop=stop)


def _is_whole(first: Any) -> bool:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        metadata = first.get_blob_properties().metadata or {}
    except ResourceNotFoundError:
        return False
    return _UPLOADED.items() <= metadata.items()
