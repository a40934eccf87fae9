"""Uploads local data that a job reads into the workspace's own storage, once for each content.

It goes next to where azure-ai-ml would put it, but not to the same place: azure-ai-ml names that by a hash that does
not cover every file (a file that an ignore rule brings back from an ignored folder is missing).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.azureml.addresses import is_storage
from azml_dist.azureml.arm import retrying
from azml_dist.azureml.content import content_hash, local_files
from azml_dist.azureml.upload import Upload, container_of, upload
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import SubmitError
from azml_dist.model.job import JobFields
from azml_dist.plan.snapshot import Snapshot

STORE = "workspaceblobstore"
_UPLOADED = {"upload_status": "completed"}
"""Metadata of the first file that marks a folder as complete, as azure-ai-ml sets and reads it."""


class Stored(NamedTuple):
    """Where a folder or a file was uploaded."""

    path: str
    """Path in the datastore."""
    url: str
    digest: str
    """Hash of its content."""


def with_uploaded_inputs(workspace: Workspace, job: JobFields, stop: threading.Event) -> JobFields:
    """The job with local paths replaced by addresses in the workspace."""
    inputs = dict(job.inputs)
    for name in inputs:
        if path := job.local_path(name):
            data: Any = inputs[name]
            store = data.datastore or STORE
            place = stored(workspace, path, f"input {name}", f"inputs.{name}", stop, store)
            end = "/" if Path(path).is_dir() else ""
            inputs[name] = data.with_(path=f"azureml://datastores/{store}/paths/{place.path}{end}")
    return job.with_(inputs=inputs) if inputs != job.inputs else job


def stored(workspace: Workspace, path: str, what: str, where: str, stop: threading.Event, store: str = STORE) -> Stored:
    """A file or folder in a datastore, uploaded if it is not there yet; `where` is the field of the job."""
    files = local_files(Path(path), where)
    digest = content_hash(files)
    prefix = f"LocalUpload/{digest}/{Path(path).resolve().name}"
    with workspace.lock_of(digest):
        if (key := f"{store}/{prefix}") not in workspace.known:
            workspace.known[key] = _upload(workspace, files, store, prefix, what, stop)
    return Stored(prefix, workspace.known[key], digest)


def _upload(
    workspace: Workspace, files: Snapshot, datastore: str, prefix: str, what: str, stop: threading.Event
) -> str:
    # azure-ai-ml gets the secrets by POST, which azure-core does not retry.
    store: Any = retrying(lambda: workspace.client.datastores.get(datastore, include_secrets=True), stop=stop)
    secret = getattr(store.credentials, "account_key", None) or getattr(store.credentials, "sas_token", None)
    url = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}/{store.container_name}"
    if not is_storage(url, workspace.cloud):
        raise SubmitError(
            f"datastore {datastore} is at {url[:200]}, which is not storage of {workspace.cloud}",
            hint="neither data nor your login was sent there; choose another cloud with `AZUREML_CURRENT_CLOUD`",
        )
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
