"""Says what a YAML file of `az ml` is if it is not a job: an environment, data, another kind of component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_A_SCHEMA = {
    "environment": "an environment",
    "data": "a data asset",
    "model": "a model",
    "deployment": "a deployment",
    "endpoint": "an endpoint",
    "schedule": "a schedule",
    "compute": "a compute",
    "workspace": "a workspace",
    "registry": "a registry",
    "connection": "a connection",
    "parallelcomponent": "a parallel component",
    "pipelinecomponent": "a pipeline component",
    "sparkcomponent": "a Spark component",
    "automlcomponent": "an AutoML component",
}
_OF_A_TYPE = {
    **dict.fromkeys(("uri_file", "uri_folder", "mltable"), "a data asset"),
    **dict.fromkeys(("custom_model", "mlflow_model", "triton_model"), "a model"),
    **dict.fromkeys(("amlcompute", "computeinstance", "kubernetes", "virtualmachine", "synapsespark"), "a compute"),
    **dict.fromkeys(("azure_blob", "azure_file", "azure_data_lake_gen1", "azure_data_lake_gen2"), "a datastore"),
}
_COMPONENTS = {
    "parallel": "a parallel component",
    "pipeline": "a pipeline component",
    "spark": "a Spark component",
    "automl": "an AutoML component",
    "sweep": "a sweep component",
}
_FIELDS = {
    "dependencies": "a conda file",
    "channels": "a conda file",
    "image": "an environment",
    "build": "an environment",
    "endpoint_name": "a deployment",
    "auth_mode": "an endpoint",
    "trigger": "a schedule",
}
OF_A_JOB = ("command", "jobs", "trial")
"""Fields of which every job and component has one."""


def other_kind(data: Mapping[str, Any]) -> str | None:
    """What a file clearly is, unless it is a job or a command component."""
    schema = str(data.get("$schema", "")).rsplit("/", 1)[-1].lower().removesuffix(".json").removesuffix(".schema")
    kind = str(data.get("type", "")).lower()
    is_asset = "component" in schema or "version" in data
    if is_asset and kind.removesuffix("_component") in _COMPONENTS:
        return _COMPONENTS[kind.removesuffix("_component")]
    if schema and (found := next((what for end, what in _OF_A_SCHEMA.items() if schema.endswith(end)), None)):
        return found
    if kind in _OF_A_TYPE or (kind.removesuffix("_component") in _COMPONENTS and kind.endswith("_component")):
        return _OF_A_TYPE.get(kind) or _COMPONENTS[kind.removesuffix("_component")]
    if kind or any(name in data for name in OF_A_JOB):
        return None
    return next((what for name, what in _FIELDS.items() if name in data), None)


def hint_for(what: str) -> str:
    """What to do with a file of another kind."""
    if what == "an environment":
        return "use it in a job: `environment: file:PATH`; in Python `Environment.load` reads it"
    if what == "a conda file":
        return "use it in a job: `environment: {image: ..., conda_file: PATH}`"
    return "azml_dist plans and runs jobs, sweeps, pipelines and command components"
