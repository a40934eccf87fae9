"""Code in the workspace: found by its content, or uploaded once."""

from __future__ import annotations

import threading
import uuid

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.content import content_hash
from azml_dist.azureml.upload import Upload, upload
from azml_dist.azureml.workspace import Workspace
from azml_dist.plan.snapshot import Snapshot

_HASH_VERSION = "202208"
"""Version of azure-ai-ml's folder hash, by which the service finds code."""

_FOLDER = "code"
"""The folder in the container, named after the local one, as azure-ai-ml does."""


def code_id(workspace: Workspace, code: Snapshot, stop: threading.Event) -> str:
    """The ARM id of the code in the workspace, which is uploaded if it is not there yet."""
    digest = content_hash(code)
    with workspace.lock_of(digest):
        if digest not in workspace.known:
            workspace.known[digest] = _find(workspace, digest, stop) or _create(workspace, code, digest, stop)
        return workspace.known[digest]


def _find(workspace: Workspace, digest: str, stop: threading.Event) -> str | None:
    query = {"hash": digest, "hashVersion": _HASH_VERSION}
    # The service searches all code of the workspace and ignores the name in the address.
    found = workspace.arm.call("GET", f"codes/{uuid.uuid4()}/versions", query=query, stop=stop)
    return next((version.needed("id") for version in Answer(found).objects("value")), None)


def _create(workspace: Workspace, code: Snapshot, digest: str, stop: threading.Event) -> str:
    path = f"codes/{uuid.uuid4()}/versions/1"
    kind = {"pendingUploadType": "TemporaryBlobReference"}
    room = workspace.arm.call("POST", f"{path}/startPendingUpload", body=kind, stop=stop)
    place = Answer(room).object("blobReferenceForConsumption")
    container = place.needed("blobUri")
    upload(Upload(place.object("credential").needed("sasUri"), f"{_FOLDER}/", code.files, "code"), stop)
    properties = {
        "codeUri": f"{container}/{_FOLDER}",
        "isAnonymous": True,
        "properties": {"hash_sha256": digest, "hash_version": _HASH_VERSION},
    }
    made = workspace.arm.call("PUT", path, body={"properties": properties}, stop=stop)
    return Answer(made).needed("id")
