"""Converts azure-ai-ml's `Command` to a `Job`: what `command()`, `load_job` and calling a component return."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Environment, Input
from azml_dist.notation.azml import GROUPS, absolute
from azml_dist.notation.expressions import ComponentCommand, ExistingCommand, with_new_expressions
from azml_dist.sdk.load import import_sdk

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
_KNOWN = {
    "distribution": ("PyTorchDistribution", "MpiDistribution", "TensorFlowDistribution", "RayDistribution"),
    "identity": tuple(_IDENTITIES),
}
_SERVICES = ("jupyter_lab", "vs_code", "tensor_board", "ssh")
_SERVICE_FIELDS = ("nodes", "port", "properties", "log_dir", "ssh_public_keys")
_REFERENCE = re.compile(r"(?!file:)[\w.-]+[:@][\w.-]+|(?i:/subscriptions/).+")
_NOT_SENT = {
    "parameters": "only the service writes them",
    "comment": "it belongs in a step of a pipeline",
}

J = TypeVar("J", bound=JobFields)


def from_command(kind: type[J], command: Command | CommandJob) -> J:
    """The job that a `Command` stands for; an input that was changed after `command()` has its new value.

    Raises `JobError` for whatever a job cannot express.
    """
    import_sdk()
    from azure.ai.ml.entities import Command, CommandComponent, CommandJob

    if isinstance(command, CommandJob):
        return _job(kind, command, command, Path(command.base_path), inputs=dict(command.inputs), component=False)
    if not isinstance(command, Command):
        raise JobError(f"a {type(command).__name__} is not a single command", hint="use `command(...)` of azure-ai-ml")
    component = command.component
    if not isinstance(component, CommandComponent):
        hint = "get it with `ml_client.components.get`, and call that"
        raise JobError(f"its component {component} is in Azure ML, not on this machine", hint=hint, where="component")
    base = Path(component.base_path or command.base_path or ".")
    # Only commands of the builder are complete; inputs of a component may still need a value.
    built = bool(getattr(command, "_job_inputs", None) is not None) and component._source == "BUILDER"
    return _job(kind, command, component, base, inputs=changed_inputs(command, component), component=not built)


def job_from(kind: type[J], command: Any, *, base: Path, inputs: dict[str, Any], outputs: Mapping[str, Any]) -> J:
    """The job of any object with the fields of a command."""
    return _job(kind, command, command, base, inputs=inputs, outputs=outputs, component=False)


def _job(
    kind: type[J],
    command: Any,
    holder: Any,
    base: Path,
    *,
    inputs: dict[str, Any],
    component: bool,
    outputs: Mapping[str, Any] | None = None,
) -> J:
    if problems := [*_without_a_place(command), *_of_a_sweep_or_pipeline(inputs)]:
        raise JobError.of(problems)
    text = with_new_expressions(str(holder.command or ""))
    values: dict[str, Any] = {name: getattr(command, name, None) for name in _SAME_NAME}
    values |= {
        "command": ComponentCommand(text) if component else ExistingCommand(text),
        "code": _place(str(holder.code), base) if holder.code else None,
        "inputs": {name: _input(value, base) for name, value in inputs.items() if value is not None},
        "outputs": {
            name: _output(output) for name, output in (outputs_of(command) if outputs is None else outputs).items()
        },
        "environment": _environment(command.environment or getattr(holder, "environment", None), base),
        "distribution": _distribution(command.distribution),
        "identity": _identity(command.identity),
        "services": None if command.services is None else {n: _service(s) for n, s in command.services.items()},
        **_resources(command.resources),
        "queue": _queue(command.queue_settings),
    }
    given = {name: value for name, value in values.items() if value is not None}
    if command.limits is not None:
        given["timeout"] = _of(command.limits, "timeout") or None
    return kind(**given)


def _without_a_place(command: Any) -> Iterator[Problem]:
    for name, value, known in (
        ("distribution", command.distribution, _DISTRIBUTIONS),
        ("identity", command.identity, {*_IDENTITIES, *_IDENTITIES.values()}),
    ):
        if value is not None and not isinstance(value, Mapping) and not {_kind(value), type(value).__name__} & {*known}:
            hint = f"known here: {', '.join(_KNOWN[name])}"
            yield Problem(f"a job cannot express the {name} {_shown(value)}", hint, name)
    for name, why in _NOT_SENT.items():
        if getattr(command, name, None):
            yield Problem(f"a job cannot express `{name}` of a command: {why}", "leave it out", name)
    for name, service in (command.services or {}).items():
        if getattr(service, "type", None) not in _SERVICES:
            hint = f"known types: {', '.join(_SERVICES)}"
            yield Problem(
                f"a job cannot express a {type(service).__name__} without a known type", hint, f"services.{name}"
            )


def _of_a_sweep_or_pipeline(inputs: Mapping[str, Any]) -> Iterator[Problem]:
    from azure.ai.ml.entities._job.pipeline._io import InputOutputBase
    from azure.ai.ml.entities._job.sweep.search_space import SweepDistribution

    for name, value in inputs.items():
        if isinstance(value, SweepDistribution):
            hint = "set a value for a single run, or run the sweep itself"
            yield Problem(f"a sweep chooses its value ({type(value).__name__})", hint, f"inputs.{name}")
        elif isinstance(value, InputOutputBase):
            hint = "set a value for a single run"
            yield Problem(f"it comes from a pipeline ({value})", hint, f"inputs.{name}")


def changed_inputs(command: Any, component: Any) -> dict[str, Any]:
    """The current inputs; an input of a component that has no value is a parameter."""
    sent = dict(command._job_inputs)
    now = {name: command.inputs[name]._data for name in command.inputs}
    for name in now.keys() & sent.keys():
        if isinstance(now[name], str | int | float) and now[name] != sent[name]:
            warnings.warn(
                f"input {name} was changed to {now[name]!r} after command() was called, and the job has the new value;"
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
    if not path:
        return _parameter(value)
    given = {"type": value.type, "mode": value.mode, "datastore": getattr(value, "datastore", None)}
    return Input(path=_place(path, base), **{k: v for k, v in given.items() if v is not None})


def _place(path: Any, base: Path) -> str:
    """A local path made absolute; a reference with the `azureml:` that azure-ai-ml removes when it reads YAML."""
    is_reference = _REFERENCE.fullmatch(path) and not (base / path).exists()
    return f"azureml:{path}" if is_reference else str(absolute(path, base))


def outputs_of(command: Any) -> dict[str, Any]:
    """The current outputs."""
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
    kind = _kind(distribution)
    names = _DISTRIBUTIONS.get(kind, {})
    fields = {
        names.get(str(name), str(name)): value for name, value in told.items() if value is not None and name != "type"
    }
    return {"type": kind, **fields}


def _resources(resources: Any) -> dict[str, Any]:
    if resources is None:
        return {}
    # A `ResourceConfiguration`, which Microsoft's notebooks also use, has neither `shm_size` nor `docker_args`.
    given = {own: _of(resources, name) for name, own in GROUPS["resources"].items()}
    if not any(value for name, value in given.items() if name != "resource_properties"):
        given["resource_properties"] = given["resource_properties"] or {}
    elif not given["resource_properties"]:
        del given["resource_properties"]
    return {name: _plain(value) for name, value in given.items() if value is not None}


def _kind(value: Any) -> str:
    """The `type` of an entity or a mapping."""
    return str(_of(value, "type") or "").lower()


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"`{type(value).__name__}`"


def _of(value: Any, name: str) -> Any:
    """A field of an entity, or of a mapping that azure-ai-ml accepts in place of one."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _queue(settings: Any) -> Any:
    if settings is None:
        return None
    given = {"tier": _of(settings, "job_tier"), "priority": _of(settings, "priority")}
    return {name: value for name, value in given.items() if value is not None}


def _identity(identity: Any) -> Any:
    if identity is None:
        return None
    ids = {name: _of(identity, name) for name in ("client_id", "object_id", "resource_id")}
    return {"type": _IDENTITIES.get(type(identity).__name__) or _kind(identity)} | {
        name: value for name, value in ids.items() if value
    }


def _service(service: Any) -> Any:
    given = {field: getattr(service, field, None) for field in _SERVICE_FIELDS}
    return {"type": service.type} | {field: value for field, value in given.items() if value is not None}
