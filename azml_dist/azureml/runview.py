"""What a person sees of a run on Azure ML: its phase and how long that has lasted, the last line of every rank."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from azml_dist.errors import SubmitError
from azml_dist.render import submitted_html, submitted_text
from azml_dist.runs import RunStatus

if TYPE_CHECKING:
    from azml_dist.azureml.run import AzureRun
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.logs import Source

_SHOWN = 16
_HEAD, _FOOT = 8, 3
"""Of a larger world, the first ranks and the last."""
_WIDTH = 100


class Phase:
    """How long a run has been what it is. The service says since when it runs; the rest is what we saw ourselves."""

    def __init__(self) -> None:
        self._status: RunStatus | None = None
        self._since: float | None = None

    def age(self, details: Mapping[str, Any]) -> str:
        """As "for 3 min", "took 3 min", or, where no more is known, "submitted 3 min ago"."""
        status, now = RunStatus(details["status"]), time.time()
        if self._status not in (None, status):
            self._since = now
        self._status = status
        started, ended = _seconds(details.get("startTimeUtc")), _seconds(details.get("endTimeUtc"))
        if status.is_final:
            return f"took {_words(ended - started)}" if started and ended else ""
        since = started if status == RunStatus.RUNNING and started else self._since
        if since:
            return f"for {_words(now - since)}"
        created = _seconds(details.get("createdTimeUtc"))
        return f"submitted {_words(now - created)} ago" if created else ""


def shown_ranks(sources: Sequence[Source], failed: int | None) -> list[Source | None]:
    """The ranks that a table has room for; None is a gap."""
    if len(sources) <= _SHOWN:
        return list(sources)
    middle = [] if failed is None or failed < _HEAD or failed >= len(sources) - _FOOT else [sources[failed], None]
    return [*sources[:_HEAD], None, *middle, *sources[-_FOOT:]]


def last_line(text: str | None) -> str:
    """What a terminal would show of a line, progress bars and all; shortened."""
    if text is None:
        return "no line yet"
    shown = text.rstrip("\r").rpartition("\r")[2]
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 1]}…"


def next_commands(workspace: Workspace, name: str) -> list[tuple[str, str]]:
    """What to type next about a run, in a shell and in Python."""
    found = " ".join(f"{name}={shlex.quote(value)}" for name, value in workspace.variables.items())
    return [
        *([("first", f"export {found}")] if found else []),
        ("status", f"azml-dist status {name}"),
        ("logs", f"azml-dist logs {name} --follow"),
        ("cancel", f"azml-dist cancel {name}"),
        ("download", f"azml-dist download {name}"),
        ("Python", f'run = azml_dist.run("{name}"); run.wait()'),
    ]


def announce(workspace: Workspace, results: Sequence[AzureRun | SubmitError]) -> None:
    """Tell who has just submitted jobs, at a terminal or in a notebook, where they are and what to type next."""
    runs = [result for result in results if not isinstance(result, SubmitError)]
    ipython = _notebook()
    if not runs or not (ipython or sys.stderr.isatty()):
        return
    said = f"run {runs[0].name} is in workspace {workspace.name}"
    if len(results) > 1:
        said = f"{len(runs)} of {len(results)} jobs are in workspace {workspace.name}; of the first, {runs[0].name}:"
    commands = next_commands(workspace, runs[0].name)
    if ipython:
        ipython.display.display(ipython.display.HTML(submitted_html(said, runs[0].url, commands)))
    else:
        print(submitted_text(said, [("studio", runs[0].url), *commands]), file=sys.stderr, flush=True)


def in_the_notebook(run: AzureRun) -> Callable[[], None]:
    """Show the run below the cell of a notebook, if this is one; what is returned brings it up to date."""
    ipython = _notebook()
    if ipython is None:
        return lambda: None
    handle = ipython.display.display(run, display_id=True)

    def renew() -> None:
        with suppress(SubmitError):
            handle.update(run)

    return renew


def _notebook() -> Any:
    """IPython, where this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    return ipython if ipython and hasattr(ipython.get_ipython(), "kernel") else None


def _seconds(stamp: str | None) -> float | None:
    """Azure's time stamps have seven digits after the point, which Python 3.10 does not read."""
    found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", stamp or "")
    return datetime.fromisoformat(found[0]).replace(tzinfo=timezone.utc).timestamp() if found else None


def _words(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"
