"""Copies the outputs, artifacts and logs of a local run. Links stay links, and are never followed."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from azml_dist.local.state import RunState
from azml_dist.runs.download import Came, Download, File
from azml_dist.runs.selection import Selection
from azml_dist.runs.target import FullError, NotWrittenError, Target, is_name, readable

_PARTS = ("outputs", "artifacts", "user_logs")
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class _Found(NamedTuple):
    path: str
    """Path in the run's folder."""
    source: str
    mode: int
    size: int
    changed: int
    """When, in ns."""

    @property
    def version(self) -> str:
        return f"{self.size} {self.changed}"


def copy_run(folder: Path, state: RunState, into: Path, only: Selection, *, so_far: bool, check: bool) -> Download:
    """Copy everything that a run has, or what is wanted of it, and note what is missing.

    With `so_far`, the run has not ended: an output may be empty. With `check`, all of `only` is to be found here.
    """
    copy = _Copy(folder, Download(into))
    found = [one for part in _PARTS if only.takes_some_of(part) for one in _all_of(folder, part, copy.done)]
    chosen = [one for one in found if only.takes(one.path)]
    outputs = [one for one in _missing_outputs(folder, found) if only.takes(f"outputs/{one.name}")]
    if check:
        only.must_be_found(state.name)
    with Target(into, state.name) as target:
        target.must_hold(sum(copy.size_of(target, one) for one in chosen))
        for one in chosen:
            copy.one(target, one)
    (copy.done.left_out if so_far else copy.done.missing).extend(f"output {one.name}: {one.why}" for one in outputs)
    copy.done.missing += _missing_logs(folder, state, only)
    return copy.done


class _Copy:
    def __init__(self, folder: Path, done: Download) -> None:
        self._root = os.path.realpath(folder)
        self.done = done

    def size_of(self, target: Target, found: _Found) -> int:
        """How many bytes are still to be copied."""
        if not stat.S_ISREG(found.mode):
            return 0
        try:
            return found.size if target.state(found.path, found.version) in ("new", "outdated") else 0
        except NotWrittenError:
            return 0  # it says so again when it is copied

    def one(self, target: Target, found: _Found) -> None:
        try:
            if self.done.is_full:
                raise FullError("not copied, because the disk is full")
            if stat.S_ISDIR(found.mode):
                target.make_folder(found.path)
                return
            state = target.state(found.path, found.version)
            if state in ("here", "other"):
                self._count(found, "here" if state == "here" else "kept")
            elif stat.S_ISREG(found.mode):
                target.put(found.path, found.version, partial(_copy_file, found.source))
                self._count(found, "updated" if state == "outdated" else "new")
            elif reason := self._put_other(target, found):
                self.done.left_out.append(f"{readable(found.path)} is {reason} and was not copied")
        except NotWrittenError as error:
            self.done.is_full |= isinstance(error, FullError)
            self.done.missing.append(f"{readable(found.path)}: {error}")

    def _put_other(self, target: Target, found: _Found) -> str | None:
        """Copy a link, or return what it is if it cannot be copied."""
        if not stat.S_ISLNK(found.mode):
            return next((kind for test, kind in _KINDS if test(found.mode)), "not a file")
        if not os.path.exists(found.source):
            return "a broken link"
        leads_to = os.path.realpath(found.source)
        if os.path.relpath(leads_to, self._root).split(os.sep)[0] not in _PARTS:
            return f"a link to something outside the run, {readable(leads_to)}"
        if not stat.S_ISDIR(mode := os.stat(leads_to).st_mode) and not stat.S_ISREG(mode):
            return "a link to something that is not a file"
        # Relative, so that the copy points into the copy even if the original was absolute.
        here = os.path.join(self._root, os.path.dirname(found.path))
        target.put(found.path, found.version, partial(os.symlink, os.path.relpath(leads_to, here)))
        self._count(found, "new")
        return None

    def _count(self, found: _Found, came: Came) -> None:
        first, _, rest = found.path.partition("/")
        part = f"{first}/{rest.partition('/')[0]}" if first == "outputs" else first
        self.done.add_file(part, File(found.path, found.size if stat.S_ISREG(found.mode) else 0, came))


def _all_of(folder: Path, part: str, done: Download) -> list[_Found]:
    there = (folder / part).is_dir() and not (folder / part).is_symlink()
    return list(_walk(folder, part, done.missing)) if there else []


def _walk(root: Path, part: str, unread: list[str]) -> Iterator[_Found]:
    """Everything in a part of a run, each folder before its contents; unreadable folders are noted."""
    try:
        entries = sorted(os.scandir(root / part), key=lambda entry: entry.name)
    except OSError as error:
        unread.append(f"{readable(part)}: {error.strerror}")
        return
    for entry in entries:
        path = f"{part}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        yield _Found(path, entry.path, status.st_mode, status.st_size, status.st_mtime_ns)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, path, unread)


def _copy_file(source: str, fresh: Path) -> None:
    # It was a file when it was listed, but may be a link or a FIFO by now.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(source, flags), "rb") as original, fresh.open("xb") as copy:
        if not stat.S_ISREG(os.fstat(original.fileno()).st_mode):
            raise NotWrittenError("it is no longer a file")
        shutil.copyfileobj(original, copy, 1 << 20)
    shutil.copystat(source, fresh, follow_symlinks=False)


class _Missing(NamedTuple):
    """An output without files."""

    name: str
    why: str


def _missing_outputs(folder: Path, found: Iterable[_Found]) -> Iterator[_Missing]:
    has = {one.path.split("/")[1] for one in found if one.path.count("/") > 1 and not stat.S_ISDIR(one.mode)}
    has |= {one.path.split("/")[1] for one in found if one.path.count("/") == 1 and stat.S_ISLNK(one.mode)}
    for name in _declared(folder):
        if name not in has:
            there = (folder / "outputs" / name).is_dir()
            why = "the run wrote nothing to it" if there else "it is no longer in the run's folder"
            yield _Missing(readable(name), why)


def _declared(folder: Path) -> list[str]:
    """The named outputs that the job declares, according to its plan."""
    with suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
        outputs = json.loads((folder / "plan.json").read_text())["request"]["properties"]["outputs"]
        return [str(name) for name in outputs if is_name(str(name))]
    return []


def _missing_logs(folder: Path, state: RunState, only: Selection) -> Iterator[str]:
    for process in state.processes:
        if process.exit_code is None and process.signal is None:
            continue  # it may never have started
        if only.takes(process.log) and not os.path.lexists(folder / process.log):
            yield f"{readable(process.log)}: it is not in the run's folder any more"
