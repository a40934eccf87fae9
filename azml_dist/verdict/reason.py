"""`reason`: in one word, what made a run end badly, for scripts that decide whether to submit it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.verdict.known import Said
    from azml_dist.verdict.verdict import Kind, Verdict

Reason = Literal["user", "configuration", "capacity", "preempted", "timeout", "canceled", "service"]
"""`user`: the training code and its data; `configuration`: the job, its environment or its permissions; `capacity`: no
nodes or no quota; `service`: Azure ML, or a broken node."""

_OF_KINDS: Mapping[Kind, Reason] = {
    "user-code": "user",
    "missing-module": "configuration",
    "missing-file": "user",
    "permission": "configuration",
    "bad-arguments": "configuration",
    "data-access": "configuration",
    "gpu-out-of-memory": "user",
    "host-out-of-memory": "user",
    "shared-memory": "configuration",
    "disk-full": "user",
    "collective-timeout": "user",
    "collective-mismatch": "user",
    "gpu-hardware": "service",
    "checkpoint-mismatch": "user",
    "shape-mismatch": "user",
    "not-a-number": "user",
    "crash": "user",
    "exit-code": "user",
    "exit-flake": "user",
    "hang": "user",
    "preempted": "preempted",
    "timeout": "timeout",
    "canceled": "canceled",
    "image-build": "configuration",
    "launcher": "configuration",
    "service": "service",
}
"""Kinds that are missing say too little: `rendezvous` and `killed` may be the code, the job or a node."""
_OF_CODES: Mapping[str, Reason] = {
    "usererror": "user",
    "validationerror": "configuration",
    "serviceerror": "service",
    "transienterror": "service",
    "requestthrottled": "service",
}
"""The outermost `code` of an error, in lower case (azure-ai-ml, `RootError` of the run history)."""
_CAPACITY = (
    r"(?i)CoreQuota|QuotaExceeded|(?:exceed\w*|insufficient|not enough|out of) (?:\w+ ){0,4}(?:quota|capacity)"
    r"|Allocation(?:Failed|TimedOut)|OverconstrainedAllocation|SkuNotAvailable"
)
"""What Azure's errors say if there are no machines or no quota: `JobNodeCountExceedsCoreQuota`, `AllocationFailed`."""
_SAYS_LITTLE = (None, "service", "unknown", "canceled", "timeout")
"""Kinds of verdicts for runs of which the service alone knows more."""


def reason_of(status: RunStatus | str, verdict: Verdict | None, said: Said | None = None) -> Reason | None:
    """Why a run ended badly; None if it completed or is still running, and if nothing says why.

    The service reports most failures as errors of the user, so its code counts only if the logs explain nothing.
    """
    if status not in (RunStatus.FAILED, RunStatus.CANCELED):
        return None
    known = verdict.kind if verdict and verdict.certainty != "unknown" else None
    # What a script printed may be in the message, but not in the codes.
    texts = [*said.codes, *([said.message] if known in _SAYS_LITTLE else [])] if said else []
    if any(re.search(_CAPACITY, text) for text in texts):
        return "capacity"
    if known and known in _OF_KINDS:
        return _OF_KINDS[known]
    if status == RunStatus.CANCELED:
        return "canceled"
    return _OF_CODES.get(said.codes[0].lower()) if said and said.codes and known is None else None
