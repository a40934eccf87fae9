"""An attempt without faults, which loads none of what they need."""

from __future__ import annotations

from azml_dist.local.state import ProcessState

SELDOM = 60.0
"""Seconds until the next check while nothing is due."""


class NoFaults:
    """Stands in for `Faults` (`engine.py`), and does nothing."""

    def begin(self) -> None: ...
    def started(self, rank: int) -> None: ...
    def heard(self, rank: int, data: bytes) -> None: ...
    def ended(self, rank: int) -> None: ...
    def stop(self) -> None: ...

    def turn(self) -> float:
        return SELDOM

    def close(self) -> list[str]:
        return []

    def never_came(self) -> list[str]:
        return []

    def reason(self, process: ProcessState) -> str | None:
        return None
