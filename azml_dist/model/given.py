"""Sets values from outside before a job runs: its inputs, and the counts that are still expressions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Input
from azml_dist.notation.expressions import OpenCount, inputs_of_any_in, is_remote
from azml_dist.words import nearest_or_all, shown

J = TypeVar("J", bound=JobFields)


def with_inputs(job: J, given: Mapping[str, Any]) -> J:
    """The job with other inputs: a path for data, a value for a literal, checked against the component's declaration.

    Counts such as `${{parent.inputs.NAME}}` are set to the value with that name, too.
    """
    counts = _open_counts(job)
    waiting = {name for _, expression in counts for name in inputs_of_any_in(expression.text)}
    if unknown := [name for name in given if name not in job.inputs and name not in waiting]:
        known = [*job.inputs, *waiting]
        raise JobError.of(
            Problem(f"the job has no input `{name}`", nearest_or_all(name, known) or f"its inputs: {', '.join(known)}")
            if known
            else Problem(f"the job has no input `{name}`", "it has no inputs")
            for name in unknown
        )
    if not given:
        return job
    changed = {name: value_for(name, job.inputs[name], value) for name, value in given.items() if name in job.inputs}
    return _with_counts(job, given, counts).with_(inputs={**job.inputs, **changed})


def open_problems(job: JobFields) -> Iterator[Problem]:
    """Why the number of processes is not known yet: counts that are expressions."""
    for field, expression in _open_counts(job):
        names = inputs_of_any_in(expression.text)
        way = f"--input {names[0]}=N" if names else f"--set {field}=N"
        yield Problem(f"`{expression.text}` is a number that only a pipeline knows", f"set it: `{way}`", field)


def open_inputs_of(job: Any) -> list[str]:
    """The inputs of a component, or of a sweep's component, that need a value before a run."""
    return list(getattr(getattr(job, "job", job), "open_inputs", ()))


def refuse_open_inputs(job: JobFields) -> None:
    """Raises `JobError` if an input of a component still needs a value."""
    if names := job.open_inputs:
        found = ((name, _way(job.inputs[name], name)) for name in names)
        raise JobError.of(Problem("it has no value yet", hint, f"inputs.{name}") for name, hint in found)


def _way(parameter: Any, name: str) -> str:
    what = "PATH" if parameter.is_data else "|".join(parameter.enum or ()) or "VALUE"
    return f"set it: `--input {name}={what}`, in Python `Local(inputs={{{name!r}: ...}})`"


def value_for(name: str, declared: Any, value: Any) -> Any:
    """The input with this value; raises `JobError` if a component does not accept it."""
    if isinstance(value, Input | Parameter):
        return value
    if isinstance(declared, Input):
        return declared.with_(path=_path(value))
    if not isinstance(declared, Parameter):
        return os.fspath(value) if isinstance(value, os.PathLike) else value
    if not declared.is_data:
        try:
            return declared.checked(value)
        except JobError as error:
            raise JobError(error.problems[0].message, hint=error.hint, where=f"inputs.{name}") from None
    if not isinstance(value, str | os.PathLike):
        raise JobError(
            f"{shown(value)} is not a path", hint="write the path of a file or a folder", where=f"inputs.{name}"
        )
    path = _path(value)
    kind: Any = declared.type
    if kind == "path":
        kind = "uri_file" if os.path.isfile(path) else "uri_folder"
    return Input(type=kind, path=path, mode=declared.mode)


def _path(value: Any) -> str:
    text = str(os.fspath(value))
    return text if is_remote(text) else os.path.abspath(text)


def _open_counts(job: JobFields) -> list[tuple[str, OpenCount]]:
    counts = {"node_count": job.node_count}
    counts["distribution.process_count_per_node"] = job.process_count_per_node
    return [(field, count) for field, count in counts.items() if isinstance(count, OpenCount)]


def _with_counts(job: J, given: Mapping[str, Any], counts: list[tuple[str, OpenCount]]) -> J:
    for field, expression in counts:
        names = inputs_of_any_in(expression.text)
        if not names or names[0] not in given:
            continue
        first, _, rest = field.partition(".")
        value = {rest: given[names[0]]} if rest else given[names[0]]
        job = job.with_(**{first: job.distribution.with_(**value) if rest and job.distribution else value})
    return job


def own_variables(job: JobFields, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The values of the variables that the job takes from the caller's environment. Never print them.

    `known` has values for a caller that has none.
    """
    found = {**(known or {}), **os.environ}
    names = [name for name, value in job.environment_variables.items() if value is None]
    if missing := [name for name in names if name not in found]:
        raise JobError.of(
            Problem(
                f"the job takes {name} from your environment, but it is not set there",
                f"`export {name}=...` first, or set a value in the job",
                f"environment_variables.{name}",
            )
            for name in missing
        )
    return {name: found[name] for name in names}
