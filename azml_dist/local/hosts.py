"""Emulated hosts: what tells one node from another, on one machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from azml_dist.errors import LaunchError
from azml_dist.local.launchers import LaunchFailed, Spec

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def has_network() -> bool:
    """Whether this machine has an interface that is up, besides the one to itself."""
    if sys.platform != "linux":
        return True
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError):
            if name not in (LOOPBACK, "docker0") and Path(f"/sys/class/net/{name}/operstate").read_text() == "up\n":
                return True
    return False


_AS_ROOT = ["unshare", "--uts", "--", "sh", "-c", 'hostname "$0" && exec "$@"']
# In a user namespace of its own, any user may; the capabilities that come with it go before the command starts.
_AS_ANYBODY = [
    *["unshare", "--user", "--map-current-user", "--keep-caps", "--uts", "--", "sh", "-c"],
    'hostname "$0" && exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"',
]


def naming_hosts() -> list[str]:
    """The words that run a command under a host name of its own, before the name and the command (Linux).

    Raises `LaunchError` where this user may not do that.
    """
    for words in (_AS_ROOT, _AS_ANYBODY):
        with contextlib.suppress(FileNotFoundError):
            tried = subprocess.run([*words, "node", "true"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
            if tried.returncode == 0:
                return words
    raise LaunchError(
        "Open MPI tells nodes apart by their host names, and this system lets you give none to a process",
        hint="run as root on Linux, or allow user namespaces; one node needs none: `--set node_count=1`",
    )


FIRST_ADDRESS_APART = "10.0.0.4"
"""Of nodes that have networks of their own; an Azure subnet keeps the first three addresses for itself."""
_SWITCH = """
ip link set lo up && ip link add switch type bridge && ip link set switch up && echo up && exec cat
"""
_NODE = """
switch="nsenter --target $1 --net --"
hostname "$2" && ip link set lo up && ip link add eth0 type veth peer name "node$3" netns "$1" &&
    ip addr add "$2/16" dev eth0 && ip link set eth0 up &&
    $switch ip link set "node$3" master switch && $switch ip link set "node$3" up && echo up && exec cat
"""


def check_apart() -> None:
    """Raise `LaunchError` where nodes cannot have networks of their own."""
    hint = "leave out `--apart`, or run as root on Linux, with Debian's iproute2 installed"
    if missing := [name for name in ("ip", "unshare", "nsenter", "hostname") if not shutil.which(name)]:
        raise LaunchError(f"hosts apart need `{missing[0]}`, which is not here", hint=hint)
    made = subprocess.run(
        ["unshare", "--net", "--uts", "--", "sh", "-c", "hostname node && ip link add eth0 type veth peer name other"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise LaunchError(f"this system lets you make no network for a node: {made.stderr.strip()}", hint=hint)


class Hosts:
    """The emulated hosts of a run: all this machine, or each with a network and a name of its own.

    Such a network has no name in the system: it is there while a process is in it, and goes with the last one.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._holders: list[int] = []
        """A process in each node, which ends when the supervisor does, and whose namespaces others enter."""
        self._lifelines: list[int] = []

    @property
    def holders(self) -> list[int]:
        """The processes whose namespaces are those of the nodes; none where nodes have none."""
        return self._holders

    def start(self) -> None:
        """Make what the hosts need. Raises `LaunchFailed`."""
        if not self._spec["apart"]:
            return
        switch = self._hold(["--net"], _SWITCH, [])
        self._wait([switch])
        addresses = self._spec["hosts"]
        nodes = [
            self._hold(["--net", "--uts"], _NODE, [str(switch.pid), address, str(node)])
            for node, address in enumerate(addresses)
        ]
        self._wait(nodes)
        self._holders = [node.pid for node in nodes]

    def enter(self, node: int) -> list[str]:
        """The words before a command that is to run on a node."""
        if self._holders:
            return ["nsenter", "--target", str(self._holders[node]), "--net", "--uts", "--"]
        if self._spec["naming_hosts"]:
            return [*self._spec["naming_hosts"], self._spec["hosts"][node]]
        return []

    def _hold(self, namespaces: list[str], script: str, words: list[str]) -> subprocess.Popen[str]:
        theirs, ours = os.pipe()
        self._lifelines.append(ours)  # `cat` ends when this end is closed, as by the end of this process
        try:
            return subprocess.Popen(
                ["unshare", *namespaces, "--", "sh", "-c", script, "sh", *words],
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        finally:
            os.close(theirs)

    def _wait(self, holders: list[subprocess.Popen[str]]) -> None:
        for holder in holders:
            assert holder.stdout
            said = holder.stdout.readline().strip()
            if said != "up":
                raise LaunchFailed(f"a network for the nodes could not be made: {said}", "leave out `--apart`")
            holder.returncode = 0  # the supervisor's loop collects all its children, this one too
