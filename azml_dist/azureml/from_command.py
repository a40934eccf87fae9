"""azure-ai-ml's `Command` as a `Job`: what `command()`, `load_job` and a called component give."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.azureml.workspace import import_sdk
from azml_dist.errors import JobError, Problem
from azml_dist.job import Job
from azml_dist.parameter import Parameter
from azml_dist.parts import Environment, Input
from azml_dist.values import ComponentCommand, ExistingCommand
from azml_dist.yamlfields import GROUPS, absolute, with_new_expressions

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, CommandJob

_SAME_NAME = (
    *("name", "display_name", "experiment_name", "description", "tags", "properties", "compute", "parent_job_name"),
    "environment_variables",
)
_DISTRIBUTIONS = {
    "pytorch": {"process_count_per_instance": "process_count_per_node"},
    "mpi": {"process_count_per_instance": "process_count_per_node"},
    "tensorflow": {"worker_count": "worker_count", "parameter_server_count": "parameter_server_count"},
    "ray": {
        name: name
        for name in (
            *("port", "address", "include_dashboard", "dashboard_port"),
            *("head_node_additional_args", "worker_node_additional_args"),
        )
    },
}
_IDENTITIES = {
    "ManagedIdentityConfiguration": "managed",
    "UserIdentityConfiguration": "user_identity",
    "AmlTokenConfiguration": "aml_token",
}
_SERVICES = ("jupyter_lab", "vs_code", "tensor_board", "ssh")
_SERVICE_FIELDS = ("nodes", "port", "properties", "log_dir", "ssh_public_keys")
_REFERENCE = re.compile(r"(?!file:)[\w.-]+[:@][\w.-]+|(?i:/subscriptions/).+")
_NOT_SENT = {
    "parameters": "the service alone writes them",
    "comment": "it belongs to a step of a pipeline",
}


def from_command(command: Command | CommandJob) -> Job:
    """The job that a `Command` means; an input that was changed after `command()` has its new value.

    Raises `JobError` for what a job has no place for.
    """
    import_sdk()
    from azure.ai.ml.entities import Command, CommandComponent, CommandJob

    if isinstance(command, CommandJob):
        return _job(command, command, Path(command.base_path), inputs=dict(command.inputs), component=False)
    if not isinstance(command, Command):
        kind = type(command).__name__
        raise JobError(f"a {kind} is no single command", hint="`command(...)` of azure-ai-ml makes one")
    component = command.component
    if not isinstance(component, CommandComponent):
        hint = "fetch it with `ml_client.components.get`, and call that"
        raise JobError(f"its component {component} is in Azure ML, and not here", hint=hint, where="component")
    base = Path(component.base_path or command.base_path or ".")
    # Only commands of the builder have all they say in themselves; a component's own inputs may wait for a value.
    built = bool(getattr(command, "_job_inputs", None) is not None) and component._source == "BUILDER"
    return _job(command, component, base, inputs=_inputs(command, component), component=not built)


def _job(command: Any, holder: Any, base: Path, *, inputs: dict[str, Any], component: bool) -> Job:
    if problems := [*_without_a_place(command), *_of_a_sweep_or_pipeline(inputs)]:
        raise JobError.of(problems)
    text = with_new_expressions(str(holder.command))
    values: dict[str, Any] = {name: getattr(command, name, None) for name in _SAME_NAME}
    values |= {
        "command": ComponentCommand(text) if component else ExistingCommand(text),
        "code": _place(str(holder.code), base) if holder.code else None,
        "inputs": {name: _input(value, base) for name, value in inputs.items() if value is not None},
        "outputs": {name: _output(output) for name, output in _outputs(command).items()},
        "environment": _environment(command.environment or getattr(holder, "environment", None), base),
        "distribution": _distribution(command.distribution),
        "identity": _identity(command.identity),
        "services": None if command.services is None else {n: _service(n, s) for n, s in command.services.items()},
        **_resources(command.resources),
        "queue": _queue(command.queue_settings),
    }
    given = {name: value for name, value in values.items() if value is not None}
    if command.limits is not None:
        given["timeout"] = command.limits.timeout or None
    return Job(**given)


def _without_a_place(command: Any) -> Iterator[Problem]:
    for name, why in _NOT_SENT.items():
        if getattr(command, name, None):
            yield Problem(f"`{name}` of a command has no place in a job: {why}", "leave it out", name)
    for name, service in (command.services or {}).items():
        if getattr(service, "type", None) not in _SERVICES:
            hint = f"known are {', '.join(_SERVICES)}"
            yield Problem(
                f"a {type(service).__name__} without such a type has no place in a job", hint, f"services.{name}"
            )


def _of_a_sweep_or_pipeline(inputs: Mapping[str, Any]) -> Iterator[Problem]:
    from azure.ai.ml.entities._job.pipeline._io import InputOutputBase
    from azure.ai.ml.entities._job.sweep.search_space import SweepDistribution

    for name, value in inputs.items():
        if isinstance(value, SweepDistribution):
            hint = "give the command a value for a single run; the sweep itself runs as a sweep"
            yield Problem(f"a sweep chooses its value ({type(value).__name__})", hint, f"inputs.{name}")
        elif isinstance(value, InputOutputBase):
            hint = "give the command a value of its own for a single run"
            yield Problem(f"it comes from a pipeline ({value})", hint, f"inputs.{name}")


def _inputs(command: Any, component: Any) -> dict[str, Any]:
    """The inputs as they are now, and as a parameter where a component's have no value."""
    sent = dict(command._job_inputs)
    now = {name: command.inputs[name]._data for name in command.inputs}
    for name in now.keys() & sent.keys():
        if isinstance(now[name], str | int | float) and now[name] != sent[name]:
            warnings.warn(
                f"input {name} was changed to {now[name]!r} after command() was called, and the job has that;"
                f" azure-ai-ml itself would still send {sent[name]!r}",
                stacklevel=4,
            )
    values = sent | now
    waiting = {name: spec for name, spec in component.inputs.items() if values.get(name) is None}
    return {name: value for name, value in values.items() if value is not None} | {
        name: _parameter(spec) for name, spec in waiting.items()
    }


def _parameter(spec: Any) -> Parameter:
    fields = ("type", "default", "min", "max", "enum", "mode", "description")
    given = {name: getattr(spec, name, None) for name in fields} | {"optional": bool(spec.optional)}
    return Parameter(**{name: value for name, value in given.items() if value is not None})


def _input(value: Any, base: Path) -> Any:
    path = getattr(value, "path", None)
    if isinstance(value, Parameter) or not hasattr(value, "path"):
        return value
    given = {"type": value.type, "mode": value.mode, "datastore": getattr(value, "datastore", None)}
    return Input(path=_place(path, base), **{k: v for k, v in given.items() if v is not None})


def _place(path: Any, base: Path) -> str:
    """A local path made whole; a reference with the `azureml:` that azure-ai-ml takes off when it reads YAML."""
    is_reference = _REFERENCE.fullmatch(path) and not (base / path).exists()
    return f"azureml:{path}" if is_reference else str(absolute(path, base))


def _outputs(command: Any) -> dict[str, Any]:
    if not hasattr(command, "_job_outputs"):
        return dict(command.outputs or {})
    now = {name: command.outputs[name]._data for name in command.outputs}
    return {**{name: now[name] for name in now if now[name] is not None}, **_unchanged(command, now)}


def _unchanged(command: Any, now: Mapping[str, Any]) -> dict[str, Any]:
    return {name: output for name, output in command._job_outputs.items() if now.get(name) is None}


def _output(output: Any) -> Any:
    fields = ("type", "path", "mode", "name", "version")
    return {name: getattr(output, name) for name in fields if getattr(output, name, None) is not None}


def _environment(environment: Any, base: Path) -> Any:
    if environment is None or isinstance(environment, str):
        return environment
    if environment.id:
        return str(environment.id)
    named = {name: getattr(environment, name) for name in ("os_type", "image", "description", "datastore")}
    if not environment._is_anonymous:
        named |= {"name": environment.name, "version": environment.version}
    build = environment.build
    if build:
        path = absolute(str(build.path), Path(environment.base_path or base))
        named["build"] = {"path": path, "dockerfile_path": build.dockerfile_path}
    fields = named | {
        "conda_file": environment.conda_file,
        "inference_config": environment.inference_config,
        "tags": environment.tags,
        "properties": environment.properties,
    }
    return Environment(**{name: value for name, value in fields.items() if value})


def _distribution(distribution: Any) -> Any:
    if distribution is None:
        return None
    told = distribution if isinstance(distribution, Mapping) else vars(distribution)
    kind = str(told.get("type") or distribution.type).lower()
    names = _DISTRIBUTIONS.get(kind, {})
    fields = {
        names.get(str(name), str(name)): value for name, value in told.items() if value is not None and name != "type"
    }
    return {"type": kind, **fields}


def _resources(resources: Any) -> dict[str, Any]:
    if resources is None:
        return {}
    told = resources if isinstance(resources, Mapping) else {n: getattr(resources, n) for n in GROUPS["resources"]}
    given = {own: told.get(name) for name, own in GROUPS["resources"].items()}
    if not any(value for name, value in given.items() if name != "resource_properties"):
        given["resource_properties"] = given["resource_properties"] or {}
    elif not given["resource_properties"]:
        del given["resource_properties"]
    return {name: _plain(value) for name, value in given.items() if value is not None}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _queue(settings: Any) -> Any:
    if settings is None:
        return None
    given = {"tier": settings.job_tier, "priority": settings.priority}
    return {name: value for name, value in given.items() if value is not None}


def _identity(identity: Any) -> Any:
    if identity is None:
        return None
    ids = {name: getattr(identity, name, None) for name in ("client_id", "object_id", "resource_id")}
    return {"type": _IDENTITIES[type(identity).__name__]} | {name: value for name, value in ids.items() if value}


def _service(name: str, service: Any) -> Any:
    given = {field: getattr(service, field, None) for field in _SERVICE_FIELDS}
    return {"type": service.type} | {field: value for field, value in given.items() if value is not None}
