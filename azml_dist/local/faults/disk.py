"""A small disk for a node: a file system in memory over its working directory and the outputs (Linux, as root).

Only the node sees it. Before the end of the attempt is recorded, everything that the node wrote to it is copied to
where it would be without the small disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

from azml_dist.local.launchers.own_tmp import Room, system_calls

_CLONE_NEWNS = 0x00020000
_MS_BIND = 4096
Stamp = tuple[int, int]


class SmallDisk:
    """A small file system that a node sees in place of some folders."""

    def __init__(self, room: Room, size: int, folders: Sequence[str], point: str) -> None:
        self._room, self._size, self._folders, self._point = room, size, folders, point

    def mount(self) -> None:
        """Mount it over the folders, with their contents. Raises `OSError`."""
        os.makedirs(self._point, exist_ok=True)
        _in_child(self._mount)

    def take_back(self) -> str | None:
        """Copy what was written to it into the folders themselves; returns what went wrong."""
        try:
            _in_child(self._take_back)
        except OSError as error:
            return f"some of what was written to the small disk is lost: {error}"
        shutil.rmtree(self._point, ignore_errors=True)
        return None

    def _mount(self) -> None:
        call = system_calls()
        _enter(self._room)
        options = f"size={self._size},mode=0755".encode()
        call("mount", b"tmpfs", os.fsencode(self._point), b"tmpfs", 0, options)
        for number, folder in enumerate(self._folders):
            own = os.path.join(self._point, str(number))
            shutil.copytree(folder, own, symlinks=True)
            call("mount", os.fsencode(own), os.fsencode(folder), None, _MS_BIND, None)

    def _take_back(self) -> None:
        # A descriptor still leads to the folder below the mount.
        below = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in self._folders]
        _enter(self._room)
        for fd, folder in zip(below, self._folders, strict=True):
            shutil.copytree(folder, f"/proc/self/fd/{fd}", symlinks=True, dirs_exist_ok=True, copy_function=_copy_newer)


def _copy_newer(source: str, target: str) -> None:
    """Copy a file unless an equal one exists: another node may have written it since."""
    if _stamp(source) != _stamp(target):
        if os.path.lexists(target):
            os.unlink(target)
        shutil.copy2(source, target, follow_symlinks=False)


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _enter(room: Room) -> None:
    call = system_calls()
    call("setns", room.mount, _CLONE_NEWNS)


def _in_child(work: Callable[[], None]) -> None:
    """Do something in a separate process, which can enter namespaces that this one could not leave again."""
    told, tell = os.pipe()
    if pid := os.fork():
        os.close(tell)
        with open(told, "rb") as heard:
            problem = heard.read().decode(errors="replace")
        os.waitpid(pid, 0)
        if problem:
            raise OSError(problem)
        return
    try:
        work()
    except BaseException as error:
        os.write(tell, _words(error).encode(errors="replace"))
    finally:
        os._exit(0)


def _words(error: BaseException) -> str:
    if isinstance(error, shutil.Error):
        return f"{error.args[0][0][1]}: {error.args[0][0][2]}"
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
