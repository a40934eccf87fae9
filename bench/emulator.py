"""The emulated workspace: how soon it is there, what it costs while nobody asks, and how fast it takes jobs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.azure import CASES, Service, storage
from bench.measure import BenchError, Row, held, in_seconds

_IDLE = 5.0
"""Seconds of watching an idle emulator."""


def emulator(place: Path, runs: int) -> Iterator[Row]:
    """Start, idle cost, and 100 jobs with its own storage against Azurite."""
    place.mkdir(parents=True)
    starts, idle = zip(*(_start_and_idle(place / f"state{run}") for run in range(runs)), strict=True)
    yield held("the emulator starts", in_seconds(median(starts)), median(starts), 1, unit="s")
    share = 100 * median(idle) / _IDLE
    yield held("CPU of an idle emulator", f"{share:.1f} %", share, 0.2, unit="%")
    with storage() as (azurite, authority):
        service = Service(azurite, authority)
        took: dict[str, list[float]] = {"own": [], "azurite": []}
        for _ in range(min(runs, 3)):
            for kind, found in took.items():
                found.append(service.one("ours", CASES[0], place, 0.0, storage=kind).seconds)
    own, with_azurite = (median(found) for found in took.values())
    what = f"{CASES[0].what}, emulator's own storage"
    yield Row(what, in_seconds(own), f"with Azurite: {in_seconds(with_azurite)}", own / with_azurite, 1.1)


def _start_and_idle(folder: Path) -> tuple[float, float]:
    """Seconds until it serves, and CPU seconds that it then uses while nobody asks."""
    began = time.monotonic()
    with _serving(folder) as process:
        started = time.monotonic() - began
        time.sleep(0.5)  # it writes its state
        before = _cpu(process.pid)
        time.sleep(_IDLE)
        return started, _cpu(process.pid) - before


@contextmanager
def _serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "azml_dist.emulator", "--json", "--folder", str(folder)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        while (line := process.stdout.readline()) != "}\n":
            if not line:
                raise BenchError("the emulator did not start")
        yield process
    finally:
        process.terminate()  # a shell has its background processes ignore SIGINT
        process.wait(timeout=30)
        process.stdout.close()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
