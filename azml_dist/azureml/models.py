"""Registers models: what a run on Azure ML wrote, or a folder on this machine."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from urllib.parse import quote

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.errors import translated
from azml_dist.azureml.inputs import stored
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import JobError, NotFound, SubmitError
from azml_dist.model.parts import MODEL_TYPES
from azml_dist.runs.registered import Registered, hint_for
from azml_dist.status import RunStatus
from azml_dist.words import nearest_or_all

ARTIFACTS = "artifacts"
"""Under this name, the documentation of models refers to what a job wrote to `./outputs` and `./logs`."""


def register_output(
    workspace: Workspace, run: str, output: str, model: str, *, inside: str = "", version: str | None = None
) -> Registered:
    """Register an output of a run, or the folder `inside` it. Its files stay where they are.

    Raises `NotFound` if the run has no such output, and `SubmitError` if it has not completed, or if this version
    exists and is something else.
    """
    _check_name(model)
    with translated(f"register a model of run {run}", workspace):
        job = workspace.arm.read(f"jobs/{quote(run, safe='')}").object("properties")
        outputs = {name: found for name, found in job.object("outputs").each_object() if name != "default"}
        status = RunStatus(job.needed("status"))
        if output != ARTIFACTS and output not in outputs:
            hint = nearest_or_all(output, [*outputs, ARTIFACTS])
            raise NotFound(f"run {run} has no output {output!r}", hint=hint)
        if status != RunStatus.COMPLETED:
            what = f"run {run} is {status}: only a run that completed has a model to register"
            raise SubmitError(what, hint=hint_for(run, status))
        declared = outputs[output].text("jobOutputType") if output in outputs else None
        path = f"azureml://jobs/{run}/outputs/{output}" + (f"/paths/{inside.strip('/')}" if inside else "")
        return _register(workspace, model, version, declared, path)


def register_folder(
    workspace: Workspace, folder: Path, model: str, *, kind: str | None = None, version: str | None = None
) -> Registered:
    """Upload a folder to the workspace's storage, unless it is there already, and register it."""
    _check_name(model)
    place = stored(workspace, str(folder), f"model {model}", "output", threading.Event())
    path = f"azureml://datastores/workspaceblobstore/paths/{place.path}" + ("/" if folder.is_dir() else "")
    with translated(f"register model {model}", workspace):
        return _register(workspace, model, version, kind, path)


def _check_name(model: str) -> None:
    """Before anything is uploaded. Azure ML documents its rule for names of assets in outputs; a dot may be allowed."""
    if not re.fullmatch(r"[\w.-]{1,255}", model, re.ASCII):
        raise JobError(
            f"{model!r} cannot be the name of a model", hint="use 1 to 255 letters, digits, `-`, `_` and `.`"
        )


def _register(workspace: Workspace, model: str, version: str | None, kind: str | None, path: str) -> Registered:
    kind = kind if kind in MODEL_TYPES else "custom_model"  # as azure-ai-ml: a model of no particular format
    place = f"models/{quote(model, safe='')}"
    if version is None:
        version = _read(workspace, place, "nextVersion") or "1"
    elif (there := _read(workspace, f"{place}/versions/{quote(version, safe='')}", "modelUri")) is not None:
        if there.rstrip("/") != path.rstrip("/"):
            hint = "leave out the version to get the next one"
            raise SubmitError(f"model {model} already has a version {version}, from {there[:200]}", hint=hint)
        return Registered(model, version, kind, there)
    body = {"properties": {"modelType": kind, "modelUri": path}}
    made = Answer(workspace.arm.call("PUT", f"{place}/versions/{quote(version, safe='')}", body=body))
    return Registered(model, version, kind, made.object("properties").text("modelUri") or path)


def _read(workspace: Workspace, path: str, field: str) -> str | None:
    """A field of something that may not exist."""
    from azure.core.exceptions import HttpResponseError

    try:
        return workspace.arm.read(path).object("properties").text(field)
    except HttpResponseError as error:
        if error.status_code == 404:
            return None
        raise
