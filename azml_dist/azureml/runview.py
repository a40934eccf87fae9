"""How a run on Azure ML is shown: the last line of each rank, what to type next, and notes for those who wait."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from azml_dist.azureml.waitline import note
from azml_dist.errors import SubmitError
from azml_dist.runs.bars import last_text
from azml_dist.runs.notebook import notebook
from azml_dist.show import title_html
from azml_dist.status import RunStatus
from azml_dist.words import duration, visible

if TYPE_CHECKING:
    from azml_dist.azureml.cost import Meter
    from azml_dist.azureml.waiting import GivenUp
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.check.report import Check
    from azml_dist.runs.run import Run

_WIDTH = 100


def last_line(text: str | None, status: RunStatus) -> str:
    """A line as a terminal would show it, including progress bars, without colours; shortened."""
    if text is None:
        return "no output" if status.is_final else "no output yet"
    shown = last_text(text.encode(errors="replace")) or ""
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 1]}…"


def next_commands(workspace: Workspace, name: str) -> list[tuple[str, str]]:
    """What to type next for a run, in a shell and in Python."""
    found = " ".join(f"{name}={shlex.quote(value)}" for name, value in workspace.variables.items())
    return [
        *([("first", f"export {found}")] if found else []),
        ("status", f"azml-dist status {name}"),
        ("logs", f"azml-dist logs {name} --follow"),
        ("cancel", f"azml-dist cancel {name}"),
        ("download", f"azml-dist download {name}"),
        ("Python", f'run = azml_dist.run("{name}"); run.wait()'),
    ]


def submitted_text(said: str, commands: Sequence[tuple[str, str]]) -> str:
    """Where a newly submitted run is, and what to type next."""
    return "\n".join([said, *(f"  {what:<9}{command}" for what, command in commands)])


def submitted_html(said: str, url: str, commands: Sequence[tuple[str, str]]) -> str:
    """The same for a notebook."""
    left = 'style="text-align:left"'
    rows = "".join(
        f"<tr><td {left}>{what}</td><td {left}><code>{escape(visible(command))}</code></td></tr>"
        for what, command in commands
    )
    return title_html(None, said.rstrip(":"), studio=url) + f"<table>{rows}</table>"


def announce(workspace: Workspace, results: Sequence[Run | SubmitError]) -> None:
    """At a terminal or in a notebook, say where the submitted jobs are and what to type next."""
    runs = [result for result in results if not isinstance(result, SubmitError)]
    ipython = notebook()
    if not runs or not (ipython or sys.stderr.isatty()):
        return
    said = f"run {runs[0].name} is in workspace {workspace.name}"
    if len(results) > 1:
        said = f"{len(runs)} of {len(results)} jobs are in workspace {workspace.name}. For {runs[0].name}:"
    commands = next_commands(workspace, runs[0].name)
    if ipython:
        ipython.display.display(ipython.display.HTML(submitted_html(said, runs[0].url, commands)))
    else:
        print(submitted_text(said, [("studio", runs[0].url), *commands]), file=sys.stderr, flush=True)


def announce_check(check: Check) -> None:
    """Tell who is about to submit, at a terminal or in a notebook, what a check found."""
    if notebook() or sys.stderr.isatty():
        for line in check.lines():
            print(visible(line), file=sys.stderr, flush=True)


def say_that_it_costs_too_much(name: str, meter: Meter) -> None:
    """Tell who waits for a run that it has come to its ceiling."""
    note(f"note: run {name} has reached its limit of {meter.limit} (estimated): it is cancelled")


def say_that_it_does_not_start(name: str, given_up: GivenUp) -> None:
    """Tell who waits for a run that it has taken too long to start."""
    note(f"note: run {name} is cancelled: {given_up}")


def say_that_it_may_be_over(name: str, status: RunStatus, after: float) -> None:
    """Print a note that a run may have ended, and what to do until that is assumed."""
    note(
        f"note: run {name} is {status}; after {duration(after)} in this state it counts as ended. Ctrl-C leaves the "
        f"run as it is; `azml-dist cancel {name}` cancels it, `azml-dist download {name}` gets its files"
    )
