"""`list`: the runs here and on Azure ML, as a table, as an object, or as a table that renews itself."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import example, json_option, root_option
from azml_dist.cli.output import coloured, say, tell_json, write
from azml_dist.errors import NotFound, SubmitError
from azml_dist.status import RunStatus
from azml_dist.words import plural

if TYPE_CHECKING:
    from azml_dist.overview import Overview, Seen

_EVERY = 1.0
"""Seconds between two looks at the runs on this machine."""
_ASK_EVERY = 10.0
"""Seconds between two questions to the workspace."""
_TONES = {RunStatus.FAILED: "\x1b[31m", RunStatus.COMPLETED: "\x1b[32m", RunStatus.RUNNING: "\x1b[36m"}


@click.command("list", epilog=example("azml-dist list --failed"))
@click.option("--all", "all_", is_flag=True, help="List all runs, not only the last 20.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="List the last N runs.")
@click.option("--failed", is_flag=True, help="List only runs that failed.")
@click.option("--here", is_flag=True, help="List only runs on this machine.")
@click.option("--azure", is_flag=True, help="List only runs in the workspace.")
@click.option("--watch", is_flag=True, help="Renew the table until you press Ctrl-C.")
@root_option
@json_option
def list_runs(
    all_: bool, limit: int | None, failed: bool, here: bool, azure: bool, watch: bool, root: str | None, as_json: bool
) -> None:
    """List the runs on this machine and in the configured workspace, newest last.

    A sweep or pipeline is one line; `status NAME` shows its trials or steps. With `--json`, all runs are listed,
    trials and steps too.
    """
    from azml_dist.overview import LAST

    if azure and not here:
        _needs_a_workspace(root)
    most = limit or (None if all_ or as_json else LAST)
    asked: dict[str, Any] = {"root": root, "failed": failed, "fold": not as_json, "here": here or not azure}
    asks_azure = (azure or not here) and not root
    if watch:
        if as_json or not sys.stdout.isatty():
            raise click.UsageError("--watch is for a terminal: leave it out, or call `list` again")
        _watch(asked, most, asks_azure=asks_azure)
    found = _found(asked, most, _recent(None if failed else most) if asks_azure else [])
    for one in found.skipped:
        say(f"note: left out: {one}")
    if as_json:
        tell_json({"runs": [_described(run) for run in found.runs]})
        return
    if not found.runs:
        say("no run failed" if failed else "no runs yet: start one with `azml-dist run JOB`")
        return
    write("\n".join(_lines(found, _width())) + "\n")
    if found.left_out:
        are = "is" if found.left_out == 1 else "are"
        say(f"note: {plural(found.left_out, 'older run')} {are} not shown: `azml-dist list --all`")


def _found(asked: Mapping[str, Any], limit: int | None, there: Sequence[Mapping[str, Any]]) -> Overview:
    from azml_dist.overview import overview

    return overview(**asked, there=there, limit=limit)


def _recent(limit: int | None) -> list[dict[str, Any]]:
    """The runs in the configured workspace, if there is one; if it cannot be reached, a note says so."""
    from azml_dist.configured import configured_ids

    if not all(configured_ids().values()):
        return []
    from azml_dist.azureml.run import AzureRun
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.overview import MOST

    workspace = Workspace()
    try:
        found = AzureRun.latest(workspace, min(limit or MOST, MOST))
    except SubmitError as error:
        say(f"note: the runs of workspace {workspace.name} are not shown: {error.problems[0].message}")
        return []
    if len(found) == MOST and limit != MOST:
        say(f"note: of workspace {workspace.name}, the last {MOST:,} runs are shown")
    return found


def _needs_a_workspace(root: str | None) -> None:
    from azml_dist.configured import configured_ids

    if root:
        raise click.UsageError("--root is a folder of runs on this machine: leave out one of --root and --azure")
    if not all(configured_ids().values()):
        raise NotFound("no workspace is configured", hint="`azml-dist doctor` shows what is missing")


def _described(run: Seen) -> dict[str, Any]:
    if run.here:
        from azml_dist.verdict.kept import kept

        state = run.here.folder.read()
        verdict = kept(run.here.folder.path, state.retry) if run.status == RunStatus.FAILED else None
        return state.to_dict() | {"verdict": verdict and verdict.to_dict(), "where": "local"}
    return {**(run.there or {}), "where": "azureml"}


def _lines(found: Overview, width: int | None) -> list[str]:
    from azml_dist.columns import line
    from azml_dist.overview import STATUS

    table = found.lines(width)
    if coloured(sys.stdout):
        status = [cell.strip() for cell in table[0]].index(STATUS)
        for cells, run in zip(table[1:], found.runs, strict=True):
            if tone := _TONES.get(run.status):
                cells[status] = f"{tone}{cells[status]}\x1b[0m"
    return [line(cells) for cells in table]


def _width() -> int | None:
    """The columns of the terminal; None for a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _watch(asked: Mapping[str, Any], most: int | None, *, asks_azure: bool) -> None:
    """Show the table in place, as high as the terminal, until Ctrl-C."""
    shown, before = 0, None
    there: list[dict[str, Any]] = []
    asked_at = float("-inf")
    while True:
        if asks_azure and time.monotonic() > asked_at + _ASK_EVERY:
            there, asked_at = _recent(most), time.monotonic()
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 3)
        found = _found(asked, min(most or room, room), there)
        lines = _lines(found, size.columns - 1) if found.runs else ["no runs yet"]
        # A terminal that became narrower has wrapped the old lines, so that nobody knows how many there are.
        up = "\x1b[2J\x1b[H" if before not in (None, size) else f"\x1b[{shown}F" if shown else ""
        write(f"{up}\x1b[J" + "\n".join(lines) + "\n")
        shown, before = len(lines), size
        time.sleep(_EVERY)


COMMANDS = (list_runs,)
