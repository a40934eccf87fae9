"""Open MPI's mpirun: one for the whole run, as on Azure ML, with a daemon for each further emulated node."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.local import processes
from azml_dist.local.handover import make_memory
from azml_dist.local.launchers.clients import Clients
from azml_dist.local.launchers.hosts import LOOPBACK
from azml_dist.local.launchers.launcher import Reports
from azml_dist.local.launchers.openmpi import OpenMpi
from azml_dist.local.launchers.starting import REPORT_GRACE, LaunchFailed, ending, ending_words, spawn
from azml_dist.regular import end_of, open_regular

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

LOG = "user_logs/mpi_log.txt"
"""mpirun's own output. Observed: Azure ML has a log with this name next to those of the processes."""
_SCHEDULERS = ("SLURM", "PBS", "LSB_", "LSF_", "PE_", "SGE_", "COBALT_", "FLUX_")
"""Variables from which mpirun would read the nodes of a batch system, if azml_dist itself runs in a job there."""
_TRANSPORTS = ("btl", "mtl")
"""Open MPI's two kinds of message transports, each with one for libfabric, which waits for a second in version 5."""
_END = 1 << 20
"""Bytes read from the end of that log."""
_END_GRACE = 1.0
"""Seconds for mpirun to say why it ended, once all ranks are gone. Version 4 needs two, but says it earlier."""


class Mpirun:
    """One mpirun; each process that it starts runs `rank.py`, which starts the user's command."""

    def __init__(self, spec: Spec, run: Reports) -> None:
        self._spec, self._run = spec, run
        self._mpi = OpenMpi(*spec["mpirun"])
        self._clients = Clients(spec, run, "mpirun")
        self._pid: int | None = None
        self._broken: tuple[float, str] | None = None

    def start(self) -> None:
        log = os.path.join(self._spec["folder"], LOG)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            temp = self._spec["temp"]
            self._pid = spawn(self._argv(), temp, self._environment(), output, within=self._run.hosts.enter(0, temp))
        finally:
            os.close(output)

    def turn(self, children: list[tuple[int, int]]) -> None:
        for pid, status in children:
            if pid == self._pid:
                self._pid = None
                self._broken = (time.monotonic() + REPORT_GRACE, f"mpirun {ending_words(*ending(status))}")
        if self._broken and time.monotonic() > self._broken[0] and not self._run.stopping:
            raise LaunchFailed(self._broken[1], f"its own messages are in {self._spec['folder']}/{LOG}")

    def ends_with(self, rank: int, code: int) -> None:
        self._clients.ends_with(rank, code)

    def stop(self) -> None:
        pass

    def close(self) -> str | None:
        deadline = time.monotonic() + _END_GRACE
        while self._pid and time.monotonic() < deadline:
            if self._pid in (pid for pid, _ in processes.reap()):
                self._pid = None
            time.sleep(0.002)
        log = Path(self._spec["folder"], LOG)
        if b"MPI_" in end_of(open_regular(log), _END):
            # If an MPI call fails, mpirun prints the message, not the process that made the call.
            return f"MPI's own messages are in {log}"
        if port := self._spec["port_in_use"]:
            return (
                f"port {port} is in use on this machine; DeepSpeed on one node, and scripts that name the port, do not"
                " heed MASTER_PORT: `--apart` gives the run its own network"
            )
        return None

    def _argv(self) -> list[str]:
        spec, nodes, each = self._spec, self._spec["node_count"], self._spec["process_count"]
        hosts = spec["hosts"]
        is_old, agent = self._mpi.major < 5, self._agent()
        options = {
            "--host": ",".join(f"{host}:{each}" for host in hosts),
            "-np": str(nodes * each),
            # Otherwise all emulated nodes would bind their processes to the same cores.
            "--bind-to": "none",
            "--map-by": "slot",
        }
        shell = {"plm": "rsh", "plm_rsh_agent": agent} if is_old else {"plm": "ssh", "plm_ssh_agent": agent}
        parameters = {} if spec["apart"] else {"btl_tcp_if_include": LOOPBACK}
        chosen = spec["contexts"][0]["env"]
        parameters |= {kind: "^ofi" for kind in _TRANSPORTS if f"OMPI_MCA_{kind}" not in chosen}
        if (memory := spec["memory"]) and make_memory(memory):
            parameters["btl_vader_backing_directory" if is_old else "btl_sm_backing_directory"] = memory
        if nodes * each > (os.cpu_count() or 1):
            # A process that waits for a message spins, and would take the core from the process that should send it.
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
            # Without it, a program in the job would load the system's MPI, if there is one.
            own = os.pathsep.join(filter(None, [str(lib), own]))
        libraries = {"LD_LIBRARY_PATH": own} if own else {}
        return env | libraries | {"AZML_DIST_NODE": "0", "TMPDIR": self._spec["temp"]}

    def _agent(self) -> str:
        """What mpirun calls instead of ssh to start its daemon on another node."""
        path = os.path.join(self._spec["temp"], "agent")
        temp = self._spec["temp"]
        cases = [
            f'{host}) AZML_DIST_NODE={node} exec {shlex.join(self._run.hosts.enter(node, temp))} sh -c "$*" ;;'
            for node, host in enumerate(self._spec["hosts"])
        ]
        lines = ["host=$1", "shift", "export AZML_DIST_NODE", 'case "$host" in', *cases, "esac"]
        Path(path).write_text("\n".join(lines) + "\n")
        return f"/bin/sh {path}"  # run by sh, since some temporary folders do not allow executing files
