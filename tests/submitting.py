"""What tests of submission share: the emulated workspace as ours, and small jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulator import Emulator, StaticToken

from azml_dist import Job, Workspace


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
