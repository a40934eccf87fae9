"""What a run with faults prints: the list of faults before it starts, and each one when it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azml_dist.cli.beside import beside
from azml_dist.cli.output import say
from azml_dist.errors import DistError

if TYPE_CHECKING:
    from azml_dist.local.run import LocalRun

_LOOK = 0.2
"""Seconds between two checks for new faults."""


@contextmanager
def faults_told(run: LocalRun) -> Iterator[None]:
    """Print which faults will come, and each one as it happens while this block follows the run."""
    faults = run.state().faults
    for fault in faults:
        say(f"fault: {fault.what}, {fault.when}")
    if not faults:
        yield
        return
    teller = _Teller(run)
    with beside(teller.look, _LOOK):
        yield
    teller.look()


class _Teller:
    def __init__(self, run: LocalRun) -> None:
        self._run = run
        self._told: set[int] = set()

    def look(self) -> None:
        from azml_dist.local.pages import came

        try:
            faults = self._run.state().faults
        except DistError:  # the code that follows the run reports it
            return
        for number, fault in enumerate(faults):
            if fault.at is not None and number not in self._told:
                self._told.add(number)
                say(f"fault: {came(fault)}")
