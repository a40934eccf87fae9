"""The JSON Schema of job files, for editors: generated from the models, with the names and groups of `az ml` YAML."""

from __future__ import annotations

import re
from typing import Any

from azml_dist.model.job import JobFields
from azml_dist.notation.azml import GROUPS, MODES, MODES_OF_TABLES, READ_ONLY, READ_ONLY_OF_A_SERVICE, YAML_NAME_OF

_GROUP_DESCRIPTIONS = {
    "resources": "How many machines, of which kind, and the settings of their container.",
    "limits": "The limits of the run.",
}
_MODEL_OF_GROUP = {"distribution": ("PyTorch", "Mpi"), "queue_settings": ("Queue",), "identity": ("Identity",)}
_SERVICES = ("JupyterLab", "VsCode", "TensorBoard", "Ssh")
_ANY_SPELLING = ("Identity",)
"""Models whose `type` may be `user_identity` or `UserIdentity`."""
_EXACT = ("nodes",)
"""Fields whose words must be in lower case."""
_SHOWN = {"description": "Written by `az ml job show`; has no effect in a file."}


def job_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of the jobs that `Job.load` reads, with a description for every field."""
    schema = JobFields.model_json_schema(mode="validation")
    fields, models = schema["properties"], schema["$defs"]
    del models["Parameter"]
    _use_yaml_names(models)
    _leave_out_what_yaml_has_not(models)
    moved = {field for group in GROUPS.values() for field in group.values()}
    top = {"queue_settings" if name == "queue" else name: fields[name] for name in fields if name not in moved}
    properties = {
        "$schema": {"type": "string", "description": "The address of this schema, for the editor only."},
        "type": {"const": "command", "description": "The kind of job: a command."},
        **{name: _plain(field) for name, field in top.items()},
        **{group: _group(group, fields) for group in GROUPS},
        **dict.fromkeys(READ_ONLY, _SHOWN),
    }
    _allow_what_yaml_allows(properties)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Command job",
        "description": "A command job of Azure ML, for `az ml job create -f` and azml_dist.",
        "type": "object",
        "additionalProperties": False,
        "required": ["command"],
        "properties": properties,
        "$defs": {name: _model(name, _plain(model)) for name, model in models.items()},
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


def _leave_out_what_yaml_has_not(models: dict[str, Any]) -> None:
    """Removes what azure-ai-ml accepts only in Python."""
    del models["Identity"]["properties"]["msi_resource_id"]
    del models["Environment"]["properties"]["properties"]
    modes = models["Input"]["properties"]["mode"]["anyOf"][0]
    modes["enum"] = [*MODES, *MODES_OF_TABLES]


def _model(name: str, model: dict[str, Any]) -> dict[str, Any]:
    fields = model["properties"]
    if name in _SERVICES:
        fields |= dict.fromkeys(READ_ONLY_OF_A_SERVICE, _SHOWN)
    kind = fields.get("type", {})
    if "const" in kind:
        kind["enum"] = [kind.pop("const")]
        model["required"] = [*model.get("required", []), "type"]
    for field, inner in fields.items():
        if "enum" in inner and field not in _EXACT:
            fields[field] = _in_any_case(inner, name in _ANY_SPELLING)
    return model


def _in_any_case(field: dict[str, Any], any_spelling: bool) -> dict[str, Any]:
    """Suggests the words in an editor, but accepts `PyTorch` for `pytorch`, and `UserIdentity` for `user_identity`."""
    words = field.pop("enum")
    patterns = [re.sub("[a-z]", lambda c: f"[{c[0].upper()}{c[0]}]", word) for word in words]
    if any_spelling:
        patterns = [pattern.replace("_", "_?") for pattern in [*patterns, "[Mm]anaged_[Ii]dentity"]]
    field.pop("type", None)
    return field | {"anyOf": [{"enum": words}, {"type": "string", "pattern": f"^({'|'.join(patterns)})$"}]}


def _allow_what_yaml_allows(properties: dict[str, Any]) -> None:
    values = {"type": ["string", "number", "boolean", "null"]}
    properties["environment_variables"]["additionalProperties"] = values
    for name in ("tags", "properties"):
        properties[name]["additionalProperties"] = {"type": ["string", "null"]}
    properties["command"] = {"type": "string", "description": properties["command"]["description"]}
    wrapped = {"type": "object", "required": ["value"], "additionalProperties": False, "properties": {"value": {}}}
    wrapped["description"] = "A literal value, in azure-ai-ml's longer spelling."
    inputs = properties["inputs"]["additionalProperties"]
    inputs["oneOf"] = [kind for kind in inputs["oneOf"] if kind != {"$ref": "#/$defs/Parameter"}] + [wrapped]
    output = properties["outputs"]["additionalProperties"]
    properties["outputs"]["additionalProperties"] = {"anyOf": [output, {"type": "null"}]}


def _plain(value: Any) -> Any:
    """Removes what does not help whoever writes a file: pydantic's titles and defaults, and null for unset fields."""
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
    return _digits(plain | ({"anyOf": choices} if choices else {}))


def _digits(field: dict[str, Any]) -> dict[str, Any]:
    """Accepts a count in quotes, as azure-ai-ml does."""
    if field.get("type") != "integer" or "minimum" not in field:
        return field
    return field | {"type": ["integer", "string"], "pattern": "^[1-9][0-9]*$" if field["minimum"] else "^[0-9]+$"}
