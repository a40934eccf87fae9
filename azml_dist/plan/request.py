"""The request body that azure-ai-ml 1.35 sends for a job, built without azure-ai-ml.

Ids that only the service knows are None (code, an inline environment) or a text in angle brackets (local data). A
named reference is what azure-ai-ml has before it asks the service: `cifar10:1`, `my-env@latest`. What azure-ai-ml
generates for fields that the job leaves out is not included: a name, also used as the display name, and an experiment
named after the current folder.
`tests/test_request.py` compares every field with azure-ai-ml itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azml_dist.model.job import OPEN_INPUT
from azml_dist.model.parameter import Parameter
from azml_dist.notation.expressions import ONE_EXPRESSION
from azml_dist.plan.world import FROM_YOUR_ENVIRONMENT

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields
    from azml_dist.model.parts import Output

UPLOADED = "<uploaded from {path}>"
"""Placeholder for the address of local data."""

_MODES = {
    "ro_mount": "ReadOnlyMount",
    "rw_mount": "ReadWriteMount",
    "download": "Download",
    "upload": "Upload",
    "direct": "Direct",
    "eval_mount": "EvalMount",
    "eval_download": "EvalDownload",
}
_INPUT_MODES = _MODES | {"mount": "ReadOnlyMount"}
_OUTPUT_MODES = _MODES | {"mount": "ReadWriteMount"}
_SERVICE_TYPES = {"jupyter_lab": "JupyterLab", "vs_code": "VSCode", "tensor_board": "TensorBoard", "ssh": "SSH"}
_SERVICE_PROPERTIES = {"log_dir": "logDir", "ssh_public_keys": "sshPublicKeys"}
_IDENTITIES = {"managed": "Managed", "user_identity": "UserIdentity", "aml_token": "AMLToken"}
_PRIORITIES = {"low": 1, "medium": 2, "high": 3}
_COMPUTE_KEYS = {
    "aisupercomputer": "AISuperComputer",
    "singularity": "AISuperComputer",
    "itp": "itp",
    "target_selector": "target_selector",
}
"""Keys of `resources.properties` that azure-ai-ml recognizes in upper or lower case, and under their older name."""


def request_body(job: JobFields) -> dict[str, Any]:
    """The request body for a job: `{"properties": {…}}`, as in the REST API."""
    local = (job.compute or "").lower() == "local"
    properties = {
        "jobType": "Command",
        "displayName": job.display_name or job.name,
        "description": job.description,
        "experimentName": job.experiment_name,
        "parentJobName": job.parent_job_name,
        "computeId": None if local else job.compute,
        "command": job.sent_command,
        "distribution": _distribution(job),
        "resources": _resources(job, local),
        "limits": _limits(job),
        "queueSettings": _queue(job),
        "identity": _identity(job),
        "services": _services(job),
    }
    return {
        "properties": _given(properties)
        | ({"codeId": _code(job)} if job.code else {})
        | {
            "environmentId": _environment(job),
            "environmentVariables": _variables(job),
            "inputs": {name: _input(job, name) for name in job.inputs if not job.is_left_out(name)},
            "outputs": {name: _output(output) for name, output in job.outputs.items()},
            "tags": dict(job.tags),
            "properties": {k: v for k, v in job.properties.items() if k != "_azureml.ComputeTargetType"},
            "isArchived": False,
        }
    }


def _code(job: JobFields) -> str | None:
    if not job.code or job.local_code is not None:
        return None
    return _unprefixed(job.code).replace("azureml://feeds/", "azureml://registries/", 1)


def _environment(job: JobFields) -> str | None:
    return _unprefixed(job.environment) if isinstance(job.environment, str) else None


def _variables(job: JobFields) -> dict[str, str]:
    variables = job.environment_variables
    return {name: FROM_YOUR_ENVIRONMENT if value is None else value for name, value in variables.items()}


def _distribution(job: JobFields) -> dict[str, Any] | None:
    distribution = job.distribution
    if distribution is None:
        return None
    body: dict[str, Any] = {"distributionType": type(distribution).__name__}
    if distribution.type == "tensorflow":
        return _given(
            body
            | {"parameterServerCount": distribution.parameter_server_count, "workerCount": distribution.worker_count}
        )
    if distribution.type == "ray":
        fields = distribution.model_dump(exclude={"type"}, exclude_none=True)
        return body | {camel(name): value for name, value in fields.items()}
    if "process_count_per_node" in distribution.model_fields_set:
        body["processCountPerInstance"] = distribution.process_count_per_node
    return _given(body)


def _resources(job: JobFields, local: bool) -> dict[str, Any] | None:
    given = job.model_fields_set & _RESOURCE_FIELDS
    if not given and not local:
        return None
    body = {
        "instanceCount": job.node_count if "node_count" in given else None,
        "instanceType": job.instance_type,
        "shmSize": job.shm_size,
        "properties": _resource_properties(job, local),
    }
    if isinstance(job.docker_args, tuple):
        # With a list, azure-ai-ml leaves these two out: the list belongs to an API that does not know them.
        return _given(body | {"dockerArgsList": list(job.docker_args)})
    locations = list(job.locations) if job.locations is not None else None
    return _given(
        body | {"dockerArgs": job.docker_args, "locations": locations, "maxInstanceCount": job.max_node_count}
    )


_RESOURCE_FIELDS = {
    "node_count",
    "instance_type",
    "shm_size",
    "docker_args",
    "max_node_count",
    "locations",
    "resource_properties",
}


def _resource_properties(job: JobFields, local: bool) -> dict[str, Any]:
    properties = _given(job.resource_properties or {})
    given = {_COMPUTE_KEYS.get(key.lower(), key): value for key, value in properties.items()}
    return given | ({"IsLocal": {"IsLocal": True}} if local else {})


def _queue(job: JobFields) -> dict[str, Any] | None:
    if job.queue is None:
        return None
    tier, priority = job.queue.tier, job.queue.priority
    return _given({"jobTier": tier and tier.capitalize(), "priority": _PRIORITIES[priority] if priority else None})


def _identity(job: JobFields) -> dict[str, Any] | None:
    if (identity := job.identity) is None:
        return None
    ids = {"clientId": identity.client_id, "objectId": identity.object_id, "resourceId": identity.resource_id}
    return _given({"identityType": _IDENTITIES[identity.type], **ids})


def _limits(job: JobFields) -> dict[str, Any] | None:
    if "timeout" not in job.model_fields_set:
        return None
    return {"jobLimitsType": "Command"} | ({"timeout": duration(job.timeout)} if job.timeout else {})


def _services(job: JobFields) -> dict[str, Any] | None:
    if "services" not in job.model_fields_set:
        return None
    return {name: _service(service) for name, service in job.services.items()}


def _service(service: Any) -> dict[str, Any]:
    own = {wire: getattr(service, name, None) for name, wire in _SERVICE_PROPERTIES.items()}
    properties = {**(service.properties or {}), **{k: v for k, v in own.items() if v}}
    return _given(
        {
            "jobServiceType": _SERVICE_TYPES[service.type],
            "nodes": {"nodesValueType": "All"} if service.nodes else None,
            "port": service.port,
            "properties": properties or None,
        }
    )


def _input(job: JobFields, name: str) -> dict[str, Any]:
    if not job.is_data(name):
        return {"jobInputType": "literal", "value": job.literal(name)}
    data: Any = job.inputs[name]
    if isinstance(data, Parameter):
        return {"jobInputType": data.type, "uri": OPEN_INPUT.format(name=name)}
    if ONE_EXPRESSION.fullmatch(data.path):  # a pipeline fills it in; azure-ai-ml sends it as a literal
        return {"jobInputType": "literal", "value": data.path}
    uri = UPLOADED.format(path=data.path) if data.is_local else _unprefixed(data.path)
    mode = _INPUT_MODES[data.mode] if data.mode else None
    return _given({"jobInputType": data.type, "uri": uri, "mode": mode})


def _output(output: Output) -> dict[str, Any]:
    mode = _OUTPUT_MODES[output.mode] if output.mode else None
    body = {"jobOutputType": output.type, "uri": output.path, "mode": mode}
    return _given(body | {"assetName": output.name, "assetVersion": output.version})


def _unprefixed(reference: str) -> str:
    """`azureml:cifar10:1` is sent as `cifar10:1`; an address stays as it is."""
    return reference if reference.startswith("azureml://") else reference.removeprefix("azureml:")


def duration(seconds: int) -> str:
    """ISO 8601, with the largest units that fit and no zeros: 90061 is `P1DT1H1M1S`."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    date, time = _units(D=days), _units(H=h, M=m, S=s)
    return f"P{date}T{time}" if time else f"P{date}"


def _units(**counts: int) -> str:
    return "".join(f"{count}{unit}" for unit, count in counts.items() if count)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}
