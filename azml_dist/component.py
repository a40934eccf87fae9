"""A command component's YAML as a `Job` whose inputs are still to be given.

The schema is azure-ai-ml's `CommandComponentSchema`. A component has no run of its own: its name and version are those
of an asset, so the job gets its display name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azml_dist.job import Job
from azml_dist.model import shown
from azml_dist.parameter import Parameter
from azml_dist.values import ComponentCommand
from azml_dist.yamlfields import GROUPS, Fields, absolute
from azml_dist.yamlfile import Document

_FIELDS = ("command", "code", "environment", "distribution", "resources", "inputs", "outputs", "queue_settings")
_SHOWN = ("description", "tags", "properties")
_OF_THE_ASSET = ("$schema", "type", "name", "display_name", "version", "is_deterministic", "id", "creation_context")
_REFUSED = {
    "additional_includes": "put what the command needs into its `code` folder",
    "environment_variables": "azure-ai-ml takes none in a component: set them in the command, or in the job",
    "limits": "azure-ai-ml takes none in a component: they belong to a job",
    "compute": "azure-ai-ml takes none in a component: it belongs to a job",
    "intellectual_property": "a preview feature that means nothing here",
}
_VALUE_TYPES = ("string", "integer", "number", "boolean")


def is_component(data: Mapping[str, Any]) -> bool:
    """Whether a YAML is a command component: by its schema, or by fields that a job has none of."""
    schema = str(data.get("$schema", "")).lower()
    if "component" in schema:
        return "command" in schema
    if schema or str(data.get("type", "command")).lower() != "command":
        return False
    inputs = data.get("inputs")
    declared = isinstance(inputs, Mapping) and any(map(_is_declaration, inputs.values()))
    return "command" in data and (declared or "version" in data or "is_deterministic" in data)


def component_of(document: Document, folder: Path | None = None) -> Job:
    """The component in a document as a job; its paths are relative to `folder`, or to the document's own."""
    folder = folder or Path(document.file).absolute().parent
    fields, values = Fields(document, {}), {}
    for key, value in document.data.items():
        if value is None:
            fields.nothing((key,))
            continue
        if key == "inputs":
            values[key] = fields.mapping(key, value, lambda name, v: _parameter(fields, name, v))
        elif key == "outputs":
            values[key] = fields.mapping(key, value, lambda name, v: _output(fields, name, v))
        elif key == "command" and isinstance(value, str):
            values[key] = ComponentCommand(value)
        elif key == "code":
            values[key] = absolute(value, folder)
        elif key in _REFUSED:
            fields.problem(f"`{key}` of a component is not supported by azml_dist", _REFUSED[key], (key,))
        elif key in (*_FIELDS, *_SHOWN):
            fields.take(key, value, values, folder)
        elif key not in _OF_THE_ASSET:
            fields.unknown(key, (key,), [*_FIELDS, *_SHOWN, *_OF_THE_ASSET, *(n for g in GROUPS.values() for n in g)])
    if title := document.data.get("display_name") or document.data.get("name"):
        values["display_name"] = title
    return fields.build(Job, values)


def _is_declaration(value: Any) -> bool:
    if not isinstance(value, Mapping) or "path" in value or "value" in value:
        return False
    return str(value.get("type")) in _VALUE_TYPES or any(k in value for k in ("optional", "default", "min", "max"))


def _parameter(fields: Fields, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        hint = "as in `{type: number, default: 0.1}`"
        fields.problem(f"{shown(value)} is not the declaration of an input", hint, ("inputs", name))
        return ""
    given = {key: v for key, v in value.items() if v is not None}
    if isinstance(given.get("enum"), list):
        given["enum"] = [
            fields.document.texts.get(("inputs", name, "enum", str(i)), v) for i, v in enumerate(given["enum"])
        ]
    return fields.part(Parameter, given, ("inputs", name))


def _output(fields: Fields, name: str, value: Any) -> Any:
    if isinstance(value, Mapping) and value.get("type") in _VALUE_TYPES:
        problem = "an output that is a value, not a file, is a preview feature that azml_dist does not know"
        fields.problem(problem, "write it to a file", ("outputs", name, "type"))
        return {}
    if isinstance(value, Mapping):
        value = {k: v for k, v in value.items() if k not in ("description", "early_available") and v is not None}
        return value | ({"type": "uri_folder"} if value.get("type") == "path" else {})
    return {} if value is None else value
