"""Files kept by their content: each content once, whole or not at all, read-only, and shared by hard links.

The name of a kept file is its MD5 and its SHA-256: Azure's storage knows the first, and the second cannot be forged.
Its modification time follows from its content, so that a file that somebody changed in place shows it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from azml_dist.errors import DistError
from azml_dist.home import own_folder

_PIECE = 1 << 20
_SPARE = 64 << 20
"""Bytes that are left free on the disk."""
_LONG = 1_000_000_000
"""Seconds; the earliest modification time of a kept file."""


class Kept(NamedTuple):
    """A file that is kept."""

    name: str
    size: int

    @property
    def md5(self) -> str:
        return self.name[:32]

    @property
    def sha256(self) -> str:
        return self.name[32:]


def cache_folder() -> Path:
    """Where downloads are kept: `AZML_DIST_CACHE`, or `~/.azml_dist/cache`."""
    given = os.environ.get("AZML_DIST_CACHE")
    return Path(given).absolute() if given else own_folder() / "cache"


def note_use(place: Path) -> None:
    """Remember that something in the cache was used just now: what is not used for long can be deleted."""
    with contextlib.suppress(OSError):
        os.utime(place)


class Contents:
    """A folder of files by their content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pieces: Iterable[bytes]) -> Kept:
        """Keep what the pieces are together."""
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        size = 0
        with no_room(self.folder):
            self._fresh.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self._fresh)
            try:
                with open(handle, "wb") as file:
                    for piece in pieces:
                        md5.update(piece)
                        sha256.update(piece)
                        size += file.write(piece)
                kept = Kept(md5.hexdigest() + sha256.hexdigest(), size)
                if not self.has(kept):
                    _make_permanent(draft, self.path(kept), kept)
                return kept
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft)

    def add_file(self, source: str | os.PathLike[str]) -> Kept:
        """Keep a copy of a file."""
        with open(source, "rb") as file:
            return self.add(iter(lambda: file.read(_PIECE), b""))

    def path(self, kept: Kept) -> Path:
        """Where a kept file is; read it, and link it."""
        return self.folder / kept.name[:2] / kept.name

    def has(self, kept: Kept) -> bool:
        """Whether a file is there, as it was kept."""
        if is_unchanged(self.path(kept), kept):
            return True
        with contextlib.suppress(OSError):  # somebody has changed it
            self.path(kept).unlink()
        return False

    def with_md5(self, md5: str, size: int) -> Kept | None:
        """A kept file with this MD5 and size, if there is one."""
        for name in self._names(md5[:2]):
            kept = Kept(name, size)
            if name.startswith(md5) and len(name) == 96 and is_unchanged(self.path(kept), kept):
                return kept
        return None

    def _names(self, start: str) -> list[str]:
        if start not in self._listed:
            try:
                self._listed[start] = os.listdir(self.folder / start)
            except OSError:
                self._listed[start] = []
        return self._listed[start]

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        return {}

    def forget(self, files: Iterable[Kept]) -> None:
        """Delete those files that nothing else is a link to."""
        for path in {self.path(kept) for kept in files}:
            with contextlib.suppress(OSError):
                if os.stat(path).st_nlink == 1:
                    os.unlink(path)

    @property
    def _fresh(self) -> Path:
        return self.folder / "new"

    def link(self, kept: Kept, target: Path) -> None:
        """Put a kept file somewhere: as a hard link, or as a copy on another disk. An existing file stays."""
        with no_room(target), contextlib.suppress(FileExistsError):
            try:
                os.link(self.path(kept), target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copy2(self.path(kept), target)


_NO_LINKS = frozenset([errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES])
"""Another disk, no hard links there, or too many of them."""


def is_unchanged(path: str | os.PathLike[str], kept: Kept) -> bool:
    """Whether a file, or a link to it, is as it was kept: by its size and modification time."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return found.st_size == kept.size and found.st_mtime_ns == _time_of(kept)


def make_permanent(path: str | os.PathLike[str], kept: Kept, mode: int = 0o444) -> None:
    """Give a file the modification time of what is kept, and make it read-only."""
    os.utime(path, ns=(_time_of(kept), _time_of(kept)))
    os.chmod(path, mode)


def _make_permanent(draft: str, place: Path, kept: Kept) -> None:
    make_permanent(draft, kept)
    place.parent.mkdir(exist_ok=True)
    os.replace(draft, place)


def _time_of(kept: Kept) -> int:
    return (_LONG + int(kept.name[-7:], 16)) * 1_000_000_000


@contextlib.contextmanager
def no_room(place: Path) -> Iterator[None]:
    """Turns a full disk into an error that says so; whatever is complete stays, and is not fetched again."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise full(place, error.strerror) from error


def full(place: Path, why: str | None) -> DistError:
    """The error for a disk on which nothing can be written any more."""
    hint = "make room there, or set AZML_DIST_CACHE to a folder on another disk; what is complete is kept"
    return DistError(f"cannot write {place}: {why}", hint=hint)


def check_room(place: Path, size: int, what: str) -> None:
    """Raises `DistError` if the disk of a folder has no room for `size` bytes."""
    there = place
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if size + _SPARE > free:
        raise DistError(
            f"{what} needs {size / 1e6:,.1f} MB, but {there} has only {free / 1e6:,.1f} MB free",
            hint="make room there, or set AZML_DIST_CACHE to a folder on another disk",
        )
