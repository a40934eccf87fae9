"""Emulated hosts: what tells one node from another, on one machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

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


def hosts_can_be_named() -> bool:
    """Whether this process may give others a host name of their own: on Linux, as root."""
    try:
        tried = subprocess.run(
            ["unshare", "--uts", "hostname", "node"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def named(host: str) -> list[str]:
    """The words before a command that is to run on a host of that name."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
