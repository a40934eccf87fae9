"""The folder of a watched run's start-up module and its files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Container, Mapping
from importlib.util import cache_from_source
from pathlib import Path

from azml_dist.regular import read_regular

MARK = ".watch"
"""File in a run's folder that contains the path of this folder."""
_STARTUP = Path(__file__).with_name("startup.py")


def make_place(temp: str, folder: Path) -> str | None:
    """Create it in the run's temporary folder; None if its path cannot be on `PYTHONPATH`."""
    if os.pathsep in temp:
        return None
    place = os.path.join(temp, "watch")
    os.makedirs(os.path.join(place, "startup"))
    startup = os.path.join(place, "startup", "sitecustomize.py")
    shutil.copy2(_STARTUP, startup)
    _put_compiled(startup)
    (folder / MARK).write_text(place)
    return place


def _put_compiled(startup: str) -> None:
    """Compile it once for all ranks, which may have PYTHONDONTWRITEBYTECODE: it takes longer than all that it does."""
    compiled = cache_from_source(startup)
    try:
        # That of the package is as good: Python compares the time and the size of the source, which are the same.
        os.mkdir(os.path.dirname(compiled))
        shutil.copyfile(cache_from_source(str(_STARTUP)), f"{compiled}.new")
        os.replace(f"{compiled}.new", compiled)
    except OSError:
        import py_compile

        with contextlib.suppress(OSError, py_compile.PyCompileError):
            py_compile.compile(startup)


def place_of(folder: Path) -> str | None:
    """The folder of a run; None if it is not watched, or has ended."""
    try:
        place = read_regular(folder / MARK, 4096).decode()
    except (OSError, ValueError):
        return None
    return place if os.path.isabs(place) and os.path.isdir(place) else None


def variables(place: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The additional variables of a watched process, which it removes before the user's code runs."""
    if not place:
        return {}
    startup, given = os.path.join(place, "startup"), environment.get("PYTHONPATH")
    # The start-up module restores an empty variable as empty.
    return {"PYTHONPATH": startup if given is None else os.pathsep.join([startup, given or startup])}


def sweep(place: str, living: Callable[[], Container[int]]) -> None:
    """Remove the files of processes that have ended; `living` says which processes there are."""
    entries = list(os.scandir(place))
    pids = living()  # asked last: whatever has a file and lives is among them
    for entry in entries:
        name = entry.name.removesuffix(".s")
        if name.isdigit() and int(name) not in pids:
            try:
                os.unlink(entry.path)
            except OSError:
                continue
