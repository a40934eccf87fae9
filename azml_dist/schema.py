"""The JSON Schema of job files, for editors: made from the models, in the names and the grouping of `az ml` YAML."""

from __future__ import annotations

from typing import Any

from azml_dist.job import Job
from azml_dist.jobfile import GROUPS, YAML_NAME_OF

_GROUP_DESCRIPTIONS = {
    "resources": "How many machines, of which kind, and what their container gets.",
    "limits": "What the run may not exceed.",
}
_MODEL_OF_GROUP = {"distribution": ("PyTorch", "Mpi"), "queue_settings": ("Queue",), "identity": ("Identity",)}


def job_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of what `Job.load` reads; every field has its description."""
    schema = Job.model_json_schema(mode="validation")
    fields, models = schema["properties"], schema["$defs"]
    _use_yaml_names(models)
    _allow_class_names(models)
    moved = {field for group in GROUPS.values() for field in group.values()}
    top = {"queue_settings" if name == "queue" else name: fields[name] for name in fields if name not in moved}
    properties = {
        "$schema": {"type": "string", "description": "Where this schema is; for the editor alone."},
        "type": {"enum": ["command"], "description": "The kind of job: a command."},
        **{name: _plain(field) for name, field in top.items()},
        **{group: _group(group, fields) for group in GROUPS},
    }
    _allow_what_yaml_allows(properties)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Command job",
        "description": "A command job of Azure ML, as `az ml job create -f` and azml_dist read it.",
        "type": "object",
        "additionalProperties": False,
        "required": ["command"],
        "properties": properties,
        "$defs": {name: _plain(model) for name, model in models.items()},
    }


def _group(group: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": _GROUP_DESCRIPTIONS[group],
        "additionalProperties": False,
        "properties": {yaml_name: _plain(fields[field]) for yaml_name, field in GROUPS[group].items()},
    }


def _use_yaml_names(models: dict[str, Any]) -> None:
    for (group, own), name in YAML_NAME_OF.items():
        for model in _MODEL_OF_GROUP[group]:
            fields = models[model]["properties"]
            models[model]["properties"] = {name if key == own else key: value for key, value in fields.items()}


def _allow_class_names(models: dict[str, Any]) -> None:
    """`type: PyTorch` is as good as `pytorch`."""
    for title, model in models.items():
        kind = model["properties"].get("type", {})
        if "const" in kind:
            value = kind.pop("const")
            kind["enum"] = list(dict.fromkeys([value, title]))
            model["required"] = [*model.get("required", []), "type"]


def _allow_what_yaml_allows(properties: dict[str, Any]) -> None:
    for name in ("environment_variables", "tags", "properties"):
        properties[name]["additionalProperties"] = {"type": ["string", "number", "boolean", "null"]}
    wrapped = {"type": "object", "required": ["value"], "additionalProperties": False, "properties": {"value": {}}}
    wrapped["description"] = "A literal value, as azure-ai-ml also writes it."
    properties["inputs"]["additionalProperties"]["oneOf"].append(wrapped)
    output = properties["outputs"]["additionalProperties"]
    properties["outputs"]["additionalProperties"] = {"anyOf": [output, {"type": "null"}]}


def _plain(value: Any) -> Any:
    """Without what says nothing to the writer of a file: pydantic's titles and defaults, and null for "not given"."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {
        key: {name: _plain(field) for name, field in inner.items()} if key == "properties" else _plain(inner)
        for key, inner in value.items()
        if key not in ("title", "default")
    }
    choices = [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return choices[0] | plain
    return plain | ({"anyOf": choices} if choices else {})
