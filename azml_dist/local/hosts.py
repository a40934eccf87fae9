"""Emulated hosts: what tells one node from another, on one machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from azml_dist.errors import LaunchError

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
