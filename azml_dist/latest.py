"""Which run was started last from each folder: commands that need a run take it where no name is given."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.home import own_folder
from azml_dist.regular import NO_LINK, read_regular

_MOST = 10_000
_KEPT = 200
"""How many folders are remembered."""


class Started(NamedTuple):
    """A run that was started."""

    name: str
    root: str | None
    """The folder of its root; None for a run on Azure ML."""
    workspace: Mapping[str, str] | None
    """The ids of its workspace."""
    at: float
    """When, in seconds since 1970."""


def note_started(name: str, *, root: str | None = None, workspace: Mapping[str, str] | None = None) -> None:
    """Remember that this run was started last from the current folder; if that cannot be written, it is not."""
    with suppress(OSError, LaunchError, ValueError):
        folder = own_folder() / "last"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / _key(os.getcwd())
        draft = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
        text = json.dumps(Started(name, root, workspace, time.time())._asdict())
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o600), "w") as opened:
            opened.write(text)
        draft.replace(file)
        for old in sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
            old.unlink()


def started_last() -> Iterator[Started]:
    """The run that was started last from the current folder, then those from others, newest first."""
    with suppress(OSError, LaunchError):
        folder = own_folder() / "last"
        here = list(_read(folder / _key(os.getcwd())))
        yield from here
        others = [one for file in folder.iterdir() if not file.name.startswith(".") for one in _read(file)]
        yield from sorted((one for one in others if one not in here), key=lambda one: -one.at)


def _key(folder: str) -> str:
    return f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:20]}.json"


def _read(file: Path) -> Iterator[Started]:
    with suppress(OSError, ValueError, TypeError, RecursionError):
        found = Started(**json.loads(read_regular(file, _MOST)))
        ids = found.workspace
        texts = [found.name, found.root or "", *(ids.values() if isinstance(ids, dict) else ())]
        if all(isinstance(text, str) for text in texts) and isinstance(found.at, int | float):
            yield found
