"""A `Job` from a file: the command-job YAML of `az ml job create -f`, or a Python file that makes one.

The schema is azure-ai-ml's `CommandJobSchema`. Whatever it takes has a place in `Job`, or is refused here by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.job import Environment, Job
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
_TEXTS = ("environment_variables", "tags", "properties")
"""Mappings to texts: `1.50` and `true` stay as they stand in the file."""


def load_job(ref: str | os.PathLike[str]) -> Job:
    """The job in a YAML file, or the one called NAME in `path/to/file.py:NAME`."""
    text = os.fspath(ref)
    path, colon, name = text.rpartition(":")
    if colon and path.endswith(".py"):
        from azml_dist.pyfile import load_python_job

        return load_python_job(path, name)
    if text.endswith(".py"):
        raise JobError(f"{text}: which job in this file?", hint=f"`{text}:NAME`, where NAME is a variable of the file")
    return job_of(read_yaml(text))


@contextmanager
def lines_of(ref: str | os.PathLike[str]) -> Iterator[None]:
    """Say of what turns out to be wrong with a loaded job on which line of its YAML it stands."""
    try:
        yield
    except JobError as error:
        if ".py:" in os.fspath(ref) or not any(p.where for p in error.problems):
            raise
        fields = Fields(read_yaml(os.fspath(ref)), {})
        _take_all(fields)
        raise JobError.of(map(fields.in_yaml, error.problems)) from error.__cause__


def load_environment(path: str | os.PathLike[str]) -> Environment:
    """The environment in an `az ml` environment YAML, its paths made absolute."""
    document = read_yaml(os.fspath(path), "environment")
    fields = Fields(document, {})
    data = {k: v for k, v in document.data.items() if k != "$schema"}
    return fields.build(Environment, fields.environment(data, (), Path(document.file).absolute().parent))


def job_of(document: Document, folder: Path | None = None) -> Job:
    """The job, or the component, in a document; its paths are relative to `folder`, or to the document's own."""
    from azml_dist.component import component_of, is_component

    if is_component(document.data):
        return component_of(document, folder)
    _check_type(document)
    fields = Fields(document, {})
    return fields.build(Job, _take_all(fields, folder))


def _take_all(fields: Fields, folder: Path | None = None) -> dict[str, Any]:
    folder = folder or Path(fields.document.file).absolute().parent
    values: dict[str, Any] = {}
    for key, value in fields.document.data.items():
        if value is None and key not in ("environment",):
            continue
        fields.take(key, value, values, folder)
    return values


def _check_type(document: Document) -> None:
    kind = document.data.get("type", "command")
    schema = str(document.data.get("$schema", ""))
    if "type" not in document.data and "environment" in schema:
        raise JobError(
            "this is an environment, not a job", hint="`Environment.load` reads it", where=document.where(())
        )
    if isinstance(kind, str) and kind.lower() == "command":
        return
    if isinstance(kind, str) and kind.lower() in OTHER_TYPES:
        message = f"this is {OTHER_TYPES[kind.lower()]}; azml_dist runs command jobs"
        hint = "make it from a command job: azure-ai-ml builds sweeps and pipelines of those"
    else:
        message, hint = f"{shown(kind)} is not a type of job", "leave `type` out, or write `type: command`"
    raise JobError(message, hint=hint, where=document.where(("type",)))


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
        for (group, own), name in YAML_NAME_OF.items():
            if key == group and isinstance(value, dict) and own in value:
                self.problem(f"unknown field `{own}`", f"in YAML it is `{group}.{name}`", (group, own))
        if key in GROUPS:
            self.group(key, value, values)
        elif key == "queue_settings":
            self.places[("queue",)] = (key,)
            values["queue"] = value
        elif key == "inputs":
            values[key] = self.mapping(key, value, lambda name, v: self._input(v, (key, name), folder))
        elif key == "outputs":
            values[key] = self.mapping(key, value, lambda _, v: {} if v is None else v)
        elif key == "environment":
            values[key] = self.job_environment(value, folder)
        elif key == "code":
            values[key] = absolute(value, folder)
        elif key in _TEXTS:
            values[key] = self.texts(value, (key,))
        elif key == "command" and isinstance(value, str):
            values[key] = ExistingCommand(value)
        elif key in SAME_NAME:
            values[key] = value
        elif key not in ("$schema", "type", *READ_ONLY):
            self.unknown(key, (key,), _all_names())

    def environment(self, data: dict[str, Any], path: PathOf, folder: Path) -> dict[str, Any]:
        """The fields of an environment; those that only matter to endpoints are refused."""
        values = dict(data)
        for key in ("channels", "dependencies"):
            if key in values:
                hint = "this is a conda file: name it as `conda_file` beside an `image`"
                self.problem(f"unknown field `{key}`", hint, (*path, key))
                del values[key]
        for key in ("inference_config", "datastore"):
            if key in values:
                self.problem(f"`{key}` of an environment is not supported by azml_dist", None, (*path, key))
                del values[key]
        for key in READ_ONLY:
            values.pop(key, None)
        if isinstance(values.get("conda_file"), str):
            values["conda_file"] = absolute(values["conda_file"], folder)
        if isinstance(build := values.get("build"), dict) and isinstance(build.get("path"), str):
            values["build"] = build | {"path": absolute(build["path"], folder)}
        for key in ("tags", "properties"):
            if key in values:
                values[key] = self.texts(values[key], (*path, key))
        if "version" in values:
            values["version"] = self.document.texts.get((*path, "version"), values["version"])
        return {key: value for key, value in values.items() if value is not None}

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
        for key, inner in value.items():
            if key not in GROUPS[group]:
                self.unknown(key, (group, key), list(GROUPS[group]))
            elif inner is not None:
                field = GROUPS[group][key]
                self.places[(field,)] = (group, key)
                values[field] = inner

    def mapping(self, key: str, value: Any, each: Callable[[str, Any], Any]) -> Any:
        return {name: each(name, v) for name, v in value.items()} if isinstance(value, dict) else value

    def _input(self, value: Any, path: PathOf, folder: Path) -> Any:
        if not isinstance(value, dict):
            return value
        if set(value) == {"value"}:
            return value["value"]
        values = dict(value)
        for key in ("path_on_compute", "datastore"):
            if key in values:
                self.problem(f"`{key}` of an input is not supported by azml_dist", None, (*path, key))
                del values[key]
        if isinstance(values.get("path"), str):
            values["path"] = absolute(values["path"], folder)
        return {k: v for k, v in values.items() if v is not None}

    def job_environment(self, value: Any, folder: Path) -> Any:
        if isinstance(value, dict):
            return self.environment(value, ("environment",), folder)
        if isinstance(value, str) and value.startswith("file:"):
            return self._environment_file(absolute(value, folder))
        if isinstance(value, str) and not value.startswith("azureml:"):
            hint = "`azureml:NAME@latest`, `file:environment.yaml`, or a mapping with `image:`"
            self.problem(f"{shown(value)} is not a reference to an environment", hint, ("environment",))
            return None
        return value

    def _environment_file(self, path: str) -> Environment | None:
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
