"""How the service tells a job: no echo of what was sent, but with defaults filled in, and in its own words."""

from __future__ import annotations

import re
from typing import Any

from azml_dist.emulator.wire import Json

_TYPES = (
    "jobInputType",
    "jobOutputType",
    "mode",
    "distributionType",
    "status",
    "jobTier",
    "samplingAlgorithmType",
    "goal",
)
"""Fields that hold a word of the API. Its enumerations, as azure-ai-ml has them, know no case."""
_IDS = re.compile(r"(?i)/resourceGroups/")


def described(properties: Json, *, other_case: bool) -> Json:
    """A job's properties as an answer holds them; in `other_case`, in the other spelling that clients have to take."""
    job = {**properties, "inputs": _inputs(properties), "outputs": _outputs(properties)}
    variables = properties.get("environmentVariables") or {}
    job["environmentVariables"] = {name: str(value) for name, value in variables.items()}
    if properties.get("jobType") == "Command":
        # Documented defaults ("CLI (v2) command job YAML schema").
        usual: Json = {"instanceCount": 1, "instanceType": None, "shmSize": "2g", "properties": {}}
        job["resources"] = {**usual, **_said(properties.get("resources"))}
    return _in_other_case(job) if other_case else job


def _inputs(properties: Json) -> Json:
    found = {}
    for name, sent in (properties.get("inputs") or {}).items():
        is_literal = sent.get("jobInputType") == "literal"
        usual: Json = {"description": None} if is_literal else {"description": None, "mode": "ReadOnlyMount"}
        found[name] = {**usual, **_said(sent)}
        if is_literal:
            found[name]["value"] = str(sent["value"])
    return found


def _outputs(properties: Json) -> Json:
    usual = {"description": None, "mode": "ReadWriteMount", "uri": None, "assetName": None, "assetVersion": None}
    return {name: {**usual, **_said(sent)} for name, sent in (properties.get("outputs") or {}).items()}


def _said(sent: Json | None) -> Json:
    return {key: value for key, value in (sent or {}).items() if value is not None}


def _in_other_case(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _in_other_case(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_other_case(inner, key) for inner in value]
    if isinstance(value, str) and key in _TYPES:
        is_snake = "_" in value or value.islower()
        return "".join(word.capitalize() for word in value.split("_")) if is_snake else value.lower()
    if isinstance(value, str) and value.startswith("/subscriptions/"):
        return _IDS.sub("/resourcegroups/", value)
    return value
