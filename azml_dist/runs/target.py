"""The folder that a run is downloaded into. Nothing is written outside it, and no file of the user is overwritten.

The folder remembers what each download put there (`.azml-dist/came.jsonl`). So a repeated download skips what is
there, replaces what has changed at the source, and continues the files that were interrupted (`.azml-dist/parts`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from azml_dist.errors import DistError
from azml_dist.regular import NO_LINK, UNWAITING, read_regular
from azml_dist.words import size_text, visible

OWN = ".azml-dist"
"""The folder in which the target folder remembers what came."""
State = Literal["new", "here", "outdated", "other"]
"""Of a file in the folder: there is none; an earlier download put it there; that one, but the source has changed since;
or it is not known to be from the run, and stays as it is."""
_FULL = frozenset([errno.ENOSPC, errno.EDQUOT])
_NOWHERE = frozenset([errno.EROFS])
"""Errors that every other file would hit too."""
_LONGEST = 3000
"""Bytes of a path in the folder: systems allow about 4,000 in all."""
_MOST_CAME = 256_000_000
"""Bytes of the record that are read: more than a million files."""


class NotWrittenError(Exception):
    """A file cannot be written into the folder; the text says why."""


class FullError(NotWrittenError):
    """There is no space left, for this file or any other."""


class _Came(NamedTuple):
    run: str
    version: str
    size: int
    mtime: int


class Target:
    """The folder to download into. A context manager that leaves no half-written file under the name of a whole one."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self._run = run
        self._numbers = itertools.count()
        self._came: dict[str, _Came] = {}
        self._record: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Target:
        import tempfile  # takes milliseconds, and a run needs it only to be copied

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._fresh = tempfile.TemporaryDirectory(prefix=".download-", dir=self.folder, ignore_cleanup_errors=True)
            self._came = dict(_read_came(self.folder / OWN))
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fresh.cleanup()
        with self._lock:
            if self._record is not None:
                os.close(self._record)
                self._record = -1  # threads that are still running record nothing any more
        for folder in (self.folder / OWN / "parts", self.folder / OWN):
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is empty

    def must_hold(self, size: int) -> None:
        """Raises an error if so many bytes do not fit into the free space."""
        import shutil

        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.folder).free
            if size > free:
                raise DistError(
                    f"{size_text(size)} do not fit into {readable(str(self.folder))}: {size_text(free)} are free there",
                    hint="download a part with `--only outputs/NAME`, or to another disk with `--to FOLDER`",
                )

    def state(self, path: str, version: str) -> State:
        """What there is under this path already; `version` says which content the source has now."""
        place = self._place(path)
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return "new"
        except OSError as error:
            raise self._refused(path, error) from error
        came = self._came.get(path)
        if came is None or (came.run, came.size, came.mtime) != (self._run, status.st_size, status.st_mtime_ns):
            return "other"
        return "here" if came.version == version else "outdated"

    def put(self, path: str, version: str, fill: Callable[[Path], object], *, resumes: bool = False) -> None:
        """Add a file or link, or replace an outdated one.

        `fill` writes it elsewhere first, so that it is complete once it has its name. With `resumes`, it may find what
        an interrupted download of the same version has left, and only adds to it.
        """
        place = self._place(path)
        try:
            with self._draft(path, version, resumes) as draft:
                fill(draft)
                if self.state(path, version) in ("new", "outdated"):
                    os.replace(draft, place)
                    self._note(path, version, place)
        except OSError as error:
            raise self._refused(path, error) from error

    def left_of(self, path: str, version: str) -> int:
        """How many bytes an interrupted download of this version has left."""
        with contextlib.suppress(OSError):
            return os.lstat(self._part(path, version)).st_size
        return 0

    def make_folder(self, path: str) -> None:
        """Add a folder, which may stay empty."""
        self._parent_of(f"{path}/x")

    @contextlib.contextmanager
    def _draft(self, path: str, version: str, resumes: bool) -> Iterator[Path]:
        """Where to write a file first: for one that resumes, a place that outlives this download."""
        with contextlib.ExitStack() as held:
            part = held.enter_context(self._claimed(path, version)) if resumes else None
            yield part or Path(self._fresh.name, str(next(self._numbers)))

    @contextlib.contextmanager
    def _claimed(self, path: str, version: str) -> Iterator[Path | None]:
        """The unfinished file, unless another process is writing it now."""
        part = self._part(path, version)
        _make_own(part.parent.parent)
        _make_own(part.parent)
        for old in part.parent.glob(f"{part.name.partition('-')[0]}-*"):
            if old != part:
                old.unlink()  # a part of an earlier version
        file = os.open(part, os.O_RDWR | os.O_CREAT | NO_LINK | UNWAITING, 0o666)
        try:
            yield part if stat.S_ISREG(os.fstat(file).st_mode) and _locked(file) else None
        finally:
            os.close(file)

    def _part(self, path: str, version: str) -> Path:
        import hashlib

        names = [hashlib.sha256(os.fsencode(text)).hexdigest()[:32] for text in (path, version)]
        return self.folder / OWN / "parts" / "-".join(names)

    def _note(self, path: str, version: str, place: Path) -> None:
        """Remember what came. If that cannot be written, a repeated download leaves the file as it is."""
        status = os.lstat(place)
        came = _Came(self._run, version, status.st_size, status.st_mtime_ns)
        with self._lock, contextlib.suppress(OSError):
            self._came[path] = came
            if self._record is None:
                _make_own(self.folder / OWN)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINK | UNWAITING
                self._record = os.open(self.folder / OWN / "came.jsonl", flags, 0o666)
            if self._record >= 0:
                os.write(self._record, json.dumps({"path": path, **came._asdict()}).encode() + b"\n")

    def _place(self, path: str) -> Path:
        place = self._parent_of(path) / path.rpartition("/")[2]
        if place.is_dir() and not place.is_symlink():
            raise NotWrittenError("a folder has this name")
        return place

    def _parent_of(self, path: str) -> Path:
        """The folder of a file, created if it does not exist; links are never followed."""
        if len(os.fsencode(path)) > _LONGEST:
            raise NotWrittenError("its path is too long")
        *folders, name = path.split("/")
        if not all(map(is_name, (*folders, name))) or [*folders, name][0] == OWN:
            raise NotWrittenError("this is not a valid file name")
        place = self.folder
        try:
            for folder in folders:
                place = place / folder
                try:
                    place.mkdir()
                except FileExistsError:
                    mode = os.lstat(place).st_mode
                    if not stat.S_ISDIR(mode):
                        kind = "a link" if stat.S_ISLNK(mode) else "a file"
                        raise NotWrittenError(f"{place} is {kind}, not a folder") from None
        except OSError as error:
            raise self._refused(path, error) from error
        return place

    def _refused(self, path: str, error: OSError) -> Exception:
        if error.errno in _NOWHERE:
            return _cannot_write(self.folder / path, error)
        if error.errno in _FULL:
            return FullError((error.strerror or "no space left").lower())
        return NotWrittenError(error.strerror or str(error))


def is_name(text: str) -> bool:
    """Whether a text is a plain file name, which leads nowhere else."""
    if text in ("", ".", "..") or "\0" in text or "/" in text:
        return False
    return os.name != "nt" or not set(text) & set('\\:<>"|?*')


def readable(path: str) -> str:
    """A path that is safe to print, whatever its bytes are."""
    return visible(path).replace("\n", "\\n")


def _make_own(folder: Path) -> None:
    """A folder for our own files; `OSError` if a link or something else has its name."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise OSError(errno.ENOTDIR, f"{folder} is not a folder")


def _locked(file: int) -> bool:
    """Hold the file until it is closed; False if another process does. On Windows, there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_came(own: Path) -> Iterator[tuple[str, _Came]]:
    """What earlier downloads put into the folder; a line that is none is skipped, such as the last after a crash."""
    if own.is_symlink():
        return
    try:
        lines = read_regular(own / "came.jsonl", _MOST_CAME).splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
            one: Any = json.loads(line)
            came = _Came(str(one["run"]), str(one["version"]), int(one["size"]), int(one["mtime"]))
            yield str(one["path"]), came


def _cannot_write(path: Path, error: OSError) -> DistError:
    what = "a file has this name" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return DistError(f"cannot write into {readable(str(path))}: {what}", hint="choose another with `--to FOLDER`")
