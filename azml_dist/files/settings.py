"""`--set FIELD=VALUE`: fields under YAML's names or ours, values as in YAML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.model.base import Model, canonical, names_of
from azml_dist.model.given import value_for
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Environment
from azml_dist.notation.azml import GROUPS, absolute, as_a_file
from azml_dist.notation.document import parse_value
from azml_dist.words import like, nearest_or_all, shown

if TYPE_CHECKING:
    from azml_dist.model.sweep import SweepFields  # a job alone is read without it

J = TypeVar("J", bound=JobFields)
S = TypeVar("S", bound="SweepFields")

_OWN_NAMES = {
    "queue_settings": "queue",
    "process_count_per_instance": "process_count_per_node",
    "job_tier": "tier",
    "msi_resource_id": "resource_id",
}
_SAME = {"nodes": "node_count", "num_nodes": "node_count", "nnodes": "node_count", "instances": "node_count"}
"""Names that others have for a field, and that can only mean this one."""
_PER_NODE = "set `distribution.process_count_per_node`: how many processes start on each node"
_HABITS = {
    **dict.fromkeys(
        ("processes", "process_count", "nproc", "nproc_per_node", "num_processes", "ranks", "workers", "world_size"),
        _PER_NODE,
    ),
    **dict.fromkeys(
        ("gpus", "gpu", "num_gpus", "gpus_per_node"),
        f"the VM size of `compute` or `instance_type` decides that; {_PER_NODE}, usually one for each GPU",
    ),
    **dict.fromkeys(("image", "docker", "docker_image", "container"), "set `environment`: its name, or `file:PATH`"),
    **dict.fromkeys(("cluster", "target", "compute_target"), "set `compute`: the name of a cluster"),
    **dict.fromkeys(("vm_size", "size", "sku"), "set `instance_type`, for serverless compute"),
    **dict.fromkeys(("env", "envs", "env_vars"), "set `environment_variables.NAME`"),
    **dict.fromkeys(("script", "args", "arguments", "entry_script"), "set `command`"),
    **dict.fromkeys(("experiment", "project"), "set `experiment_name`"),
}
"""Names that others have for what is another field here, or several."""
_TEXTS = ("environment_variables", "tags", "properties")
_DECLARED = ("inputs", "outputs")
_ONE_TEXT = ("command", "description", "display_name")


def with_settings(job: J, settings: Sequence[str]) -> J:
    """The job with every `FIELD=VALUE` set; the result is checked once, at the end."""
    raw = _raw(job)
    declared = {kind: raw.get(kind) or () for kind in ("inputs", "outputs", "environment_variables")}
    for setting in settings:
        field, equals, text = setting.partition("=")
        field = field.strip()
        if not equals or not field:
            raise JobError(f"{setting!r} is not FIELD=VALUE", hint="for example `node_count=4`", where="--set")
        _set(raw, _own_path(field, declared), text, field)
    try:
        return type(job)(**raw).read_from(job.file)
    except JobError as error:
        problems = (p._replace(where=f"--set {p.where or ''}".strip()) for p in error.problems)
        raise JobError.of(problems) from None


def _own_path(field: str, declared: Mapping[str, Collection[str]]) -> list[str]:
    """Translates `resources.instance_count` to `node_count`; names under `inputs` or `tags` are the user's own."""
    first, *rest = field.split(".")
    known = first in JobFields.model_fields or first in _OWN_NAMES or canonical(JobFields, first) != first
    if not known and first not in GROUPS:
        _refuse_unknown(field, first, declared)
    first = _SAME.get(first, first) if not rest else first
    if first in GROUPS and rest:
        if rest[0] not in GROUPS[first]:
            raise _unknown(field, [f"{first}.{name}" for name in GROUPS[first]])
        return [GROUPS[first][rest[0]], *rest[1:]]
    first = _OWN_NAMES.get(first, canonical(JobFields, first))
    if first not in JobFields.model_fields:
        groups = [f"{group}.{name}" for group, fields in GROUPS.items() for name in fields]
        raise _unknown(field, [*names_of(JobFields), *groups, "distribution.process_count_per_node"])
    if first in _TEXTS:
        return [first, ".".join(rest)] if rest else [first]
    return [first, *(rest if first in _DECLARED else [_OWN_NAMES.get(part, part) for part in rest])]


def _refuse_unknown(field: str, first: str, declared: Mapping[str, Collection[str]]) -> None:
    """Answer a name that is no field of a job with the field that it probably means."""
    own = {name: f"{kind}.{name}" for kind, names in declared.items() for name in names}
    if first in own:
        raise JobError(f"unknown field `{field}`", hint=f"did you mean `{own[first]}`?", where="--set")
    if first in _SAME:
        return
    if first in _HABITS:
        raise JobError(f"`{field}` is not a field of a job", hint=_HABITS[first], where="--set")
    if (near := like(first, own, cutoff=0.75)) and not like(first, names_of(JobFields), cutoff=0.75):
        raise JobError(f"unknown field `{field}`", hint=f"did you mean `{own[near[0]]}`?", where="--set")


def _set(raw: dict[str, Any], path: list[str], text: str, field: str) -> None:
    first, *rest = path
    if first in _DECLARED and rest:
        _check_declared(raw, first, rest, field)
    inside = raw
    for i, part in enumerate(path[:-1]):
        inner = inside.setdefault(part, {})
        if not isinstance(inner, dict):
            raise JobError(
                f"`{'.'.join(path[: i + 1])}` is {shown(inner)}, which has no fields", where=f"--set {field}"
            )
        inside = inner
    value = _value(path, text)
    if first == "inputs" and isinstance(declared := inside.get(path[-1]), Parameter):
        value = _for_parameter(path[-1], declared, value, field)
    if value is None and first != "environment_variables":
        inside.pop(path[-1], None)
    else:
        inside[path[-1]] = value


def _for_parameter(name: str, declared: Parameter, value: Any, field: str) -> Any:
    try:
        return value_for(name, declared, value)
    except JobError as error:
        raise JobError.of(p._replace(where=f"--set {field}") for p in error.problems) from None


def _check_declared(raw: dict[str, Any], kind: str, rest: list[str], field: str) -> None:
    """Refuses names that the job does not declare, which are typos, and literal values for data."""
    declared = raw.get(kind, {})
    if rest[0] not in declared:
        hint = nearest_or_all(rest[0], declared) or f"the job has no {kind}"
        raise JobError(f"the job has no {kind[:-1]} `{rest[0]}`", hint=hint, where=f"--set {field}")
    if len(rest) == 1 and isinstance(declared[rest[0]], dict):
        hint = f"set its path: `{kind}.{rest[0]}.path=…`"
        if kind == "inputs":
            hint += f"; for a local run, `--input {rest[0]}=PATH`"
        raise JobError(f"`{rest[0]}` is data, not a value", hint=hint, where=f"--set {field}")


def _value(path: list[str], text: str) -> Any:
    if path[0] in _ONE_TEXT:
        return text
    if path[0] == "inputs" and len(path) == 2:
        return parse_value(text)
    if path == ["environment"] and text.startswith("file:"):
        return _environment_file(text)
    if path == ["environment"] and (hint := as_a_file(text, Path.cwd())):
        raise JobError(f"{shown(text)} is not a reference to an environment", hint=hint, where="--set environment")
    if text in ("null", "~"):
        return None
    # The model converts text to numbers and truth values where a field needs them.
    return parse_value(text) if text.startswith(("[", "{")) and path[0] not in _TEXTS else text


def _environment_file(text: str) -> Any:
    try:
        return _raw(Environment.load(absolute(text, Path.cwd())))
    except JobError as error:
        problems = (p if p.where else p._replace(where="--set environment") for p in error.problems)
        raise JobError.of(problems) from None


def _unknown(field: str, known: list[str]) -> JobError:
    return JobError(f"unknown field `{field}`", hint=nearest_or_all(field, known), where="--set")


def _raw(value: Any) -> Any:
    """The values that a model was made from, to change them and make it again."""
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Model):
        fields = {name: _raw(getattr(value, name)) for name in value.model_fields_set}
        return {"type": getattr(value, "type", None), **fields} if "type" in type(value).model_fields else fields
    if isinstance(value, Mapping):
        return {key: _raw(inner) for key, inner in value.items()}
    return value


def with_sweep_settings(sweep: S, settings: Sequence[str]) -> S:
    """The sweep with every `FIELD=VALUE` set: in the fields of the sweep, or else in those of its job."""
    raw = {name: _raw(getattr(sweep, name)) for name in sweep.model_fields_set if name != "job"}
    of_job: list[str] = []
    for setting in settings:
        field, equals, text = setting.partition("=")
        first = field.strip().split(".")[0]
        if not equals or first not in type(sweep).model_fields or first == "job":
            of_job.append(setting.removeprefix("trial.").removeprefix("job."))
            continue
        *path, last = field.strip().split(".")
        inside = raw
        for part in path:
            inner = inside.setdefault(part, {})
            if not isinstance(inner, dict):
                raise JobError(f"`{part}` is {shown(inner)}, which has no fields", where=f"--set {field}")
            inside = inner
        inside[last] = parse_value(text)
    try:
        return type(sweep)(job=with_settings(sweep.job, of_job), **raw)
    except JobError as error:
        raise JobError.of(map(_at_setting, error.problems)) from None


def _at_setting(problem: Problem) -> Problem:
    where = problem.where or ""
    return problem if where.startswith("--set") else problem._replace(where=f"--set {where}".strip())
