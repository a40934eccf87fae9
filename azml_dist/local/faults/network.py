"""Cuts a node off the network, or slows its network down, if nodes have separate networks (`--apart`)."""

from __future__ import annotations

import shutil
import subprocess

from azml_dist.local.launchers.hosts import Hosts


def cut_off(hosts: Hosts, node: int, *, again: bool = False) -> str | None:
    """Disconnect a node from the switch, or reconnect it; returns what went wrong."""
    return _run([*hosts.in_network(None), "ip", "link", "set", f"node{node}", "up" if again else "down"])


def limit(hosts: Hosts, node: int, mbit: float | None) -> str | None:
    """Limit what a node sends and receives, or remove the limit; returns what went wrong."""
    ways = ((hosts.in_network(node), "eth0"), (hosts.in_network(None), f"node{node}"))
    problems = [_run([*within, *_shape(interface, mbit)]) for within, interface in ways]
    return next(filter(None, problems), None)


def _shape(interface: str, mbit: float | None) -> list[str]:
    if mbit is None:
        return ["tc", "qdisc", "del", "dev", interface, "root"]
    # A burst must allow at least what becomes due between two ticks of the kernel's clock.
    burst = max(16_384, int(mbit * 1_000_000 / 8 / 100))
    rate = ["rate", f"{int(mbit * 1_000_000)}bit", "burst", f"{burst}b", "latency", "400ms"]
    return ["tc", "qdisc", "replace", "dev", interface, "root", "tbf", *rate]


def cannot_limit() -> str | None:
    """Why this machine cannot limit a network; None if it can."""
    if not shutil.which("tc"):
        return "`tc` is not installed: install iproute2"
    make = "ip link add eth0 type veth peer name other && exec " + " ".join(_shape("eth0", 10))
    return _run(["unshare", "--net", "--", "sh", "-c", make])


def _run(words: list[str]) -> str | None:
    try:
        ran = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return " ".join((ran.stderr or ran.stdout).split()) or f"exit code {ran.returncode}" if ran.returncode else None
