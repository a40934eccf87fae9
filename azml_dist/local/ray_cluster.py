"""A Ray cluster over the emulated nodes, by real `ray start`, and the command on its head once all nodes are there.

Inferred, as Azure ML's documentation says no more than that it starts a cluster: the command runs on the head alone,
when every node has joined, and finds the cluster by `RAY_ADDRESS`; the cluster ends with it.

`ray stop` would end every Ray of this machine, and SIGTERM takes a minute. So each node's processes are a group of
their own here, which is killed.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import time
from typing import TYPE_CHECKING

from azml_dist.local import processes
from azml_dist.local.launchers import Direct, LaunchFailed, Run, Spec, ending, ending_words, spawn
from azml_dist.local.ports import Ports

if TYPE_CHECKING:
    from azml_dist.parts import Ray
    from azml_dist.plan import Place

_UP = b"Ray runtime started"
"""What `ray start` prints when its node has joined the cluster."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": ""}
"""Also where they are disabled, Ray reports as much to its makers, unless there is no address to report to."""
_PATIENCE = 120.0
"""Seconds for all nodes to join; on two busy cores it takes some 10."""


def node_commands(ray: Ray, python: str, place: Place, ports: Ports) -> list[list[str]]:
    """The command that makes each node one of the cluster; its head first. Every port is one that nobody else has."""
    # The working directory may hold a `ray.py`: nothing is imported from there.
    main = "import sys; sys.path[:] = filter(None, sys.path); from ray.scripts.scripts import main; sys.exit(main())"
    start = [python, "-c", main, "start", "--block"]
    head: dict[str, int | str] = {
        "--port": place.ports[0],
        # Two clusters of one machine would both take Ray's own 10001.
        "--ray-client-server-port": ports.take(),
        "--dashboard-port": _dashboard_port(ray, ports),
    }
    if ray.include_dashboard is not None:
        head["--include-dashboard"] = str(ray.include_dashboard).lower()
    commands = []
    for node, address in enumerate(place.addresses):
        options = {"--node-ip-address": address, "--dashboard-agent-listen-port": ports.take()}
        options |= head if node == 0 else {"--address": f"{place.address(0)}:{place.ports[0]}"}
        words = [str(word) for option in options.items() for word in option]
        more = ray.worker_node_additional_args if node else ray.head_node_additional_args
        commands.append([*start, *["--head"] * (node == 0), *words, *shlex.split(more or "")])
    return commands


def _dashboard_port(ray: Ray, ports: Ports) -> int:
    if ray.dashboard_port and ray.include_dashboard is not False:
        return ports.take_exactly(ray.dashboard_port, "Ray's dashboard")
    return ports.take()


def environment() -> dict[str, str]:
    """What all processes of a cluster share: a secret by which they know one another.

    Without it, `ray start --head` asks for the token that some earlier `ray.init()` left in the home folder, and
    `ray start --address` does not send it.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class RayCluster:
    """`ray start` for each node, and then the command on the head."""

    def __init__(self, spec: Spec, run: Run) -> None:
        self._spec, self._run = spec, run
        self._env = environment()
        self._direct = Direct(spec | {"base_env": spec["base_env"] | self._env}, run)
        self._nodes: dict[int, int] = {}
        """Nodes by the process that is each."""
        self._absent = set(range(len(spec["ray"])))
        self._deadline = time.monotonic() + _PATIENCE

    def start(self) -> None:
        """Start every node at once: workers wait for their head."""
        for node, command in enumerate(self._spec["ray"]):
            output, theirs = os.pipe()
            command += [] if node else ["--temp-dir", os.path.join(self._spec["temp"], "ray")]
            try:
                pid = spawn(
                    [*self._run.hosts.enter(node), *command],
                    self._spec["nodes"][node],
                    self._environment_of(node),
                    theirs,
                )
            finally:
                os.close(theirs)
            self._nodes[pid] = node
            self._run.watch(output, _Node(self, node, output).read)

    def turn(self, children: list[tuple[int, int]]) -> None:
        for pid, status in children:
            if pid in self._nodes and not self._run.stopping:
                node = self._nodes[pid]
                raise LaunchFailed(
                    f"{_name(node)} {ending_words(*ending(status))}", f"Ray's own messages are in {self._log(node)}"
                )
        if self._absent and time.monotonic() > self._deadline and not self._run.stopping:
            node = min(self._absent)
            raise LaunchFailed(
                f"{_name(node)} had not joined after {_PATIENCE:g} s", f"Ray's own messages are in {self._log(node)}"
            )
        self._direct.turn(children)
        if self._direct.is_done:
            self.stop()

    def stop(self) -> None:
        for pid in self._nodes:
            processes.send_group(pid, signal.SIGKILL)

    def close(self) -> str | None:
        return None

    def joined(self, node: int) -> None:
        """A node is there; with the last of them, the command starts."""
        self._absent.discard(node)
        if not self._absent and not self._run.stopping:
            self._direct.start()

    def _environment_of(self, node: int) -> dict[str, str]:
        """What tasks on a node see: the variables of the job, as the command does, and the node's own place."""
        env = (
            self._spec["base_env"] | self._spec["contexts"][0]["env"] | self._spec["slices"][node] | self._env | _QUIET
        )
        here = self._spec["nodes"][node]
        env |= {"AZUREML_CR_NODE_RANK": str(node), "AZUREML_CR_EXECUTION_WORKING_DIR_PATH": here, "PWD": here}
        return {name: value for name, value in env.items() if name not in ("RAY_ADDRESS", "AZUREML_PROCESS_NAME")}

    def _log(self, node: int) -> str:
        return os.path.join(self._spec["folder"], "system_logs", f"ray_node_{node}.txt")


class _Node:
    """What `ray start` prints: kept, and searched for the word that the node has joined."""

    def __init__(self, cluster: RayCluster, node: int, output: int) -> None:
        self._cluster, self._node, self._output = cluster, node, output
        self._log = os.open(cluster._log(node), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._seen = b""
        self._joined = False

    def read(self) -> None:
        data = os.read(self._output, 1 << 16)
        if not data:
            os.close(self._log)
            self._cluster._run.unwatch(self._output)
            return
        os.write(self._log, data)
        self._seen = (self._seen + data)[-4096:]
        if not self._joined and _UP in self._seen:
            self._joined = True
            self._cluster.joined(self._node)


def _name(node: int) -> str:
    return f"Ray's worker node {node}" if node else "Ray's head node"
