"""One rank of a run under debugpy, which waits for your editor before the script begins."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from azml_dist.errors import JobError, LaunchError
from azml_dist.local.environment import has_module
from azml_dist.local.ports import Ports
from azml_dist.local.watch.startup import DEBUG, PDB
from azml_dist.plan.plan import LaunchPlan


class Debugged(NamedTuple):
    """The rank that waits for an editor, and the port where it does."""

    rank: int
    port: int
    folder: str
    """The working directory of the rank."""

    def variables(self, rank: int) -> dict[str, str]:
        """What the process of a rank gets besides; the start-up module takes it away again."""
        if rank != self.rank:
            return {}
        # torch's own watchdog would end a rank that stands still; other limits are in the script's hands.
        return {DEBUG: str(self.port), "TORCH_NCCL_ENABLE_MONITORING": "0"}

    def told(self, code: str | None) -> list[str]:
        """What to tell before the start: how to attach, and what may end the wait."""
        attach = {
            "name": f"rank {self.rank}",
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": self.port},
            "justMyCode": False,
            "pathMappings": [{"localRoot": code or "${workspaceFolder}", "remoteRoot": self.folder}],
        }
        return [
            f"rank {self.rank} waits for a debugger at 127.0.0.1:{self.port}; in VS Code, add to launch.json:"
            f" {json.dumps(attach)}",
            "the other ranks wait for it in their first collective, for as long as the timeout of the process group"
            " allows: torch has 30 min for gloo and 10 min for NCCL, which only the script can raise"
            " (`init_process_group(timeout=…)`)",
        ]


def debugged(rank: int | None, plan: LaunchPlan, python: str, ports: Ports, *, watch: bool) -> Debugged | None:
    """The rank to debug, with a port of its own; refuses what cannot be debugged."""
    if rank is None:
        return None
    size = plan.world.world_size
    if not 0 <= rank < size:
        raise JobError(f"there is no rank {rank} to debug", hint=f"the ranks of this job are 0 to {size - 1}")
    if not watch:
        raise JobError("`debug_rank` needs the watch's start-up module, which is off", hint="leave out `--no-watch`")
    if not has_module(python, "debugpy"):
        raise LaunchError(
            f"debugpy is not installed for {python}",
            hint="`pip install debugpy`, which is part of `azml-dist[debug]`",
        )
    return Debugged(rank, ports.take(), plan.place.working_dir(plan.processes[rank].node_rank))


class PostMortem(NamedTuple):
    """pdb at the terminal, in the rank that fails first."""

    terminal: str

    def variables(self, rank: int) -> dict[str, str]:
        """What the process of a rank gets besides; the start-up module takes it away again."""
        return {PDB: self.terminal, "TORCH_NCCL_ENABLE_MONITORING": "0"}

    def told(self) -> list[str]:
        """What to tell before the start."""
        return ["the first rank that fails opens pdb here, while the others wait; Ctrl-C ends the run"]


def post_mortem(wanted: bool, *, watch: bool) -> PostMortem | None:
    """The terminal of this process for pdb; refuses where there is none."""
    if not wanted:
        return None
    if not watch:
        raise JobError("`pdb` needs the watch's start-up module, which is off", hint="leave out `--no-watch`")
    try:
        return PostMortem(os.ttyname(0))
    except OSError as error:
        hint = "run it at a terminal; elsewhere, `--debug-rank N` lets your editor attach"
        raise LaunchError("pdb needs a terminal, and stdin is none", hint=hint) from error
