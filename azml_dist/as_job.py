"""What is accepted wherever a job is expected: our own jobs, and objects of azure-ai-ml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from typing_extensions import TypeIs

from azml_dist.errors import JobError
from azml_dist.model.job import JobFields
from azml_dist.runs.rerun import Rerun
from azml_dist.runs.run import Run

if TYPE_CHECKING:
    from azml_dist.job import Job
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

AnyJob: TypeAlias = "Job | Sweep | Pipeline"

_COMMANDS, _SWEEPS, _PIPELINES = ("Command", "CommandJob"), ("Sweep", "SweepJob"), ("PipelineJob",)
_OTHERS = {
    "CommandComponent": ("is a component, not yet a job", "call it: `component(NAME=VALUE, ...)` returns a job"),
    "PipelineComponent": ("is a component, not yet a job", "call the `@dsl.pipeline` function: it returns a job"),
    "Pipeline": ("is a step of another pipeline", "call the `@dsl.pipeline` function outside any pipeline"),
}
_WAY = (
    "submit it with azure-ai-ml: `ml_client.jobs.create_or_update(job)`; azml-dist accepts commands, sweeps, pipelines"
)


def as_job(what: Any) -> AnyJob:
    """The job, sweep or pipeline itself, or the one that an object of azure-ai-ml stands for.

    Raises `JobError` for anything else, with its name and what to do.
    """
    if isinstance(what, JobFields):  # the most frequent case, which needs no further imports
        return cast("Job", what)
    job, sweep, pipeline = _kinds()
    if isinstance(what, (sweep, pipeline)):
        return what
    if isinstance(what, Run):
        return job.from_run(what)
    if isinstance(what, Rerun):
        return cast("Job", what.job)
    kind = _azure_kind(what)
    if kind in _COMMANDS:
        return job.from_command(what)
    if kind in _SWEEPS:
        return sweep.from_azure(what)
    if kind in _PIPELINES:
        return pipeline.from_azure(what)
    if kind:
        words, hint = _OTHERS.get(kind, ("is a kind of job that azml-dist can neither run nor submit", _WAY))
        raise JobError(f"a {kind} of azure-ai-ml {words}", hint=hint)
    if callable(what):
        hint = "call it: what it returns may be a job"
        raise JobError(f"`{getattr(what, '__name__', type(what).__name__)}` is a function, not a job", hint=hint)
    hint = "use a `Job`, `Sweep` or `Pipeline`, or what azure-ai-ml's `command(...)` returns"
    raise JobError(f"an object of type {type(what).__name__} is not a job", hint=hint)


def is_job(what: Any) -> bool:
    """Whether `as_job` accepts an object; looks only at its type."""
    _, sweep, pipeline = _kinds()
    kinds = (*_COMMANDS, *_SWEEPS, *_PIPELINES)
    return isinstance(what, (JobFields, sweep, pipeline)) or _azure_kind(what) in kinds


def is_pipeline(what: Any) -> TypeIs[Pipeline]:
    """Whether an object is one of our pipelines."""
    *_, pipeline = _kinds()
    return isinstance(what, pipeline)


def _kinds() -> tuple[type[Job], type[Sweep], type[Pipeline]]:
    from azml_dist.job import Job
    from azml_dist.pipeline import Pipeline
    from azml_dist.sweep import Sweep

    return Job, Sweep, Pipeline


def _azure_kind(what: Any) -> str | None:
    """The name of an object's azure-ai-ml class, found without importing azure-ai-ml; None for other objects."""
    classes = type(what).__mro__
    return next((one.__name__ for one in classes if one.__module__.startswith("azure.ai.ml.")), None)
