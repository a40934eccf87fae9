"""The jobs that are measured, each in two forms: a `job.yml` for us, a shell line of bare torchrun agents."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from textwrap import dedent

PRINTS_ITS_RANK = 'import os\nprint("rank", os.environ["RANK"])\n'

LINES_PER_RANK = 200_000
PRINTS_LINES = """\
import os, sys
rank = os.environ["RANK"]
for i in range(int(sys.argv[1])):
    sys.stdout.write(f"rank {rank} line {i:06d} of the many that a chatty training script prints\\n")
"""

SLEEPS = "echo $$ > {pids}/$RANK.part; mv {pids}/$RANK.part {pids}/$RANK; exec sleep 600"
"""Each rank writes its process id, to distinguish the user's processes from others."""

FAILS = (
    "echo $$ > {pids}/$RANK; if [ $RANK != 2 ]; then exec sleep 600; fi; "
    "while [ $(ls {pids} | wc -l) -lt 4 ]; do sleep 0.1; done; date +%s.%N > {failed_at}; exit 3"
)
"""Rank 2 fails once all four have started; the others block."""


class Workplace:
    """A folder with the script, the job file and the runs of one measurement."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder

    def write_script(self, text: str) -> None:
        code = self.folder / "code"
        code.mkdir(exist_ok=True)
        (code / "script.py").write_text(text)

    @property
    def script(self) -> Path:
        return self.folder / "code" / "script.py"

    def write_job(
        self, command: str, nodes: int, processes: int, name: str = "job", distribution: str | None = None
    ) -> Path:
        distribution = distribution or f"{{type: pytorch, process_count_per_instance: {processes}}}"
        job = self.folder / f"{name}-{nodes}x{processes}.yml"
        code = "code: code\n" if self.script.exists() else ""
        job.write_text(
            dedent("""\
            type: command
            command: {command}
            environment: azureml:bench@latest
            compute: azureml:cluster
            resources: {{instance_count: {nodes}}}
            distribution: {distribution}
            """).format(command=f">-\n  {command}", nodes=nodes, distribution=distribution)
            + code
        )
        return job


def our_run(job: Path, launcher: str | None = None) -> list[str]:
    return [tool("azml-dist"), "run", str(job), *(["--launcher", launcher] if launcher else [])]


def tool(name: str) -> str:
    """A console script next to this Python."""
    return str(Path(sys.executable).parent / name)


def agents(nodes: int, processes: int, program: str) -> list[str]:
    """As many torchrun agents as there are nodes, side by side, as a person would start them by hand."""
    rendezvous = f"--master-addr 127.0.0.1 --master-port {free_port()} --nnodes {nodes}"
    lines = [
        f"{tool('torchrun')} {rendezvous} --node-rank {node} --nproc-per-node {processes} {program} &"
        for node in range(nodes)
    ]
    return ["bash", "-c", "\n".join([*lines, "for agent in $(jobs -p); do wait $agent || exit 1; done"])]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
