"""The job of a command: read from its file or its run, with what `--set` and `--input` change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import import_models
from azml_dist.cli.named import RunName
from azml_dist.errors import JobError

if TYPE_CHECKING:
    from azml_dist.as_job import AnyJob
    from azml_dist.job import Job
    from azml_dist.sweep import Sweep


def load(job: str, settings: tuple[str, ...] = (), inputs: tuple[str, ...] = ()) -> AnyJob:
    return with_given(job, as_written(job, settings), inputs)


def as_written(job: str, settings: tuple[str, ...] = ()) -> AnyJob:
    """The job with what `--set` changes."""
    import_models()
    from azml_dist.cli.argument import load_any

    loaded = job.job() if isinstance(job, RunName) else load_any(job)
    return loaded.with_set(*settings) if settings else loaded


def with_given(job: str, loaded: AnyJob, inputs: tuple[str, ...]) -> AnyJob:
    """The job with what `--input` changes; the job of a run with everything that it needs on this machine."""
    loaded = with_values(loaded, inputs)
    return job.prepared(loaded) if isinstance(job, RunName) else loaded  # type: ignore[arg-type]  # a run has a `Job`


def with_values(loaded: AnyJob, inputs: tuple[str, ...]) -> AnyJob:
    """The job with what `--input` changes."""
    from azml_dist.cli.argument import with_inputs

    given = {}
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--input {text!r} is not NAME=PATH")
        given[name] = path
    _refuse_empty(loaded, given)
    return with_inputs(loaded, given)


def _refuse_empty(job: Any, given: Mapping[str, str]) -> None:
    """Refuse `--input NAME=`: the service answers an empty text with "The Value field is required"."""
    single = getattr(job, "job", None) or getattr(job, "head", None) or job
    for name in (name for name, value in given.items() if not value and name in single.inputs):
        if single.is_data(name):
            raise JobError(f"`--input {name}=` gives no path", hint=f"write `--input {name}=PATH`")
        hint = f"write `--input {name}=VALUE`, or leave it out to use the value in the job"
        raise JobError(f"`--input {name}=` gives no value, and Azure ML rejects empty values", hint=hint)


@contextmanager
def lines_of(job: str, *changes: tuple[str, ...]) -> Iterator[None]:
    """Add the line of the job's file to errors, unless options have changed the job."""
    from azml_dist.cli.argument import lines_of

    with nullcontext() if any(changes) or isinstance(job, RunName) else lines_of(job):
        yield


def no_pipeline(job: AnyJob, path: str) -> Job | Sweep:
    from azml_dist.pipeline import Pipeline

    if isinstance(job, Pipeline):
        hint = f"use `az ml job create -f {path}`, or submit one step: `azml-dist submit {path}:STEP`"
        raise JobError("azml-dist submits jobs and sweeps, not pipelines", hint=hint)
    return job
