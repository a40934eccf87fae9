"""The job of a run in the workspace: what was submitted, by whatever client, as one of our jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.described import BEST_TRIAL
from azml_dist.errors import JobError
from azml_dist.job import Job
from azml_dist.plan.requested import job_requested

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

_KINDS = {
    "automl": "an AutoML job",
    "spark": "a Spark job",
    "pipeline": "a pipeline",
    "sweep": "a sweep",
    "labeling": "a labeling project",
    "finetuning": "a fine-tuning job",
    "import": "an import job",
    "base": "a job of an older kind, such as SDK v1 submits",
}
_GROUPS = ("sweep", "pipeline")


def job_of(workspace: Workspace, answer: Answer) -> Job:
    """The job that the service describes, without a name; what a trial or a step belongs to is left out.

    Raises `JobError` for any other kind of job, and for a job that cannot be expressed.
    """
    properties, name = answer.object("properties"), answer.needed("name")
    kind = (properties.text("jobType") or "").lower()
    if kind != "command":
        what = _KINDS.get(kind, f"a job of the kind {properties.text('jobType')}")
        raise JobError(f"run {name} is {what}, not a single command job", hint=_instead(name, properties, kind))
    job = job_requested(Job, name, properties.fields)
    if job.parent_job_name and _kind_of(workspace, job.parent_job_name) in _GROUPS:
        job = job.with_(parent_job_name=None)
    return job


def _kind_of(workspace: Workspace, name: str) -> str:
    found = workspace.arm.read(f"jobs/{quote(name, safe='')}").object("properties")
    return (found.text("jobType") or "").lower()


def _instead(name: str, properties: Answer, kind: str) -> str:
    shows = f"`azml-dist status {name}` shows them"
    if kind == "sweep":
        best = properties.object("properties").text(BEST_TRIAL)
        return f"use one of its trials, such as the best one: {best}" if best else f"use one of its trials: {shows}"
    if kind == "pipeline":
        return f"use one of its steps, by the name of its run: {shows}"
    return "azml_dist runs command jobs, trials of sweeps, and steps of pipelines that are commands"
