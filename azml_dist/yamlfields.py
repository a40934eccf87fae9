"""YAML's fields on their way into models: every value azure-ai-ml takes there, and the way back to its line.

What azure-ai-ml's schema refuses is refused, with what to write instead; what it would silently turn into something
else too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.job import Environment
from azml_dist.model import nearest_or_all, shown
from azml_dist.values import ExistingCommand, is_remote
from azml_dist.yamlfile import Document, read_yaml

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
"""The groups of YAML whose fields are the job's own here."""
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
"""Names of ours that `az ml` would not know in a file."""
_YAML_LAST: dict[tuple[str, ...], str] = {
    ("queue" if group == "queue_settings" else group, own): name for (group, own), name in YAML_NAME_OF.items()
}
_YAML_TEXT_OF = {
    "`process_count_per_node`": "`process_count_per_instance`",
    "`node_count`": "`resources.instance_count`",
    "`tier`": "`job_tier`",
}
_OLD_EXPRESSION = re.compile(r"(?<![{$])\{((?:inputs|outputs|search_space)\.[^}]*)\}(?!\})")
MODES = ("ro_mount", "download", "direct")
MODES_OF_TABLES = ("eval_mount", "eval_download")
"""Those that azure-ai-ml reads in YAML; in Python it takes more."""


class Fields:
    """YAML's fields on their way into a model, with the way back to their lines for what is wrong."""

    def __init__(self, document: Document, places: dict[PathOf, PathOf]) -> None:
        self.document = document
        self.places = places
        """Where a field of the model stands in YAML, where that is another path."""
        self.problems: list[Problem] = []

    def build(self, model: Callable[..., M], values: dict[str, Any]) -> M:
        """The model, or all that is wrong with it, by file and line."""
        try:
            built = model(**values)
        except JobError as error:
            self.problems += [self.in_yaml(problem) for problem in error.problems]
        if self.problems:
            raise JobError.of(self.problems) from None
        return built

    def part(self, model: type[M], values: dict[str, Any], path: PathOf) -> M | str:
        """A part of the job, made on its own; what is wrong with it is kept for `build`."""
        try:
            return model(**values)
        except JobError as error:
            for message, hint, where in error.problems:
                inside = tuple(where.split(".")) if where else ()
                self.problem(message, hint, (*path, *inside))
            return ""

    def take(self, key: str, value: Any, values: dict[str, Any], folder: Path) -> None:
        """One field of the file; what azure-ai-ml refuses there is refused here."""
        if value is None:
            self.nothing((key,))
            return
        for (group, own), name in YAML_NAME_OF.items() if isinstance(value, dict) else ():
            if key == group and own in value:
                self.problem(f"unknown field `{own}`", f"in YAML it is `{group}.{name}`", (group, own))
        if key in GROUPS:
            self.group(key, value, values)
        elif key == "queue_settings":
            self.places[("queue",)] = (key,)
            values["queue"] = self.without_nothing(value, (key,))
        elif key == "inputs":
            values[key] = self.mapping(key, value, lambda name, v: self._input(v, (key, name), folder))
        elif key == "outputs":
            values[key] = self.mapping(key, value, lambda _, v: {} if v is None else v)
        elif key == "environment":
            values[key] = self.job_environment(value, folder)
        elif key == "code":
            values[key] = self.code(value, folder)
        elif key == "environment_variables":
            values[key] = self.texts(value, (key,))
        elif key in ("tags", "properties"):
            values[key] = self.only_texts(value, (key,))
        elif key == "services":
            values[key] = self.mapping(key, value, lambda name, v: self.service(v, (key, name)))
        elif key in ("distribution", "identity"):
            values[key] = self._readable(key, self.without_nothing(value, (key,)))
        elif key == "command":
            values[key] = self.command(value)
        elif key in SAME_NAME:
            values[key] = value
        elif key not in ("$schema", "type", *READ_ONLY):
            self.unknown(key, (key,), _all_names())

    def command(self, value: Any) -> Any:
        """The command as text; azure-ai-ml's old spelling `{inputs.x}` as what it sends for it, `${{inputs.x}}`."""
        if isinstance(value, str):
            return ExistingCommand(with_new_expressions(value))
        hint = "a list is possible in Python alone, `Job(command=[...])`" if isinstance(value, list) else None
        self.problem(f"{shown(value)} is not text", hint, ("command",))
        return "true"

    def code(self, value: Any, folder: Path) -> Any:
        """The code folder, or the reference to code that is there already."""
        self._no_file_prefix(value, ("code",))
        if isinstance(value, str) and re.fullmatch(r"azureml:[^/:@]+", value):
            hint = f"`{value}@latest`, or a number: `{value}:1`"
            self.problem(f"{shown(value)} has no version", hint, ("code",))
        return absolute(value, folder)

    def environment(self, data: dict[str, Any], path: PathOf, folder: Path) -> dict[str, Any]:
        """The fields of an environment, its paths made absolute."""
        values = dict(self.without_nothing(data, path, but=("tags", "conda_file", "inference_config")))
        for key in ("channels", "dependencies"):
            if key in values:
                hint = "this is a conda file: name it as `conda_file` beside an `image`"
                self.problem(f"unknown field `{key}`", hint, (*path, key))
                del values[key]
        for key in ("properties", "auto_delete_setting"):
            if key in values:
                self.problem(f"`{key}` of an environment is nothing that azml_dist reads", "leave it out", (*path, key))
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
        """A mapping to texts, where azure-ai-ml takes no number and no truth value."""
        for name, inner in value.items() if isinstance(value, dict) else ():
            if isinstance(inner, int | float) or (inner is not None and type(inner).__module__ == "datetime"):
                text = self.document.texts.get((*path, name), str(inner))
                self.problem(f"{text} is not text", f'put it in quotes: "{text}"', (*path, name))
        return self.texts(value, path)

    def nothing(self, path: PathOf) -> None:
        """A field without a value, which azure-ai-ml refuses nearly everywhere."""
        self.problem("it has no value", f"give it one, or leave `{path[-1]}` out", path)

    def without_nothing(self, value: Any, path: PathOf, but: Sequence[str] = ()) -> Any:
        """The same value, once it is seen that no field in it is without a value; not in the fields of `but`."""
        for name, inner in value.items() if isinstance(value, dict) else ():
            if inner is None:
                self.nothing((*path, name))
            elif name not in but:
                self.without_nothing(inner, (*path, name))
        if isinstance(value, dict):
            return {name: inner for name, inner in value.items() if inner is not None}
        return value

    def service(self, value: Any, path: PathOf) -> Any:
        """A way into the job, without what `az ml job show` tells of it."""
        if not isinstance(value, dict):
            return value
        given = {name: inner for name, inner in value.items() if name not in READ_ONLY_OF_A_SERVICE or inner is None}
        return self.without_nothing(given, path, but=("properties",))

    def _readable(self, key: str, value: Any) -> Any:
        # Its schema names this field, and its entity then refuses it (azure-ai-ml 1.35).
        if key == "identity" and isinstance(value, dict) and "msi_resource_id" in value:
            hint = "name the identity by `client_id` or `object_id`"
            self.problem("azure-ai-ml does not take `msi_resource_id` in YAML", hint, (key, "msi_resource_id"))
        return value

    def _no_file_prefix(self, value: Any, path: PathOf) -> None:
        if isinstance(value, str) and value.startswith("file:"):
            bare = value.removeprefix("file://").removeprefix("file:")
            self.problem(f"{shown(value)}: azure-ai-ml takes no `file:` here", f"write `{bare}`", path)

    def texts(self, value: Any, path: PathOf) -> Any:
        """A mapping with every number and truth value as it is written in the file."""
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

    def mapping(self, key: str, value: Any, each: Callable[[str, Any], Any]) -> Any:
        return {name: each(name, v) for name, v in value.items()} if isinstance(value, dict) else value

    def _input(self, value: Any, path: PathOf, folder: Path) -> Any:
        if not isinstance(value, dict):
            return value
        if set(value) == {"value"}:
            return self._wrapped(value["value"], path)
        values = self.without_nothing(value, path)
        if "path_on_compute" in values:
            hint = "azure-ai-ml reads it, and sends it nowhere: leave it out"
            self.problem("`path_on_compute` means nothing to a command job", hint, (*path, "path_on_compute"))
            del values["path_on_compute"]
        if isinstance(values.get("path"), str):
            values["path"] = absolute(values["path"], folder)
        self._check_mode(values, path)
        return values

    def _wrapped(self, value: Any, path: PathOf) -> Any:
        # azure-ai-ml reads {value: 1.5} as the whole number 1, and {value: 1} as true.
        if isinstance(value, float) or (value in (0, 1) and not isinstance(value, bool)):
            text = self.document.texts.get((*path, "value"), str(value))
            self.problem(f"azure-ai-ml would read another value than {text} here", f"write `{path[-1]}: {text}`", path)
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
        hint = "`azureml:NAME@latest`, `file:environment.yaml`, or a mapping with `image:`"
        if isinstance(value, str) and not value.startswith("azureml:"):
            self.problem(f"{shown(value)} is not a reference to an environment", hint, ("environment",))
            return None
        if isinstance(value, str) and value.startswith("azureml://locations/"):
            # It takes `azureml:` off, and sends an address that begins with `//` (azure-ai-ml 1.35).
            self.problem("azure-ai-ml sends this address without its beginning", hint, ("environment",))
            return None
        return value

    def _environment_file(self, path: str) -> Environment | None:
        if os.path.exists(path) and not os.path.isfile(path):
            self.problem(f"{path} is no file", "name an environment YAML", ("environment",))
            return None
        try:
            return load_environment(path)
        except JobError as error:
            at = self.document.where(("environment",))
            self.problems += [p if p.where else p._replace(where=at) for p in error.problems]
            return None

    def unknown(self, key: str, path: PathOf, known: Sequence[str]) -> None:
        self.problem(f"unknown field `{key}`", _meant(key) or nearest_or_all(key, known), path)

    def problem(self, message: str, hint: str | None, path: PathOf) -> None:
        self.problems.append(Problem(message, hint, self.document.where(path)))

    def in_yaml(self, problem: Problem) -> Problem:
        """The problem with its line, and with YAML's names for ours."""
        message, hint, where = problem
        for own, name in _YAML_TEXT_OF.items():
            message, hint = message.replace(own, name), hint and hint.replace(own, name)
        return Problem(message, hint, self._where(where))

    def _where(self, where: str | None) -> str:
        path = tuple(where.split(".")) if where else ()
        path = (*path[:-1], _YAML_LAST.get(path[-2:], path[-1])) if path else path
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                path = self.places[path[:length]] + path[length:]
                break
        return self.document.where(path)


def load_environment(path: str | os.PathLike[str]) -> Environment:
    """The environment in an `az ml` environment YAML, its paths made absolute."""
    document = read_yaml(os.fspath(path), "environment")
    fields = Fields(document, {})
    data = {k: v for k, v in document.data.items() if k != "$schema"}
    return fields.build(Environment, fields.environment(data, (), Path(document.file).absolute().parent))


def with_new_expressions(command: str) -> str:
    """A command with azure-ai-ml's old spelling `{inputs.x}` as what it sends for it, `${{inputs.x}}`."""
    return _OLD_EXPRESSION.sub(r"${{\1}}", command)


def absolute(path: Any, folder: Path) -> Any:
    """A local path, seen from the folder of the file it stands in; anything else as it is."""
    if not isinstance(path, str) or not path or is_remote(path) or path.startswith("git+"):
        return path
    path = path.removeprefix("file://").removeprefix("file:")
    return os.path.normpath(folder / path)


def _all_names() -> list[str]:
    """The fields that may have been meant, our own names for YAML's included."""
    return [*TOP_LEVEL, *(name for group in GROUPS.values() for name in group)]


def _meant(key: str) -> str | None:
    """YAML's place for a field that was given by its name here, or without its group."""
    for group, fields in GROUPS.items():
        for yaml_name, field in fields.items():
            if key in (yaml_name, field):
                return f"in YAML it is `{group}.{yaml_name}`"
    if key in ("process_count_per_node", "process_count_per_instance"):
        return "in YAML it is `distribution.process_count_per_instance`"
    return None
