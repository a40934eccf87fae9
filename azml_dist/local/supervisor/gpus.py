"""What GPUs do, from `nvidia-smi` in its own loop: one process for the run, not one for each sample."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from azml_dist.local import figures

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

_EVERY = 10
"""Seconds between two figures of nvidia-smi."""
_OLD = 3.5 * _EVERY
_DEVICES = "index,uuid,utilization.gpu,memory.used,memory.total"
_APPS = "pid,gpu_uuid"


class Reports(Protocol):
    """What is needed from the run: to be called back when a descriptor can be read."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


class _Device(NamedTuple):
    number: str
    uuid: str
    busy: float | None
    used: float | None
    total: float | None
    seen: float


class GpuFigures:
    """The latest figures of the GPUs that the run may use."""

    def __init__(self, spec: Spec, reports: Reports) -> None:
        self._spec, self._reports = spec, reports
        self._devices: dict[str, _Device] = {}
        self._apps: dict[int, tuple[str, float]] = {}
        """The GPU that a process uses, and when that was seen."""
        given = [
            part.get("CUDA_VISIBLE_DEVICES", spec["base_env"].get("CUDA_VISIBLE_DEVICES")) for part in _nodes(spec)
        ]
        self._visible = [None if one is None else [d.strip() for d in one.split(",") if d.strip()] for one in given]
        """The GPUs of each node; None for all."""
        program = shutil.which("nvidia-smi", path=spec["base_env"].get("PATH"))
        if program and any(one is None or one for one in self._visible):
            self._start(program, f"--query-gpu={_DEVICES}", self._device)
            self._start(program, f"--query-compute-apps={_APPS}", self._app)

    def of(self, members: Mapping[int, Sequence[int]], count: int) -> dict[str, list[float | None]]:
        """The figures of each rank's GPU by rank; empty if there are no GPUs."""
        now = time.monotonic()
        devices = {device.uuid: device for device in self._devices.values() if now - device.seen < _OLD}
        if not devices:
            return {}
        columns: dict[str, list[float | None]] = {
            figure: [None] * count for figure in (figures.GPU, figures.GPU_MEMORY, figures.GPU_TOTAL)
        }
        for rank, pids in members.items():
            if device := devices.get(self._gpu_of(rank, pids, now) or ""):
                columns[figures.GPU][rank] = device.busy
                columns[figures.GPU_MEMORY][rank], columns[figures.GPU_TOTAL][rank] = device.used, device.total
        return columns

    def _gpu_of(self, rank: int, pids: Sequence[int], now: float) -> str | None:
        """The GPU that a rank uses: as the driver says, or else the one with its local rank; None for several."""
        used = {self._apps[pid][0] for pid in pids if pid in self._apps and now - self._apps[pid][1] < _OLD}
        if used:
            return used.pop() if len(used) == 1 else None
        context = self._spec["contexts"][rank]
        visible = self._visible[context["node_rank"]]
        local = context["local_rank"]
        if visible is None:
            visible = sorted(self._devices, key=lambda index: (len(index), index))
        if len(visible) != self._spec["process_count"] or local >= len(visible):
            return None  # which one it takes is its own choice
        name = visible[local]
        return next((d.uuid for d in self._devices.values() if name == d.number or d.uuid.startswith(name)), None)

    def _device(self, words: Sequence[str]) -> None:
        if len(words) == 5:
            busy, used, total = map(_number, words[2:])
            self._devices[words[0]] = _Device(words[0], words[1], busy, used, total, time.monotonic())

    def _app(self, words: Sequence[str]) -> None:
        if len(words) == 2 and words[0].isdigit():
            self._apps[int(words[0])] = words[1], time.monotonic()

    def _start(self, program: str, query: str, take: Callable[[Sequence[str]], None]) -> None:
        """Start a loop of nvidia-smi. It ends with its pipe, or with the other processes of the run."""
        ours, theirs = os.pipe()
        with contextlib.suppress(OSError):
            child = subprocess.Popen(
                [program, query, "--format=csv,noheader,nounits", "-l", str(_EVERY)],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
            child.returncode = 0  # the supervisor's loop reaps all its children, including this one
        os.close(theirs)
        os.set_blocking(ours, False)
        self._reports.watch(ours, _Lines(ours, take, self._reports).read)


class _Lines:
    """Reads whole lines of a pipe as they come."""

    def __init__(self, fd: int, take: Callable[[Sequence[str]], None], reports: Reports) -> None:
        self._fd, self._take, self._reports, self._rest = fd, take, reports, b""

    def read(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._reports.unwatch(self._fd)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-4096:]
        for line in lines:
            self._take([word.strip() for word in line.decode(errors="replace").split(",")])


def _number(word: str) -> float | None:
    """A figure; nvidia-smi writes `[N/A]` for what a device does not have."""
    try:
        return float(word)
    except ValueError:
        return None


def _nodes(spec: Spec) -> list[dict[str, str]]:
    slices: Any = spec["slices"]
    return list(slices)
