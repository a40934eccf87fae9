"""`azml-dist list` over a folder with thousands of runs: copies of one that ran here."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.jobs import PRINTS_ITS_RANK, Workplace, our_run, tool
from bench.measure import BenchError, Row, held, in_seconds, seconds

RUNS = 5000
_INDEX = ".index.json"
_APART = 60.0
"""Seconds between two runs."""


def listing(place: Path, runs: int) -> Iterator[Row]:
    """Seconds of the whole command with the index, and without it: the first call makes it."""
    folder = place / "runs"
    _copy(_one_run(place / "one"), folder)
    first = [_first(folder) for _ in range(min(runs, 3))]
    later = [_listed(folder) for _ in range(2 * runs)]
    took, cpu = median(wall for wall, _ in later), median(cpu for _, cpu in later)
    yield held(f"`azml-dist list`, {RUNS:,} runs", f"{in_seconds(took)} ({cpu:.2f} s of CPU)", took, 0.3, unit="s")
    took, cpu = median(wall for wall, _ in first), median(cpu for _, cpu in first)
    yield Row(f"its first call, {RUNS:,} runs", f"{in_seconds(took)} ({cpu:.2f} s of CPU)", "", None, None)


def _one_run(place: Path) -> Path:
    """The `run.json` of a run."""
    work = Workplace(place)
    work.write_script(PRINTS_ITS_RANK)
    seconds(our_run(work.write_job("python script.py", 2, 2), "direct"))
    return max(Path(os.environ["AZML_DIST_ROOT"]).glob("*/run.json"), key=lambda file: file.stat().st_mtime)


def _copy(file: Path, folder: Path) -> None:
    state = json.loads(file.read_text())
    times = ("created_at", "started_at", "ended_at")
    for number in range(RUNS):
        name, earlier = f"run-{number:05}", _APART * (RUNS - number)
        copy = state | {"name": name, "folder": str(folder / name)} | {key: state[key] - earlier for key in times}
        (folder / name).mkdir(parents=True)
        (folder / name / "run.json").write_text(json.dumps(copy))


def _first(folder: Path) -> tuple[float, float]:
    (folder / _INDEX).unlink(missing_ok=True)
    found = _listed(folder)
    if not (folder / _INDEX).exists():
        raise BenchError("the first call has made no index")
    return found


def _listed(folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    out = folder.parent / "listed"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = seconds([tool("azml-dist"), "list", "--root", str(folder)], stdout=out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if f"run-{RUNS - 1:05}" not in out.read_text():
        raise BenchError(f"the last run is not listed:\n{out.read_text()}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
