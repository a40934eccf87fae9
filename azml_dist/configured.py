"""Finds the configured workspace: in environment variables, or in a `config.json` in this folder or above."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

VARIABLES = {
    "subscription_id": ("AZUREML_ARM_SUBSCRIPTION", "AZURE_SUBSCRIPTION_ID"),
    "resource_group": ("AZUREML_ARM_RESOURCEGROUP", "AZURE_RESOURCE_GROUP", "AZURE_DEFAULTS_GROUP"),
    "name": ("AZUREML_ARM_WORKSPACE_NAME", "AZURE_ML_WORKSPACE_NAME", "AZURE_DEFAULTS_WORKSPACE"),
}
"""Variables set on Azure ML's own machines, common ones, and those that the Azure CLI reads, in this order."""
_FILES = tuple(product((".azureml", "aml_config", ""), ("config.json", "project.json")))
"""Where `MLClient.from_config` looks, in this order, in this folder and each folder above."""
_CONFIG_KEYS = ("subscription_id", "resource_group", "workspace_name")
_LEVELS = 20


class Ids(NamedTuple):
    """The ids that together identify a workspace."""

    subscription_id: str
    resource_group: str
    name: str


def configured_ids(given: Mapping[str, str | None] | None = None) -> dict[str, str | None]:
    """The ids of the configured workspace, None for those that are not configured; `given` ones come first."""
    given = given or dict.fromkeys(VARIABLES)
    found = {key: given[key] or _variable(key) for key in VARIABLES}
    if not all(found.values()):
        # All ids from one place: a subscription from the environment must not be combined with a workspace from a file.
        found = {**(_from_file() or found), **{key: value for key, value in given.items() if value}}
    return found


def source_of_ids(given: Mapping[str, str | None]) -> str:
    """Where `configured_ids` takes them from: `what you gave`, variables, or the path of a file."""
    if all(given.values()):
        return "what you gave"
    if all(given[key] or _variable(key) for key in VARIABLES):
        names = [next(name for name in VARIABLES[key] if os.environ.get(name)) for key in VARIABLES if not given[key]]
        return ", ".join(names)
    return str(_file() or "what you gave")


def _variable(key: str) -> str | None:
    return next((os.environ[name] for name in VARIABLES[key] if os.environ.get(name)), None)


def _from_file() -> dict[str, str | None] | None:
    file = _file()
    return _read(file) if file else None


def _file() -> Path | None:
    """The first file that names a workspace."""
    try:
        here = Path.cwd()
    except OSError:  # the folder was removed while a shell was in it
        return None
    for folder, name in _FILES:
        for parent in [here, *here.parents][:_LEVELS]:
            if _read(parent / folder / name):
                return parent / folder / name
    return None


def _read(path: Path) -> dict[str, str | None] | None:
    """The ids in a file; None if it is another kind of `config.json`, such as that of a Hugging Face model."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, Mapping):
        return None
    scope: Any = config.get("Scope")
    if isinstance(scope, str) and len(parts := scope.split("/")) > 8:
        return dict(zip(VARIABLES, (parts[2], parts[4], parts[8]), strict=True))
    if not all(isinstance(config.get(key), str) for key in _CONFIG_KEYS):
        return None
    return dict(zip(VARIABLES, (config[key] for key in _CONFIG_KEYS), strict=True))
