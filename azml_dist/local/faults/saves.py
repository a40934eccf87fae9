"""Catches a process between opening and closing a file of a named output (Linux). Best effort.

The system reports files that are opened, changed and closed, but not by which process; by then, a small file may
already be closed. So all ranks are stopped first, and then we look for the one that has the file open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from azml_dist.local import processes

_MODIFY, _CLOSE_WRITE, _MOVED_TO, _CREATE, _ISDIR = 0x2, 0x8, 0x80, 0x100, 0x40000000
_WATCHED = _MODIFY | _CLOSE_WRITE | _MOVED_TO | _CREATE
_EVENT = struct.Struct("iIII")
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_LOOK = 0.3
"""Seconds between two looks for the processes of ranks."""
_PATIENCE = 0.05
"""Seconds that a process gets to write something into a file that it has opened."""
_MISSES = 2
"""After so many files that were closed too soon, one without content counts too."""


class Caught(NamedTuple):
    """A rank that has a file open."""

    rank: int
    note: str


class Saves:
    """Counts the files that are started in some folders, and catches the process that writes one."""

    def __init__(
        self, folders: Collection[str], count: int, ranks_of: Callable[[], dict[int, list[int]]], base: str
    ) -> None:
        """`ranks_of` returns the processes of each rank that may be caught; paths are reported relative to `base`."""
        self._count, self._ranks_of, self._base = count, ranks_of, base
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders: dict[int, str] = {}
        self._open: dict[str, int] = {}
        """Files that were started and are not closed yet, with their numbers."""
        self._files = 0
        self._tried: set[str] = set()
        self._pids: dict[int, list[int]] = {}
        self._looked = 0.0
        self.missed = 0
        """Files that were closed before a process could be caught."""
        for folder in folders:
            self._watch(folder)

    def turn(self, now: float) -> None:
        """Know the processes beforehand: to look for them takes longer than many files take."""
        if now > self._looked + _LOOK:
            self._pids, self._looked = self._ranks_of(), now

    def read(self) -> Caught | None:
        """Process what has happened since; returns the rank that was caught, which is stopped."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.fd, 1 << 16)
            at = 0
            while at < len(data):
                number, mask, _, size = _EVENT.unpack_from(data, at)
                name = os.fsdecode(data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0"))
                at += _EVENT.size + size
                if folder := self._folders.get(number):
                    self._event(mask, os.path.join(folder, name))
        wanted = [path for path, file in self._open.items() if file >= self._count and path not in self._tried]
        return next(filter(None, map(self._catch, wanted)), None)

    def _event(self, mask: int, path: str) -> None:
        if mask & _ISDIR:
            if mask & (_CREATE | _MOVED_TO):
                self._watch(path)
            return
        if mask & (_CREATE | _MODIFY) and path not in self._open:
            self._files += 1
            self._open[path] = self._files
            self._tried.discard(path)
        if mask & _CLOSE_WRITE and self._open.pop(path, 0) >= self._count and path not in self._tried:
            self.missed += 1

    def _watch(self, folder: str) -> None:
        number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), _WATCHED)
        if number < 0:
            return  # it is gone in the meantime
        self._folders[number] = folder
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self._watch(entry.path)

    def _catch(self, path: str) -> Caught | None:
        """The rank that writes the file. It stays stopped; the others continue."""
        self._tried.add(path)
        ranks = self._pids or self._ranks_of()
        _send(ranks, signal.SIGSTOP)
        found = self._writer(ranks, path)
        if found is None:
            _send(ranks, signal.SIGCONT)
            ranks = self._ranks_of()  # one may have been started since
            _send(ranks, signal.SIGSTOP)
            found = self._writer(ranks, path)
        _send({rank: pids for rank, pids in ranks.items() if rank != found}, signal.SIGCONT)
        # With something in it, the file tests more; if files are too small for that, an empty one has to do.
        if found is not None and self.missed < _MISSES and not _size(path):
            found = self._after_a_write(found, ranks[found], path)
        if found is None:
            self.missed += 1
            return None
        return Caught(found, f"{os.path.relpath(path, self._base)} had {_size(path):,} bytes and was being written")

    def _writer(self, ranks: Mapping[int, Sequence[int]], path: str) -> int | None:
        """The rank that has a file open for writing."""
        with contextlib.suppress(OSError):
            wanted = os.stat(path)
            return next((rank for rank, pids in ranks.items() if _has_open(pids, wanted)), None)
        return None

    def _after_a_write(self, rank: int, pids: Sequence[int], path: str) -> int | None:
        """Let a rank continue until something is in its file; None if it has closed it by then."""
        processes.send(pids, signal.SIGCONT)
        until = time.monotonic() + _PATIENCE
        while not _size(path) and time.monotonic() < until:
            time.sleep(0.0002)
        processes.send(pids, signal.SIGSTOP)
        if self._writer({rank: pids}, path) is None:
            processes.send(pids, signal.SIGCONT)
            return None
        return rank


def _send(ranks: Mapping[int, Sequence[int]], signum: int) -> None:
    processes.send([pid for pids in ranks.values() for pid in pids], signum)


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def _has_open(pids: Sequence[int], wanted: os.stat_result) -> bool:
    """Whether one of the processes has a file open for writing."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{fd}")
                    if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino) and _writes(pid, fd):
                        return True
    return False


def _writes(pid: int, fd: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as info:
        flags = next((line.split()[1] for line in info if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
