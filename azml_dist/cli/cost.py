"""What a run on Azure ML has cost and used so far, where a command says it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from azml_dist.errors import SubmitError

if TYPE_CHECKING:
    from azml_dist.azureml.cost import Cost
    from azml_dist.runs.run import Run
    from azml_dist.runs.system import System


def system_of(run: Run) -> System | None:
    """What a run on Azure ML used; None for one on this machine, whose own state has it, and where it is not known."""
    with suppress(SubmitError):
        return run.system() if hasattr(run, "cost") else None
    return None


def cost_of(run: Run) -> Cost | None:
    """What a run on Azure ML has cost so far; None for one on this machine, and where it cannot be read."""
    ask = getattr(run, "cost", None)
    with suppress(SubmitError):
        return ask() if ask else None
    return None
