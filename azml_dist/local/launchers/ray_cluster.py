"""Starts a Ray cluster over the emulated nodes with the real `ray start`, then the command on its head.

Inferred, since Azure ML's documentation says only that it starts a cluster: the command runs only on the head, once
every node has joined, and finds the cluster by `RAY_ADDRESS`; the cluster ends with the command.

`ray stop` would end every Ray on this machine, and SIGTERM takes a minute. So the processes of each node are a process
group, which is killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from typing import TYPE_CHECKING

from azml_dist.local import processes
from azml_dist.local.launchers.direct import Direct
from azml_dist.local.launchers.launcher import Reports
from azml_dist.local.launchers.starting import LaunchFailed, ending, ending_words, spawn

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

_UP = b"Ray runtime started"
"""What `ray start` prints when its node has joined the cluster."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": ""}
"""Even if usage reports are disabled, Ray reports that to its makers, unless it has no address to report to."""
_OF_THE_COMMAND = ("RAY_ADDRESS", "AZUREML_PROCESS_NAME", "AZ_BATCHAI_TASK_INDEX")
"""Variables only for the process on the head."""
_PATIENCE = 120.0
"""Seconds for all nodes to join; on two busy cores it takes some 10."""


def environment() -> dict[str, str]:
    """A secret shared by all processes of a cluster, by which they recognise each other.

    Without it, `ray start --head` requires the token that an earlier `ray.init()` left in the home folder, and
    `ray start --address` does not send it.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class RayCluster:
    """`ray start` for each node, and then the command on the head."""

    def __init__(self, spec: Spec, run: Reports) -> None:
        self._spec, self._run = spec, run
        self._env = environment()
        self._direct = Direct(spec | {"base_env": spec["base_env"] | self._env}, run)
        self._nodes: dict[int, int] = {}
        """Node by process id."""
        self._absent = set(range(len(spec["ray"])))
        self._deadline = time.monotonic() + _PATIENCE

    def start(self) -> None:
        """Start all nodes at once: workers wait for their head."""
        for node, command in enumerate(self._spec["ray"]):
            output, theirs = os.pipe()
            command += [] if node else ["--temp-dir", os.path.join(self._spec["temp"], "ray")]
            try:
                pid = spawn(
                    command,
                    self._spec["nodes"][node],
                    self._environment_of(node),
                    theirs,
                    file_limit=self._spec["file_limit"],
                    within=self._run.hosts.enter(node, self._spec["nodes"][node]),
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

    def ends_with(self, rank: int, code: int) -> None:
        self._direct.ends_with(rank, code)

    def stop(self) -> None:
        for pid in self._nodes:
            processes.send_group(pid, signal.SIGKILL)

    def close(self) -> str | None:
        return None

    def joined(self, node: int) -> None:
        """A node has joined; after the last one, start the command."""
        self._absent.discard(node)
        if not self._absent and not self._run.stopping:
            self._direct.start()

    def _environment_of(self, node: int) -> dict[str, str]:
        """The environment of tasks on a node: the variables of the job, as for the command, and the node's place."""
        env = (
            self._spec["base_env"] | self._spec["contexts"][0]["env"] | self._spec["slices"][node] | self._env | _QUIET
        )
        env |= self._spec["node_env"][node] | {"PWD": self._spec["nodes"][node]}
        return {name: value for name, value in env.items() if name not in _OF_THE_COMMAND}

    def _log(self, node: int) -> str:
        return os.path.join(self._spec["folder"], "system_logs", f"ray_node_{node}.txt")


class _Node:
    """Log the output of `ray start`, and look for the line that says that the node has joined."""

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
