"""Whether an existing job in the workspace is the same as the one to be submitted under its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azml_dist.plan.requested import plain_word
from azml_dist.plan.world import FROM_YOUR_ENVIRONMENT

_WORDS = {
    "command": "command",
    "codeId": "code",
    "environmentId": "environment",
    "computeId": "compute",
    "distribution": "distribution",
    "resources": "resources",
    "limits": "timeout",
    "inputs": "inputs",
    "environmentVariables": "environment variables",
    "searchSpace": "search space",
    "objective": "objective",
    "samplingAlgorithm": "sampling algorithm",
}
"""Fields of a job that Azure ML never changes, with our names for them."""

_TYPES = frozenset(
    ["jobInputType", "jobOutputType", "mode", "distributionType", "jobTier", "samplingAlgorithmType", "goal"]
)
"""Fields with an enumeration value of the API."""


def differences(request: Mapping[str, Any], found: Mapping[str, Any], code: str) -> list[str]:
    """The fields in which a plan's request, with the id of its code, differs from an existing job."""
    wanted = {**_flat(request), "codeId": code or None}
    found = _flat(found)
    return [word for key, word in _WORDS.items() if not _fits(wanted.get(key), found.get(key))]


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    """For a sweep, the fields of a job are in its trial."""
    return {**body, **(body.get("trial") or {})}


def _fits(wanted: Any, found: Any, key: str = "") -> bool:
    """Whether an existing value matches the requested one; the service adds defaults for what was not requested."""
    if wanted is None or wanted == FROM_YOUR_ENVIRONMENT:
        return True
    if isinstance(wanted, Mapping):
        there = found if isinstance(found, Mapping) else {}
        return all(_fits(value, there.get(inner), inner) for inner, value in wanted.items())
    if isinstance(wanted, str) and isinstance(found, str):
        if key in _TYPES:
            return plain_word(wanted) == plain_word(found)
        return wanted == found or _is_same_id(wanted, found) or _is_same_reference(wanted, found)
    return bool(wanted == found)


def _is_same_id(wanted: str, found: str) -> bool:
    """Ids of Azure resources are case-insensitive; `resourceGroups` occurs in both spellings."""
    return wanted.startswith("/subscriptions/") and wanted.lower() == found.lower()


def _is_same_reference(wanted: str, found: str) -> bool:
    """`cifar:1` equals `…/data/cifar/versions/1`. The version of `@latest` and the place of local data are unknown."""
    if wanted.startswith("<uploaded from ") or "@" in wanted:
        return True
    name, _, version = wanted.partition(":")
    return found.endswith(f"/{name}/versions/{version}" if version else f"/{name}") and "/workspaces/" in found
