"""What this machine keeps of runs on Azure ML: why they failed, once that was judged, so that a list reads no logs; and
why they were cancelled from here, which Azure ML does not record."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from azml_dist.contents.store import cache_folder
from azml_dist.errors import LaunchError
from azml_dist.regular import NO_LINK, read_regular
from azml_dist.verdict.kept import keep, kept
from azml_dist.verdict.verdict import Verdict

_ATTEMPT = 0
"""A verdict is always that of the last attempt."""
_CANCELLED = "cancelled.json"
_MOST = 100_000


class Cancelled(NamedTuple):
    """Why a run was cancelled."""

    why: str
    """What follows `it was`: `cancelled with Ctrl-C`."""
    lacked_nodes: bool = False
    """Whether the reason was a lack of nodes."""


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


def note_cancelled(workspace: str, run: str, created: str, cancelled: Cancelled) -> None:
    """Keep why this machine cancelled a run, once the service has accepted that. Without room, it is not kept.

    `created` is when the run was created: an emulator may have had another one of that name.
    """
    with suppress(OSError, LaunchError, ValueError):
        folder = _folder(workspace, run)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(folder / _CANCELLED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_LINK, 0o600), "w") as opened:
            json.dump({"created": created, **cancelled._asdict()}, opened)


def noted_cancelled(workspace: str, run: str, created: str) -> Cancelled | None:
    """Why this machine cancelled a run; None if it did not."""
    with suppress(OSError, LaunchError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        told = json.loads(read_regular(_folder(workspace, run) / _CANCELLED, _MOST))
        is_of_it = told.pop("created") == created
        found = Cancelled(**told)
        if is_of_it and isinstance(found.why, str) and isinstance(found.lacked_nodes, bool):
            return found
    return None


def _folder(workspace: str, run: str) -> Path:
    return cache_folder() / "verdicts" / hashlib.sha256(f"{workspace.lower()}/{run}".encode()).hexdigest()[:24]
