"""The interface between a launcher and its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from azml_dist.local.launchers.starting import Exit

if TYPE_CHECKING:
    from azml_dist.local.launchers.hosts import Hosts


class Reports(Protocol):
    """What a launcher needs from its run."""

    @property
    def stopping(self) -> bool: ...
    @property
    def hosts(self) -> Hosts: ...
    def starts(self, what: str) -> None: ...
    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def started(self, rank: int, pid: int, output: int) -> None: ...
    def ended(self, exits: list[Exit]) -> None: ...
    def fell_back(self, launcher: str, finding: str) -> None: ...


class Launcher(Protocol):
    """Starts every process of the world."""

    def start(self) -> None: ...
    def turn(self, children: list[tuple[int, int]]) -> None:
        """Called in each turn of the run's loop, with the children that have ended: ids and wait statuses."""

    def ends_with(self, rank: int, code: int) -> None:
        """Take a rank's end, whatever ends it, for an exit with that code."""

    def stop(self) -> None:
        """Start no more processes. The run itself stops the ranks."""

    def close(self) -> str | None:
        """Called when no rank is left, before remaining processes are killed; may explain a failure."""
