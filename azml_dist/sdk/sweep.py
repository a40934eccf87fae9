"""Converts a `Sweep` to azure-ai-ml's own, which its client submits and its pipelines accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azml_dist.model.search_space import Space
from azml_dist.sdk.command import to_command
from azml_dist.sdk.load import import_sdk

if TYPE_CHECKING:
    from azure.ai.ml.entities import Sweep as AzureSweep

    from azml_dist.model.base import Model
    from azml_dist.model.sweep import SweepFields


def to_azure(sweep: SweepFields, *, environment: str | None = None, code: str | None = None) -> AzureSweep:
    """The sweep as azure-ai-ml's. `environment` and `code` are ids that replace those of the job.

    It keeps nodes, VM size, docker arguments and shared memory: `Command.sweep()` of azure-ai-ml 1.35 drops them, and
    each trial would run on one node with 2 GB.
    """
    import_sdk()
    # An input has the type of its values: azure-ai-ml would turn `lr: 1` into a whole number.
    job = sweep.job.with_(inputs={**sweep.job.inputs, **_examples(sweep)})
    command = to_command(job, environment=environment, code=code)
    for name, space in sweep.search_space.items():
        setattr(command.inputs, name, _space(space))
    limits = sweep.limits
    made = command.sweep(
        primary_metric=sweep.objective.primary_metric,
        goal=sweep.objective.goal,
        sampling_algorithm=_entity("{}SamplingAlgorithm", sweep.sampling_algorithm),
        max_total_trials=limits.max_total_trials,
        max_concurrent_trials=limits.max_concurrent_trials,
        timeout=limits.timeout,
        trial_timeout=limits.trial_timeout or job.timeout,
        early_termination_policy=sweep.early_termination and _entity("{}Policy", sweep.early_termination),
    )
    if command.resources:
        made.resources = made.trial.resources = command.resources
    return made


def _examples(sweep: SweepFields) -> dict[str, Any]:
    values = next(iter(sweep.trials(seed=0)))
    return {name: value for name, value in values.items() if not isinstance(value, dict)}


def _space(space: Space) -> Any:
    from azure.ai.ml import sweep

    return getattr(sweep, type(space).__name__)(**_given(space, values=list))


def _entity(name: str, model: Model) -> Any:
    from azure.ai.ml import sweep

    kind = "".join(part.capitalize() for part in getattr(model, "type", "").split("_"))
    return getattr(sweep, name.format(kind))(**_given(model))


def _given(model: Model, **as_type: Any) -> dict[str, Any]:
    fields = model.model_dump(exclude={"type"}, exclude_none=True)
    return {name: as_type[name](value) if name in as_type else value for name, value in fields.items()}
