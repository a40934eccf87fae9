"""A job file of any kind: a command job, a sweep, a pipeline, or a step of one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azml_dist.errors import JobError, Problem, SubmitError
from azml_dist.files import jobfile
from azml_dist.files.pyfile import load_python_object, python_name
from azml_dist.job import Job
from azml_dist.model.job import JobFields
from azml_dist.notation.document import Document, read_yaml

if TYPE_CHECKING:
    from azml_dist.as_job import AnyJob


def load_any(ref: str | os.PathLike[str]) -> AnyJob:
    """The job in a YAML file of any `type`, one step of `pipeline.yml:STEP`, or the job in `file.py:NAME`."""
    text = os.fspath(ref)
    if named := python_name(text):
        from azml_dist.as_job import as_job, is_job

        found = as_job(load_python_object(*named, is_job=is_job))
        _job_of(found).read_from(text)
        return found
    path, step = _step(text)
    document = read_yaml(path)
    jobfile.refuse_other_kinds(document)
    kind = _kind(document)
    if kind == "pipeline":
        from azml_dist.files.pipelinefile import pipeline_of
        from azml_dist.pipeline import Pipeline

        pipeline = pipeline_of(Pipeline, Job, document)
        return pipeline.step(step) if step else pipeline
    if step:
        raise JobError(f"{path} is not a pipeline, so it has no step {step!r}")
    if kind == "sweep":
        from azml_dist.files.sweepfile import sweep_of
        from azml_dist.sweep import Sweep

        return sweep_of(Sweep, Job, document)
    return jobfile.job_of(Job, document)


def _job_of(found: AnyJob) -> JobFields:
    """The job itself, the one of the trials of a sweep, or what a pipeline says about itself."""
    named: JobFields = getattr(found, "head", None) or getattr(found, "job", None) or found  # type: ignore[assignment]
    return named


def with_inputs(job: AnyJob, given: Mapping[str, str | os.PathLike[str]]) -> AnyJob:
    """The same job with other inputs: paths for data, texts for literals."""
    from azml_dist.model import given as inputs

    if isinstance(job, Job):
        return inputs.with_inputs(job, given)
    return job.with_inputs(given)


@contextmanager
def lines_of(ref: str | os.PathLike[str]) -> Iterator[None]:
    """Add the YAML line to errors that are found after a job has been loaded."""
    try:
        yield
    except (JobError, SubmitError) as error:
        if ".py:" in os.fspath(ref) or not any(problem.where for problem in error.problems):
            raise
        located = _in_lines(os.fspath(ref), error.problems)
        if isinstance(error, SubmitError):  # of a check against the workspace
            error.problems = located.problems
            raise
        raise located from error.__cause__


def _in_lines(ref: str, problems: Sequence[Problem]) -> JobError:
    """The problems of a job, each with its line."""
    path, step = _step(ref)
    document = read_yaml(path)
    if _kind(document) == "pipeline":
        at = ("jobs", step) if step else ()
        return JobError.of(_located(document, at, problem) for problem in problems)
    if _kind(document) == "sweep":
        from azml_dist.files.sweepfile import sweep_in_lines

        return sweep_in_lines(document, problems)
    return jobfile.in_lines(document, problems)


def _located(document: Document, at: tuple[str, ...], problem: Problem) -> Problem:
    if problem.where is None or problem.where.startswith(document.file):
        return problem
    return problem._replace(where=document.where((*at, *problem.where.split("."))))


def _step(ref: str) -> tuple[str, str]:
    """The file and the step, if any; the file's own name may contain a colon."""
    path, colon, step = ref.rpartition(":")
    return (path, step) if colon and path.endswith((".yml", ".yaml")) and not os.path.exists(ref) else (ref, "")


def _kind(document: Document) -> str:
    kind = document.data.get("type")
    return kind.lower() if isinstance(kind, str) else ""
