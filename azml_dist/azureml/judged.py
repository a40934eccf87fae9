"""Why runs on Azure ML failed, kept on this machine once it was judged: a list shows it without reading any logs."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from azml_dist.contents.store import cache_folder
from azml_dist.errors import LaunchError
from azml_dist.verdict.kept import keep, kept
from azml_dist.verdict.verdict import Verdict

_ATTEMPT = 0
"""A verdict is always that of the last attempt."""


def note_verdict(workspace: str, run: str, verdict: Verdict) -> None:
    """Keep the verdict on a run that has ended; `workspace` is the workspace's id. Without room, it is not kept."""
    with suppress(OSError, LaunchError, ValueError):
        folder = _folder(workspace, run)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep(verdict, folder, _ATTEMPT)


def noted_verdict(workspace: str, run: str) -> Verdict | None:
    """The verdict that was kept; None if the run was never judged on this machine."""
    with suppress(LaunchError, ValueError):
        return kept(_folder(workspace, run), _ATTEMPT)
    return None


def _folder(workspace: str, run: str) -> Path:
    return cache_folder() / "verdicts" / hashlib.sha256(f"{workspace.lower()}/{run}".encode()).hexdigest()[:24]
