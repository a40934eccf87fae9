"""What became of the work of a run after a fault, and the lines that say so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from azml_dist.verdict.verdict import Evidence

Outcome = Literal["resumed", "started-over", "different", "failed", "hung", "unknown"]


@dataclass(frozen=True)
class Recovery:
    """How the work recovered."""

    outcome: Outcome
    from_step: int | None
    """The step from which the last attempt resumed."""
    lost_steps: int | None
    """How many finished steps had to be repeated, as far as the logs show."""
    summary: str
    evidence: list[Evidence]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)
