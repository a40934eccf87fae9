"""Reads a `Sweep` from the YAML of `az ml job create -f`. The schema is azure-ai-ml's `SweepJobSchema`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, TypeVar

from pydantic import Field

from azml_dist.errors import JobError, Problem
from azml_dist.files.jobfile import in_lines, job_of
from azml_dist.model.base import Model
from azml_dist.model.job import JobFields
from azml_dist.model.search_space import AnySpace
from azml_dist.model.sweep import AnySampling, Limits, Objective, RandomSampling, SweepFields
from azml_dist.model.termination import AnyPolicy
from azml_dist.notation.azml import READ_ONLY, SAME_NAME
from azml_dist.notation.document import Document, Part, read_yaml
from azml_dist.notation.expressions import choices_as_inputs, choices_in, expression, inputs_in
from azml_dist.words import nearest_or_all, shorten, shown

J = TypeVar("J", bound=JobFields)
S = TypeVar("S", bound=SweepFields)

TRIAL = ("command", "code", "environment", "environment_variables", "distribution", "resources")
"""The fields of `trial` (azure-ai-ml's `ParameterizedCommandSchema`)."""
OWN = ("search_space", "objective", "sampling_algorithm", "limits", "early_termination")
SHARED = [*(name for name in SAME_NAME if name not in TRIAL and name != "services"), "queue_settings", "resources"]
"""Fields of a command job that belong to the sweep and apply to all of its trials."""


def load_sweep(kind: type[S], job_kind: type[J], path: str | os.PathLike[str]) -> S:
    """The sweep in a YAML file."""
    return sweep_of(kind, job_kind, read_yaml(os.fspath(path), "sweep"))


def sweep_of(kind: type[S], job_kind: type[J], document: Document) -> S:
    """The sweep with these fields."""
    if problems := list(_problems(document)):
        raise JobError.of(problems)
    own = _own(document)
    job = job_of(job_kind, _job_document(document, own))
    try:
        return kind(job=job, **{name: getattr(own, name) for name in own.model_fields_set})
    except JobError as error:
        raise JobError.of(p._replace(where=_where(document, p.where)) for p in error.problems) from None


def sweep_in_lines(document: Document, problems: Sequence[Problem]) -> JobError:
    """One error with everything wrong in the job of a sweep, by the lines of the file."""
    return in_lines(_job_document(document, _own(document)), problems)


class _Own(Model):
    """The fields that a sweep adds to a job."""

    search_space: dict[str, AnySpace]
    objective: Objective
    sampling_algorithm: AnySampling = Field(default_factory=RandomSampling)
    limits: Limits
    early_termination: AnyPolicy | None = None


def _own(document: Document) -> _Own:
    try:
        return _Own(**{name: document.data[name] for name in OWN if document.data.get(name) is not None})
    except JobError as error:
        raise JobError.of(p._replace(where=_where(document, p.where)) for p in error.problems) from None


def _problems(document: Document) -> Iterator[Problem]:
    data = document.data
    for key in data:
        if key not in ("$schema", "type", "trial", *OWN, *SHARED, *READ_ONLY):
            hint = f"it belongs under `trial`: `trial.{key}`" if key in TRIAL else None
            hint = hint or nearest_or_all(key, ["trial", *OWN, *SHARED])
            yield Problem(f"unknown field `{key}`", hint, document.where((key,)))
    trial = data.get("trial")
    if not isinstance(trial, dict):
        hint = None
        if isinstance(trial, str) and trial:
            hint = f"azure-ai-ml reads no file or component here: write the fields of {shorten(trial)} here"
        told = "`trial` must be a mapping with `command`, which each trial runs"
        yield Problem(told, hint, document.where(("trial",)))
        return
    for key in trial:
        if key not in (*TRIAL, "$schema"):
            hint = f"it belongs to the sweep, not to `trial`: `{key}`" if key in SHARED else None
            hint = "leave it out: a trial is always a command" if key == "type" else hint
            hint = hint or nearest_or_all(key, TRIAL)
            yield Problem(f"unknown field `{key}`", hint, document.where(("trial", key)))
    yield from _truth_values(document)
    limits = data.get("limits")
    if not isinstance(limits, dict) or limits.get("max_total_trials") is None:
        hint = "azure-ai-ml requires it: `limits: {max_total_trials: 20}`"
        yield Problem("`limits.max_total_trials` is missing", hint, document.where(("limits",)))
    yield from _expressions(document)


def _truth_values(document: Document) -> Iterator[Problem]:
    """Reports a choice of `true` and `false`, which azure-ai-ml accepts only in Python."""
    spaces = document.data.get("search_space")
    for name, space in spaces.items() if isinstance(spaces, dict) else ():
        values = space.get("values") if isinstance(space, dict) else None
        for i, value in enumerate(values if isinstance(values, list) else ()):
            inner = value.values() if isinstance(value, dict) else [value]
            if any(isinstance(one, bool) for one in inner):
                at = document.where(("search_space", name, "values", str(i)))
                hint = 'write strings, `["true", "false"]`, or numbers, `[1, 0]`'
                yield Problem("azure-ai-ml does not accept true or false in a choice", hint, at)


def _expressions(document: Document) -> Iterator[Problem]:
    command = document.data["trial"].get("command")
    space, inputs = document.data.get("search_space"), document.data.get("inputs") or {}
    if not isinstance(command, str) or not isinstance(space, dict) or not isinstance(inputs, dict):
        return
    at = document.where(("trial", "command"))
    for name in choices_in(command):
        if name not in space:
            hint = nearest_or_all(name, space)
            yield Problem(f"`{expression(f'search_space.{name}')}`: the search space has no {shown(name)}", hint, at)
    for name in inputs_in(command):
        if name in space and name not in inputs:
            hint = f"write `{expression(f'search_space.{name}')}`"
            yield Problem(f"`{name}` is in the search space, not an input", hint, at)
    for name in space:
        if name in inputs:
            hint = "rename one of them"
            yield Problem(
                f"`{name}` is both an input and in the search space", hint, document.where(("search_space", name))
            )


def _job_document(document: Document, own: _Own) -> Part:
    """What each trial runs, as a command-job document: a hyperparameter is an input with one of its values."""
    data, trial = document.data, document.data["trial"]
    values: dict[str, tuple[Any, Document, tuple[str, ...]]] = {
        name: (data[name], document, (name,)) for name in SHARED if name in data
    }
    for name in TRIAL:
        if name in trial:
            value = trial[name]
            if name == "command" and isinstance(value, str):
                value = choices_as_inputs(value)
            values[name] = (value, document, ("trial", name))
    random = Random(0)
    examples = {name: space.sample(random) for name, space in own.search_space.items()}
    examples = {name: str(value) if isinstance(value, dict) else value for name, value in examples.items()}
    inputs = data.get("inputs") or {}
    values["inputs"] = (inputs | examples if isinstance(inputs, dict) else inputs, document, ("inputs",))
    return Part.of(document.file, values)


def _where(document: Document, where: str | None) -> str:
    return document.where(tuple(where.split(".")) if where else ())
