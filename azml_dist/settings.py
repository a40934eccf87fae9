"""`--set FIELD=VALUE`: fields by YAML's names or ours, values as YAML reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from azml_dist.errors import JobError, Problem
from azml_dist.inputs import value_for
from azml_dist.job import Job
from azml_dist.model import Model, canonical, names_of, nearest_or_all, shown
from azml_dist.parameter import Parameter
from azml_dist.yamlfields import GROUPS
from azml_dist.yamlfile import parse_value

if TYPE_CHECKING:
    from azml_dist.sweep import Sweep

_OWN_NAMES = {
    "queue_settings": "queue",
    "process_count_per_instance": "process_count_per_node",
    "job_tier": "tier",
    "msi_resource_id": "resource_id",
}
_TEXTS = ("environment_variables", "tags", "properties")
_DECLARED = ("inputs", "outputs")
_ONE_TEXT = ("command", "description", "display_name")


def with_settings(job: Job, settings: Sequence[str]) -> Job:
    """The job with every `FIELD=VALUE` set; the result is checked once all are."""
    raw = _raw(job)
    for setting in settings:
        field, equals, text = setting.partition("=")
        field = field.strip()
        if not equals or not field:
            raise JobError(f"{setting!r} is not FIELD=VALUE", hint="as in `node_count=4`", where="--set")
        _set(raw, _own_path(field), text, field)
    try:
        return Job(**raw)
    except JobError as error:
        problems = (p._replace(where=f"--set {p.where or ''}".strip()) for p in error.problems)
        raise JobError.of(problems) from None


def _own_path(field: str) -> list[str]:
    """`resources.instance_count` is `node_count` here; a name under `inputs` or `tags` is the user's own."""
    first, *rest = field.split(".")
    if first in GROUPS and rest:
        if rest[0] not in GROUPS[first]:
            raise _unknown(field, [f"{first}.{name}" for name in GROUPS[first]])
        return [GROUPS[first][rest[0]], *rest[1:]]
    first = _OWN_NAMES.get(first, canonical(Job, first))
    if first not in Job.model_fields:
        groups = [f"{group}.{name}" for group, fields in GROUPS.items() for name in fields]
        raise _unknown(field, [*names_of(Job), *groups, "distribution.process_count_per_node"])
    if first in _TEXTS:
        return [first, ".".join(rest)] if rest else [first]
    return [first, *(rest if first in _DECLARED else [_OWN_NAMES.get(part, part) for part in rest])]


def _set(raw: dict[str, Any], path: list[str], text: str, field: str) -> None:
    first, *rest = path
    if first in _DECLARED and rest:
        _check_declared(raw, first, rest, field)
    inside = raw
    for i, part in enumerate(path[:-1]):
        inner = inside.setdefault(part, {})
        if not isinstance(inner, dict):
            raise JobError(f"`{'.'.join(path[: i + 1])}` is {shown(inner)}, and has no fields", where=f"--set {field}")
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
    """A name that the job does not declare is a typing error here; data does not turn into a literal unasked."""
    declared = raw.get(kind, {})
    if rest[0] not in declared:
        hint = nearest_or_all(rest[0], declared) or f"the job has no {kind}"
        raise JobError(f"the job has no {kind[:-1]} `{rest[0]}`", hint=hint, where=f"--set {field}")
    if len(rest) == 1 and isinstance(declared[rest[0]], dict):
        hint = f"set its path: `{kind}.{rest[0]}.path=…`"
        if kind == "inputs":
            hint += f"; for a run on this machine, `--input {rest[0]}=PATH`"
        raise JobError(f"`{rest[0]}` is data, not a value", hint=hint, where=f"--set {field}")


def _value(path: list[str], text: str) -> Any:
    if path[0] in _ONE_TEXT:
        return text
    if path[0] == "inputs" and len(path) == 2:
        return parse_value(text)
    if text in ("null", "~"):
        return None
    # The model makes numbers and truth values of texts where a field wants them.
    return parse_value(text) if text.startswith(("[", "{")) and path[0] not in _TEXTS else text


def _unknown(field: str, known: list[str]) -> JobError:
    return JobError(f"unknown field `{field}`", hint=nearest_or_all(field, known), where="--set")


def _raw(value: Any) -> Any:
    """A model as the values it was made of, to be changed and made again."""
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Model):
        fields = {name: _raw(getattr(value, name)) for name in value.model_fields_set}
        return {"type": getattr(value, "type", None), **fields} if "type" in type(value).model_fields else fields
    if isinstance(value, Mapping):
        return {key: _raw(inner) for key, inner in value.items()}
    return value


def with_sweep_settings(sweep: Sweep, settings: Sequence[str]) -> Sweep:
    """The sweep with every `FIELD=VALUE` set: in the sweep's own fields, or else in its job."""
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
                raise JobError(f"`{part}` is {shown(inner)}, and has no fields", where=f"--set {field}")
            inside = inner
        inside[last] = parse_value(text)
    try:
        return type(sweep)(job=sweep.job.with_set(*of_job), **raw)
    except JobError as error:
        raise JobError.of(map(_at_setting, error.problems)) from None


def _at_setting(problem: Problem) -> Problem:
    where = problem.where or ""
    return problem if where.startswith("--set") else problem._replace(where=f"--set {where}".strip())
