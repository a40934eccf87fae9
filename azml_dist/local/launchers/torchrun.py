"""The torchrun launcher: one agent for each emulated node."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.local import processes
from azml_dist.local.environment import base_environment
from azml_dist.local.launchers.clients import Clients
from azml_dist.local.launchers.direct import Direct
from azml_dist.local.launchers.launcher import Reports
from azml_dist.local.launchers.starting import (
    FOLDER,
    REPORT_GRACE,
    LaunchFailed,
    ending,
    ending_words,
    last_error,
    spawn,
)

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

_HOST_LOG = "torchrun.txt"


class Host(NamedTuple):
    """The process that becomes the torchrun agents once it gets their options from the pipe `orders`."""

    pid: int
    orders: int


_OPTIONS = re.compile(r"(PET|TORCHELASTIC)_.*|LOGLEVEL|PYTHON(?!PATH$|HOME$|USERBASE$|NOUSERSITE$|PYCACHEPREFIX$).*")
"""Variables meant for the user's programs that would change torchrun or keep it from starting."""


def _environment(python: str, temp: str) -> dict[str, str]:
    # Of the variables that make Python find code, this process has only those that the run keeps.
    env = base_environment(python, temp, keep_pythonpath=True)
    return {k: v for k, v in env.items() if not _OPTIONS.fullmatch(k)}


class Torchrun:
    """One torchrun agent per node; each process that it starts runs `rank.py`, which starts the user's command."""

    def __init__(self, spec: Spec, run: Reports, host: Host) -> None:
        self._spec, self._run, self._host = spec, run, host
        handlers = {
            "imported": lambda _: run.starts("starting processes"),
            "agent": self._agent_ended,
            "no-torchrun": self._torchrun_is_missing,
        }
        self._clients = Clients(spec, run, "torchrun", handlers)
        self._logs = os.path.join(spec["folder"], "system_logs")
        self._direct: Direct | None = None
        self._broken: tuple[float, str] | None = None

    @staticmethod
    def start_host(python: str, temp: str) -> Host:
        """Start the process that imports torch and then waits for its orders."""
        output = os.open(os.path.join(temp, _HOST_LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        orders, ours = os.pipe()
        try:
            argv = [python, str(FOLDER / "torchrun_host.py"), os.path.join(temp, "s")]
            return Host(spawn(argv, temp, _environment(python, temp), output, orders), ours)
        except LaunchFailed:
            os.close(ours)
            raise
        finally:
            os.close(output)
            os.close(orders)

    def start(self) -> None:
        self._run.starts("importing torch")
        world = [str(self._spec[key]) for key in ("node_count", "process_count", "launcher_port")]
        nodes = range(self._spec["node_count"])
        namespaces = ",".join(":".join(self._run.hosts.namespaces(node)) for node in nodes)
        orders = [self._logs, *world, self._spec["hosts"][0], namespaces, *self._clients.command()]
        os.write(self._host.orders, "\0".join(orders).encode())
        os.close(self._host.orders)

    def turn(self, children: list[tuple[int, int]]) -> None:
        if self._direct:
            self._direct.turn(children)
            return
        for pid, status in children:
            if pid == self._host.pid and status:
                self._breaks(f"torchrun {ending_words(*ending(status))}", os.path.join(self._spec["temp"], _HOST_LOG))
        if self._broken and time.monotonic() > self._broken[0] and not self._run.stopping:
            shutil.copy(os.path.join(self._spec["temp"], _HOST_LOG), self._logs)
            raise LaunchFailed(self._broken[1], f"its messages are in {self._logs}")

    def ends_with(self, rank: int, code: int) -> None:
        (self._direct or self._clients).ends_with(rank, code)

    def stop(self) -> None:
        # Otherwise the agents would wait for each other for up to 300 s.
        processes.send([*processes.children(self._host.pid), self._host.pid], signal.SIGKILL)

    def close(self) -> str | None:
        return None

    def _agent_ended(self, told: list[str]) -> None:
        node, code = map(int, told)
        if code:
            how = ending_words(None, -code) if code < 0 else ending_words(code, None)
            log = os.path.join(self._logs, f"torchrun_node_{node}.txt")
            self._breaks(f"the torchrun agent of node {node} {how}", log)

    def _torchrun_is_missing(self, why: list[str]) -> None:
        if self._spec["launcher_is_chosen"]:
            raise LaunchFailed(
                f"torchrun cannot be started by {self._spec['python']}: {' '.join(why)}",
                "install torch there, or run with `--launcher direct`",
            )
        self._run.fell_back(
            "direct", f"{self._spec['python']} has no torch: the same processes were started directly, without torchrun"
        )
        self._direct = Direct(self._spec, self._run)
        self._direct.start()

    def _breaks(self, message: str, log: str) -> None:
        # An agent ends after one of its ranks; the rank's own report may still be on its way.
        self._broken = self._broken or (time.monotonic() + REPORT_GRACE, message + last_error(log))
