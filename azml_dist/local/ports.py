"""Reserves free ports for a run, which no other run on this machine takes."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator

from azml_dist.errors import LaunchError

AZURE_MASTER_PORT = 6105
"""Azure ML's `MASTER_PORT` ("Distributed GPU training guide"); local runs use it too, if it is free."""
MPI_PORT_OF_ONE_NODE = 54965
"""The port that DeepSpeed and others use in one-node MPI jobs, where Azure ML sets none (`deepspeed/comm/comm.py`)."""

# Below the range that Linux and macOS use for outgoing connections.
_RANGE = range(20000, 32000)


class Ports:
    """Reserves ports while it is open. The ports themselves stay unbound, so that the run can listen on them.

    If a port were bound here, a rank that listens without `SO_REUSEADDR` could not use it. So a mark reserves it, which
    disappears with this process, however that ends. All runs on a machine look for marks in the same place, whatever
    their environment says.
    """

    def __init__(self, *, apart: bool = False, mark: Callable[[int], int | None] | None = None) -> None:
        """`apart` if the run's nodes have their own networks, in which no other process takes a port."""
        self._apart = apart
        self._mark = mark or (_name if sys.platform == "linux" else _lock_of_mine)
        self._taken: set[int] = set()
        self._marks: list[int] = []

    def take(self, *preferred: int) -> int:
        """Reserve a free port, a `preferred` one if possible."""
        if self._apart:
            port = next(port for port in self._candidates(preferred) if port not in self._taken)
            self._taken.add(port)
            return port
        if found := next(filter(self._keep, self._candidates(preferred)), None):
            return found
        # All marks are taken: better an unreserved port than no run.
        with socket.create_server(("", 0)) as free:
            return int(free.getsockname()[1])

    def take_exactly(self, port: int, user: str) -> int:
        """Reserve a port that the job itself names for `user`; raises `LaunchError` if it is in use."""
        if self._apart:
            return self.take(port)
        if self._keep(port):
            return port
        raise LaunchError(
            f"port {port}, which the job sets for {user}, is in use on this machine",
            hint="stop the program that listens there, or leave the port out of the job to use any free one",
        )

    @property
    def held(self) -> list[int]:
        """The file descriptors of the marks, for the process that keeps them."""
        return self._marks

    def close(self) -> None:
        while self._marks:
            os.close(self._marks.pop())

    def _candidates(self, preferred: tuple[int, ...]) -> Iterator[int]:
        yield from preferred
        start = int.from_bytes(os.urandom(4), "little") % len(_RANGE)
        yield from (_RANGE[(start + i) % len(_RANGE)] for i in range(len(_RANGE)))

    def _keep(self, port: int) -> bool:
        """Mark a port as reserved; False if another run has it."""
        if (mark := self._mark(port)) is None:
            return False
        if not _is_free(port):
            os.close(mark)
            return False
        self._marks.append(mark)
        return True


def _name(port: int) -> int | None:
    """A socket with an abstract name for the port, or None if another run has it.

    An abstract name is in no folder, so no other user can put something in its place, and it disappears with the last
    process that has the socket. Like ports, each network namespace has its own names.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mark:
        try:
            mark.bind(f"\0azml-dist-port-{port}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        return mark.detach()


def _lock_of_mine(port: int) -> int | None:
    return lock_in(_own_folder(), port)


def lock_in(folder: str, port: int) -> int | None:
    """A locked file in a folder that only this user can write to; None if another run has it.

    For systems without abstract names (macOS). Other users' runs have their own folders, so a port that they have
    reserved is noticed only once it is bound.
    """
    import fcntl  # not available on Windows, which has no local runs

    os.makedirs(folder, mode=0o700, exist_ok=True)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise LaunchError(
            f"cannot reserve ports in {folder}: it is not a folder, or other users can write to it",
            hint=f"check its owner with `ls -ld {folder}`, and remove it",
        )
    # O_NOFOLLOW and O_NONBLOCK, so that a link is not written through and a pipe does not block.
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(os.path.join(folder, str(port)), flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


_DARWIN_USER_TEMP_DIR = 65537


def _own_folder() -> str:
    """The folder that macOS reserves for this user, whatever the environment says."""
    parent = os.confstr(_DARWIN_USER_TEMP_DIR) if sys.platform == "darwin" else None
    return os.path.join(parent or f"/tmp/azml-dist-{os.geteuid()}", "azml-dist-ports")


def _is_free(port: int) -> bool:
    return _can_bind(socket.AF_INET, "0.0.0.0", port) and _can_bind(socket.AF_INET6, "::", port)


def _can_bind(family: int, host: str, port: int) -> bool:
    """Whether nothing listens on the port, over IPv4 or IPv6 (if the machine has it)."""
    try:
        with socket.socket(family) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True
