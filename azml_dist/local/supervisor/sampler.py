"""Samples what the processes of each rank use: CPU and memory from /proc, GPUs from nvidia-smi where there is one.

It costs little by construction: samples are far apart, further the longer the run, and their distance grows with what
a sample cost. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azml_dist.local import figures
from azml_dist.local.supervisor.gpus import GpuFigures, Reports

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_FIRST, _USUAL, _LONG_RUN = 0.5, 5.0, 200
"""Seconds between samples at first, and later; from 1,000 s on, a 200th of the time that the run took so far."""
_SHARE = 0.003
"""The most of a core that sampling may take."""
_WITHOUT_PROC = 30.0
"""Seconds between samples on systems without /proc, where each needs a `ps`."""


class Sampler:
    """Writes what each rank uses into the folder of the run."""

    def __init__(self, spec: Spec, attempt: int, reports: Reports) -> None:
        self._path = os.path.join(spec["folder"], figures.FILE)
        self._count = len(spec["contexts"])
        self._attempt = attempt
        self._began = self._next = time.monotonic()
        self._has_begun = False
        self._before: dict[int, tuple[float, int]] = {}
        """When each rank was sampled before, and its CPU time then."""
        self._has_proc = os.path.isdir("/proc/self")
        self._gpus = GpuFigures(spec, reports)

    def turn(self, first: Mapping[int, int], now: float) -> None:
        """Sample if it is time to; `first` is the first process of each running rank."""
        if now < self._next or not first:
            return
        if not self._has_begun:
            # What has only just started has used nothing: to know that, no process has to be looked at.
            self._has_begun, self._before = True, dict.fromkeys(first, (now, 0))
            self._next = now + _FIRST
            return
        begun = time.thread_time()
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):  # the figures are not worth a run
            self._write(self._sample(first, now))
        cost, elapsed = time.thread_time() - begun, now - self._began
        often = max(_FIRST, min(_USUAL, elapsed / 10), elapsed / _LONG_RUN, cost / _SHARE)
        self._next = now + (often if self._has_proc else max(often, _WITHOUT_PROC))

    def _sample(self, first: Mapping[int, int], now: float) -> dict[str, Any]:
        cpu: list[float | None] = [None] * self._count
        memory: list[int | None] = [None] * self._count
        trees = _trees(first, _table() if self._has_proc else _table_by_ps())
        for rank, members in trees.items():
            ticks = sum(ticks for _, ticks, _ in members.values())
            memory[rank] = round(sum(pages for _, _, pages in members.values()) * _PAGE / 1e6)
            at, before = self._before.get(rank, (now, ticks))
            if now > at:
                cpu[rank] = round(max(0, ticks - before) / _TICKS / (now - at) * 100, 1)
            self._before[rank] = now, ticks
        for rank in self._before.keys() - trees.keys():
            del self._before[rank]
        gpus = self._gpus.of({rank: list(members) for rank, members in trees.items()}, self._count)
        return {figures.CPU: cpu, figures.MEMORY: memory, **gpus}

    def _write(self, sample: dict[str, Any]) -> None:
        """Append a line. The first sample of a rank has no CPU figure, and if none has one, it is not worth a line."""
        if all(value is None for value in sample[figures.CPU]):
            return
        line = json.dumps({"at": round(time.time(), 2), "attempt": self._attempt, **sample}, separators=(",", ":"))
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)


Process = tuple[int, int, int]
"""Its parent, its CPU time and that of its children which have ended, and its resident pages."""


def _trees(first: Mapping[int, int], table: Mapping[int, Process]) -> dict[int, dict[int, Process]]:
    """The processes of each rank by their ids."""
    by_parent = defaultdict(list)
    for pid, (parent, _, _) in table.items():
        by_parent[parent].append(pid)
    found = {}
    for rank, pid in first.items():
        tree = [pid] if pid in table else []
        for one in tree:  # grows during the loop
            tree += by_parent[one]
        if tree:
            found[rank] = {one: table[one] for one in tree}
    return found


def _table() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    text = os.read(fd, 2048)
                finally:
                    os.close(fd)
                # The command, in parentheses, may contain anything.
                parts = text[text.rindex(b")") + 2 :].split()
                if parts[0] not in (b"Z", b"X"):
                    found[int(name)] = (int(parts[1]), sum(map(int, parts[11:15])), int(parts[21]))
            except (OSError, ValueError, IndexError):
                continue
    return found


def _table_by_ps() -> dict[int, Process]:
    command = ["ps", "-A", "-o", "pid=,ppid=,time=,rss="]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    found = {}
    for line in said.stdout.splitlines():
        pid, parent, took, kilobytes = line.split()
        seconds = 0.0
        for part in took.replace("-", ":").split(":"):
            seconds = seconds * 60 + float(part)
        found[int(pid)] = (int(parent), int(seconds * _TICKS), int(kilobytes) * 1024 // _PAGE)
    return found
