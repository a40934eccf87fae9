"""What runs here have made or fetched, and none has used for long: environments, code and data of runs on Azure ML."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from azml_dist.contents.code import kept_code
from azml_dist.contents.store import Contents, cache_folder
from azml_dist.errors import DistError
from azml_dist.home import own_folder
from azml_dist.local.removal import delete_folder, is_below, mounted_in
from azml_dist.local.summary import Summary, summaries

_JUST_USED = 300.0
"""Seconds in which a run that uses a folder has started, and says so."""
ENVIRONMENT, DOWNLOAD = "environment", "cached download"


class Unused(NamedTuple):
    """A folder that is made or fetched again when it is needed."""

    kind: str
    """`environment`, of `run --packages job`, or `cached download`: code or data of a run on Azure ML."""
    folder: Path
    used_at: float
    """When a run last used it, in seconds since 1970."""


def unused(older_than: float) -> list[Unused]:
    """The folders that no run has used for so many seconds, and that no run is using."""
    alive = [one for one in summaries() if not one.status.is_final]
    before = time.time() - max(older_than, _JUST_USED)
    return [one for one in (*_environments(alive), *_downloads(alive)) if one.used_at < before]


def remove_unused(one: Unused) -> None:
    """Delete such a folder; raises `DistError` if it has been used since it was found, or cannot be deleted."""
    if one.kind == DOWNLOAD:
        _remove(one)
        return
    import fcntl  # not available on Windows, which has no local runs

    with open(one.folder.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(one) from None
        _remove(one)


def _remove(one: Unused) -> None:
    if _used_at(one.folder) != one.used_at:
        raise _in_use(one)
    code = kept_code(one.folder) if one.kind == DOWNLOAD else None
    delete_folder(one.folder)
    if code:
        Contents(cache_folder() / "contents").forget(code.files.values())


def _in_use(one: Unused) -> DistError:
    return DistError(f"{one.kind} {one.folder} is not deleted: it is in use, or already deleted")


def _environments(alive: list[Summary]) -> Iterator[Unused]:
    in_use = [one.python for one in alive if one.python]
    for made in _folders(own_folder() / "environments"):
        if not any(is_below(python, made) for python in in_use):
            yield Unused(ENVIRONMENT, made, _used_at(made))


def _downloads(alive: list[Summary]) -> Iterator[Unused]:
    """Code, of which each run has its own copy, and data, which runs read where it is: not while one is alive."""
    for kind in ("code", *(() if alive else ("data",))):
        for folder in _folders(cache_folder() / kind):
            yield Unused(DOWNLOAD, folder, _used_at(folder))


def _used_at(folder: Path) -> float:
    """When a run last said that it uses the folder, on it or its `azml-dist.json`; what is gone is not old."""
    times = []
    for path in (folder, folder / "azml-dist.json"):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times, default=float("inf"))


def _folders(above: Path) -> Iterator[Path]:
    with suppress(OSError):
        for folder in sorted(above.iterdir()):
            usable = not folder.name.startswith(".") and not folder.is_symlink() and folder.is_dir()
            if usable and mounted_in(str(folder)) is None:
                yield folder
