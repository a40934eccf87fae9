"""What tests of submission share: the emulated workspace as ours, and small jobs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azml_dist import Environment, Job, Workspace
from azml_dist.emulator import Emulator, StaticToken
from azml_dist.job import Build

REPOSITORY = Path(__file__).parents[1]


def workspace_of(emulator: Emulator) -> Workspace:
    """The emulated workspace, by its ids and a credential that needs no login."""
    here = emulator.workspace
    return Workspace(here.subscription_id, here.resource_group, here.name, credential=StaticToken(here))


def code_in(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """A folder with these files, or with three small ones."""
    files = files or {"train.sh": "echo rank $RANK of $WORLD_SIZE\n", "lib/part.txt": "part\n", "notes.txt": "notes\n"}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def job(**fields: Any) -> Job:
    """A job that the emulated workspace takes."""
    return Job(**{"command": "true", "environment": "azureml:torch:1", "compute": "gpu-cluster", **fields})


def build_in(folder: Path, dockerfile: str = "FROM scratch\n") -> Environment:
    """An environment that is built from a folder of two files."""
    return Environment(build=Build(path=str(code_in(folder, {"Dockerfile": dockerfile, "part.txt": "part\n"}))))


def routes(emulator: Emulator) -> list[str]:
    """What was asked for, in order."""
    return [str(request.route) for request in emulator.requests]


def logged_in(emulator: Emulator, folder: Path) -> dict[str, str]:
    """Variables by which the emulated workspace is that of whoever has them; `az login`, in `folder`, asks nobody."""
    here = emulator.workspace
    folder.mkdir()
    (folder / "az").write_text('#!/bin/sh\n[ "$*" = login ]\n')
    (folder / "az").chmod(0o755)
    return {
        "AZURE_TENANT_ID": here.tenant_id,
        "AZURE_CLIENT_ID": "someone",
        "AZURE_CLIENT_SECRET": "secret",
        "AZUREML_ARM_SUBSCRIPTION": here.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": here.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": here.name,
        "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
    }


def repository_copy(folder: Path) -> Path:
    """What the documents and notebooks speak of, without what git does not know."""
    for name in ("samples", "environments"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def set_md5(emulator: Emulator, path: str, md5: bytes) -> None:
    """What the storage has as the MD5 of a file."""
    from azure.storage.blob import BlobClient, ContentSettings

    container = emulator.workspace.datastores["workspaceblobstore"].container
    there = f"https://{emulator.account.host}/{container}/{path}"
    client = BlobClient.from_blob_url(there, credential=emulator.account.key)
    client.set_http_headers(ContentSettings(content_md5=bytearray(md5)))
