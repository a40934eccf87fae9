"""Whether a job that is in the workspace is the one that is about to be sent there under its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azml_dist.request import FROM_YOUR_ENVIRONMENT

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
"""What Azure ML never changes in a job, in our words."""


def differences(request: Mapping[str, Any], found: Mapping[str, Any], code: str) -> list[str]:
    """What differs between a plan's request, with the id of its code, and the job that was found, in our words."""
    wanted = {**_flat(request), "codeId": code or None}
    found = _flat(found)
    return [word for key, word in _WORDS.items() if not _fits(wanted.get(key), found.get(key))]


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep has what a job has in its trial."""
    return {**body, **(body.get("trial") or {})}


def _fits(wanted: Any, found: Any) -> bool:
    """Whether what is there is what was wanted, as far as that was said: the service adds what it takes otherwise."""
    if wanted is None or wanted == FROM_YOUR_ENVIRONMENT:
        return True
    if isinstance(wanted, Mapping):
        return all(_fits(value, (found or {}).get(key)) for key, value in wanted.items())
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted == found or _is_same_reference(wanted, found)
    return bool(wanted == found)


def _is_same_reference(wanted: str, found: str) -> bool:
    """`cifar:1` is `…/data/cifar/versions/1`; which version `@latest` was, and where local data went, is not known."""
    if wanted.startswith("<uploaded from ") or "@" in wanted:
        return True
    name, _, version = wanted.partition(":")
    return found.endswith(f"/{name}/versions/{version}" if version else f"/{name}") and "/workspaces/" in found
