"""What a run has for its bundle, and the names of the files in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from azml_dist.runs.logs import Source
from azml_dist.verdict.known import Log

FORMAT = 1
INDEX = "bundle.json"
STATUS, PAGES, VERDICT, METRICS = "status.json", "pages.json", "verdict.json", "metrics.json"


@dataclass
class Material:
    """What a run has for its bundle, with all secrets still in it."""

    documents: dict[str, Any] = field(default_factory=dict)
    """JSON values, or texts, by the name of their file."""
    logs: Iterable[Log] = ()
    secrets: Sequence[str] = ()
    """Values that must not be in it."""
    unknown: Sequence[str] = ()
    """Variables with secret values that are not known here, so that they cannot be looked for."""
    notes: list[str] = field(default_factory=list)
    """What is not in it, and why."""
    attempt: int = 0
    sources: Sequence[Source] | None = None
    """What wrote the logs, if those are not its own processes: the rank of each log is then a number in this list."""
