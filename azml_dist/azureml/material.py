"""What a run on Azure ML has for its bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.children import which
from azml_dist.azureml.described import Details, Submitted
from azml_dist.azureml.ends import LogEnds, Whose
from azml_dist.azureml.jobs import job_of
from azml_dist.azureml.logs import parse
from azml_dist.azureml.ranges import Ranges
from azml_dist.errors import DistError
from azml_dist.files.dump import yaml_of
from azml_dist.runs.logs import Source
from azml_dist.runs.material import Material
from azml_dist.verdict.hidden import secret_values
from azml_dist.verdict.known import Log

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

_OTHERS = 64
"""How many logs that are not those of ranks."""
_PROCESSES = 64
_MOST_LOGS = 1_024
"""Of all trials or steps together."""
_NOT_IN_A_PATH = re.compile(r"[^\w-]+")
_IDS = re.compile(r"(?i)request|correlation|activity|operation|trace|root|reference|session")
"""Names of fields in which the service has ids of what it did."""
_FROM_CALLER = 8
"""From so many characters on, a value that a variable has here too was taken from here."""


class Record(NamedTuple):
    """What the service says about a run."""

    workspace: Workspace
    job: Answer
    details: Answer
    ranges: Ranges
    secrets: Sequence[str] = ()
    """Values that the process that submitted it knows to be secret."""


def material(told: Record) -> Material:
    """The request, the details, the plan and the logs of a run on Azure ML."""
    notes: list[str] = []
    details = dict(told.details.fields)
    logs = details.pop("logFiles", None)
    documents = {
        "request.json": dict(told.job.fields),
        "details.json": {**details, "logFiles": sorted(logs) if isinstance(logs, Mapping) else None},
        "service.json": _service(told),
        **_planned(told, notes),
    }
    found = _Logs(told, notes)
    return Material(documents, logs=found, secrets=[*told.secrets, *_secrets_of(told.job)], notes=notes)


def with_members(own: Material, members: Sequence[tuple[str, Record | DistError]], left: Sequence[str]) -> Material:
    """The same with the ends of the logs of trials or steps, by their labels; those in `left` are only named."""
    sources, secrets, logs, out = list[Source](), list[str](), list(own.logs), list[str]()
    for label, told in members:
        if isinstance(told, DistError):
            own.notes.append(f"{label}: its logs are not in it: {told.problems[0].message}")
            continue
        if len(logs) >= _MOST_LOGS:
            out.append(label)
            continue
        notes: list[str] = []
        place = _NOT_IN_A_PATH.sub("_", label.replace(" ", "_"))
        logs += [
            replace(log, name=f"{place}/{log.name}", rank=None if log.rank is None else len(sources) + log.rank)
            for log in _Logs(told, notes)
        ]
        own.notes += [f"{label}: {note}" for note in notes]
        sources += [one._replace(member=label.replace(" ", "")) for one in Submitted.of(told.job).sources]
        secrets += [*told.secrets, *_secrets_of(told.job)]
    if out := [*out, *left]:
        own.notes.append(f"not in it: the logs of {which(out)}, each of which has a bundle of its own")
    return replace(own, logs=logs, sources=sources or None, secrets=[*own.secrets, *secrets])


def _planned(told: Record, notes: list[str]) -> dict[str, Any]:
    """The job and its plan, if it is a single command job."""
    try:
        job = job_of(told.workspace, told.job)
        plan = job.with_(code=None).plan().to_dict() if isinstance(job.code, str) else job.plan().to_dict()
        return {
            "job.yml": yaml.safe_load(yaml_of(job)),
            "plan.json": {**plan, "processes": plan["processes"][:_PROCESSES]},
        }
    except DistError as error:
        notes.append(f"plan.json and job.yml are not in it: {error.problems[0].message}")
        return {}


def _secrets_of(job: Answer) -> Iterator[str]:
    """Values of variables and inputs whose names say that they are secret, and those that this machine has too."""
    properties = job.fields.get("properties")
    sent = properties if isinstance(properties, Mapping) else {}
    variables, inputs = sent.get("environmentVariables"), sent.get("inputs")
    texts = {name: one for name, one in _items(variables) if isinstance(one, str)}
    given = {name: one.get("value") for name, one in _items(inputs) if isinstance(one, Mapping)}
    yield from secret_values(texts)
    yield from secret_values({name: one for name, one in given.items() if isinstance(one, str)})
    yield from (one for name, one in texts.items() if os.environ.get(name) == one and len(one) >= _FROM_CALLER)


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _service(told: Record) -> dict[str, Any]:
    """What a person at Azure's support asks for."""
    here = told.workspace
    return {
        "run": told.job.text("id") or told.job.needed("name"),
        "workspace": here.arm_id,
        "region": here.history.host,
        "cloud": here.cloud,
        "ids": dict(_ids("details", told.details.fields)),
        "requests": [one._asdict() for one in (*here.arm.answered, *here.history.answered)],
    }


def _ids(where: str, value: Any, depth: int = 8) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and depth:
        for name, one in value.items():
            if isinstance(one, str) and one and _IDS.search(str(name)) and len(one) <= 200:
                yield f"{where}.{name}", one
            elif name not in ("logFiles", "outputs"):
                yield from _ids(f"{where}.{name}", one, depth - 1)


class _Logs:
    """The ends of all logs of all attempts; afterwards, a note says which ones cannot be read."""

    def __init__(self, told: Record, notes: list[str]) -> None:
        self._told, self._notes = told, notes

    def __iter__(self) -> Iterator[Log]:
        told, job = self._told, Submitted.of(self._told.job)
        addresses = Details.of(told.details).logs
        ranked = {path: named.source for path in addresses if (named := parse(path, job.world))}
        others = [path for path in addresses if path not in ranked][:_OTHERS]
        whose = {path: Whose(one.rank, one.node_rank) for path, one in sorted(ranked.items(), key=lambda p: p[1].rank)}
        ends = LogEnds(told.ranges, {**whose, **{path: Whose(None, None) for path in others}}, lambda: addresses)
        try:
            yield from ends
        except DistError as error:
            self._notes.append(f"logs are not in it: {error.problems[0].message}")
        for path, status in ends.unread.items():
            why = f"the storage answers {status}" if status else "the connection to the storage fails"
            self._notes.append(f"{path} is not in it: {why}")
