"""A job, from the request body that Azure ML keeps of it: the reverse of `request.py`.

The service adds defaults, ids and words of its own to what was sent. Whatever means the same when it is left out is
left out here: a mode of `ReadOnlyMount`, shared memory of 2g, one node, its own services, properties and outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from azml_dist.errors import JobError
from azml_dist.model.job import JobFields
from azml_dist.notation.expressions import ExistingCommand, choices_as_inputs

J = TypeVar("J", bound=JobFields)

_ASSET = re.compile(
    r"(?i)(?:azureml:)?/subscriptions/[^/]+/resourceGroups/[^/]+/providers/[^/]+/workspaces/(?P<workspace>[^/]+)"
    r"/(?P<kind>environments|data|models)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)"
)
_DURATION = re.compile(r"(?i)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?)?")
_PARTS = (86_400, 3_600, 60, 1)
_MODES = {
    "readonlymount": "ro_mount",
    "readwritemount": "rw_mount",
    "download": "download",
    "upload": "upload",
    "direct": "direct",
    "evalmount": "eval_mount",
    "evaldownload": "eval_download",
}
_TYPES = {
    "urifolder": "uri_folder",
    "urifile": "uri_file",
    "mltable": "mltable",
    "mlflowmodel": "mlflow_model",
    "custommodel": "custom_model",
    "tritonmodel": "triton_model",
}
_DISTRIBUTIONS = {
    "pytorch": {"processCountPerInstance": "process_count_per_node"},
    "mpi": {"processCountPerInstance": "process_count_per_node"},
    "tensorflow": {"workerCount": "worker_count", "parameterServerCount": "parameter_server_count"},
    "ray": {
        "port": "port",
        "address": "address",
        "includeDashboard": "include_dashboard",
        "dashboardPort": "dashboard_port",
        "headNodeAdditionalArgs": "head_node_additional_args",
        "workerNodeAdditionalArgs": "worker_node_additional_args",
    },
}
_RESOURCES = {
    "instanceCount": "node_count",
    "instanceType": "instance_type",
    "shmSize": "shm_size",
    "dockerArgs": "docker_args",
    "dockerArgsList": "docker_args",
    "maxInstanceCount": "max_node_count",
    "locations": "locations",
    "properties": "resource_properties",
}
_USUAL: Mapping[str, Any] = {"instanceCount": 1, "shmSize": "2g", "properties": {}, "locations": [], "dockerArgs": ""}
"""Documented defaults ("CLI (v2) command job YAML schema"), and what says nothing."""
_IDENTITIES = {"managed": "managed", "useridentity": "user_identity", "amltoken": "aml_token"}
_IDENTITY_IDS = {"clientId": "client_id", "objectId": "object_id", "resourceId": "resource_id"}
_PRIORITIES = {1: "low", 2: "medium", 3: "high"}
SERVICES = {"jupyterlab": "jupyter_lab", "vscode": "vs_code", "tensorboard": "tensor_board", "ssh": "ssh"}
_SERVICE_PROPERTIES = {"logDir": "log_dir", "sshPublicKeys": "ssh_public_keys"}
_ARTIFACTS = "default"
"""The output under which the service lists the run's logs and artifacts."""
_OF_THE_SERVICE = re.compile(
    r"(?i)_azureml\.|azureml\.(?!git\.)|mlflow\.(?!source\.git\.)|best_child_run_id|ProcessInfoFile|ProcessStatusFile"
    r"|ContentSnapshotId|StepType|ComputeTargetType|amlctrain|isreused|reusedrunid|attempts$"
)
"""Properties that the service itself, or the run, adds to a job; inferred from public records of jobs."""


def job_requested(kind: type[J], name: str, properties: Mapping[str, Any]) -> J:
    """The job that a command job's `properties` describe, as the service returns them; it has no name.

    Its code and environment are references to what the job used, with their versions. What a sweep chose for a trial
    is an input. Raises `JobError` for what a job cannot express.
    """
    resources = _object(properties, "resources")
    fields: dict[str, Any] = {
        "command": ExistingCommand(choices_as_inputs(_text(properties, "command"))),
        "code": _code(properties.get("codeId")),
        "inputs": _chosen(properties) | _inputs(_object(properties, "inputs")),
        "outputs": _outputs(_object(properties, "outputs"), name),
        "environment": asset_reference(properties.get("environmentId")),
        "compute": str(properties.get("computeId") or "").rpartition("/")[2],
        "distribution": _distribution(_object(properties, "distribution")),
        "environment_variables": dict(_object(properties, "environmentVariables")),
        "timeout": duration_seconds(_object(properties, "limits").get("timeout")),
        "queue": _queue(_object(properties, "queueSettings")),
        "identity": _identity(_object(properties, "identity")),
        "services": _services(_object(properties, "services")),
        "display_name": None if properties.get("displayName") == name else properties.get("displayName"),
        "experiment_name": properties.get("experimentName"),
        "description": properties.get("description"),
        "tags": dict(_object(properties, "tags")),
        "properties": {k: v for k, v in _object(properties, "properties").items() if not _OF_THE_SERVICE.match(k)},
        "parent_job_name": properties.get("parentJobName"),
        **{own: resources[wire] for wire, own in _RESOURCES.items() if _says(resources, wire)},
    }
    return kind(**{field: value for field, value in fields.items() if value not in (None, "", {}, [])})


def asset_reference(reference: Any) -> Any:
    """`azureml:NAME:VERSION` for the id of an asset in a workspace; any other address as it is."""
    found = _ASSET.fullmatch(reference) if isinstance(reference, str) else None
    return f"azureml:{found['name']}:{found['version']}" if found else reference


def duration_seconds(duration: Any) -> int | None:
    """The seconds of a duration in ISO 8601; None for none, and for what is no duration."""
    found = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    return sum(int(count or 0) * part for count, part in zip(found.groups(), _PARTS, strict=True)) if found else None


def _object(properties: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = properties.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise JobError(f"the service's answer has something in `{name}` that is not an object", where=name)
    return value or {}


def _text(properties: Mapping[str, Any], name: str) -> str:
    value = properties.get(name)
    if not isinstance(value, str):
        raise JobError(f"the service's answer has no `{name}`", hint="it is not a command job", where=name)
    return value


def _says(properties: Mapping[str, Any], name: str) -> bool:
    """Whether a field says something that its absence does not."""
    value = properties.get(name)
    return value is not None and value != _USUAL.get(name)


def plain_word(word: Any) -> str:
    """`UriFolder` and `uri_folder` are the same word of the API."""
    return str(word or "").replace("_", "").lower()


def _code(reference: Any) -> Any:
    if not isinstance(reference, str) or not reference:
        return None
    return f"azureml:{reference}" if reference.startswith("/") else reference


def _chosen(properties: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep chose for this trial."""
    return {name: _value(value) for name, value in _object(properties, "parameters").items()}


def _inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name in inputs:
        sent = _object(inputs, name)
        if plain_word(sent.get("jobInputType")) == "literal":
            found[name] = _value(sent.get("value"))
        elif sent:
            mode = _MODES.get(plain_word(sent.get("mode")), sent.get("mode"))
            found[name] = {
                "type": _TYPES.get(plain_word(sent.get("jobInputType")), sent.get("jobInputType")),
                "path": _data(sent.get("uri")),
                **({"mode": mode} if mode and mode != "ro_mount" else {}),
            }
    return {name: value for name, value in found.items() if value is not None}


def _value(value: Any) -> Any:
    """A literal with the type that it was probably written with; it is sent as the same text either way."""
    if not isinstance(value, str):
        return value
    if value in ("True", "False"):
        return value == "True"
    if re.fullmatch(r"0|-?[1-9]\d{0,17}", value):
        return int(value)
    if re.fullmatch(r"-?\d[\d.e+-]{0,30}", value):
        with suppress(ValueError):
            return number if str(number := float(value)) == value else value
    return value


def _data(uri: Any) -> Any:
    if not isinstance(uri, str) or re.match(r"(?i)azureml:|https?:|wasbs?:|abfss?:|adl:", uri):
        return asset_reference(uri)
    reference = asset_reference(uri)
    return reference if reference.startswith("azureml:") else f"azureml:{uri}"


def _outputs(outputs: Mapping[str, Any], run: str) -> dict[str, Any]:
    found = {}
    for name in outputs:
        if name == _ARTIFACTS:
            continue
        sent = _object(outputs, name)
        mode = _MODES.get(plain_word(sent.get("mode")), sent.get("mode"))
        kind = sent.get("jobOutputType")
        fields = {
            "type": _TYPES.get(plain_word(kind), kind),
            "path": _place(sent.get("uri"), run, name),
            "mode": None if mode == "rw_mount" else mode,
            "name": sent.get("assetName"),
            "version": sent.get("assetVersion"),
        }
        found[name] = {field: value for field, value in fields.items() if value is not None}
    return found


def _place(uri: Any, run: str, output: str) -> Any:
    """The address of an output for another run: never the place that this run wrote to."""
    if not isinstance(uri, str):
        return None
    parts = ["${{name}}" if part == run else part for part in uri.split("/")]
    usual = f"/paths/azureml/${{{{name}}}}/{output}"
    address = "/".join(parts)
    return None if address.rstrip("/").endswith((usual, usual.replace(output, "${{output_name}}"))) else address


def _distribution(sent: Mapping[str, Any]) -> dict[str, Any] | None:
    if not sent:
        return None
    kind = plain_word(sent.get("distributionType"))
    names = _DISTRIBUTIONS.get(kind, {})
    return {"type": kind} | {own: sent[wire] for wire, own in names.items() if sent.get(wire) is not None}


def _queue(sent: Mapping[str, Any]) -> dict[str, Any] | None:
    tier, priority = sent.get("jobTier"), sent.get("priority")
    word = _PRIORITIES.get(priority) if isinstance(priority, int) else None
    given = {"tier": str(tier).lower() if tier else None, "priority": word}
    return {name: value for name, value in given.items() if value and value != "null"} or None


def _identity(sent: Mapping[str, Any]) -> dict[str, Any] | None:
    if not sent:
        return None
    kind = sent.get("identityType")
    ids = {own: sent[wire] for wire, own in _IDENTITY_IDS.items() if sent.get(wire)}
    return {"type": _IDENTITIES.get(plain_word(kind), kind), **ids}


def _services(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The services that the job asks for; the service lists its own pages and addresses among them."""
    found = {}
    for name in sent:
        service = _object(sent, name)
        if kind := SERVICES.get(plain_word(service.get("jobServiceType"))):
            given = dict(_object(service, "properties"))
            own = {mine: given.pop(wire) for wire, mine in _SERVICE_PROPERTIES.items() if given.get(wire)}
            nodes = "all" if plain_word(_object(service, "nodes").get("nodesValueType")) == "all" else None
            fields = {"type": kind, "nodes": nodes, "port": service.get("port"), "properties": given or None, **own}
            found[name] = {field: value for field, value in fields.items() if value is not None}
    return found
