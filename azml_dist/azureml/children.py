"""The trials of a sweep and the steps of a pipeline: run history lists them, MLflow has their metrics.

How much is asked is limited: run history for so many of them at most, and each of them for its metrics and values only
up to a number that the caller gives, the best trial first. What was not asked is said.

Not known is in which order run history lists them, nor where the service keeps what it drew for a trial. So trials are
numbered by their names, and the values of a trial are read from its job (`parameters`, which only the service writes,
or its inputs), or else from its parameters in MLflow. Inferred: the name of a trial ends with its number, the run of a
step has the step's name as its display name, and a step has no run before the steps that it waits for are done.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.described import BEST_TRIAL, MOST_PROCESSES, Submitted, inputs_of
from azml_dist.azureml.errors import translated
from azml_dist.azureml.failure import blamed_rank, exit_code, service_message
from azml_dist.azureml.metrics import logged
from azml_dist.azureml.parallel import each
from azml_dist.azureml.stamps import seconds_of
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import SubmitError
from azml_dist.model.sweep import best_of
from azml_dist.notation.expressions import OF_STEP
from azml_dist.page.plots import MOST_SERIES, Points, by_step
from azml_dist.runs.metrics import Metrics
from azml_dist.status import RunStatus
from azml_dist.words import plural, ranks_text

MOST_CHILDREN = 1_000
"""As many as a sweep can have trials."""
_MOST_METRICS = 6
"""Of how many metrics all values are read: each is a request for each curve."""
_AT_A_TIME = 16
NOT_KNOWN = "not known"
"""The status of a step of which it is not known whether it has a run."""
NO_RUN = "-"


class Child(NamedTuple):
    """A trial or a step."""

    label: str
    name: str
    """The name of its own run; `-` if it has none."""
    status: str
    error: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    values: Mapping[str, Any] = {}
    metric: float | None = None
    """The best value of the primary metric that the trial logged."""

    @property
    def has_run(self) -> bool:
        return self.name != NO_RUN

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints the members of a run on this machine."""
        ends = {RunStatus.COMPLETED: 0, RunStatus.FAILED: exit_code(self.error) or 1}
        return {
            "label": self.label,
            "name": self.name if self.has_run else None,
            "status": self.status,
            "exit_code": ends.get(RunStatus(self.status)),
            "failed_rank": blamed_rank(self.error, MOST_PROCESSES) if self.status == RunStatus.FAILED else None,
            "error": self.error,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "values": dict(self.values),
            "metric": self.metric,
        }


class Children(NamedTuple):
    """What a sweep or a pipeline consists of."""

    members: Sequence[Child]
    details: Mapping[str, Any]
    """What a sweep looks for and how, and its best trial; of a pipeline, which step reads which output."""
    names: Sequence[str] = ()
    """The hyperparameters."""
    metrics: Mapping[str, Metrics] = {}
    """By the name of the run, of those that were asked."""
    notes: Sequence[str] = ()

    @property
    def metric(self) -> str | None:
        """The primary metric."""
        found: str | None = self.details.get("primary_metric")
        return found

    @property
    def best(self) -> str | None:
        """The run of the best trial."""
        found: str | None = self.details.get("best")
        return found


class _Read(NamedTuple):
    """What was read about one child."""

    metrics: Metrics | None = None
    values: Mapping[str, str] = {}
    best: float | None = None
    """The best value of the primary metric."""


def children_of(workspace: Workspace, of: Submitted, most: int) -> Children:
    """The trials of a sweep or the steps of a pipeline, with the metrics and values of `most` of them.

    Each of those is asked with a request for its metrics, and a trial with others for its values and for all values of
    the primary metric: MLflow's record of a run has only the last one.
    Raises `SubmitError` if they cannot be listed.
    """
    path = quote(of.name, safe="")
    with translated(f"list what run {of.name} consists of", workspace):
        job = workspace.arm.read(f"jobs/{path}").object("properties")
        runs = workspace.history.read_all(f"runs/{path}/children", MOST_CHILDREN)
        found = [_child(run) for run in runs]
        made = _trials(workspace, job, found, most) if of.is_sweep else _steps(workspace, job, found, most)
    if len(runs) < MOST_CHILDREN:
        return made
    return made._replace(notes=[f"only {MOST_CHILDREN:,} {kind_of(of)}s are listed: there may be more", *made.notes])


def kind_of(of: Submitted) -> str:
    """What its members are called."""
    return "trial" if of.is_sweep else "step"


def which(labels: Sequence[str]) -> str:
    """`trials 3-9 and 12`; steps by their names."""
    numbers = [number for number in (label.removeprefix("trial ") for label in labels) if number.isdecimal()]
    if len(numbers) == len(labels):
        return ranks_text(map(int, numbers)).replace("rank", "trial", 1)
    return ", ".join(labels)


def _child(run: Answer) -> Child:
    name = run.needed("runId")
    created, started, ended = (seconds_of(run.text(key)) for key in ("createdUtc", "startTimeUtc", "endTimeUtc"))
    status = RunStatus(run.needed("status"))
    return Child(run.text("displayName") or name, name, status, service_message(run), created, started, ended)


# Sweeps


def _trials(workspace: Workspace, job: Answer, found: Sequence[Child], most: int) -> Children:
    space = job.object("searchSpace").fields
    objective, sampling = job.object("objective"), job.object("samplingAlgorithm")
    best = job.object("properties").text(BEST_TRIAL)
    metric, trials = objective.text("primaryMetric") or "", _numbered(found)
    goal = (objective.text("goal") or "").lower()

    def best_value(metrics: Metrics) -> float | None:
        if metric not in metrics or goal not in ("minimize", "maximize"):
            return None
        return best_of([metrics[metric], *(point.value for point in metrics.history(metric))], goal)

    first = sorted(trials, key=lambda trial: trial.name != best)
    read = _read(workspace, first, most, with_values=bool(space), best_value=best_value)
    members = [_with_values(trial, read.get(trial.name), space) for trial in trials]
    details = {
        "primary_metric": metric or None,
        "goal": goal,
        "sampling": (sampling.text("samplingAlgorithmType") or "").lower(),
        "seed": sampling.fields.get("seed"),
        "best": best,
        "inputs": {name: value for name, value in inputs_of(job) if name not in space},
    }
    unknown = [trial.label for trial in members if trial.name in read and not trial.values]
    return Children(
        members=members,
        details=details,
        names=list(space),
        metrics=_metrics(read),
        notes=[
            *_unread(members, read, "trial", "metrics and values"),
            *_without_values(unknown if space else [], len(members)),
        ],
    )


def _numbered(found: Sequence[Child]) -> list[Child]:
    """The trials by the numbers at the end of their names, or else as they were made."""
    ends = [re.search(r"_(\d{1,9})$", child.name) for child in found]
    numbers = [int(end[1]) for end in ends if end]
    if len(set(numbers)) < len(found):
        made = sorted(found, key=lambda child: child.created_at or float("inf"))
        return [child._replace(label=f"trial {number}") for number, child in enumerate(made)]
    pairs = sorted(zip(numbers, found, strict=True), key=lambda pair: pair[0])
    return [child._replace(label=f"trial {number}") for number, child in pairs]


def _with_values(trial: Child, read: _Read | None, space: Mapping[str, Any]) -> Child:
    if read is None:
        return trial
    params = read.values
    values = {name: _value(params[name], space[name]) for name in space if name in params}
    return trial._replace(values=values, metric=read.best)


def _value(text: str, space: Any) -> str | float:
    """A value as what it was drawn from: a choice of texts stays a text."""
    choices = space[1][0] if isinstance(space, list) and len(space) == 2 and space[0] == "choice" and space[1] else None
    if isinstance(choices, list) and any(isinstance(one, str) for one in choices):
        return text
    with suppress(ValueError):
        return int(text) if re.fullmatch(r"-?\d{1,15}", text) else float(text)
    return text


def _without_values(unknown: Sequence[str], count: int) -> list[str]:
    if not unknown:
        return []
    which = "the trials" if len(unknown) == count else ", ".join(unknown[:5]) + (" and others" if unknown[5:] else "")
    return [f"the values of {which} are not known: neither a trial's job nor MLflow has them, or they cannot be read"]


# Pipelines


def _steps(workspace: Workspace, job: Answer, found: Sequence[Child], most: int) -> Children:
    """The steps in the order of the job; the run of a step has the step's name as its display name."""
    named = {child.label: child for child in sorted(found, key=lambda child: child.created_at or 0.0)}
    steps = dict(job.object("jobs").each_object())
    others = [child for child in found if child.label not in steps or named[child.label] is not child]
    none = str(RunStatus.NOT_STARTED) if not others else NOT_KNOWN
    members = [named.get(name) or Child(name, NO_RUN, none) for name in steps]
    members += [
        child._replace(label=f"{child.label} ({child.name})") if child.label in steps else child for child in others
    ]
    begun = [child for child in members if child.has_run]
    read = _read(workspace, begun, most, with_values=False)
    return Children(
        members=members,
        details={"links": [list(link) for link in _links(steps)], "inputs": dict(_inputs(job, steps))},
        metrics=_metrics(read),
        notes=_unread(begun, read, "step", "metrics"),
    )


def _inputs(job: Answer, steps: Mapping[str, Answer]) -> Iterator[tuple[str, str]]:
    """Those of the pipeline, and those that a step has from nowhere else, as `train.epochs`."""
    yield from inputs_of(job)
    for name, step in steps.items():
        yield from ((f"{name}.{key}", value) for key, value in inputs_of(step))


def _links(steps: Mapping[str, Answer]) -> Iterator[Sequence[str]]:
    for name, step in steps.items():
        for key, sent in step.object("inputs").each_object():
            for text in (text for text in sent.fields.values() if isinstance(text, str)):
                for source, kind, output in OF_STEP.findall(text):
                    if kind == "outputs":
                        yield source, output, name, key


# Both


def _read(
    workspace: Workspace,
    children: Sequence[Child],
    most: int,
    *,
    with_values: bool,
    best_value: Callable[[Metrics], float | None] = lambda _: None,
) -> dict[str, _Read]:
    """The metrics of the first of these children, by name, with the values of their inputs and parameters."""

    def read(child: Child) -> _Read:
        metrics, values, best = None, dict[str, str](), None
        if with_values:
            with suppress(SubmitError):  # not every job that the service made can be read
                values = _literals(workspace, child.name)
        with suppress(SubmitError):
            metrics, parameters = logged(workspace, child.name)
            values = {**parameters, **values}
            best = best_value(metrics)
        return _Read(metrics, values, best)

    asked = children[:most]
    done = each(read, asked, at_a_time=_AT_A_TIME, stop=threading.Event())
    return {asked[place].name: one for place, one in done}


def _literals(workspace: Workspace, name: str) -> dict[str, str]:
    with translated(f"read the job of run {name}", workspace):
        job = workspace.arm.read(f"jobs/{quote(name, safe='')}").object("properties")
        inputs = {key: sent.fields.get("value") for key, sent in job.object("inputs").each_object()}
        found = {**inputs, **job.object("parameters").fields}
    return {key: str(value) for key, value in found.items() if value is not None}


def _metrics(read: Mapping[str, _Read]) -> dict[str, Metrics]:
    return {name: one.metrics for name, one in read.items() if one.metrics is not None}


def curves_of(children: Children) -> Iterator[tuple[str, Mapping[str, Points]]]:
    """All values of some metrics of some members: the primary metric, the best trial and the first ones."""
    metrics = {child.name: found for child in children.members if (found := children.metrics.get(child.name))}
    shown = sorted(metrics, key=lambda name: name != children.best)[:MOST_SERIES]
    keys = sorted({key for name in shown for key in metrics[name]}, key=lambda key: (key != children.metric, key))
    asked = [(name, key) for name in shown for key in keys[:_MOST_METRICS] if key in metrics[name]]

    def history(one: tuple[str, str]) -> Points:
        name, key = one
        with suppress(SubmitError):
            return by_step(metrics[name].history(key))
        return []

    done = each(history, asked, at_a_time=_AT_A_TIME, stop=threading.Event())
    points = {asked[place]: found for place, found in done}
    for child in (child for child in children.members if child.name in shown):
        yield child.label, {key: points[child.name, key] for key in keys if points.get((child.name, key))}


def _unread(members: Sequence[Child], read: Mapping[str, _Read], kind: str, what: str) -> list[str]:
    """Which ones were not asked, if some were."""
    left = [child.label for child in members if child.name not in read]
    if not left or not read:
        return []
    named = which(left) if kind == "trial" else plural(len(left), kind)
    return [f"not asked: the {what} of {named}, as there are {plural(len(members), kind)}"]
