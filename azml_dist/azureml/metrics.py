"""The metrics of a run on Azure ML, from the MLflow server of its workspace."""

from __future__ import annotations

import math

from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.errors import translated
from azml_dist.azureml.workspace import Workspace
from azml_dist.runs.metrics import Metrics, Point


def metrics_of(workspace: Workspace, name: str) -> Metrics:
    """What a run has logged so far: one request for the last values, and one or more for all values of a metric."""
    return logged(workspace, name)[0]


def parameters_of(workspace: Workspace, name: str) -> dict[str, str]:
    """The MLflow parameters of a run."""
    return logged(workspace, name)[1]


def logged(workspace: Workspace, name: str) -> tuple[Metrics, dict[str, str]]:
    """The metrics and the parameters of a run, by one request."""
    with translated(f"read the metrics of run {name}", workspace):
        found = workspace.mlflow.read("runs/get", query={"run_id": name})
        data = found.object("run", needed=True).object("data")
        last = {point.needed("key"): point.number("value") for point in data.objects("metrics")}
        parameters = {param.needed("key"): param.text("value") or "" for param in data.objects("params")}
    return Metrics(last, lambda metric: _history(workspace, name, metric), name), parameters


def _history(workspace: Workspace, name: str, metric: str) -> list[Point]:
    query = {"run_id": name, "metric_key": metric}
    points: list[Point] = []
    tokens: set[str] = set()
    with translated(f"read the metrics of run {name}", workspace):
        while True:
            page = workspace.mlflow.read("metrics/get-history", query=query)
            points += map(_point, page.objects("metrics"))
            if not (token := page.text("next_page_token")):
                return points
            if token in tokens:
                raise BrokenAnswerError("it does not end")
            tokens.add(token)
            query["page_token"] = token


def _point(answer: Answer) -> Point:
    """A value. Protobuf's JSON leaves out a step of 0, and has whole numbers of 64 bits as text."""
    step, time = (answer.number(key) if answer.has(key) else 0.0 for key in ("step", "timestamp"))
    if not (abs(step) <= 2**63 and math.isfinite(time)):
        raise BrokenAnswerError("the step or the time of a metric is not a number")
    return Point(int(step), answer.number("value"), time / 1000)
