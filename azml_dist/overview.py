"""Runs that one can find: those on this machine and those in the workspace in one list, by one clock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.azureml.stamps import seconds_of
from azml_dist.columns import Column, fitted
from azml_dist.local.summary import Summary, short_world, summaries
from azml_dist.status import RunStatus
from azml_dist.words import took_text

LAST = 20
"""How many runs a table shows by default."""
MOST = 1_000
"""How many runs of a workspace are asked for at most."""
_MONTH = 30 * 86_400
COLUMNS = (
    Column("name"),
    Column("what", least=8, leaves=3),
    Column("where", leaves=2),
    Column("world", leaves=4),
    Column("status", least=28),
    Column("started", leaves=5),
    Column("took", leaves=1),
)
STATUS = "status"


class Seen(NamedTuple):
    """A run, as a list shows it."""

    name: str
    what: str
    """The file of its job, or else its script."""
    where: str
    """`here`, or `azure` and the compute."""
    world: str
    """The kind of job, if that is not a command job on Azure ML."""
    status: RunStatus
    error: str | None
    started: float | None
    took: float | None
    here: Summary | None = None
    there: Mapping[str, Any] | None = None

    def cells(self, now: float, folder: str) -> list[str]:
        status = f"{self.status}: {self.error}" if self.error else str(self.status)
        return [
            self.name,
            _short(self.what, folder),
            self.where,
            self.world,
            status,
            ago(self.started, now),
            took_text(self.took),
        ]


class Overview(NamedTuple):
    """The runs that are shown, newest last."""

    runs: list[Seen]
    left_out: int
    """How many older ones there are."""
    skipped: list[str]
    """Which folders could not be read, and why."""

    def lines(self, width: int | None = None) -> list[list[str]]:
        """The table, by its cells."""
        now, folder = time.time(), os.path.join(_working_folder(), "")
        return fitted(COLUMNS, [run.cells(now, folder) for run in self.runs], width)


def overview(
    root: str | Path | None = None,
    *,
    here: bool = True,
    there: Iterable[Mapping[str, Any]] = (),
    failed: bool = False,
    fold: bool = True,
    limit: int | None = None,
) -> Overview:
    """The last `limit` of the runs on this machine and of those `there`, as Azure ML describes them, newest last.

    Of sweeps and pipelines, `fold` shows one line each.
    """
    skipped: list[str] = []
    found = [*_here(root, fold, skipped)] if here else []
    if distant := [_there(run) for run in there]:
        found = sorted([*found, *distant], key=lambda run: run.started or 0.0)
    if failed:
        found = [run for run in found if run.status == RunStatus.FAILED]
    shown = found if limit is None else found[max(0, len(found) - limit) :]
    return Overview(shown, len(found) - len(shown), skipped)


def _here(root: str | Path | None, fold: bool, skipped: list[str]) -> Iterable[Seen]:
    found = summaries(root, skipped=skipped)
    groups = {(one.root, one.name) for one in found if one.kind} if fold else set()
    now = time.time()
    for one in found:
        if one.parent and (one.root, one.parent) in groups:
            continue
        took = None if one.started_at is None else max(0.0, (one.ended_at or now) - one.started_at)
        error = one.error if one.status in (RunStatus.FAILED, RunStatus.CANCELED) else None
        what = one.file or one.script or ""
        yield Seen(one.name, what, "here", one.world, one.status, error, one.created_at, took, here=one)


def _there(run: Mapping[str, Any]) -> Seen:
    started, ended, status = seconds_of(run["started_at"]), seconds_of(run["ended_at"]), RunStatus(run["status"])
    end = ended if status.is_final else time.time()
    return Seen(
        run["name"],
        run["script"] or (run["display_name"] if run["display_name"] != run["name"] else None) or "",
        f"azure {run['compute'] or 'serverless'}",
        short_world(**run["world"]) if run["world"] else run["kind"],
        status,
        _more_than(status, run["verdict"]),
        seconds_of(run["created_at"]),
        None if started is None or end is None else max(0.0, end - started),
        there=run,
    )


def _more_than(status: RunStatus, verdict: Mapping[str, Any] | None) -> str | None:
    """What a verdict says beyond the status: of a cancelled run it may be no more than that it was cancelled."""
    summary = str(verdict["summary"]) if verdict else None
    return None if status == RunStatus.CANCELED and summary == "it was cancelled" else summary


def ago(then: float | None, now: float) -> str:
    """`3 min ago`; a date for what is older than a month."""
    if not then:
        return ""
    seconds = now - then
    if seconds >= _MONTH:
        return time.strftime("%Y-%m-%d", time.localtime(then))
    if seconds < 5:
        return "now"
    for unit, word in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= (2 * unit if word == "d" else unit):
            return f"{seconds // unit:.0f} {word} ago"
    return f"{seconds:.0f} s ago"


def _short(what: str, folder: str) -> str:
    """A file below the current folder by its path from there, any other by its folder and name."""
    if what.startswith(folder):
        return what[len(folder) :]
    return "/".join(what.split("/")[-2:]) if what.startswith("/") else what


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"
