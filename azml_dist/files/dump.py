"""Writes a `Job` as the command-job YAML of `az ml`, which both `Job.load` and azure-ai-ml's `load_job` read back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from azml_dist.errors import JobError, Problem
from azml_dist.model.base import Model
from azml_dist.model.given import refuse_open_inputs
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Environment, Input
from azml_dist.notation.azml import GROUPS, MODES_OF_TABLES, YAML_NAME_OF
from azml_dist.notation.expressions import OpenCount, is_remote

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
"""The schema with which editors check a command job of `az ml`."""
_MODES = {"mount": "ro_mount"}
_ORDER = [
    *("name", "display_name", "experiment_name", "description", "tags", "properties", "parent_job_name"),
    *("command", "code", "inputs", "outputs", "environment", "environment_variables", "compute", "distribution"),
    *("resources", "limits", "queue_settings", "identity", "services"),
]


def dump_job(job: JobFields, path: str | os.PathLike[str]) -> None:
    """Write the job to a YAML file; paths near that file are written relative to its folder."""
    file = Path(path)
    text = yaml_of(job, file.absolute().parent)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"{file} cannot be written: {error.strerror}") from error


def yaml_of(job: JobFields, folder: Path | None = None) -> str:
    """The job as YAML; its paths are absolute, or relative to `folder` if they are near it.

    Raises `JobError` for whatever azure-ai-ml would not read back.
    """
    refuse_open_inputs(job)
    if problems := list(_without_a_place(job)):
        raise JobError.of(problems)
    fields = _fields(job, folder)
    ordered = {"$schema": SCHEMA, "type": "command"} | {name: fields[name] for name in _ORDER if name in fields}
    return yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _fields(job: JobFields, folder: Path | None) -> dict[str, Any]:
    groups = {own: (group, name) for group, names in GROUPS.items() for name, own in names.items()}
    fields: dict[str, Any] = {}
    for own in job.model_fields_set:
        value = _plain(getattr(job, own), own)
        if own in groups:
            group, name = groups[own]
            inside = fields.setdefault(group, {})
            if value is not None:
                inside[name] = value
        elif value is not None:
            fields["queue_settings" if own == "queue" else own] = value
    fields["command"] = str(job.sent_command)
    if job.local_code:
        fields["code"] = _near(job.local_code, folder)
    if job.inputs:
        fields["inputs"] = {n: _input(job, n, folder) for n in job.inputs if not job.is_left_out(n)}
    if isinstance(job.environment, Environment):
        fields["environment"] = _environment(job.environment, folder)
    if "resources" in fields:
        fields["resources"] = {
            name: fields["resources"][name] for name in GROUPS["resources"] if name in fields["resources"]
        }
    return fields


def _input(job: JobFields, name: str, folder: Path | None) -> Any:
    value = job.inputs[name]
    if isinstance(value, Parameter):
        default = value.typed(value.default)
        return float(default) if value.type == "number" else default
    if not isinstance(value, Input):
        return value
    fields = {"type": value.type, **_plain(value, "inputs")}
    fields["path"] = _near(value.path, folder) if value.is_local else value.path
    if value.mode:
        fields["mode"] = _MODES.get(value.mode, value.mode)
    if value.type == "uri_folder" and value.mode in MODES_OF_TABLES:
        del fields["type"]  # azure-ai-ml accepts this mode for a folder only if `type` is absent
    return fields


def _environment(environment: Environment, folder: Path | None) -> dict[str, Any]:
    fields: dict[str, Any] = _plain(environment, "environment")
    if isinstance(environment.conda_file, str):
        fields["conda_file"] = _near(environment.conda_file, folder)
    if environment.build and not is_remote(environment.build.path):
        fields["build"]["path"] = _near(environment.build.path, folder)
    return fields


def _plain(value: Any, field: str) -> Any:
    """A value of a model as in YAML, under YAML's names, with only the fields that were set."""
    if isinstance(value, OpenCount):
        return value.text
    if isinstance(value, Model):
        names = [name for name in type(value).model_fields if name in value.model_fields_set or name == "type"]
        given = ((name, _plain(getattr(value, name), field)) for name in names)
        return {YAML_NAME_OF.get((_YAML_GROUP.get(field, field), n), n): v for n, v in given if v is not None}
    if isinstance(value, Mapping):
        return {name: _plain(inner, field) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner, field) for inner in value]
    return str(value) if isinstance(value, str) else value


_YAML_GROUP = {"queue": "queue_settings"}


def _near(path: str, folder: Path | None) -> str:
    """The path relative to the folder, unless the absolute path is shorter."""
    whole = os.path.abspath(path)
    if folder is None:
        return whole
    try:
        way = os.path.relpath(whole, folder)
    except ValueError:  # another drive
        return whole
    return whole if way.startswith(os.path.join(*[os.pardir] * 4)) else way


def _without_a_place(job: JobFields) -> Iterator[Problem]:
    if job.identity and job.identity.resource_id:
        hint = "use `client_id` or `object_id`"
        yield Problem("azure-ai-ml does not accept a resource id in YAML", hint, "identity.resource_id")
    for name, value in job.inputs.items():
        if isinstance(value, Input) and value.mode == "rw_mount":
            yield Problem(
                "azure-ai-ml does not accept `rw_mount` for an input in YAML", "`ro_mount`", f"inputs.{name}.mode"
            )
    if isinstance(job.environment, Environment) and job.environment.properties:
        hint = "register the environment with them, and use its name"
        yield Problem(
            "azure-ai-ml does not accept properties of an environment in YAML", hint, "environment.properties"
        )


class _Dumper(yaml.SafeDumper):
    """YAML as a person would write it: multi-line strings as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
