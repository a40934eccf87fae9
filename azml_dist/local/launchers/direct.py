"""The launcher without torchrun: the supervisor starts every process itself."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from azml_dist.local.launchers.launcher import Reports
from azml_dist.local.launchers.starting import Exit, ending

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec


class Direct:
    """Every rank is a child of the supervisor."""

    def __init__(self, spec: Spec, run: Reports) -> None:
        self._spec, self._run = spec, run
        self._ranks: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        """The exit code to report for a rank, in place of its own (a fault sets it)."""
        self._over: frozenset[int] | None = None
        """The processes that had ended before the run was stopped; None while it is not."""
        self._started = False

    @property
    def is_done(self) -> bool:
        """All ranks have been started, and have ended."""
        return self._started and not self._ranks

    def start(self) -> None:
        for context in self._spec["contexts"]:
            output, theirs = os.pipe()
            try:
                node, env = context["node_rank"], self._spec["base_env"] | context["env"]
                pid = self._run.hosts.spawn(node, self._spec["argv"], self._spec["nodes"][node], env, theirs)
            finally:
                os.close(theirs)
            self._ranks[pid] = context["rank"]
            self._run.started(context["rank"], pid, output)
        self._started = True

    def turn(self, children: list[tuple[int, int]]) -> None:
        now = time.monotonic()
        mine = [(pid, status) for pid, status in children if pid in self._ranks]
        self._run.ended([self._exit(pid, self._ranks.pop(pid), status, now) for pid, status in mine])

    def _exit(self, pid: int, rank: int, status: int, now: float) -> Exit:
        stopped = self._over is not None and pid not in self._over
        if (code := self._codes.get(rank)) is not None:
            return Exit(rank, code, None, stopped, now)
        return Exit(rank, *ending(status), stopped, now)

    def ends_with(self, rank: int, code: int) -> None:
        self._codes[rank] = code

    def stop(self) -> None:
        self._over = frozenset(filter(_has_ended, self._ranks))

    def close(self) -> str | None:
        return None


def _has_ended(pid: int) -> bool:
    """Whether this child has ended; it is left for whoever waits for it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
