"""A `Job` as the command-job YAML of `az ml`: what `Job.load` reads back, and azure-ai-ml's `load_job` too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from azml_dist.errors import JobError, Problem
from azml_dist.inputs import refuse_open_inputs
from azml_dist.job import Job
from azml_dist.model import Model
from azml_dist.parameter import Parameter
from azml_dist.parts import Environment, Input
from azml_dist.values import OpenCount, is_remote
from azml_dist.yamlfields import GROUPS, YAML_NAME_OF

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
"""What editors check an `az ml` command job with."""
_MODES = {"mount": "ro_mount"}
_ORDER = [
    *("name", "display_name", "experiment_name", "description", "tags", "properties", "parent_job_name"),
    *("command", "code", "inputs", "outputs", "environment", "environment_variables", "compute", "distribution"),
    *("resources", "limits", "queue_settings", "identity", "services"),
]


def dump_job(job: Job, path: str | os.PathLike[str]) -> None:
    """Write the job to a YAML file; paths near that file are written as seen from its folder."""
    file = Path(path)
    text = yaml_of(job, file.absolute().parent)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"{file} cannot be written: {error.strerror}") from error


def yaml_of(job: Job, folder: Path | None = None) -> str:
    """The job as YAML; its paths absolute, or as seen from a folder where they are near it.

    What azure-ai-ml would not read back is refused by name.
    """
    refuse_open_inputs(job)
    if problems := list(_without_a_place(job)):
        raise JobError.of(problems)
    fields = _fields(job, folder)
    ordered = {"$schema": SCHEMA, "type": "command"} | {name: fields[name] for name in _ORDER if name in fields}
    return yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _fields(job: Job, folder: Path | None) -> dict[str, Any]:
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
    if job.code_folder:
        fields["code"] = _near(job.code_folder, folder)
    if job.inputs:
        fields["inputs"] = {n: _input(job, n, folder) for n in job.inputs if not job.is_left_out(n)}
    if isinstance(job.environment, Environment):
        fields["environment"] = _environment(job.environment, folder)
    if "resources" in fields:
        fields["resources"] = {
            name: fields["resources"][name] for name in GROUPS["resources"] if name in fields["resources"]
        }
    return fields


def _input(job: Job, name: str, folder: Path | None) -> Any:
    value = job.inputs[name]
    if isinstance(value, Parameter):
        default = value.checked(value.default)
        return float(default) if value.type == "number" else default
    if not isinstance(value, Input):
        return value
    fields = {"type": value.type, **_plain(value, "inputs")}
    fields["path"] = _near(value.path, folder) if value.is_local else value.path
    if value.mode:
        fields["mode"] = _MODES.get(value.mode, value.mode)
    return fields


def _environment(environment: Environment, folder: Path | None) -> dict[str, Any]:
    fields: dict[str, Any] = _plain(environment, "environment")
    if isinstance(environment.conda_file, str):
        fields["conda_file"] = _near(environment.conda_file, folder)
    if environment.build and not is_remote(environment.build.path):
        fields["build"]["path"] = _near(environment.build.path, folder)
    return fields


def _plain(value: Any, field: str) -> Any:
    """A value of a model as YAML has it, in YAML's names, with what was given and no more."""
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
    """The path as seen from the folder, unless the way there is longer than the path itself says."""
    whole = os.path.abspath(path)
    if folder is None:
        return whole
    try:
        way = os.path.relpath(whole, folder)
    except ValueError:  # another drive
        return whole
    return whole if way.startswith(os.path.join(*[os.pardir] * 4)) else way


def _without_a_place(job: Job) -> Iterator[Problem]:
    if job.identity and job.identity.resource_id:
        hint = "name the identity by `client_id` or `object_id`"
        yield Problem("azure-ai-ml takes no resource id in YAML", hint, "identity.resource_id")
    for name, value in job.inputs.items():
        if isinstance(value, Input) and value.mode == "rw_mount":
            yield Problem("azure-ai-ml takes no `rw_mount` of an input in YAML", "`ro_mount`", f"inputs.{name}.mode")
    if isinstance(job.environment, Environment) and job.environment.properties:
        hint = "register the environment with them, and name it"
        yield Problem("azure-ai-ml takes no properties of an environment in YAML", hint, "environment.properties")


class _Dumper(yaml.SafeDumper):
    """YAML as a person would write it: texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
