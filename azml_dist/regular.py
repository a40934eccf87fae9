"""What a path leads to: we only read and copy files. Reading a pipe may block forever, and a device has no end.

And what a write leaves over: a descriptor need not take all bytes at once.
"""

from __future__ import annotations

import os
import stat
import time

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}
_OF_THE_KERNEL = ("/proc/", "/sys/")
_FULL = 0.01
"""Seconds until a terminal may take more."""

UNWAITING = getattr(os, "O_NONBLOCK", 0)
"""Without it, opening a pipe waits for a writer. Not on Windows."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""Without it, a link could lead anywhere. Not on Windows."""


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """`file`, `folder`, `named pipe`, `socket` or `device`; None if there is nothing, or the user has no access."""
    try:
        return _kind(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None


def is_waited_for(path: str | os.PathLike[str]) -> bool:
    """Whether reading it may never end: it is neither a file nor what another program pipes into our stdin."""
    kind = kind_of(path)
    if kind == "named pipe":
        return not os.path.realpath(path).startswith("/proc/")
    return kind in ("socket", "device")


def irregular(real_path: str, mode: int) -> str | None:
    """What a path without links leads to, unless it is a file with an end: `named pipe`, `file of the kernel`, ..."""
    if real_path.startswith(_OF_THE_KERNEL):
        return "file of the kernel"  # its size does not say how much can be read
    kind = _kind(mode)
    return None if kind == "file" else kind


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a file. Raises `OSError` if it is a pipe, a device, a folder, or longer than `limit`."""
    with open(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"it is larger than {limit:,} bytes")
    return data


def open_regular(path: str | os.PathLike[str], flags: int = 0) -> int:
    """A descriptor for reading a file. Raises `OSError` if it is a pipe, a device or a folder."""
    fd = os.open(path, os.O_RDONLY | UNWAITING | getattr(os, "O_CLOEXEC", 0) | flags)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise OSError(f"it is a {_kind(mode)}, not a file")
    return fd


def open_inside(folder: str | os.PathLike[str], name: str) -> int:
    """A descriptor for reading a file, by its path in a folder; raises `OSError` if a link or `..` leads out of it."""
    path = os.path.realpath(os.path.join(folder, name))
    if os.path.commonpath([path, real := os.path.realpath(folder)]) != real:
        raise OSError("it is outside its folder")
    return open_regular(path, NO_LINK)


def end_of(fd: int, size: int) -> bytes:
    """The last bytes of a file, at most `limit`; closes the descriptor."""
    with open(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - size))
        return file.read(size)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it to a descriptor, in as many pieces as that takes."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # noqa: PERF203 (another program has made the terminal so)
            time.sleep(_FULL)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "device")
