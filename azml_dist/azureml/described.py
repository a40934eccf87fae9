"""A run as the service describes it, in the job's record and in run history; checked when it is received."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from azml_dist.azureml.addresses import is_https
from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.failure import service_message
from azml_dist.azureml.logs import World
from azml_dist.notation.expressions import INPUT_OR_OUTPUT, PARENT
from azml_dist.runs.logs import Source
from azml_dist.status import RunStatus
from azml_dist.verdict.hidden import masked, secret_values
from azml_dist.verdict.known import Said

_MOST = 10_000
"""Most nodes, and most processes on a node: far above Azure ML's limits, but small enough to iterate over."""
MOST_PROCESSES = 1_000_000
BEST_TRIAL = "best_child_run_id"
"""As azure-ai-ml reads it (`SWEEP_JOB_BEST_CHILD_RUN_ID_PROPERTY_NAME`)."""
_DEFAULT = "default"
"""The output that means the run's artifacts: logs, and what is written to `./outputs` and `./logs`."""
_DISTRIBUTIONS = {"pytorch": "PyTorch", "mpi": "Mpi", "tensorflow": "TensorFlow", "ray": "Ray"}


class Submitted(NamedTuple):
    """The job's record."""

    name: str
    status: RunStatus
    display_name: str | None
    created_at: str | None
    world: World
    distribution: str | None
    """Under the name that it has in a plan; None if there is none, or one that is not known."""
    server_count: int
    outputs: dict[str, str | None]
    """The address of each named output, if the record has it."""
    artifacts: str | None
    """The address of the artifacts, if the record has it."""
    kind: str
    """The kind of job, in lower case: `command`, `sweep`, `pipeline`, `automl` …"""
    best_trial: str | None
    """The run of the best trial of a sweep, once there is one."""
    command: str | None
    """What each process ran, with the values of its inputs."""
    environment: str | None
    """The environment's name and version."""
    secrets: list[str]
    """Values of environment variables that must not be shown."""
    compute: str | None
    """The name of its compute; None for serverless compute."""
    instance_type: str | None
    inputs: Mapping[str, str]
    """The value of each input, or the address of its data; what is secret is masked."""
    dumps: str | None
    """Where its ranks leave dumps when a collective times out, if they do: a path before the number of the rank."""
    has_services: bool = False
    is_member: bool = False
    """Whether another run contains it."""
    reuses: str | None = None
    """The earlier run whose results a pipeline takes for this step."""

    @classmethod
    def of(cls, job: Answer) -> Submitted:
        properties = job.object("properties")
        resources, distribution = properties.object("resources"), properties.object("distribution")
        world = World(
            resources.count("instanceCount", _MOST) or 1, distribution.count("processCountPerInstance", _MOST) or 1
        )
        if world.node_count * world.process_count_per_node > MOST_PROCESSES:
            raise BrokenAnswerError(f"it has {world.node_count} nodes of {world.process_count_per_node} processes")
        kind = (properties.text("jobType") or "").lower()
        addresses = {name: output.text("uri") for name, output in properties.object("outputs").each_object()}
        return cls(
            name=job.needed("name"),
            status=RunStatus(properties.needed("status")),
            display_name=properties.text("displayName"),
            created_at=job.object("systemData").text("createdAt"),
            world=world,
            distribution=_DISTRIBUTIONS.get((distribution.text("distributionType") or "").lower()),
            server_count=distribution.count("parameterServerCount", _MOST) or 0,
            artifacts=addresses.pop(_DEFAULT, None),
            kind=kind,
            best_trial=properties.object("properties").text(BEST_TRIAL),
            outputs=addresses,
            command=_command(properties.fields),
            environment=_environment(properties.fields.get("environmentId")),
            secrets=secret_values(_texts(properties.fields.get("environmentVariables"))),
            compute=(properties.text("computeId") or "").rpartition("/")[2] or None,
            instance_type=resources.text("instanceType"),
            inputs=dict(inputs_of(properties)),
            dumps=_dumps(_texts(properties.fields.get("environmentVariables"))),
            has_services=bool(properties.fields.get("services")),
            is_member=bool(properties.text("parentJobName")),
            reuses=_reused(properties.object("properties")),
        )

    @property
    def world_told(self) -> dict[str, Any]:
        """The world as JSON values, as those of local runs have it."""
        return {"distribution": self.distribution, **self.world._asdict(), "world_size": len(self.sources)}

    @property
    def is_sweep(self) -> bool:
        return self.kind == "sweep"

    @property
    def is_pipeline(self) -> bool:
        return self.kind == "pipeline"

    @property
    def is_group(self) -> bool:
        """Whether it consists of other jobs."""
        return self.is_sweep or self.is_pipeline

    @property
    def sources(self) -> list[Source]:
        """All processes, ordered by rank; TensorFlow's parameter servers come after the workers.

        A sweep or pipeline has none of its own.
        """
        nodes, processes = self.world
        if self.is_group:
            return []
        if self.distribution == "Ray":
            return [Source(0, 0)]
        sources = [Source(rank, rank // processes) for rank in range(nodes * processes)]
        return sources + [Source(len(sources) + i, i, "ps") for i in range(self.server_count)]


def inputs_of(job: Answer) -> Iterator[tuple[str, str]]:
    """The inputs of a job or of a step of a pipeline, without those that it takes from elsewhere in the pipeline."""
    for name, sent in job.object("inputs").fields.items():
        given = [sent[key] for key in ("value", "uri") if sent.get(key) is not None] if isinstance(sent, dict) else []
        if given and not PARENT.match(str(given[0])):
            yield name, masked(name, str(given[0]))


def _reused(properties: Answer) -> str | None:
    """As azure-ai-ml reads it, which downloads that run in place of the step."""
    is_reused = (properties.text("azureml.isreused") or "").lower() == "true"
    return properties.text("azureml.reusedrunid") if is_reused else None


def _command(properties: Mapping[str, Any]) -> str | None:
    """The command with the values of literal inputs."""
    command, inputs = properties.get("command"), properties.get("inputs")
    if not isinstance(command, str):
        return None
    given = {name: one.get("value") for name, one in inputs.items()} if isinstance(inputs, Mapping) else {}
    return INPUT_OR_OUTPUT.sub(lambda m: str(given.get(m[2]) or m[0]) if m[1] == "inputs" else m[0], command)


def _environment(asset: Any) -> str | None:
    """`NAME:VERSION` of an asset's id."""
    found = re.search(r"/environments/([^/]+)/versions/([^/]+)$", asset) if isinstance(asset, str) else None
    return f"{found[1]}:{found[2]}" if found else None


def _dumps(variables: Mapping[str, str]) -> str | None:
    """torch prefers the newer of the two names."""
    return variables.get("TORCH_FR_DUMP_TEMP_FILE") or variables.get("TORCH_NCCL_DEBUG_INFO_TEMP_FILE")


def _texts(values: Any) -> dict[str, str]:
    found = values.items() if isinstance(values, Mapping) else ()
    return {name: value for name, value in found if isinstance(value, str)}


class Details(NamedTuple):
    """The run in run history."""

    status: RunStatus
    message: str | None
    """Why it failed, in the service's words."""
    logs: dict[str, str]
    """The address of each log file, by its path."""
    created_at: str | None
    started_at: str | None
    ended_at: str | None
    said: Said | None = None
    """Everything that the service says about the reason."""

    @classmethod
    def of(cls, details: Answer) -> Details:
        logs = details.object("logFiles").texts()
        for path, url in logs.items():
            if not is_https(url):
                raise BrokenAnswerError(f"the address of {path[:100]} is not https: {url[:100]}")
        return cls(
            status=RunStatus(details.needed("status")),
            message=service_message(details),
            logs=logs,
            created_at=details.text("createdTimeUtc"),
            started_at=details.text("startTimeUtc"),
            ended_at=details.text("endTimeUtc"),
            said=Said.of(details.fields),
        )
