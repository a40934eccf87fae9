"""The supervisor's end of the sockets over which `rank.py` asks for its part of the plan and tells how it ended."""

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER

from azml_dist.local.launchers import FOLDER, Exit, LaunchFailed, Run, Spec

Handler = Callable[[list[str]], None]


class Clients:
    """The processes that a launcher starts in place of the user's command, one for each rank of the plan."""

    def __init__(self, spec: Spec, run: Run, launcher: str, handlers: Mapping[str, Handler] | None = None) -> None:
        """`handlers` take the words of what other processes of the launcher tell, by the first word."""
        self._spec, self._run, self._launcher = spec, run, launcher
        self._handlers = handlers or {}
        self._contexts = {(c["node_rank"], c["local_rank"]): c for c in spec["contexts"]}
        self._path = os.path.join(spec["temp"], "s")

    def command(self) -> list[str]:
        """What the launcher is to start in each process. Clients are waited for from now on."""
        self._listen()
        # Compiled by each of them, it would cost a third of a megabyte and a millisecond a rank.
        code = SourceFileLoader("__main__", os.path.join(FOLDER, "rank.py")).get_code("__main__")
        compiled = os.path.join(self._spec["temp"], "rank.pyc")
        with open(compiled, "wb") as file:
            file.write(MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
        return [sys.executable, "-I", "-S", compiled, self._path, self._launcher]

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path)
        listener.listen(1024)
        self._run.watch(listener.fileno(), lambda: _Client(self, self._run, listener.accept()[0]).open())

    def hear(self, client: _Client, words: list[str]) -> None:
        """One line of a client, or that it is `gone`."""
        kind, *rest = words
        if kind == "rank":
            self._rank_asks(client, *map(int, rest))
        elif kind == "exit" and client.rank is not None:
            code, signum = (None if word == "None" else int(word) for word in rest[:2])
            self._run.ended([Exit(client.rank, code, signum, rest[2] != "0", float(rest[3]))])
            client.rank = None
        elif kind == "gone" and client.rank is not None:
            # Only a SIGKILL ends `rank.py` without a word.
            self._run.ended([Exit(client.rank, None, signal.SIGKILL, time=time.monotonic())])
        elif kind in self._handlers:
            self._handlers[kind](rest)

    def _rank_asks(self, client: _Client, node: int, local: int, rank: int, world_size: int, pid: int) -> None:
        """A process is there: give it what the plan says of it, if its launcher put it where the plan has it."""
        context = self._contexts.get((node, local))
        if not context or (context["rank"], len(self._contexts)) != (rank, world_size):
            raise LaunchFailed(
                f"{self._launcher} started rank {rank} of {world_size} as process {local} of node {node}; "
                "the plan differs"
            )
        if self._run.stopping:
            client.close()
            return
        output, theirs = os.pipe()
        environment = self._spec["base_env"] | context["env"]
        parts = [self._spec["nodes"][node]], self._spec["argv"], [f"{k}={v}" for k, v in environment.items()]
        payload = b"\0\0".join(b"\0".join(map(os.fsencode, part)) for part in parts)
        try:
            client.send(payload, theirs)
        except ConnectionError:  # it was killed meanwhile, as its launcher will tell
            os.close(output)
            return
        finally:
            os.close(theirs)
        client.rank = rank
        self._run.started(rank, pid, output)


class _Client:
    """A connection that brings lines of words."""

    def __init__(self, clients: Clients, run: Run, connection: socket.socket) -> None:
        self._clients, self._run, self._connection = clients, run, connection
        self._lines = connection.makefile("rb", buffering=0)
        self.rank: int | None = None
        """The rank that it stands for, between its start and its end."""

    def open(self) -> None:
        self._run.watch(self._connection.fileno(), self._read)

    def send(self, payload: bytes, fd: int) -> None:
        size = len(payload).to_bytes(4, "little")
        socket.send_fds(self._connection, [size], [fd])
        self._connection.sendall(payload)

    def close(self) -> None:
        self._lines.close()
        self._run.unwatch(self._connection.detach())

    def _read(self) -> None:
        try:
            words = self._lines.readline().decode().split()
        except ConnectionError:
            words = []
        if not words:
            self.close()
        self._clients.hear(self, words or ["gone"])
