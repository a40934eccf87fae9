"""What it takes to run the job of an earlier run again on this machine, and where that run was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields
    from azml_dist.model.parts import Environment


class Origin(NamedTuple):
    """The run that another one repeats, as `run.json` has it under `from`."""

    name: str
    workspace: str | None
    """None: it ran on this machine."""
    attempt: int
    """Its last attempt; 0 is the first."""
    snapshot: str | None
    """The digest of its code; None without code, and for code of your own."""
    status: str
    """Its status when the repetition began."""
    verdict: dict[str, Any] | None
    """Why it failed, if that was known by then."""
    changed: list[str]
    """The fields of its job that the repetition has changed."""

    def __str__(self) -> str:
        attempt = f", attempt {self.attempt + 1}" if self.attempt else ""
        code = f", code {self.snapshot[:12]}" if self.snapshot else ""
        where = f" in workspace {self.workspace}" if self.workspace else ""
        return f"{self.name}{where}{attempt}{code}"


def changed_fields(before: JobFields, after: JobFields) -> list[str]:
    """The fields of a job that were changed."""
    names = type(before).model_fields
    return [name for name in names if name != "name" and getattr(before, name) != getattr(after, name)]


@dataclass(frozen=True)
class Rerun:
    """A run that is prepared to run again here, by `run.rerun(...)`: its code and its data are on this machine.

    `submit(rerun, on="local")` starts it.
    """

    job: JobFields
    origin: Origin
    notes: Sequence[str] = ()
    """What is not the same here, in sentences."""
    outputs: Mapping[str, Path] = field(default_factory=dict)
    """What its named outputs start with: a folder for each."""
    environment: Environment | None = None
    """What its environment installs, where the job only names it."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of variables that the job takes from its caller, for callers that have none. Never print them."""
