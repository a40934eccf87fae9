"""torchrun, one agent for each emulated node."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import NamedTuple

from azml_dist.local import processes
from azml_dist.local.clients import Clients
from azml_dist.local.environment import base_environment
from azml_dist.local.launchers import FOLDER, REPORT_GRACE, Direct, LaunchFailed, Run, Spec, ending, ending_words, spawn


class Host(NamedTuple):
    """The process that becomes the torchrun agents, once it is told on the pipe `orders` for which world."""

    pid: int
    orders: int


def start_host(python: str, temp: str) -> Host:
    """Start the process that imports torch, and then waits for its orders."""
    output = os.open(os.path.join(temp, "torchrun.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    orders, ours = os.pipe()
    try:
        argv = [python, str(FOLDER / "torchrun_host.py"), os.path.join(temp, "s")]
        return Host(spawn(argv, temp, base_environment(python, temp), output, orders), ours)
    finally:
        os.close(output)
        os.close(orders)


class Torchrun:
    """One torchrun agent a node; in each process that it starts, `rank.py` stands before the user's command."""

    def __init__(self, spec: Spec, run: Run, host: Host) -> None:
        self._spec, self._run, self._host = spec, run, host
        self._clients = Clients(
            spec, run, "torchrun", {"agent": self._agent_ended, "no-torchrun": self._torchrun_is_missing}
        )
        self._logs = os.path.join(spec["folder"], "system_logs")
        self._direct: Direct | None = None
        self._broken: tuple[float, str] | None = None

    def start(self) -> None:
        world = [str(self._spec[key]) for key in ("node_count", "process_count", "launcher_port")]
        holders = ",".join(map(str, self._run.hosts.holders))
        orders = [self._logs, *world, self._spec["hosts"][0], holders, *self._clients.command()]
        os.write(self._host.orders, "\0".join(orders).encode())
        os.close(self._host.orders)

    def turn(self, children: list[tuple[int, int]]) -> None:
        if self._direct:
            self._direct.turn(children)
            return
        for pid, status in children:
            if pid == self._host.pid and status:
                self._breaks(f"torchrun {ending_words(*ending(status))}")
        if self._broken and time.monotonic() > self._broken[0] and not self._run.stopping:
            shutil.copy(os.path.join(self._spec["temp"], "torchrun.txt"), self._logs)
            raise LaunchFailed(self._broken[1], f"its own messages are in {self._logs}")

    def stop(self) -> None:
        # Left alone, the agents would wait for one another for up to 300 s.
        processes.send([*processes.children(self._host.pid), self._host.pid], signal.SIGKILL)

    def close(self) -> str | None:
        return None

    def _agent_ended(self, told: list[str]) -> None:
        node, code = map(int, told)
        if code:
            how = ending_words(None, -code) if code < 0 else ending_words(code, None)
            self._breaks(f"the torchrun agent of node {node} {how}")

    def _torchrun_is_missing(self, why: list[str]) -> None:
        if self._spec["launcher_is_chosen"]:
            raise LaunchFailed(
                f"torchrun cannot be started by {self._spec['python']}: {' '.join(why)}",
                "install torch there, or run with `--launcher direct`",
            )
        self._run.fell_back(
            "direct", f"{self._spec['python']} has no torch: the same world was started directly, without torchrun"
        )
        self._direct = Direct(self._spec, self._run)
        self._direct.start()

    def _breaks(self, message: str) -> None:
        # An agent ends after a rank of its own did; the rank's own report may still be on its way.
        self._broken = self._broken or (time.monotonic() + REPORT_GRACE, message)
