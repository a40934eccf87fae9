"""Starting the process that owns a run, and handing the run over to it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_FDS_AT_ONCE = 200
"""Linux takes 253 in one message."""


class Supervision:
    """A supervisor that waits for its run. Started early, it imports torch while the job is still being read."""

    def __init__(self, torchrun_python: str | None = None) -> None:
        """Start one; with the Python of a torchrun that is going to be needed, if it is known."""
        self.temp = _make_temp()
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).resolve().parent.parent.parent)
        main = "from azml_dist.local.guard import guard_supervisor; guard_supervisor()"
        code = f"import sys; sys.path.insert(0, {package!r}); {main}"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, self.temp, torchrun_python or ""],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours

    def hand_over(self, spec: dict[str, Any], fds: list[int]) -> None:
        """Start the run. The descriptors are kept open for as long as it goes on."""
        send(self._socket, json.dumps(spec).encode(), fds)

    def end(self) -> None:
        """Wait until the supervisor has ended: by itself after its run, or now, if it was given none."""
        self._socket.close()
        self.process.wait()
        remove_temp(self.temp)


def send(connection: socket.socket, payload: bytes, fds: list[int]) -> None:
    """Send a message and descriptors that the receiver is to have too."""
    header = len(payload).to_bytes(8, "little") + len(fds).to_bytes(8, "little")
    socket.send_fds(connection, [header], fds[:_FDS_AT_ONCE])
    for start in range(_FDS_AT_ONCE, len(fds), _FDS_AT_ONCE):
        socket.send_fds(connection, [b" "], fds[start : start + _FDS_AT_ONCE])
    connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """What `send` sent; nothing if the other side is gone."""
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
    """The run's folder in the machine's shared memory, where there is one; it goes with the run's `temp`."""
    return os.path.join("/dev/shm", os.path.basename(temp)) if os.access("/dev/shm", os.W_OK) else None


def remove_temp(temp: str) -> None:
    """Remove the run's folder of sockets and links, and what its processes left in shared memory."""
    shutil.rmtree(temp, ignore_errors=True)
    if memory := memory_of(temp):
        shutil.rmtree(memory, ignore_errors=True)


def needs_no_quotes(path: str) -> bool:
    """The shell takes the path as one word, as it does with the service's own."""
    return shlex.quote(path) == path


def _make_temp() -> str:
    """A folder of short and plain path, for sockets and links; in the usual place where that is one."""
    usual = tempfile.gettempdir()
    plain = needs_no_quotes(usual) and len(usual) < 80  # a socket's path has room for 100 characters
    return tempfile.mkdtemp(prefix="azml-", dir=usual if plain else "/tmp")
