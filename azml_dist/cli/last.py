"""The run that was started last, where a command gets no name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.cli.output import say
from azml_dist.errors import DistError, NotFound

if TYPE_CHECKING:
    from azml_dist.latest import Started
    from azml_dist.runs.run import Run


def last_run(root: str | None) -> Run:
    """The run that was started last from this folder, or else from any, or else in `root`; prints its name.

    Raises `NotFound` if none was started on this machine.
    """
    from azml_dist.latest import started_last

    found = None if root else next(filter(None, map(_found, started_last())), None)
    found = found or _newest(root)
    if found is None:
        raise NotFound("no run was started from here", hint="start one with `azml-dist run JOB`, or give a NAME")
    say(f"run {found.name}, which was started last")
    return found


def _found(started: Started) -> Run | None:
    """The handle of a run, if it is still there."""
    if started.root:
        from azml_dist.local.find import find

        return find(started.name, started.root)
    from azml_dist.azureml.group import azure_run
    from azml_dist.azureml.workspace import Workspace

    with suppress(DistError, TypeError):
        return azure_run(Workspace(**(started.workspace or {})), started.name)
    return None


def _newest(root: str | None) -> Run | None:
    from azml_dist.local.find import handle_of
    from azml_dist.local.summary import summaries

    found = [one for one in summaries(Path(root) if root else None) if not one.parent]
    return handle_of(found[-1].folder, found[-1].kind) if found else None
