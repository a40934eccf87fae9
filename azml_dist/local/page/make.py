"""The page of a run on this machine, whichever kind of run it is."""

from __future__ import annotations

from azml_dist.local.page.group import group_sheet
from azml_dist.local.page.run import sheet_of
from azml_dist.local.page.source import RunHere
from azml_dist.page.html import RunPage


def page_of(run: RunHere) -> RunPage:
    """The page of a run, as it is when it is asked for."""
    make = group_sheet if run.state().kind else sheet_of
    return RunPage(run.name, lambda budget: make(run, budget))
