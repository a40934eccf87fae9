"""What Azure Monitor knows about the nodes and GPUs of a run. Where it knows nothing, there is nothing to say."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone

from azml_dist.azureml.answers import Answer
from azml_dist.azureml.errors import translated
from azml_dist.azureml.stamps import seconds_of
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import SubmitError
from azml_dist.plan.service import Service
from azml_dist.runs.system import System, Used
from azml_dist.words import mean_over_time

_API = "2023-10-01"
_NODE, _DEVICE = "InstanceId", "DeviceId"
_OF_NODES = {"CpuUtilizationPercentage": "cpu", "CpuMemoryUtilizationMegabytes": "memory"}
_OF_DEVICES = {"GpuUtilizationPercentage": "gpu", "GpuMemoryUtilizationPercentage": "gpu_memory"}
_BYTES = {"memory": 1e6}
_GRAINS = ((6 * 3600, "PT1M"), (48 * 3600, "PT5M"), (float("inf"), "PT1H"))
"""The time between two values, by the longest run that gets it."""
_LONG_ENOUGH = 300.0
"""Seconds of figures before anything is said about them: they come once a minute, and late."""
_BUSY, _IDLE, _ROOM = 10.0, 1.0, 50.0

Series = dict[str, dict[str, list[tuple[float, float]]]]
"""The values of each figure, by what they are of."""


def system_of(workspace: Workspace, run: str, began: float | None, ended: float | None, how: Service) -> System | None:
    """The figures of a run between two times; None if it has not begun, or if the workspace gives none of this run."""
    if began is None:
        return None
    span = began, ended or time.time()
    found: Series = {}
    for metrics, dimensions in ((_OF_NODES, (_NODE,)), (_OF_DEVICES, (_NODE, _DEVICE))):
        # Not every workspace has these figures, not every login may read them, and documents contradict each other on
        # whether they are kept for each run: whatever is answered but that, they are not known.
        with suppress(SubmitError), translated(f"read the figures of run {run}", workspace):
            answer = _ask(workspace, list(metrics), {how.run_dimension: run, **dict.fromkeys(dimensions, "*")}, span)
            for who, figure, points in _series(answer, metrics, how.run_dimension, run):
                found.setdefault(who, {})[figure] = points
    if not found:
        return None
    used = [Used(who, **figures) for who, figures in sorted(found.items())]
    return System(used, _findings(used), "from Azure Monitor, for each node", "node")


def _ask(workspace: Workspace, metrics: list[str], dimensions: Mapping[str, str], span: tuple[float, float]) -> Answer:
    begin, end = span
    query = {
        "api-version": _API,
        "metricnames": ",".join(metrics),
        "timespan": f"{_stamp(begin)}/{_stamp(end)}",
        "interval": next(grain for longest, grain in _GRAINS if end - begin <= longest),
        "aggregation": "Average",
        "$filter": " and ".join(f"{name} eq {_quoted(value)}" for name, value in dimensions.items()),
    }
    path = "providers/Microsoft.Insights/metrics"
    return Answer(workspace.arm.call("GET", path, query=query, attempts=2, timeout=20))


def _series(
    answer: Answer, metrics: Mapping[str, str], run_dimension: str, run: str
) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """Whose values they are, which figure, and the values; only series that say that they are of this run."""
    for metric in answer.objects("value", needed=True):
        figure = metrics.get(metric.object("name").text("value") or "")
        for series in metric.objects("timeseries") if figure else ():
            of = {
                (one.object("name").text("value") or "").lower(): one.text("value") or ""
                for one in series.objects("metadatavalues")
            }
            node, device = of.get(_NODE.lower()), of.get(_DEVICE.lower())
            if of.get(run_dimension.lower(), "").lower() != run.lower() or node is None:
                continue
            who = f"node {node}" if device is None else f"node {node} GPU {device}"
            points = list(_points(series, _BYTES.get(str(figure), 1.0)))
            if points:
                yield who, str(figure), points


def _points(series: Answer, times: float) -> Iterator[tuple[float, float]]:
    for point in series.objects("data"):
        at = seconds_of(point.text("timeStamp"))
        value = point.number("average") if point.has("average") else math.nan
        if at is not None and math.isfinite(value):
            yield at, value * times


def _findings(used: list[Used]) -> list[str]:
    """What is odd about the GPUs of a run."""
    gpus = [one for one in used if len(one.gpu) > 1 and one.gpu[-1][0] - one.gpu[0][0] >= _LONG_ENOUGH]
    busy = {one.who: mean_over_time(one.gpu) for one in gpus}
    idle = [who for who, value in busy.items() if value < _IDLE]
    if not busy:
        return []
    if len(idle) == len(busy):
        return ["no GPU of the run was used"]
    found = [f"{who} was idle: {busy[who]:.0f} % busy" for who in idle]
    full = [max(value for _, value in one.gpu_memory) for one in gpus if one.gpu_memory]
    if not idle and len(full) == len(gpus) and max(full) < _ROOM and min(busy.values()) >= _BUSY:
        found.append(f"GPU memory at {max(full):.0f} %: a larger batch may fit")
    return found


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
