"""Ports for a run's rendezvous that no other run on this machine takes, and that are free to listen on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from azml_dist.errors import LaunchError

AZURE_MASTER_PORT = 6105
"""What Azure ML puts into `MASTER_PORT` ("Distributed GPU training guide"): taken here too, if it is free."""
MPI_PORT_OF_ONE_NODE = 54965
"""What DeepSpeed and others take in MPI jobs of one node, for which Azure ML names none (`deepspeed/comm/comm.py`)."""

# Below the range from which Linux and macOS give ports to outgoing connections.
_RANGE = range(20000, 32000)


class Ports:
    """Keeps ports from other runs while it is open. The ports themselves stay unbound: the run is to listen there.

    A port that is bound here would be lost to a rank that listens without `SO_REUSEADDR`, so a file lock marks it
    instead; it goes with this process, however that ends.
    """

    def __init__(self, *, apart: bool = False) -> None:
        """`apart` where the run's nodes have networks of their own, in which nobody else takes a port."""
        self._apart = apart
        self._taken: set[int] = set()
        self._locks: list[int] = []
        self._folder = Path(tempfile.gettempdir()) / "azml-dist-ports"
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
            self._folder.chmod(0o1777)

    def take(self, *preferred: int) -> int:
        """A port that is free now, and stays ours; `preferred` ones first."""
        if self._apart:
            port = next(port for port in self._candidates(preferred) if port not in self._taken)
            self._taken.add(port)
            return port
        for port in self._candidates(preferred):
            if self._lock(port):
                if _is_free(port):
                    return port
                os.close(self._locks.pop())
        raise OSError(errno.EADDRINUSE, f"no port from {_RANGE[0]} to {_RANGE[-1]} is free")

    def take_exactly(self, port: int, user: str) -> int:
        """That port, which a job gives to a user of it; `LaunchError` where it is not to be had."""
        if self._apart:
            return self.take(port)
        if self._lock(port):
            if _is_free(port):
                return port
            os.close(self._locks.pop())
        raise LaunchError(
            f"port {port}, which the job gives {user}, is in use on this machine",
            hint="end what listens there, or leave the port out of the job: then any free one is taken here",
        )

    @property
    def held(self) -> list[int]:
        """The file descriptors that hold the locks, for the process that is to keep them."""
        return self._locks

    def close(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def _candidates(self, preferred: tuple[int, ...]) -> Iterator[int]:
        yield from preferred
        start = int.from_bytes(os.urandom(4), "little") % len(_RANGE)
        yield from (_RANGE[(start + i) % len(_RANGE)] for i in range(len(_RANGE)))

    def _lock(self, port: int) -> bool:
        import fcntl  # not on Windows, where there are no local runs

        try:
            fd = os.open(self._folder / str(port), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return False  # another user's
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._locks.append(fd)
        return True


def _is_free(port: int) -> bool:
    return _can_bind(socket.AF_INET, "0.0.0.0", port) and _can_bind(socket.AF_INET6, "::", port)


def _can_bind(family: int, host: str, port: int) -> bool:
    """Whether nobody has the port; a machine without IPv6 has nobody there."""
    try:
        with socket.socket(family) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True
