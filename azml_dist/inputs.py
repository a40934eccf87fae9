"""What a job is given from outside before it runs: values for its inputs, and for the counts that wait for one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from azml_dist.errors import JobError, Problem
from azml_dist.job import Job
from azml_dist.model import nearest_or_all
from azml_dist.parameter import Parameter
from azml_dist.parts import Input
from azml_dist.values import OpenCount, is_remote

_NAME = re.compile(r"\$\{\{\s*(?:parent\.)?inputs\.(\w+)\s*\}\}")


def with_inputs(job: Job, given: Mapping[str, Any]) -> Job:
    """The job with other inputs: the path of data, the value or text of a literal, checked by what a component asks.

    Counts that are `${{parent.inputs.NAME}}` take the value of that name too.
    """
    counts = _open_counts(job)
    waiting = {name for _, expression in counts for name in _NAME.findall(expression.text)}
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


def open_problems(job: Job) -> Iterator[Problem]:
    """Why the world of a job cannot be known yet: its counts that are expressions."""
    for field, expression in _open_counts(job):
        names = _NAME.findall(expression.text)
        way = f"--input {names[0]}=N" if names else f"--set {field}=N"
        yield Problem(f"`{expression.text}` is a number that only a pipeline knows", f"give it: `{way}`", field)


def open_inputs_of(job: Any) -> list[str]:
    """The inputs of a component, or of a sweep's, that need a value before a run."""
    return list(getattr(getattr(job, "job", job), "open_inputs", ()))


def refuse_open_inputs(job: Job) -> None:
    """Raise where a component's input still needs a value."""
    if names := job.open_inputs:
        found = ((name, _way(job.inputs[name], name)) for name in names)
        raise JobError.of(Problem("it has no value yet", hint, f"inputs.{name}") for name, hint in found)


def _way(parameter: Any, name: str) -> str:
    what = "PATH" if parameter.is_data else "|".join(parameter.enum or ()) or "VALUE"
    return f"give it: `--input {name}={what}`, in Python `Local(inputs={{{name!r}: ...}})`"


def value_for(name: str, declared: Any, value: Any) -> Any:
    """What the input of that name becomes with such a value; a `JobError` where a component does not take it."""
    if isinstance(value, Input):
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
    path = _path(value)
    kind: Any = declared.type
    if kind == "path":
        kind = "uri_file" if os.path.isfile(path) else "uri_folder"
    return Input(type=kind, path=path, mode=declared.mode)


def _path(value: Any) -> str:
    text = str(os.fspath(value))
    return text if is_remote(text) else os.path.abspath(text)


def _open_counts(job: Job) -> list[tuple[str, OpenCount]]:
    counts = {"node_count": job.node_count}
    counts["distribution.process_count_per_node"] = job.process_count_per_node
    return [(field, count) for field, count in counts.items() if isinstance(count, OpenCount)]


def _with_counts(job: Job, given: Mapping[str, Any], counts: list[tuple[str, OpenCount]]) -> Job:
    for field, expression in counts:
        names = _NAME.findall(expression.text)
        if not names or names[0] not in given:
            continue
        first, _, rest = field.partition(".")
        value = {rest: given[names[0]]} if rest else given[names[0]]
        job = job.with_(**{first: job.distribution.with_(**value) if rest and job.distribution else value})
    return job
