"""After a run: keeps what its processes wrote to their working directories, and reports what Azure ML would not keep.

Nothing here changes how a run ended: what cannot be moved stays where it is, and is reported.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from azml_dist.local.state import ARTIFACTS
from azml_dist.plan.folders import UPLOADED
from azml_dist.words import visible

Stamp = Sequence[int]
"""Size in bytes and modification time in ns of a file when it was staged."""

_MAX_STRAYS = 10_000
"""Counting stops here, so that a folder with many more files is not walked to its end."""
_SHOWN_CLASHES = 10
_SHOWN = 120
"""How many characters of a path to show."""


def collect(run_folder: Path, nodes: Sequence[str], staged: Mapping[str, Stamp], retry: int = 0) -> list[str]:
    """Move what each node wrote to `./outputs`, `./logs`, `./user_logs` into `artifacts/`; returns findings about it.

    Files of a further attempt go to `outputs/retry_001` and the like, as observed on Azure ML.
    """
    collection = _Collection(run_folder / ARTIFACTS, staged, retry)
    strays: set[str] = set()
    for node, working_dir in enumerate(nodes):
        collection.take(node, Path(working_dir))
        strays.update(_strays(working_dir, staged, _MAX_STRAYS - len(strays)))
    return [*collection.findings(), *_lost(sorted(strays))]


class _Collection:
    """Collects the files of all nodes in one place, unless two nodes have the same name.

    Moves whole folders at once if possible: that is fast, and paths in them cannot be too long.
    """

    def __init__(self, artifacts: Path, staged: Mapping[str, Stamp], retry: int) -> None:
        self._artifacts, self._staged, self._retry = artifacts, staged, retry
        self._with_staged = {str(parent) for path in staged for parent in Path(path).parents}
        self._owners: dict[str, int] = {}
        """The node that wrote the file or folder with a given path; a folder stands for everything in it."""
        self._clashes: dict[str, list[int]] = {}
        self._mixed: set[str] = set()
        """Paths that are a file on one node and a folder on another."""
        self._left: list[str] = []
        self._places: set[Path] = set()
        """Folders that files may be moved into."""

    def take(self, node: int, working_dir: Path) -> None:
        """Move everything that a node wrote."""
        _keep_links_valid(working_dir, self._target)
        pending = [name for name in UPLOADED if os.path.lexists(working_dir / name)]
        while pending:
            path = pending.pop()
            with self._telling(node, path):
                pending += self._move(node, working_dir, path)

    def findings(self) -> Iterator[str]:
        clashes = sorted(self._clashes)
        yield from map(self._clash, clashes[:_SHOWN_CLASHES])
        if len(clashes) > _SHOWN_CLASHES:
            yield f"{len(clashes) - _SHOWN_CLASHES} more files were written by several nodes"
        if self._left:
            more = f" and {len(self._left) - 1} more" if len(self._left) > 1 else ""
            yield f"could not be moved into artifacts/ and is still in nodes/: {self._left[0]}{more}"

    def _clash(self, path: str) -> str:
        nodes, owner = self._clashes[path], self._owner(path)
        nodes = nodes if owner is None else [owner, *nodes]
        names = " and ".join(f"node {node}" for node in nodes)
        shown = f"./{_shown(path)}"
        if len(nodes) == 1:
            return f"{shown} of {names} is in artifacts/node_{nodes[0]}, because its name was already taken"
        if path in self._mixed:
            return (
                f"{shown} was written by {names}, as a file and as a folder: on Azure ML the upload fails "
                "(inferred); put the rank into its name"
            )
        return f"{shown} was written by {names}: on Azure ML the upload fails; put the rank into the file's name"

    @contextlib.contextmanager
    def _telling(self, node: int, path: str) -> Iterator[None]:
        """Note what cannot be moved; it stays where it is."""
        try:
            yield
        except OSError as error:
            self._left.append(f"./{_shown(path)} of node {node}: {error.strerror or error}")

    def _move(self, node: int, working_dir: Path, path: str) -> list[str]:
        """Move a file or a folder. If a folder cannot be moved at once, returns its contents, which are next."""
        source, target = working_dir / path, self._artifacts / self._target(path)
        if not _is_real_folder(source):
            self._move_file(node, source, path)
        elif next(_files(str(working_dir), path), None) is None:
            pass  # as in the service's storage, a folder exists only if something is in it
        elif path in self._with_staged or _is_real_folder(target):
            return self._merge(node, source, path)
        elif os.path.lexists(target):
            self._move_beside(node, source, path)
        else:
            try:
                _rename(source, target)
                self._owners[path] = node
            except OSError:  # another disk, or another user's folder, for which each file is reported
                return self._merge(node, source, path)
        return []

    def _merge(self, node: int, source: Path, path: str) -> list[str]:
        """Move the files of a folder; returns its subfolders."""
        folders = []
        for name, is_folder in _listed(source):
            inside = f"{path}/{name}"
            if is_folder:
                folders.append(inside)
                continue
            with self._telling(node, inside):
                self._move_file(node, source / name, inside)
        return folders

    def _move_file(self, node: int, source: Path, path: str) -> None:
        if _is_unchanged(source, self._staged.get(path)):
            return
        target = self._artifacts / self._target(path)
        if not self._has_place(target.parent) or os.path.lexists(target):
            self._move_beside(node, source, path)
            return
        _rename(source, target)
        self._owners[path] = node

    def _has_place(self, folder: Path) -> bool:
        """Whether files may be moved into a folder: neither it nor a parent exists as something else."""
        if folder not in self._places:
            first = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
            if not _is_real_folder(first):
                return False
            folder.mkdir(parents=True, exist_ok=True)
            self._places.add(folder)
        return True

    def _move_beside(self, node: int, source: Path, path: str) -> None:
        """A free path under the node's own folder, so that no file replaces another."""
        kept = self._target(path)
        folders = (self._artifacts / f"node_{node}{f'_{n}' if n > 1 else ''}" for n in count(1))
        target = next(folder / kept for folder in folders if not os.path.lexists(folder / kept))
        _rename(source, target)
        self._clashes.setdefault(path, []).append(node)
        there = self._artifacts / kept
        if there.is_dir() != target.is_dir():
            self._mixed.add(path)

    def _owner(self, path: str) -> int | None:
        places = (path, *map(str, Path(path).parents))
        return next((self._owners[place] for place in places if place in self._owners), None)

    def _target(self, path: str) -> str:
        """The path in `artifacts/` for a path in a working directory."""
        folder, slash, rest = path.partition("/")
        return f"{folder}/retry_{self._retry:03}{slash}{rest}" if self._retry else path


def _rename(source: Path, target: Path) -> None:
    """Move a file or a folder to a free path, even out of a folder that its owner has write-protected."""
    try:
        try:
            source.rename(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    except PermissionError:
        for folder in (source.parent, source):
            _unprotect(folder)
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV or _is_real_folder(source):
            raise
        shutil.move(source, target)


def _unprotect(folder: Path) -> None:
    """Give the owner of a folder the permissions that moving it and its contents requires."""
    if _is_real_folder(folder):
        folder.chmod(folder.stat().st_mode | stat.S_IRWXU)


def _listed(folder: Path) -> list[tuple[str, bool]]:
    """The entries of a folder, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except PermissionError:
        _unprotect(folder)
        return [(name, _is_real_folder(folder / name)) for name in os.listdir(folder)]


def _keep_links_valid(working_dir: Path, target_of: Callable[[str], str]) -> None:
    """Adjust links in what is moved, so that they still lead to the same files: `latest -> $PWD/outputs/step_100`."""
    for name in UPLOADED:
        for path in _files(str(working_dir), name):
            with contextlib.suppress(OSError):
                if os.path.islink(working_dir / path):
                    _keep_link_valid(working_dir, path, target_of)


def _keep_link_valid(working_dir: Path, path: str, target_of: Callable[[str], str]) -> None:
    link = working_dir / path
    inside = os.path.relpath(os.path.join(link.parent, os.readlink(link)), working_dir)
    if inside.split("/", 1)[0] not in UPLOADED:
        return
    new = os.path.relpath(target_of(inside), os.path.dirname(target_of(path)))
    if new != os.readlink(link):
        draft = link.with_name(f"{link.name}.{os.getpid()}")
        draft.symlink_to(new)
        draft.replace(link)


def _strays(working_dir: str, staged: Mapping[str, Stamp], limit: int) -> Iterator[str]:
    """New files outside the folders that are kept, at most `limit`."""
    found = 0
    with contextlib.suppress(OSError):
        for name in sorted(set(os.listdir(working_dir)) - {*UPLOADED, "__pycache__"}):
            for path in _files(working_dir, name):
                if found >= limit:
                    return
                if "/__pycache__/" not in path and not _is_unchanged(Path(working_dir, path), staged.get(path)):
                    found += 1
                    yield path


def _lost(strays: Sequence[str]) -> Iterator[str]:
    if strays:
        least = "at least " if len(strays) >= _MAX_STRAYS else ""
        more = f" and {least}{len(strays) - 3} more" if len(strays) > 3 else ""
        names = ", ".join(map(_shown, strays[:3]))
        yield f"{names}{more} would be lost on Azure ML, which keeps ./outputs, ./logs and named outputs"


def _files(root: str, path: str) -> Iterator[str]:
    """Every file at a path and below, however deep; a folder that cannot be listed counts as a file."""
    if not _is_real_folder(Path(root, path)):
        yield path
        return
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError:
            yield folder
            continue
        yield from (f"{folder}/{name}" for name, is_folder in found if not is_folder)
        pending += [f"{folder}/{name}" for name, is_folder in reversed(found) if is_folder]


def _is_real_folder(path: Path) -> bool:
    """Whether it is a folder, and not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def _is_unchanged(file: Path, stamp: Stamp | None) -> bool:
    """Whether a file is as it was staged; never true for a folder that cannot be listed."""
    try:
        status = file.lstat()
    except OSError:
        return False
    return stamp is not None and [status.st_size, status.st_mtime_ns] == list(stamp)


def _shown(path: str) -> str:
    """A path that is safe to print: file names may contain anything."""
    text = visible(os.fsencode(path).decode(errors="backslashreplace")).replace("\n", "\\n")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"
