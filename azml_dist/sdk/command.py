"""Converts a `Job` to azure-ai-ml's own `Command`, from which you can also make sweeps and pipelines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from azml_dist.errors import JobError
from azml_dist.model.given import own_variables, refuse_open_inputs
from azml_dist.model.parameter import Parameter
from azml_dist.sdk.load import import_sdk

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

    from azml_dist.model import parts
    from azml_dist.model.job import JobFields

_RESOURCES = {
    "node_count": "instance_count",
    "instance_type": "instance_type",
    "shm_size": "shm_size",
    "docker_args": "docker_args",
    "max_node_count": "max_instance_count",
    "locations": "locations",
    "resource_properties": "properties",
}
"""Fields of a job, by their names in `JobResourceConfiguration`."""


def to_command(job: JobFields, *, environment: str | None = None, code: str | None = None) -> Command:
    """The job as a `Command`. `environment` and `code` are ids that replace those of the job.

    Variables that the job sets to `None` have the values from your environment in it: do not print it.
    """
    import_sdk()
    from azure.ai.ml import command, entities

    refuse_open_inputs(job)
    if job.environment is None:
        raise JobError(
            "the job has no environment, and Azure ML requires one",
            hint="set an `azureml:` reference, `Environment(image=…)`, or `Environment.load(path)`",
            where="environment",
        )
    with no_notes_on_experimental_classes():
        made = command(
            name=job.name,
            display_name=job.display_name or job.name,
            description=job.description,
            experiment_name=job.experiment_name,
            command=job.sent_command,
            code=code or job.code,
            compute=job.compute,
            environment=environment or _environment(job.environment),
            environment_variables={**job.environment_variables, **own_variables(job)},
            distribution=_distribution(job.distribution),
            inputs={name: _input(value) for name, value in job.inputs.items() if not job.is_left_out(name)},
            outputs={name: _output(output) for name, output in job.outputs.items()},
            identity=_identity(job.identity),
            services=_services(job),
            tags=dict(job.tags),
            properties=dict(job.properties),
            parent_job_name=job.parent_job_name,
        )
        if given := {_RESOURCES[name]: getattr(job, name) for name in _RESOURCES if name in job.model_fields_set}:
            made.resources = entities.JobResourceConfiguration(**{k: _plain(v) for k, v in given.items()})
        if "timeout" in job.model_fields_set:
            made.set_limits(timeout=job.timeout)
        if job.queue:
            made.queue_settings = entities.QueueSettings(job_tier=job.queue.tier, priority=job.queue.priority)
    return made


def environment_entity(environment: parts.Environment) -> Any:
    """An environment that is defined in the job, as azure-ai-ml's own."""
    import_sdk()
    return _environment(environment)


def _environment(environment: parts.Environment | str) -> Any:
    from azure.ai.ml.entities import BuildContext, Environment

    if isinstance(environment, str):
        return environment
    fields = environment.model_dump(exclude_none=True, exclude={"build", "tags", "properties", "conda_file"})
    build = environment.build
    if build:
        named = {"dockerfile_path": build.dockerfile_path} if build.dockerfile_path else {}
        fields["build"] = BuildContext(path=build.path, **named)
    return Environment(
        **fields,
        conda_file=_plain(environment.conda_file),
        tags=dict(environment.tags),
        properties=dict(environment.properties),
    )


def _distribution(distribution: Any) -> Any:
    from azure.ai.ml import MpiDistribution, PyTorchDistribution, RayDistribution, TensorFlowDistribution

    if distribution is None:
        return None
    kind = {
        "pytorch": PyTorchDistribution,
        "mpi": MpiDistribution,
        "tensorflow": TensorFlowDistribution,
        "ray": RayDistribution,
    }[distribution.type]
    given = distribution.model_dump(exclude={"type"}, exclude_unset=True, exclude_none=True)
    if "process_count_per_node" in given:
        given["process_count_per_instance"] = given.pop("process_count_per_node")
    return kind(**given)


def _input(value: Any) -> Any:
    from azure.ai.ml import Input

    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Parameter):
        return value.default_text
    mode = "ro_mount" if value.mode == "mount" else value.mode
    return Input(type=value.type, path=value.path, mode=mode, datastore=value.datastore)


def _output(output: parts.Output) -> Any:
    from azure.ai.ml import Output

    mode = "rw_mount" if output.mode == "mount" else output.mode
    return Output(type=output.type, path=output.path, mode=mode, name=output.name, version=output.version)


def _identity(identity: parts.Identity | None) -> Any:
    from azure.ai.ml.entities import (
        AmlTokenConfiguration,
        ManagedIdentityConfiguration,
        UserIdentityConfiguration,
    )

    if identity is None:
        return None
    if identity.type == "managed":
        return ManagedIdentityConfiguration(
            client_id=identity.client_id, object_id=identity.object_id, resource_id=identity.resource_id
        )
    return UserIdentityConfiguration() if identity.type == "user_identity" else AmlTokenConfiguration()


def _services(job: JobFields) -> Any:
    if "services" not in job.model_fields_set:
        return None
    return {name: _service(service) for name, service in job.services.items()}


def _service(service: Any) -> Any:
    from azure.ai.ml import entities

    kind = {
        "jupyter_lab": entities.JupyterLabJobService,
        "vs_code": entities.VsCodeJobService,
        "tensor_board": entities.TensorBoardJobService,
        "ssh": entities.SshJobService,
    }[service.type]
    given = service.model_dump(exclude={"type"}, exclude_none=True)
    return kind(**_plain(given))


def _plain(value: Any) -> Any:
    """Plain lists and dicts in place of those of a model, as azure-ai-ml's validation requires."""
    if isinstance(value, Mapping | tuple):
        return json.loads(json.dumps(value))
    return value


@contextmanager
def no_notes_on_experimental_classes() -> Iterator[None]:
    """Silences azure-ai-ml's log line for each class of a preview feature; the findings of the plan say it already."""

    def wanted(record: logging.LogRecord) -> bool:
        return "experimental" not in str(record.msg)

    logger = logging.getLogger("azure.ai.ml._utils._experimental")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
