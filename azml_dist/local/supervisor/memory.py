"""How many processes the kernel has killed for lack of memory: its own counts, before and after a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_CGROUPS = Path("/sys/fs/cgroup")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Counts(NamedTuple):
    """The kernel's counts at one moment; None if we may not read them."""

    group: int | None
    """In the control group of this process."""
    has_subgroups: bool
    """Whether `group` includes the groups below it, as in version 2."""
    machine: int | None


def counts() -> Counts:
    """The current counts."""
    group, has_subgroups = _of_the_group()
    return Counts(group, has_subgroups, _count(Path("/proc/vmstat")))


def kills_since(before: Counts) -> int | None:
    """How many processes of the group the kernel has killed since then; None if its counts do not show that."""
    now = counts()
    own = None if now.group is None or before.group is None else now.group - before.group
    all_of_them = None if now.machine is None or before.machine is None else now.machine - before.machine
    if own:
        return own
    if all_of_them == 0:
        return 0
    return own if now.has_subgroups else None


def _of_the_group() -> tuple[int | None, bool]:
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            # In a container, the group is the root of the mounted hierarchy, whatever its name outside.
            folders = [_CGROUPS / "memory" / path.lstrip("/"), _CGROUPS / "memory"]
            return _first(folders, "memory.oom_control"), False
        if not controllers and (_CGROUPS / "cgroup.controllers").exists():
            return _first([_CGROUPS / path.lstrip("/"), _CGROUPS], "memory.events"), True
    return None, False


def _first(folders: list[Path], name: str) -> int | None:
    return next((count for folder in folders if (count := _count(folder / name)) is not None), None)


def _count(file: Path) -> int | None:
    found = _COUNT.search(_read(file))
    return int(found[1]) if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
