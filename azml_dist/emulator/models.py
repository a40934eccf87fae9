"""Checks bodies with the SDK's own wire models: what those do not know, or read as something else, is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from inspect import get_annotations
from typing import Any, get_args

from azml_dist.emulator.wire import Json, Refusal

# azure-ai-ml sends Ray as a plain dict: its wire models end at Mpi, PyTorch and TensorFlow (measured with 1.35.2).
_RAY = {
    "distributionType": str,
    "port": int,
    "address": str,
    "includeDashboard": bool,
    "dashboardPort": int,
    "headNodeAdditionalArgs": str,
    "workerNodeAdditionalArgs": str,
}

# The client sends these too, as its schema has them; its wire models, of an API made stable, do not (1.35.2).
_PREVIEW = {
    "locations": list,
    "maxInstanceCount": int,
    "parentJobName": str,
    "priority": int,
    "assetVersion": str,
    "resources": dict,
    "logbase": str,
}
_PREVIEW_OF = (
    "CommandJob",
    "JobResourceConfiguration",
    "QueueSettings",
    "JobOutput",
    "SweepJob",
    "RandomSamplingAlgorithm",
)


def check(model: str, body: Json) -> None:
    """Refuse a body that the named model of the ARM API does not describe whole, with everything wrong in it."""
    from azure.ai.ml._restclient.arm_ml_service import models

    shape = getattr(models, model)
    wrong = list(_differences(shape._deserialize(body, []), body, ""))
    if wrong:
        # Recorded as a problem by the emulator, so it also fails the test that caused it.
        raise Refusal(400, "InvalidWireBody", f"not a {model}: " + "; ".join(wrong))


def _differences(read: Any, sent: Any, where: str) -> Iterator[str]:
    """What was sent, compared with what a model read from it."""
    if sent is None:
        return
    if hasattr(type(read), "_attr_to_rest_field"):
        yield from _model_differences(read, sent, where)
    elif isinstance(sent, dict):
        if not isinstance(read, dict):
            yield f"{where} is an object"
            return
        for key, value in sent.items():
            if isinstance(value, (bool, int, float)) and read.get(key) == str(value):
                continue  # a map of texts: the service reads numbers as text, and the client sends a number itself
            yield from _differences(read.get(key), value, f"{where}.{key}")
    elif isinstance(sent, list):
        if not isinstance(read, list):
            yield f"{where} is a list"
            return
        for index, (one_read, one_sent) in enumerate(zip(read, sent, strict=True)):
            yield from _differences(one_read, one_sent, f"{where}[{index}]")
    elif isinstance(read, (date, timedelta)):
        return  # a text that could be read as one
    elif not isinstance(read, type(sent)) or read != sent:
        yield f"{where} is {sent!r}, read as {read!r}"


def _model_differences(read: Any, sent: Any, where: str) -> Iterator[str]:
    if not isinstance(sent, dict):
        yield f"{where or 'the body'} is {sent!r}"
        return
    if sent.get("distributionType") == "Ray":
        yield from _ray_differences(sent, where)
        return
    attributes = {field._rest_name: attribute for attribute, field in read._attr_to_rest_field.items()}
    for key, value in sent.items():
        place = f"{where}.{key}".lstrip(".")
        if key not in attributes and _is_preview(type(read).__name__, key, value):
            continue
        if key not in attributes:
            yield f"{place} is no field of {type(read).__name__}"
            continue
        try:
            found = getattr(read, attributes[key])
        except Exception as error:
            yield f"{place} is {value!r}: {error}"
            continue
        if isinstance(found, str) and _holds_time(read, attributes[key]):
            yield f"{place} is {value!r}"  # the models hand on what they cannot read
            continue
        yield from _differences(found, value, place)


def _is_preview(model: str, key: str, value: Any) -> bool:
    return model.endswith(_PREVIEW_OF) and type(value) is _PREVIEW.get(key)


def _holds_time(model: Any, attribute: str) -> bool:
    """Whether a model declares a field as a duration or a point in time."""
    declared = next(
        (found[attribute] for found in map(get_annotations, type(model).__mro__) if attribute in found), None
    )
    return any(isinstance(one, type) and issubclass(one, (date, timedelta)) for one in get_args(declared))


def _ray_differences(sent: Json, where: str) -> Iterator[str]:
    for key, value in sent.items():
        if key not in _RAY:
            yield f"{where}.{key} is no field of Ray"
        elif value is not None and type(value) is not _RAY[key]:
            yield f"{where}.{key} is {value!r}"
