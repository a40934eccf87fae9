"""Emulated hosts: what distinguishes nodes from each other on one machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import LaunchError
from azml_dist.local.launchers.own_tmp import Room, make_room, shared_tmp, tidy
from azml_dist.local.launchers.starting import LaunchFailed, spawn

if TYPE_CHECKING:
    from azml_dist.local.spec import OwnTmp, Spec

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def interface_for_nccl(usual: str) -> str:
    """`NCCL_SOCKET_IFNAME` if all nodes are this machine: the usual interface if it exists and is up.

    Otherwise any interface that is up, or loopback: if the named interface does not exist, NCCL finds none.
    """
    if sys.platform != "linux":
        return _ANY_NETWORK
    up = set(_interfaces_that_are_up())
    return usual if usual in up else _ANY_NETWORK if up else LOOPBACK


_ANY_NETWORK = f"^docker0,{LOOPBACK}"
"""NCCL reads this as: every interface except these."""


def _interfaces_that_are_up() -> Iterator[str]:
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError):
            if name not in (LOOPBACK, "docker0") and Path(f"/sys/class/net/{name}/operstate").read_text() == "up\n":
                yield name


_AS_ROOT = ["unshare", "--uts", "--", "sh", "-c", 'hostname "$0" && exec "$@"']
# In a user namespace, any user may do this; the capabilities that come with it are dropped before the command starts.
_AS_ANYBODY = [
    *["unshare", "--user", "--map-current-user", "--keep-caps", "--uts", "--", "sh", "-c"],
    'hostname "$0" && exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"',
]


def naming_hosts() -> list[str]:
    """The words before a host name and a command that run the command under that host name (Linux).

    Raises `LaunchError` if this user has no permission for that.
    """
    for words in (_AS_ROOT, _AS_ANYBODY):
        with contextlib.suppress(FileNotFoundError):
            tried = subprocess.run([*words, "node", "true"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
            if tried.returncode == 0:
                return words
    raise LaunchError(
        "Open MPI needs a host name for each node, and this system does not let you set one for a process",
        hint="run as root on Linux, allow user namespaces, or use one node: `--set node_count=1`",
    )


FIRST_ADDRESS_APART = "10.0.0.4"
"""Addresses of nodes with their own networks. Azure reserves the first three addresses of a subnet."""
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
    """Raise `LaunchError` if nodes cannot have their own networks."""
    hint = "leave out `--apart`, or run as root on Linux, with Debian's iproute2 installed"
    if missing := [name for name in ("ip", "unshare", "nsenter", "hostname") if not shutil.which(name)]:
        raise LaunchError(f"`--apart` needs `{missing[0]}`, which is not installed", hint=hint)
    made = subprocess.run(
        ["unshare", "--net", "--uts", "--", "sh", "-c", "hostname node && ip link add eth0 type veth peer name other"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise LaunchError(f"this system does not let you create a network for a node: {made.stderr.strip()}", hint=hint)


class Hosts:
    """The emulated hosts of a run: all are this machine, or each has its own network and name.

    Such a network has no name in the system: it exists as long as a process is in it.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._holders: list[int] = []
        """One process in each node, which ends with the supervisor; other processes enter its namespaces."""
        self._lifelines: list[int] = []
        self._switch: int | None = None
        """A process in the network that connects the nodes."""
        self._rooms: list[Room] = []
        """The namespaces in which each node has its own `/tmp`."""
        self._nsenter = shutil.which("nsenter") or ""
        self.findings: list[str] = []
        """Findings about the hosts, once they exist."""

    @property
    def holders(self) -> list[int]:
        """The processes that hold the nodes' namespaces; none if the nodes share the machine's."""
        return self._holders

    @property
    def rooms(self) -> list[Room]:
        """The namespaces in which each node has its own files; none where nodes share the machine's."""
        return self._rooms

    def start(self) -> None:
        """Create what the hosts need. Raises `LaunchFailed`."""
        if self._spec["apart"]:
            self._make_networks()
        if tmp := self._spec["tmp"]:
            self._make_rooms(tmp)

    def close(self) -> None:
        """Clean up the nodes' own `/tmp`, except for what was written there. Called when no process is left."""
        if self._rooms and (tmp := self._spec["tmp"]):
            for folder in self._spec["tmp_folders"]:
                tidy(folder, tmp["kept"])
            with contextlib.suppress(OSError):
                os.removedirs(os.path.dirname(self._spec["tmp_folders"][0]))  # only if they are empty

    def _make_rooms(self, tmp: OwnTmp) -> None:
        kept, used_by = tmp["kept"], tmp["used_by"]
        try:
            if not self._nsenter:
                raise OSError("`nsenter` is not installed")
            for folder in self._spec["tmp_folders"]:
                self._rooms.append(make_room(folder, kept))
        except OSError as error:
            for folder in self._spec["tmp_folders"]:
                tidy(folder, kept)
            self._rooms = []
            self.findings += [shared_tmp(used_by, error.strerror or str(error))] if used_by else []
        else:
            self.findings += tmp["hidden"]

    def _make_networks(self) -> None:
        switch = self._hold(["--net"], _SWITCH, [])
        self._wait([switch])
        self._switch = switch.pid
        addresses = self._spec["hosts"]
        nodes = [
            self._hold(["--net", "--uts"], _NODE, [str(switch.pid), address, str(node)])
            for node, address in enumerate(addresses)
        ]
        self._wait(nodes)
        self._holders = [node.pid for node in nodes]

    def in_network(self, node: int | None) -> list[str]:
        """The words before a command that is to run in the network of a node, or in the switch between them."""
        holder = self._switch if node is None else self._holders[node]
        return [self._nsenter or "nsenter", "--target", str(holder), "--net", "--"]

    def enter(self, node: int, cwd: str) -> list[str]:
        """The words before a command that make it run on a node, in the given folder."""
        if containers := self._spec["containers"]:
            return containers[node]
        words, options = [], []
        if self._holders:
            options += ["--target", str(self._holders[node]), "--net", "--uts"]
        if self._rooms:
            options += self._rooms[node].options
        if options:
            words += [self._nsenter or "nsenter", *options, "--"]
        if self._rooms:
            # After entering a mount namespace, the working directory is its root.
            words += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd]
        if self._spec["naming_hosts"] and not self._holders:
            words += [*self._spec["naming_hosts"], self._spec["hosts"][node]]
        return words

    def spawn(self, node: int, argv: list[str], cwd: str, env: dict[str, str], output: int) -> int:
        """Start a process on a node, in the given folder; returns its id."""
        limit = self._spec["file_limit"]
        if self._rooms and not (self._holders or self._spec["containers"] or self._spec["naming_hosts"]):
            # It enters by itself: two programs fewer to start for each rank.
            return spawn(argv, cwd, env, output, file_limit=limit, namespaces=self._rooms[node].fds)
        return spawn(argv, cwd, env, output, file_limit=limit, within=self.enter(node, cwd))

    def namespaces(self, node: int) -> list[str]:
        """The files of the namespaces of a node, in the order in which they are entered."""
        nets = [f"/proc/{self._holders[node]}/ns/{kind}" for kind in ("net", "uts")] if self._holders else []
        return [*nets, *(self._rooms[node].paths if self._rooms else [])]

    def _hold(self, namespaces: list[str], script: str, words: list[str]) -> subprocess.Popen[str]:
        theirs, ours = os.pipe()
        self._lifelines.append(ours)  # `cat` ends when this end is closed, also by the end of this process
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
                raise LaunchFailed(f"the network of the nodes could not be created: {said}", "leave out `--apart`")
            holder.returncode = 0  # the supervisor's loop reaps all its children, including this one
