"""Deletes runs on this machine, and environments that were made for them: never anything outside, never what is alive.

A run is renamed before its files are deleted, so it is there as a whole or not at all. Links are deleted, not followed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.contents.store import Contents
from azml_dist.errors import DistError, NotFound
from azml_dist.local.kept import CONTENTS, code_of_run
from azml_dist.local.state import RunFolder
from azml_dist.local.summary import Summary, summaries
from azml_dist.local.tracking.store import STORE
from azml_dist.regular import NO_LINK, UNWAITING
from azml_dist.status import RunStatus
from azml_dist.words import nearest

_GONE = ".gone-"
"""How the name of a folder begins while its files are being deleted."""


class Whole(NamedTuple):
    """A run and, for a sweep or pipeline, its trials or steps: they are deleted together."""

    head: Summary
    members: list[Summary]
    group: Summary | None = None
    """The sweep or pipeline, of a single trial or step."""

    @property
    def all(self) -> list[Summary]:
        return [*self.members, self.head]

    @property
    def ended_at(self) -> float:
        """When the last of it ended, in seconds since 1970."""
        return max(one.ended_at or one.created_at for one in self.all)

    def why_kept(self) -> str | None:
        """Why it cannot be deleted; None if it can."""
        if self.group and _is_alive(self.group):
            return f"it is a part of {self.group.name}, which is still running"
        return next(filter(None, map(_why_kept, self.all)), None)


def wholes(root: str | Path | None = None, skipped: list[str] | None = None) -> list[Whole]:
    """Every run in `root`, or in all known folders of runs, oldest first; those that cannot be read are left out."""
    found = summaries(root, skipped=skipped)
    groups = {(one.root, one.name): Whole(one, []) for one in found if one.kind}
    heads = []
    for one in found:
        if one.parent and (group := groups.get((one.root, one.parent))):
            group.members.append(one)
        else:
            heads.append(groups.get((one.root, one.name)) or Whole(one, []))
    return heads


def named(names: Iterable[str], root: str | Path | None = None) -> list[Whole]:
    """The runs with these names, which can all be deleted.

    Raises `NotFound` for a name without a run on this machine, and `DistError` for a run that cannot be deleted.
    """
    skipped: list[str] = []
    heads = wholes(root, skipped)
    known = [*heads, *(Whole(one, [], whole.head) for whole in heads for one in whole.members)]
    found = []
    for name in dict.fromkeys(names):
        same = [whole for whole in known if whole.head.name == name]
        if not same:
            raise _not_found(name, root, [whole.head.name for whole in known], skipped)
        if len(same) > 1:
            places = " and ".join(whole.head.root for whole in same)
            raise DistError(f"there are runs named {name} in {places}", hint="choose one with `--root FOLDER`")
        if why := same[0].why_kept():
            hint = f"`azml-dist cancel {name}` first" if _is_alive(same[0].head) else None
            raise DistError(f"run {name} is not deleted: {why}", hint=hint)
        found.append(same[0])
    gone = {(one.root, one.name) for whole in found for one in whole.members}
    return [whole for whole in found if (whole.head.root, whole.head.name) not in gone]


def _not_found(name: str, root: str | Path | None, known: list[str], skipped: list[str]) -> DistError:
    if damaged := next((why for why in skipped if f"{os.sep}{name}{os.sep}run.json" in why), None):
        return DistError(f"run {name} is not deleted: {damaged}", hint="if it is yours, delete its folder")
    where = f"in {root}" if root else "on this machine"
    other = "only runs on this machine can be deleted; `az ml job archive` hides one in the workspace"
    return NotFound(f"there is no run {name!r} {where}", hint=nearest(name, known) or other)


def prunable(
    heads: list[Whole], *, keep: int | None = None, older_than: float | None = None, failed: bool = False
) -> list[Whole]:
    """Those that meet all criteria that are given, and can be deleted.

    `keep` keeps so many of the newest; `older_than` is in seconds since the end; `failed` takes only failed runs.
    """
    newest = len(heads) if keep is None else max(0, len(heads) - keep)
    latest = None if older_than is None else time.time() - older_than
    return [
        whole
        for whole in heads[:newest]
        if (latest is None or whole.ended_at < latest)
        and (not failed or whole.head.status == RunStatus.FAILED)
        and whole.why_kept() is None
    ]


def _is_alive(one: Summary) -> bool:
    return one.folder.is_alive() or not one.status.is_final


def _why_kept(one: Summary) -> str | None:
    path = one.folder.path
    if path.is_symlink() or not path.is_dir():
        return f"{path} is a link"
    if _is_alive(one):
        return f"{one.name} is {one.status}"
    if mounted := mounted_in(str(path)):
        return f"{mounted} is mounted in it"
    return None


def mounted_in(folder: str) -> str | None:
    """What is mounted at or below a folder: it belongs to another place."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            places = [line.split()[4] for line in mounts]
    except (OSError, IndexError):  # no Linux
        return folder if os.path.ismount(folder) else None
    plain = (place.encode("utf-8", "surrogateescape").decode("unicode_escape", "replace") for place in places)
    return next((place for place in plain if place == folder or place.startswith(f"{folder}/")), None)


def size_of(folder: str | Path) -> int:
    """The bytes that deleting a folder frees; a file with two names in it counts once."""
    total, seen = 0, set()
    for status in _each(str(folder)):
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _each(folder: str) -> Iterator[os.stat_result]:
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)


def remove(whole: Whole) -> None:
    """Delete a run with everything in it; raises `DistError` if it has come alive, or its files cannot be deleted."""
    for one in whole.all:
        with _held(one.folder):
            if why := _why_kept_while_held(one):
                raise DistError(f"run {one.name} is not deleted: {why}")
            code = code_of_run(one.folder.path)
            delete_folder(one.folder.path)
        if code:
            Contents(Path(one.root, CONTENTS)).forget(code.files.values())
        _forget_in_mlflow(one)


def _why_kept_while_held(one: Summary) -> str | None:
    if one.folder.path.is_symlink():
        return f"{one.folder.path} is a link"
    return None if one.folder.read().is_final() else f"{one.name} is {one.status}"


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold the lock of a run, which shows that nothing else owns it."""
    import fcntl  # not available on Windows, which has no local runs

    try:
        fd = os.open(folder.path / "run.lock", os.O_RDONLY | os.O_CLOEXEC | NO_LINK | UNWAITING)
    except FileNotFoundError:  # in folders that were copied
        yield
        return
    except OSError as error:
        raise DistError(f"run {folder.path.name} is not deleted: its run.lock: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DistError(f"run {folder.path.name} is not deleted: it is running") from error
    finally:
        os.close(fd)


def delete_folder(folder: Path) -> None:
    """Delete a folder, which is out of the way at once. Raises `DistError` for what cannot be deleted."""
    gone = folder.with_name(f"{_GONE}{secrets.token_hex(4)}")
    try:
        folder.rename(gone)
    except OSError as error:
        raise DistError(f"{folder} cannot be deleted: {error.strerror}", hint="check its permissions") from error
    failed: list[str] = []
    try:
        _remove_tree(gone, failed)
    except RecursionError:
        failed.append("its folders are nested too deeply")
    if failed:
        hint = f"delete it yourself: `rm -rf {gone}`"
        raise DistError(f"{folder} cannot be deleted in full: {failed[0]}", hint=hint)


def delete_remains(above: Path) -> None:
    """Delete what a deletion in this folder left because it was killed, as far as that is possible."""
    for folder in above.glob(f"{_GONE}*"):
        if not folder.is_symlink():
            with suppress(RecursionError):
                _remove_tree(folder, [])


def _remove_tree(folder: Path, failed: list[str]) -> None:
    """Delete a folder; a script may have left folders in it without the right to write."""

    def again(function: Any, path: str, error: Any) -> None:
        error = error[1] if isinstance(error, tuple) else error
        parent = os.path.dirname(path)
        try:
            if not isinstance(error, PermissionError) or os.path.islink(parent) or not is_below(parent, folder):
                raise error
            os.chmod(parent, 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, 0o700)
                _remove_tree(Path(path), failed)
            else:
                os.unlink(path)
        except OSError as last:
            failed.append(f"{path}: {last.strerror}")

    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=again)
    else:
        shutil.rmtree(folder, onerror=again)


def is_below(path: str, folder: Path) -> bool:
    return path == str(folder) or path.startswith(f"{folder}{os.sep}")


def _forget_in_mlflow(one: Summary) -> None:
    """Delete the links by which MLflow finds a run; MLflow overlooks one that leads nowhere."""
    with suppress(OSError):
        for experiment in os.listdir(os.path.join(one.root, STORE)):
            link = os.path.join(one.root, STORE, experiment, one.name)
            if os.path.islink(link) and os.readlink(link).startswith(f"../../{one.name}/"):
                os.unlink(link)
