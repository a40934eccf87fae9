"""A job file of any kind: a command job, or a sweep of one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from azml_dist import jobfile
from azml_dist.errors import JobError
from azml_dist.job import Job
from azml_dist.yamlfile import Document, read_yaml

if TYPE_CHECKING:
    from azml_dist.sweep import Sweep

AnyJob: TypeAlias = "Job | Sweep"


def load_any(ref: str | os.PathLike[str]) -> AnyJob:
    """The job in a YAML file, whatever its type says it is, or the one called NAME in `path/to/file.py:NAME`."""
    text = os.fspath(ref)
    if ".py:" in text or text.endswith(".py"):
        return jobfile.load_job(ref)
    document = read_yaml(text)
    if _kind(document) == "sweep":
        from azml_dist.sweepfile import sweep_of

        return sweep_of(document)
    return jobfile.job_of(document)


def with_inputs(job: AnyJob, given: Mapping[str, str | os.PathLike[str]]) -> AnyJob:
    """The same with other inputs: the path of data, the text of a literal."""
    from azml_dist import inputs

    if isinstance(job, Job):
        return inputs.with_inputs(job, given)
    return job.with_(job=inputs.with_inputs(job.job, given)) if given else job


@contextmanager
def lines_of(ref: str | os.PathLike[str]) -> Iterator[None]:
    """Say of what turns out to be wrong with a loaded job on which line of its YAML it stands."""
    try:
        yield
    except JobError as error:
        if ".py:" in os.fspath(ref) or not any(problem.where for problem in error.problems):
            raise
        document = read_yaml(os.fspath(ref))
        if _kind(document) == "sweep":
            from azml_dist.sweepfile import sweep_in_lines

            raise sweep_in_lines(document, error.problems) from error.__cause__
        raise jobfile.in_lines(document, error.problems) from error.__cause__


def _kind(document: Document) -> str:
    kind = document.data.get("type")
    return kind.lower() if isinstance(kind, str) else ""
