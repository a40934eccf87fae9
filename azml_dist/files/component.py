"""Reads the YAML of a command component as a `Job` that still needs values for its inputs.

The schema is azure-ai-ml's `CommandComponentSchema`. A component does not run by itself: its name and version are
those of an asset, so the job gets only its display name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from azml_dist.errors import Finding
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import VALUE_TYPES, Parameter
from azml_dist.notation.azml import GROUPS, Fields, absolute
from azml_dist.notation.document import Document
from azml_dist.notation.expressions import ComponentCommand
from azml_dist.words import nearest_or_all, shown

J = TypeVar("J", bound=JobFields)

_FIELDS = ("command", "code", "environment", "distribution", "resources", "inputs", "outputs", "queue_settings")
_SHOWN = ("description", "tags", "properties")
_OF_THE_ASSET = ("$schema", "type", "name", "display_name", "version", "is_deterministic", "id", "creation_context")
_REFUSED = {"additional_includes": "put what the command needs in its `code` folder"}
_OF_A_JOB = {
    "environment_variables": "set them in the command, or in the job or step that runs the component",
    "limits": "set it in the job or step that runs the component",
    "compute": "set it in the job or step that runs the component",
    "identity": "set it in the job or step that runs the component",
    "services": "set them in the job or step that runs the component",
}
_NAME = re.compile(r"[a-z][a-z0-9_.]*", re.ASCII)


def is_component(data: Mapping[str, Any]) -> bool:
    """Whether a YAML file is a command component: by its schema, or by fields that a job does not have."""
    schema = str(data.get("$schema", "")).lower()
    if "component" in schema:
        return "command" in schema
    if schema or str(data.get("type", "command")).lower() != "command":
        return False
    inputs = data.get("inputs")
    declared = isinstance(inputs, Mapping) and any(map(_is_declaration, inputs.values()))
    return "command" in data and (declared or "version" in data or "is_deterministic" in data)


def component_of(kind: type[J], document: Document, folder: Path | None = None, *, is_asset: bool = False) -> J:
    """The component in a document as a job; paths are relative to `folder`, by default the folder of the document.

    `is_asset` says that it would be created in a workspace, rather than together with a pipeline that uses it.
    """
    folder = folder or Path(document.file).absolute().parent
    fields, values = Fields(document, {}), {}
    findings: list[Finding] = []
    if is_asset and "name" not in document.data and "$schema" in document.data:
        message = "azure-ai-ml does not accept a component without a `name`"
        findings.append(Finding("component-without-name", "error", message, "add one", "name"))
    _check_names(fields, is_asset)
    for key, value in document.data.items():
        if value is None:
            fields.nothing((key,))
            continue
        if key == "inputs":
            values[key] = fields.mapping(value, lambda name, v: _parameter(fields, name, v))
        elif key == "outputs":
            values[key] = fields.mapping(value, lambda name, v: _output(findings, name, v))
        elif key == "command" and isinstance(value, str):
            values[key] = ComponentCommand(value)
        elif key == "code":
            values[key] = absolute(value, folder)
        elif key in _REFUSED:
            fields.problem(f"azml_dist does not support `{key}` of a component", _REFUSED[key], (key,))
        elif key in (*_FIELDS, *_SHOWN):
            fields.take(key, value, values, folder)
        elif key not in _OF_THE_ASSET:
            findings.append(_ignored(key))
    if isinstance(command := values.get("command"), ComponentCommand):
        values["command"] = ComponentCommand.of(command, findings)
    if title := document.data.get("display_name") or document.data.get("name"):
        values["display_name"] = title
    return fields.build(kind, values).read_from(document.file)


def _ignored(key: str) -> Finding:
    known = [*_FIELDS, *_SHOWN, *_OF_THE_ASSET, *(name for group in GROUPS.values() for name in group)]
    hint = _OF_A_JOB.get(key) or nearest_or_all(key, known) or "leave it out"
    return Finding("ignored-field", "note", f"azure-ai-ml ignores `{key}` in a component", hint, key)


def _check_names(fields: Fields, is_asset: bool) -> None:
    """Checks names as azure-ai-ml does, which is stricter for a component than for a job."""
    name = fields.document.data.get("name")
    if is_asset and name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        hint = "use lower-case letters, digits and `_`, starting with a letter"
        fields.problem(f"{shown(name)} is not a valid name for a component", hint, ("name",))
    for key in ("inputs", "outputs"):
        declared = fields.document.data.get(key)
        seen: dict[str, str] = {}
        for each in declared if isinstance(declared, Mapping) else ():
            if (other := seen.setdefault(each.lower(), each)) != each:
                fields.problem(f"`{other}` and `{each}` are the same name to azure-ai-ml", None, (key, each))


def _is_declaration(value: Any) -> bool:
    if not isinstance(value, Mapping) or "path" in value or "value" in value:
        return False
    return str(value.get("type")) in VALUE_TYPES or any(k in value for k in ("optional", "default", "min", "max"))


def _parameter(fields: Fields, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        hint = "for example `{type: number, default: 0.1}`"
        fields.problem(f"{shown(value)} is not the declaration of an input", hint, ("inputs", name))
        return ""
    given = {key: v for key, v in value.items() if v is not None}
    if isinstance(given.get("enum"), list):
        given["enum"] = [
            fields.document.texts.get(("inputs", name, "enum", str(i)), v) for i, v in enumerate(given["enum"])
        ]
    return fields.part(Parameter, given, ("inputs", name))


def _output(findings: list[Finding], name: str, value: Any) -> Any:
    if isinstance(value, Mapping) and value.get("type") in VALUE_TYPES:
        message = (
            f"`{name}` is a value, not data (a preview feature of Azure ML); locally it is the file with the value"
        )
        findings.append(Finding("value-output", "note", message, None, f"outputs.{name}"))
        return {"type": "uri_file"}
    if isinstance(value, Mapping):
        value = {k: v for k, v in value.items() if k not in ("description", "early_available") and v is not None}
        return value | ({"type": "uri_folder"} if value.get("type") == "path" else {})
    return {} if value is None else value
