"""What the watch for hangs costs a run that does not hang."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median

from azml_dist import Job, Local, PyTorch, RunFailed
from azml_dist.local.run import LocalRun
from azml_dist.local.watch.place import make_place, variables
from bench.measure import BenchError, Row

RANKS, SECONDS = 4, 70
"""Longer than `stall_after`, so that a silent run is looked at twice."""
_SILENT = f"python -c 'import time; e = time.time() + {SECONDS + 60}\nwhile time.time() < e: sum(range(10_000))'"
_MOVING = f"python -uc 'import time\nfor step in range({SECONDS + 60}): print(step); time.sleep(1)'"
_STARTS = 40


def watching(place: Path, runs: int) -> Iterator[Row]:
    """Ranks that compute and print nothing; and what each Python that starts pays for the start-up module."""
    place.mkdir(parents=True)
    with_it, without = (_taken(place, _SILENT, stall_after, _supervisor) for stall_after in (60.0, 0.0))
    share = max(0.0, with_it - without) / SECONDS * 100
    yield Row(
        f"watching {RANKS} silent ranks that compute, of a core", f"{share:.2f} %", "", None, 0.5, unit="%", value=share
    )
    with_it, without = (_taken(place, _MOVING, stall_after, _rank) for stall_after in (60.0, 0.0))
    ms = max(0.0, with_it - without) / SECONDS * 60 * 1000
    yield Row(
        "the watch within a rank that prints steps, CPU time a minute", f"{ms:.2f} ms", "", None, 1, unit="ms", value=ms
    )
    ms = max(0.0, _start(place / "watched", runs)) * 1000
    yield Row("the start-up module, CPU time a process", f"{ms:.2f} ms", "", None, 1, unit="ms", value=ms)


def _taken(place: Path, command: str, stall_after: float, of: Callable[[LocalRun], int]) -> float:
    """CPU seconds that a process of the run, and the looks that it started, take in `SECONDS` of a run that goes on."""
    job = Job(command=command, distribution=PyTorch(process_count_per_node=RANKS))
    run = Local(root=place / "runs", launcher="direct", stall_after=stall_after).submit(job)
    try:
        pid = of(run)
        before = _spent_by(pid)
        time.sleep(SECONDS)
        return _spent_by(pid) - before
    finally:
        run.kill()
        with suppress(RunFailed):
            run.wait(timeout=30)


def _rank(run: LocalRun) -> int:
    """A rank, once it is past its start."""
    pid = _first(run)
    time.sleep(2)
    return pid


def _supervisor(run: LocalRun) -> int:
    """The parent of the ranks."""
    return int(_stat(_first(run))[1])


def _first(run: LocalRun) -> int:
    deadline = time.monotonic() + 30
    while not (pid := run.state().processes[0].pid):
        if time.monotonic() > deadline:
            raise BenchError("the ranks did not start")
        time.sleep(0.05)
    return pid


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _spent_by(pid: int) -> float:
    """CPU seconds of a process, to the nanosecond, and of the children that it has waited for, in ticks."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    own = sum(int(one.read_text().split()[0]) for one in threads) / 1e9
    return own + sum(map(int, _stat(pid)[13:15])) / os.sysconf("SC_CLK_TCK")


def _start(place: Path, runs: int) -> float:
    """CPU seconds that a Python which starts and ends takes more with the module than without it, in turns."""
    place.mkdir()
    bare = dict(os.environ)
    watched = bare | variables(make_place(str(place), place), bare)
    return median(_spent(watched) - _spent(bare) for _ in range(runs * _STARTS))


def _spent(env: Mapping[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "0"], env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
