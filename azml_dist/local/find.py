"""Finds runs on this machine, one by name or all of them, no matter which process started them."""

from __future__ import annotations

import os
from pathlib import Path

from azml_dist.errors import NotFound
from azml_dist.local.checking import is_plain_name
from azml_dist.local.groups.run import handle, handle_of, member_run
from azml_dist.local.roots import roots_of
from azml_dist.local.run import LocalRun
from azml_dist.local.state import RunFolder, is_run

__all__ = ["find", "handle_of", "names", "runs"]


def find(name: str, root: str | Path | None = None) -> LocalRun | None:
    """The run with the given name or folder, in `root` or by default in any known folder of runs."""
    if os.sep in name and is_run(Path(name)):
        return handle(RunFolder(Path(name).resolve()))
    if is_plain_name(name):
        return next(filter(None, (member_run(folder, name) for folder in roots_of(root))), None)
    return None


def runs(root: str | Path | None = None, *, skipped: list[str] | None = None) -> list[LocalRun]:
    """Every run in `root`, or by default in all known folders of runs, newest last.

    Folders that cannot be read are skipped, with the reason in `skipped`.
    """
    skipped = [] if skipped is None else skipped
    created = []
    for root_ in roots_of(root, skipped):
        for folder in _folders_in(root_, skipped):
            try:
                created.append((RunFolder(folder).read().created_at, folder))
            except NotFound as error:  # noqa: PERF203 (damaged, or some other tool's file of that name)
                skipped.append(error.problems[0].message)
    return [handle(RunFolder(folder)) for _, folder in sorted(created)]


def names(root: str | Path | None = None) -> list[str]:
    """The names of all runs in `root`, or in all known folders of runs; what is wrong with any is not looked at."""
    return [folder.name for root_ in roots_of(root) for folder in _folders_in(root_, [])]


def _folders_in(root: Path, skipped: list[str]) -> list[Path]:
    """The folders of runs in a root. Those whose names begin with a dot are still being created."""
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        skipped.append(f"{root}: {getattr(error, 'strerror', None) or error}")
        return []
    return [root / name for name in names if is_run(root / name)]
