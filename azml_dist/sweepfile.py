"""A `Sweep` from the sweep-job YAML of `az ml job create -f`. The schema is azure-ai-ml's `SweepJobSchema`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from pydantic import Field

from azml_dist.errors import JobError, Problem
from azml_dist.jobfile import in_lines, job_of
from azml_dist.model import Model, nearest_or_all, shown
from azml_dist.search_space import AnySpace
from azml_dist.sweep import AnySampling, Limits, Objective, RandomSampling, Sweep
from azml_dist.termination import AnyPolicy
from azml_dist.yamlfields import READ_ONLY, SAME_NAME
from azml_dist.yamlfile import Document, Part, read_yaml

TRIAL = ("command", "code", "environment", "environment_variables", "distribution", "resources")
"""What `trial` holds (azure-ai-ml's `ParameterizedCommandSchema`)."""
OWN = ("search_space", "objective", "sampling_algorithm", "limits", "early_termination")
SHARED = [*(name for name in SAME_NAME if name not in TRIAL and name != "services"), "queue_settings", "resources"]
"""Fields of a command job that a sweep has for all of its trials."""

_SEARCH_SPACE = re.compile(r"\$\{\{\s*search_space\.([^}]*?)\s*\}\}")
_INPUT = re.compile(r"\$\{\{\s*inputs\.(\w+)\s*\}\}")


def load_sweep(path: str | os.PathLike[str]) -> Sweep:
    """The sweep in a YAML file."""
    return sweep_of(read_yaml(os.fspath(path), "sweep"))


def sweep_of(document: Document) -> Sweep:
    """The sweep whose fields these are."""
    if problems := list(_problems(document)):
        raise JobError.of(problems)
    own = _own(document)
    job = job_of(_job_document(document, own))
    try:
        return Sweep(job=job, **{name: getattr(own, name) for name in own.model_fields_set})
    except JobError as error:
        raise JobError.of(p._replace(where=_where(document, p.where)) for p in error.problems) from None


def sweep_in_lines(document: Document, problems: Sequence[Problem]) -> JobError:
    """One error for what is wrong with the job of a sweep, by the lines of the file."""
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
        yield Problem("`trial` says what each trial runs: a mapping with `command`", None, document.where(("trial",)))
        return
    for key in trial:
        if key not in (*TRIAL, "type", "$schema"):
            hint = f"it belongs to the sweep, not to `trial`: `{key}`" if key in SHARED else None
            hint = hint or nearest_or_all(key, TRIAL)
            yield Problem(f"unknown field `{key}`", hint, document.where(("trial", key)))
    limits = data.get("limits")
    if not isinstance(limits, dict) or limits.get("max_total_trials") is None:
        hint = "azure-ai-ml wants to know it: `limits: {max_total_trials: 20}`"
        yield Problem("`limits.max_total_trials` is missing", hint, document.where(("limits",)))
    yield from _expressions(document)


def _expressions(document: Document) -> Iterator[Problem]:
    command = document.data["trial"].get("command")
    space, inputs = document.data.get("search_space"), document.data.get("inputs") or {}
    if not isinstance(command, str) or not isinstance(space, dict) or not isinstance(inputs, dict):
        return
    at = document.where(("trial", "command"))
    for name in dict.fromkeys(_SEARCH_SPACE.findall(command)):
        if name not in space:
            hint = nearest_or_all(name, space)
            yield Problem(f"`${{{{search_space.{name}}}}}`: the search space has no {shown(name)}", hint, at)
    for name in dict.fromkeys(_INPUT.findall(command)):
        if name in space and name not in inputs:
            hint = f"write `${{{{search_space.{name}}}}}`"
            yield Problem(f"`{name}` is in the search space, and not an input", hint, at)
    for name in space:
        if name in inputs:
            hint = "give one of them another name"
            yield Problem(f"`{name}` is an input and in the search space", hint, document.where(("search_space", name)))


def _job_document(document: Document, own: _Own) -> Part:
    """What each trial runs, as the document of a command job: a hyperparameter is an input with one of its values."""
    data, trial = document.data, document.data["trial"]
    values: dict[str, tuple[Any, Document, tuple[str, ...]]] = {
        name: (data[name], document, (name,)) for name in SHARED if name in data
    }
    for name in TRIAL:
        if name in trial:
            value = trial[name]
            if name == "command" and isinstance(value, str):
                value = _SEARCH_SPACE.sub(r"${{inputs.\1}}", value)
            values[name] = (value, document, ("trial", name))
    random = Random(0)
    examples = {name: space.sample(random) for name, space in own.search_space.items()}
    examples = {name: str(value) if isinstance(value, dict) else value for name, value in examples.items()}
    inputs = data.get("inputs") or {}
    values["inputs"] = (inputs | examples if isinstance(inputs, dict) else inputs, document, ("inputs",))
    return Part.of(document.file, values)


def _where(document: Document, where: str | None) -> str:
    return document.where(tuple(where.split(".")) if where else ())
