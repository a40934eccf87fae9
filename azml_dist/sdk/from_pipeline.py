"""Converts azure-ai-ml's pipelines to their YAML: what `@dsl.pipeline` functions and `load_job` return."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.errors import JobError
from azml_dist.notation.document import Document, read_yaml
from azml_dist.sdk.command import no_notes_on_experimental_classes
from azml_dist.sdk.load import import_sdk

if TYPE_CHECKING:
    from azure.ai.ml.entities import PipelineJob

_NO_NAMES = ("azureml_anonymous", "CliV2AnonymousEnvironment")
"""The name that azure-ai-ml gives a component or an environment that exists only in its pipeline."""


def document_of(pipeline: PipelineJob) -> Document:
    """The YAML of a pipeline as azure-ai-ml itself writes it (`PipelineJob.dump`), as if in a file next to its code."""
    import_sdk()
    from azure.ai.ml.entities import PipelineJob

    if not isinstance(pipeline, PipelineJob):
        hint = "call a `@dsl.pipeline` function to get one"
        raise JobError(f"a {type(pipeline).__name__} is not a pipeline", hint=hint)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yml")
        with no_notes_on_experimental_classes():
            pipeline.dump(file)
        document = read_yaml(str(file), "pipeline")
    base = Path(pipeline.base_path or ".")
    jobs = document.data.get("jobs") or {}
    for part in (document.data, *(step for step in jobs.values() if isinstance(step, dict))):
        _as_in_yaml(part, base)
    place = base / (pipeline.display_name or pipeline.name or "pipeline")
    return document._replace(file=str(place), lines={})


def _as_in_yaml(part: dict[str, Any], base: Path) -> None:
    """Corrects what a dump writes differently from a file; azure-ai-ml itself could not read it back either."""
    for name, value in (part.get("inputs") or {}).items():
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            continue
        if value.keys() == {"path"} and value["path"].startswith("${{"):
            part["inputs"][name] = value["path"]
        else:
            value["path"] = _local(value["path"], base)
    component = part.get("component")
    inside: dict[str, Any] = component if isinstance(component, dict) else {}
    for one in (inside, inside.get("environment"), part.get("environment")):
        if isinstance(one, dict) and one.get("name") in _NO_NAMES:
            del one["name"]
            one.pop("version", None)
    if variables := inside.pop("environment_variables", None):
        part["environment_variables"] = {**variables, **(part.get("environment_variables") or {})}


def _local(path: str, base: Path) -> str:
    """A local path without the `azureml:` that a dump puts in front of everything that is not remote."""
    inside = path.removeprefix("azureml:")
    if inside == path or inside.startswith(("//", "/subscriptions/")):
        return path
    is_here = (
        inside.startswith((".", "/", "~")) or (":" not in inside and "@" not in inside) or (base / inside).exists()
    )
    return inside if is_here else path
