"""The metrics of a local run, from the files of MLflow's store in its folder.

No MLflow is needed to read them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from azml_dist.regular import end_of, open_inside
from azml_dist.runs.metrics import Metrics, Point, points_of

_TAIL = 1 << 12
_MOST = 1 << 28
"""The most bytes of one metric that are read: some ten million values."""


def metrics_of(run: Path) -> Metrics:
    """What the run in a folder has logged so far; only the last values are read at once."""
    folder = next((run / "mlruns").glob(f"*/{run.name}/metrics"), None) or _renamed(run)
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    last = {}
    for file in files:
        if points := _read(run, file, _TAIL):
            last[str(file.relative_to(folder or run).as_posix())] = points[-1].value
    return Metrics(last, lambda name: _read(run, (folder or run) / name, _MOST), run.name)


def _renamed(run: Path) -> Path | None:
    """The metrics of a run whose folder was copied under another name: it logged one MLflow run."""
    found = list((run / "mlruns").glob("*/*/metrics"))
    return found[0] if len(found) == 1 else None


def _read(run: Path, file: Path, most: int) -> list[Point]:
    """The values in the last bytes of a file. A line without a newline is still being written, and left out."""
    text = b""
    with suppress(OSError):
        text = end_of(open_inside(run, str(file.relative_to(run))), most)
    lines = text.decode(errors="replace").splitlines(keepends=True)
    whole = lines if len(text) < most else lines[1:]
    return points_of(line for line in whole if line.endswith("\n"))
