"""Converts azure-ai-ml's sweeps to our fields: what `command(...).sweep(...)` and `load_job` return."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

from azml_dist.errors import JobError
from azml_dist.model import search_space
from azml_dist.model.job import JobFields
from azml_dist.notation.expressions import choices_as_inputs
from azml_dist.sdk.from_command import changed_inputs, job_from, outputs_of
from azml_dist.sdk.load import import_sdk

_HEAD = (
    *("name", "display_name", "experiment_name", "description", "tags", "properties", "compute"),
    *("identity", "queue_settings"),
)
_SPACES = {
    kind.__name__: kind
    for kind in (
        *(search_space.Choice, search_space.Randint, search_space.Uniform, search_space.QUniform),
        *(search_space.LogUniform, search_space.QLogUniform, search_space.Normal, search_space.QNormal),
        *(search_space.LogNormal, search_space.QLogNormal),
    )
}
"""Our classes by the name of azure-ai-ml's, which have the same fields."""


J = TypeVar("J", bound=JobFields)


def from_sweep(kind: type[J], sweep: Any) -> tuple[J, dict[str, Any]]:
    """The job of a `Sweep` or a `SweepJob`, and its other fields; raises `JobError` for what we cannot express."""
    import_sdk()
    from azure.ai.ml.entities import CommandComponent
    from azure.ai.ml.entities import Sweep as SweepNode
    from azure.ai.ml.sweep import SweepJob

    if not isinstance(sweep, SweepNode | SweepJob):
        raise JobError(f"a {type(sweep).__name__} is not a sweep", hint="use `command(...).sweep(...)` of azure-ai-ml")
    trial = sweep.trial
    if not hasattr(trial, "command"):
        hint = "get it with `ml_client.components.get`, call that, and sweep over it"
        raise JobError(f"its trial {trial} is in Azure ML, not on this machine", hint=hint, where="trial")
    spaces = {name: _space(name, space) for name, space in (sweep.search_space or {}).items()}
    given = changed_inputs(sweep, trial) if isinstance(trial, CommandComponent) else dict(sweep.inputs or {})
    # The command uses `${{inputs.x}}` for what a trial chooses; until then, its value is an example.
    random = Random(0)
    examples = {name: space.sample(random) for name, space in spaces.items()}
    inputs = given | {name: str(one) if isinstance(one, dict) else one for name, one in examples.items()}
    resources = sweep.resources or getattr(trial, "resources", None)
    job = job_from(
        kind, _trial(sweep, trial, resources), base=_base(sweep, trial), inputs=inputs, outputs=outputs_of(sweep)
    )
    return job, {"search_space": spaces, **_rules(sweep)}


def _trial(sweep: Any, trial: Any, resources: Any) -> Any:
    """What every trial runs, with the fields of a command: those of the sweep and of its trial."""
    return SimpleNamespace(
        **{name: getattr(sweep, name, None) for name in _HEAD},
        command=choices_as_inputs(str(trial.command or "")),
        code=trial.code,
        environment=trial.environment,
        environment_variables=getattr(trial, "environment_variables", None),
        distribution=trial.distribution,
        resources=resources,
        services=None,
        limits=None,
    )


def _base(sweep: Any, trial: Any) -> Path:
    return Path(getattr(trial, "base_path", None) or sweep.base_path or ".")


def _rules(sweep: Any) -> dict[str, Any]:
    """How to choose values, how to compare trials, and when a trial or the sweep ends."""
    limits = {
        name: value
        for name in ("max_total_trials", "max_concurrent_trials", "timeout", "trial_timeout")
        if (value := getattr(sweep.limits, name, None))
    }
    objective = sweep.objective
    found = {
        "objective": {"primary_metric": objective.primary_metric, "goal": objective.goal} if objective else None,
        "sampling_algorithm": _entity(sweep.sampling_algorithm, ("type", "seed", "rule", "logbase")),
        "limits": limits,
        "early_termination": _entity(
            sweep.early_termination,
            (
                *("type", "evaluation_interval", "delay_evaluation", "slack_factor", "slack_amount"),
                "truncation_percentage",
            ),
        ),
    }
    return {name: value for name, value in found.items() if value is not None}


def _entity(value: Any, names: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, str | Mapping):
        return value
    return {name: one for name in names if (one := getattr(value, name, None)) is not None}


def _space(name: str, space: Any) -> Any:
    kind = _SPACES.get(type(space).__name__)
    where = f"search_space.{name}"
    if kind is None:
        raise JobError(f"`{type(space).__name__}` is not a parameter expression", hint=_hint(), where=where)
    fields = {field: value for field, value in vars(space).items() if field != "type" and value is not None}
    try:
        return kind(**fields)
    except JobError as error:
        raise JobError.of(
            one._replace(where=f"{where}.{one.where}" if one.where else where) for one in error.problems
        ) from None


def _hint() -> str:
    return f"known here: {', '.join(_SPACES)}"
