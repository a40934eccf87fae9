"""Code in the workspace: found by its content, or uploaded once."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from azml_dist.azureml.upload import Upload, upload
from azml_dist.azureml.workspace import Workspace
from azml_dist.snapshot import Snapshot

_HASH_VERSION = "202208"
"""Of azure-ai-ml's way to hash a folder, which the service finds code by."""

_FOLDER = "code"
"""The folder in the container: as azure-ai-ml, which names it after the local one."""


def code_id(workspace: Workspace, code: Snapshot, stop: threading.Event) -> str:
    """The ARM id of the code in the workspace, uploaded if it is not there yet."""
    digest = content_hash(code)
    with workspace.lock_of(digest):
        if digest not in workspace.known:
            workspace.known[digest] = _find(workspace, digest, stop) or _create(workspace, code, digest, stop)
        return workspace.known[digest]


def content_hash(code: Snapshot) -> str:
    """azure-ai-ml's own hash of a folder, so that what it uploaded is found too."""
    files = sorted(code.files, key=lambda file: file.path.lower())
    digest = hashlib.sha256(str(len(files)).encode())
    for file in files:
        digest.update(f"#{file.path}#{file.size}".encode())
    for file in files:
        for chunk in _chunks(Path(file.source)):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _find(workspace: Workspace, digest: str, stop: threading.Event) -> str | None:
    query = {"hash": digest, "hashVersion": _HASH_VERSION}
    # The service looks through all code of the workspace; the name in the address is not looked at.
    found = workspace.arm.call("GET", f"codes/{uuid.uuid4()}/versions", query=query, stop=stop)
    return next((str(version["id"]) for version in found["value"]), None)


def _create(workspace: Workspace, code: Snapshot, digest: str, stop: threading.Event) -> str:
    path = f"codes/{uuid.uuid4()}/versions/1"
    kind = {"pendingUploadType": "TemporaryBlobReference"}
    room = workspace.arm.call("POST", f"{path}/startPendingUpload", body=kind, stop=stop)
    place = room["blobReferenceForConsumption"]
    upload(Upload(place["credential"]["sasUri"], f"{_FOLDER}/", code.files, "code"), stop)
    properties = {
        "codeUri": f"{place['blobUri']}/{_FOLDER}",
        "isAnonymous": True,
        "properties": {"hash_sha256": digest, "hash_version": _HASH_VERSION},
    }
    made = workspace.arm.call("PUT", path, body={"properties": properties}, stop=stop)
    return str(made["id"])
