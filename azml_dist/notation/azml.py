"""Turns the fields of a YAML file into models, accepts every value that azure-ai-ml accepts, and knows each line.

What azure-ai-ml's schema refuses is refused here too, with a hint about what to write instead; so is what it would
silently change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.notation.document import Document, read_yaml
from azml_dist.notation.expressions import ExistingCommand, is_remote, with_new_expressions
from azml_dist.words import found_instead, nearest_or_all, shown

M = TypeVar("M")
PathOf = tuple[str, ...]

GROUPS = {
    "resources": {
        "instance_count": "node_count",
        "instance_type": "instance_type",
        "shm_size": "shm_size",
        "docker_args": "docker_args",
        "max_instance_count": "max_node_count",
        "locations": "locations",
        "properties": "resource_properties",
    },
    "limits": {"timeout": "timeout"},
}
"""The groups in YAML whose fields belong to the job itself here."""
SAME_NAME = [
    *("command", "code", "inputs", "outputs", "environment", "compute", "distribution", "environment_variables"),
    *("identity", "services", "name", "display_name", "experiment_name", "description", "tags", "properties"),
    "parent_job_name",
]
TOP_LEVEL = ["$schema", "type", *SAME_NAME, *GROUPS, "queue_settings"]
READ_ONLY = ("id", "status", "creation_context", "log_files", "parameters")
"""Written by `az ml job show`; azure-ai-ml ignores them in a file."""
READ_ONLY_OF_A_SERVICE = ("endpoint", "status", "error_message")
OTHER_TYPES = {
    "component": "a component",
    "sweep": "a sweep",
    "pipeline": "a pipeline",
    "parallel": "a parallel job",
    "spark": "a Spark job",
    "automl": "an AutoML job",
    "import": "an import job",
}
YAML_NAME_OF = {
    ("distribution", "process_count_per_node"): "process_count_per_instance",
    ("queue_settings", "tier"): "job_tier",
    ("identity", "resource_id"): "msi_resource_id",
}
"""Our names for fields that have another name in `az ml` YAML."""
_YAML_LAST: dict[tuple[str, ...], str] = {
    ("queue" if group == "queue_settings" else group, own): name for (group, own), name in YAML_NAME_OF.items()
}
_YAML_TEXT_OF = {
    "`process_count_per_node`": "`process_count_per_instance`",
    "`node_count`": "`resources.instance_count`",
    "`max_node_count`": "`resources.max_instance_count`",
    "`tier`": "`job_tier`",
}
MODES = ("ro_mount", "download", "direct")
MODES_OF_TABLES = ("eval_mount", "eval_download")
"""The modes that azure-ai-ml accepts in YAML; in Python it accepts more."""


class Fields:
    """The fields of a YAML file on their way into a model; problems are reported with their lines."""

    def __init__(self, document: Document, places: dict[PathOf, PathOf]) -> None:
        self.document = document
        self.places = places
        """The YAML path of each field of the model that has a different one."""
        self.elsewhere: dict[PathOf, Fields] = {}
        """The fields of another file, by their path in this one."""
        self.problems: list[Problem] = []

    def build(self, model: Callable[..., M], values: dict[str, Any]) -> M:
        """The model, or a `JobError` with all of its problems, by file and line."""
        try:
            built = model(**values)
        except JobError as error:
            self.problems += [self.in_yaml(problem) for problem in error.problems]
        if self.problems:
            raise JobError.of(self.problems) from None
        return built

    def part(self, model: type[M], values: dict[str, Any], path: PathOf) -> M | str:
        """A part of the job, built separately; its problems are kept for `build`."""
        try:
            return model(**values)
        except JobError as error:
            for message, hint, where in error.problems:
                inside = tuple(where.split(".")) if where else ()
                self.problem(message, hint, (*path, *inside))
            return ""

    def take(self, key: str, value: Any, values: dict[str, Any], folder: Path) -> None:
        """Reads one field of the file; what azure-ai-ml refuses there is refused here."""
        if value is None:
            self.nothing((key,))
            return
        self._check_names(key, value)
        if key in GROUPS:
            self.group(key, value, values)
        elif key == "queue_settings":
            self.places[("queue",)] = (key,)
            values["queue"] = self.without_nothing(value, (key,))
        elif key in SAME_NAME:
            values[key] = _READERS[key](self, value, folder) if key in _READERS else value
        elif key not in ("$schema", "type", *READ_ONLY):
            self.unknown(key, (key,), _all_names())

    def _check_names(self, key: str, value: Any) -> None:
        for (group, own), name in YAML_NAME_OF.items() if isinstance(value, dict) else ():
            if key == group and own in value:
                self.problem(f"unknown field `{own}`", f"in YAML it is `{group}.{name}`", (group, own))

    def command(self, value: Any) -> Any:
        """The command as a string; azure-ai-ml's old spelling `{inputs.x}` becomes `${{inputs.x}}`, as it sends it."""
        if isinstance(value, str):
            return ExistingCommand(with_new_expressions(value))
        hint = "a list works only in Python: `Job(command=[...])`" if isinstance(value, list) else None
        self.problem(f"{shown(value)} is not a string", hint, ("command",))
        return "true"

    def code(self, value: Any, folder: Path) -> Any:
        """The code folder, or a reference to code that is already in Azure."""
        self._no_file_prefix(value, ("code",))
        if isinstance(value, str) and re.fullmatch(r"azureml:[^/:@]+", value):
            hint = f"write `{value}@latest`, or a number: `{value}:1`"
            self.problem(f"{shown(value)} has no version", hint, ("code",))
        return absolute(value, folder)

    def environment(self, data: dict[str, Any], path: PathOf, folder: Path) -> dict[str, Any]:
        """The fields of an environment, with absolute paths."""
        values = dict(self.without_nothing(data, path, but=("tags", "conda_file", "inference_config")))
        for key in ("channels", "dependencies"):
            if key in values:
                hint = "this is a conda file: set it as `conda_file`, together with an `image`"
                self.problem(f"unknown field `{key}`", hint, (*path, key))
                del values[key]
        for key in ("properties", "auto_delete_setting"):
            if key in values:
                self.problem(f"azml_dist does not read `{key}` of an environment", "leave it out", (*path, key))
                del values[key]
        for key in READ_ONLY:
            values.pop(key, None)
        if isinstance(conda_file := values.get("conda_file"), str):
            self._no_file_prefix(conda_file, (*path, "conda_file"))
            values["conda_file"] = absolute(conda_file, folder)
        if isinstance(build := values.get("build"), dict) and isinstance(build.get("path"), str):
            self._no_file_prefix(build["path"], (*path, "build", "path"))
            values["build"] = build | {"path": absolute(build["path"], folder)}
        if "tags" in values:
            values["tags"] = self.only_texts(values["tags"], (*path, "tags"))
        if "version" in values:
            values["version"] = self.document.texts.get((*path, "version"), values["version"])
        return values

    def only_texts(self, value: Any, path: PathOf) -> Any:
        """A mapping to strings, for which azure-ai-ml accepts no numbers and no truth values."""
        for name, inner in value.items() if isinstance(value, dict) else ():
            if isinstance(inner, int | float) or (inner is not None and type(inner).__module__ == "datetime"):
                text = self.document.texts.get((*path, name), str(inner))
                self.problem(f"{text} is not a string", f'put it in quotes: "{text}"', (*path, name))
        return self.texts(value, path)

    def nothing(self, path: PathOf) -> None:
        """Reports a field without a value, which azure-ai-ml refuses nearly everywhere."""
        self.problem("it has no value", f"set one, or leave `{path[-1]}` out", path)

    def without_nothing(self, value: Any, path: PathOf, but: Sequence[str] = ()) -> Any:
        """The value without its empty fields, which are reported, except inside the fields `but`."""
        for name, inner in value.items() if isinstance(value, dict) else ():
            if inner is None:
                self.nothing((*path, name))
            elif name not in but:
                self.without_nothing(inner, (*path, name))
        if isinstance(value, dict):
            return {name: inner for name, inner in value.items() if inner is not None}
        return value

    def service(self, value: Any, path: PathOf) -> Any:
        """A service of the job, without the fields that `az ml job show` adds."""
        if not isinstance(value, dict):
            return value
        given = {name: inner for name, inner in value.items() if name not in READ_ONLY_OF_A_SERVICE or inner is None}
        return self.without_nothing(given, path, but=("properties",))

    def identity(self, value: Any) -> Any:
        """The identity that the run uses; azure-ai-ml's schema has one more field, which its entity refuses (1.35)."""
        given = self.without_nothing(value, ("identity",))
        if isinstance(given, dict) and "msi_resource_id" in given:
            hint = "use `client_id` or `object_id`"
            self.problem("azure-ai-ml does not accept `msi_resource_id` in YAML", hint, ("identity", "msi_resource_id"))
        return given

    def _no_file_prefix(self, value: Any, path: PathOf) -> None:
        if isinstance(value, str) and value.startswith("file:"):
            bare = value.removeprefix("file://").removeprefix("file:")
            self.problem(f"{shown(value)}: azure-ai-ml does not accept `file:` here", f"write `{bare}`", path)

    def texts(self, value: Any, path: PathOf) -> Any:
        """A mapping with every number and truth value as written in the file."""
        if not isinstance(value, dict):
            return value
        return {
            name: self.document.texts.get((*path, name), v) if v is not None and not isinstance(v, dict | list) else v
            for name, v in value.items()
        }

    def group(self, group: str, value: Any, values: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            self.problem(f"{shown(value)} is not a mapping of fields to values", None, (group,))
            return
        if group == "resources" and not value:
            values["resource_properties"] = {}
        if group == "limits" and not value:
            values["timeout"] = None
        for key, inner in value.items():
            if key not in GROUPS[group]:
                self.unknown(key, (group, key), list(GROUPS[group]))
            elif inner is None:
                self.nothing((group, key))
            else:
                field = GROUPS[group][key]
                self.places[(field,)] = (group, key)
                values[field] = inner

    def mapping(self, value: Any, each: Callable[[str, Any], Any]) -> Any:
        return {name: each(name, v) for name, v in value.items()} if isinstance(value, dict) else value

    def inputs(self, value: Any, folder: Path) -> Any:
        """The inputs, with absolute paths."""
        return self.mapping(value, lambda name, v: self._input(v, ("inputs", name), folder))

    def services(self, value: Any) -> Any:
        """The services of the job, by name."""
        return self.mapping(value, lambda name, v: self.service(v, ("services", name)))

    def _input(self, value: Any, path: PathOf, folder: Path) -> Any:
        if not isinstance(value, dict):
            return value
        if set(value) == {"value"}:
            return self._wrapped(value["value"], path)
        values = self.without_nothing(value, path)
        if "path_on_compute" in values:
            hint = "azure-ai-ml reads it, but does not send it: leave it out"
            self.problem("`path_on_compute` has no effect in a command job", hint, (*path, "path_on_compute"))
            del values["path_on_compute"]
        if isinstance(values.get("path"), str):
            values["path"] = absolute(values["path"], folder)
        self._check_mode(values, path)
        return values

    def _wrapped(self, value: Any, path: PathOf) -> Any:
        # azure-ai-ml reads {value: 1.5} as the whole number 1, and {value: 1} as true.
        if isinstance(value, float) or (value in (0, 1) and not isinstance(value, bool)):
            text = self.document.texts.get((*path, "value"), str(value))
            self.problem(
                f"azure-ai-ml would not read {text} here, but another value", f"write `{path[-1]}: {text}`", path
            )
        return value

    def _check_mode(self, values: dict[str, Any], path: PathOf) -> None:
        kind, mode = values.get("type", "mltable"), values.get("mode")
        modes = [*MODES, *(MODES_OF_TABLES if str(kind).lower() == "mltable" else ())]
        if isinstance(mode, str) and mode.lower() not in modes:
            self.problem(f"{shown(mode)} is not one of {', '.join(modes)}", None, (*path, "mode"))
            del values["mode"]

    def job_environment(self, value: Any, folder: Path) -> Any:
        if isinstance(value, dict):
            return self.environment(value, ("environment",), folder)
        if isinstance(value, str) and value.startswith("file:"):
            return self._environment_file(absolute(value, folder))
        hint = "write `azureml:NAME@latest`, `file:environment.yaml`, or a mapping with `image:`"
        if isinstance(value, str) and not value.startswith("azureml:"):
            problem = f"{shown(value)} is not a reference to an environment"
            self.problem(problem, as_a_file(value, folder) or hint, ("environment",))
            return None
        if isinstance(value, str) and value.startswith("azureml://locations/"):
            # It removes `azureml:` and sends an address that starts with `//` (azure-ai-ml 1.35).
            self.problem("azure-ai-ml sends this address without `azureml:`", hint, ("environment",))
            return None
        return value

    def _environment_file(self, path: str) -> Any:
        if os.path.exists(path) and not os.path.isfile(path):
            self.problem(f"{path} is not a file", "use the path of an environment YAML", ("environment",))
            return None
        try:
            fields, values = read_environment(path)
        except JobError as error:
            at = self.document.where(("environment",))
            self.problems += [p if p.where else p._replace(where=at) for p in error.problems]
            return None
        self.problems += fields.problems
        self.elsewhere[("environment",)] = fields
        return values

    def unknown(self, key: str, path: PathOf, known: Sequence[str]) -> None:
        self.problem(f"unknown field `{key}`", _meant(key) or nearest_or_all(key, known), path)

    def problem(self, message: str, hint: str | None, path: PathOf) -> None:
        self.problems.append(Problem(message, hint, self.document.where(path)))

    def in_yaml(self, problem: Problem) -> Problem:
        """The problem with its line, and with YAML's names in place of ours."""
        message, hint, where = problem
        for own, name in _YAML_TEXT_OF.items():
            message, hint = message.replace(own, name), hint and hint.replace(own, name)
        return Problem(message, hint, self._where(where))

    def _where(self, where: str | None) -> str:
        path = tuple(where.split(".")) if where else ()
        path = (*path[:-1], _YAML_LAST.get(path[-2:], path[-1])) if path else path
        for length in range(len(path), 0, -1):
            if path[:length] in self.elsewhere:
                return self.elsewhere[path[:length]]._where(".".join(path[length:]))
            if path[:length] in self.places:
                path = self.places[path[:length]] + path[length:]
                break
        return self.document.where(path)


_READERS: dict[str, Callable[[Fields, Any, Path], Any]] = {
    "command": lambda fields, value, _: fields.command(value),
    "code": Fields.code,
    "inputs": Fields.inputs,
    "outputs": lambda fields, value, _: fields.mapping(value, lambda _, v: {} if v is None else v),
    "environment": Fields.job_environment,
    "environment_variables": lambda fields, value, _: fields.texts(value, ("environment_variables",)),
    "tags": lambda fields, value, _: fields.only_texts(value, ("tags",)),
    "properties": lambda fields, value, _: fields.only_texts(value, ("properties",)),
    "distribution": lambda fields, value, _: fields.without_nothing(value, ("distribution",)),
    "identity": lambda fields, value, _: fields.identity(value),
    "services": lambda fields, value, _: fields.services(value),
}
"""How to read the fields that need more than their value as it is."""


def read_environment(path: str | os.PathLike[str]) -> tuple[Fields, dict[str, Any]]:
    """The fields of an `az ml` environment YAML, with absolute paths."""
    document = read_yaml(os.fspath(path), "environment")
    fields = Fields(document, {})
    data = {k: v for k, v in document.data.items() if k != "$schema"}
    return fields, fields.environment(data, (), Path(document.file).absolute().parent)


def absolute(path: Any, folder: Path) -> Any:
    """A local path made absolute, from the folder of the file that contains it; anything else unchanged."""
    if not isinstance(path, str) or not path or is_remote(path) or path.startswith("git+"):
        return path
    path = path.removeprefix("file://").removeprefix("file:")
    return os.path.normpath(folder / path)


def as_a_file(value: str, folder: Path) -> str | None:
    """How to name the file of an environment if the text looks like its path, as a hint."""
    if not value.endswith((".yml", ".yaml")):
        return None
    path = absolute(value, folder)
    written = f"for a file, write `file:{value}`"
    return written if os.path.isfile(path) else f"{written}; there is no file {path}: {found_instead(path)}"


def _all_names() -> list[str]:
    """The fields that may have been meant, including our own names."""
    return [*TOP_LEVEL, *(name for group in GROUPS.values() for name in group)]


def _meant(key: str) -> str | None:
    """Where a field belongs in YAML if it was written under our name, or without its group."""
    for group, fields in GROUPS.items():
        for yaml_name, field in fields.items():
            if key in (yaml_name, field):
                return f"in YAML it is `{group}.{yaml_name}`"
    if key in ("process_count_per_node", "process_count_per_instance"):
        return "in YAML it is `distribution.process_count_per_instance`"
    return None
