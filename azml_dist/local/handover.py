"""Between the process that starts a run and those that own it: the run is handed over, in a folder that both know.

Standard library only: the supervisor imports it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat

GUARD_LOG = "guard.txt"
"""Log of the owning processes until the run exists, in the run's temporary folder."""
_FDS_AT_ONCE = 200
"""Linux allows 253 in one message."""


def send(connection: socket.socket, payload: bytes, fds: list[int]) -> None:
    """Send a message and descriptors to another process."""
    header = len(payload).to_bytes(8, "little") + len(fds).to_bytes(8, "little")
    socket.send_fds(connection, [header], fds[:_FDS_AT_ONCE])
    for start in range(_FDS_AT_ONCE, len(fds), _FDS_AT_ONCE):
        socket.send_fds(connection, [b" "], fds[start : start + _FDS_AT_ONCE])
    connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """What `send` sent; empty if the other side is gone."""
    header, fds, _, _ = socket.recv_fds(connection, 16, _FDS_AT_ONCE)
    size, count = (int.from_bytes(part, "little") for part in (header[:8], header[8:]))
    while len(fds) < count:
        byte, more, _, _ = socket.recv_fds(connection, 1, _FDS_AT_ONCE)
        if not byte:
            return b"", []
        fds += more
    payload = b""
    while len(payload) < size:
        if not (piece := connection.recv(size - len(payload))):
            return b"", []
        payload += piece
    for fd in fds:
        os.set_inheritable(fd, False)
    return payload, fds


def memory_of(temp: str) -> str | None:
    """The run's folder in shared memory, if the machine has that; it is removed with the run's `temp`."""
    return os.path.join("/dev/shm", os.path.basename(temp)) if os.access("/dev/shm", os.W_OK) else None


def make_memory(memory: str) -> bool:
    """Create that folder; False if it exists, since others can derive its name from `temp`."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(memory, 0o700)
    status = os.lstat(memory)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def remove_temp(temp: str) -> None:
    """Remove the run's folder of sockets and links, and what its processes left in shared memory."""
    shutil.rmtree(temp, ignore_errors=True)
    if memory := memory_of(temp):
        shutil.rmtree(memory, ignore_errors=True)
