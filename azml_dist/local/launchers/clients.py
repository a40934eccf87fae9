"""The supervisor's end of the sockets over which `rank.py` gets its part of the plan and reports how it ended."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING

from azml_dist.local.launchers.launcher import Reports
from azml_dist.local.launchers.starting import FOLDER, Exit, LaunchFailed, cannot_start

if TYPE_CHECKING:
    from azml_dist.local.spec import Context, Spec

Handler = Callable[[list[str]], None]


class Clients:
    """The `rank.py` processes that a launcher starts instead of the user's command, one for each rank of the plan."""

    def __init__(self, spec: Spec, run: Reports, launcher: str, handlers: Mapping[str, Handler] | None = None) -> None:
        """`handlers`, by first word, receive the words of messages from other processes of the launcher."""
        self._spec, self._run, self._launcher = spec, run, launcher
        self._handlers = handlers or {}
        self._contexts = {(c["node_rank"], c["local_rank"]): c for c in spec["contexts"]}
        self._path = os.path.join(spec["temp"], "s")
        self._by_rank: dict[int, _Client] = {}

    def command(self) -> list[str]:
        """What the launcher should start in each process. From now on, clients can connect."""
        self._listen()
        # Compiling it in each of them would cost a third of a megabyte and a millisecond per rank.
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
        """One line from a client, or `gone` if it has disconnected."""
        kind, *rest = words
        if kind == "rank":
            self._rank_asks(client, *map(int, rest))
        elif kind == "exit" and client.rank is not None:
            code, signum = (None if word == "None" else int(word) for word in rest[:2])
            self._run.ended([Exit(client.rank, code, signum, rest[2] != "0", float(rest[3]))])
            client.rank = None
        elif kind == "gone" and client.rank is not None:
            # Only SIGKILL ends `rank.py` without a report.
            self._run.ended([Exit(client.rank, None, signal.SIGKILL, time=time.monotonic(), unheard=True)])
        elif kind == "unstartable" and client.rank is not None:
            rank, client.rank = client.rank, None
            self._run.ended([Exit(rank, None, None, stopped=True, time=time.monotonic())])
            if not self._run.stopping:
                raise self._cannot_start(rank, int(rest[0]))
        elif kind in self._handlers:
            self._handlers[kind](rest)

    def _rank_asks(self, client: _Client, node: int, local: int, rank: int, world_size: int, pid: int) -> None:
        """Send a new process its part of the plan, if the launcher placed it where the plan does."""
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
        environment = self._environment(context)
        parts = (
            [self._spec["nodes"][node]],
            self._spec["argv"],
            [f"{k}={v}" for k, v in environment.items()],
            [" ".join(map(str, self._spec["file_limit"]))],
        )
        payload = b"\0\0".join(b"\0".join(map(os.fsencode, part)) for part in parts)
        try:
            client.send(payload, theirs)
        except ConnectionError:  # it was killed meanwhile; its launcher will report that
            os.close(output)
            return
        finally:
            os.close(theirs)
        client.rank = rank
        self._by_rank[rank] = client
        self._run.started(rank, pid, output)

    def ends_with(self, rank: int, code: int) -> None:
        """Let `rank.py` tell its launcher, and us, that the command exited with that code, whatever ends it."""
        with contextlib.suppress(ConnectionError):  # it has ended meanwhile
            self._by_rank[rank].tell(f"{code}\n".encode())

    def _environment(self, context: Context) -> dict[str, str]:
        environment: dict[str, str] = self._spec["base_env"] | context["env"]
        return environment

    def _cannot_start(self, rank: int, number: int) -> LaunchFailed:
        context = next(c for c in self._spec["contexts"] if c["rank"] == rank)
        cwd = self._spec["nodes"][context["node_rank"]]
        return cannot_start(self._spec["argv"], cwd, self._environment(context), number)


class _Client:
    """A connection that delivers lines of words."""

    def __init__(self, clients: Clients, run: Reports, connection: socket.socket) -> None:
        self._clients, self._run, self._connection = clients, run, connection
        self._lines = connection.makefile("rb", buffering=0)
        self.rank: int | None = None
        """The rank at the other end, from its start to its end."""

    def open(self) -> None:
        self._run.watch(self._connection.fileno(), self._read)

    def send(self, payload: bytes, fd: int) -> None:
        size = len(payload).to_bytes(4, "little")
        socket.send_fds(self._connection, [size], [fd])
        self._connection.sendall(payload)

    def tell(self, line: bytes) -> None:
        self._connection.sendall(line)

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
