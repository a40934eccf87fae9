"""A job file of any kind: a command job, a sweep, a pipeline, or a step of one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from azml_dist import jobfile
from azml_dist.errors import JobError, Problem
from azml_dist.job import Job
from azml_dist.yamlfile import Document, read_yaml

if TYPE_CHECKING:
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

AnyJob: TypeAlias = "Job | Sweep | Pipeline"


def load_any(ref: str | os.PathLike[str]) -> AnyJob:
    """The job in a YAML file, whatever its type says it is; the step in `pipeline.yml:STEP`; or `file.py:NAME`."""
    text = os.fspath(ref)
    if ".py:" in text or text.endswith(".py"):
        return jobfile.load_job(ref)
    path, step = _step(text)
    document = read_yaml(path)
    kind = _kind(document)
    if kind == "pipeline":
        from azml_dist.pipelinefile import pipeline_of

        pipeline = pipeline_of(document)
        return pipeline.step(step) if step else pipeline
    if step:
        raise JobError(f"{path} is no pipeline, and has no step {step!r}")
    if kind == "sweep":
        from azml_dist.sweepfile import sweep_of

        return sweep_of(document)
    return jobfile.job_of(document)


def with_inputs(job: AnyJob, given: Mapping[str, str | os.PathLike[str]]) -> AnyJob:
    """The same with other inputs: the path of data, the text of a literal."""
    from azml_dist import inputs

    if isinstance(job, Job):
        return inputs.with_inputs(job, given)
    return job.with_inputs(given)


@contextmanager
def lines_of(ref: str | os.PathLike[str]) -> Iterator[None]:
    """Say of what turns out to be wrong with a loaded job on which line of its YAML it stands."""
    try:
        yield
    except JobError as error:
        if ".py:" in os.fspath(ref) or not any(problem.where for problem in error.problems):
            raise
        path, step = _step(os.fspath(ref))
        document = read_yaml(path)
        if _kind(document) == "pipeline":
            at = ("jobs", step) if step else ()
            raise JobError.of(_located(document, at, problem) for problem in error.problems) from error.__cause__
        if _kind(document) == "sweep":
            from azml_dist.sweepfile import sweep_in_lines

            raise sweep_in_lines(document, error.problems) from error.__cause__
        raise jobfile.in_lines(document, error.problems) from error.__cause__


def _located(document: Document, at: tuple[str, ...], problem: Problem) -> Problem:
    if problem.where is None or problem.where.startswith(document.file):
        return problem
    return problem._replace(where=document.where((*at, *problem.where.split("."))))


def _step(ref: str) -> tuple[str, str]:
    """The file, and the step of it that is meant; a file's own name may have a colon in it."""
    path, colon, step = ref.rpartition(":")
    return (path, step) if colon and path.endswith((".yml", ".yaml")) and not os.path.exists(ref) else (ref, "")


def _kind(document: Document) -> str:
    kind = document.data.get("type")
    return kind.lower() if isinstance(kind, str) else ""
