"""`python -m bench [FILE] [--only NAME]... [--runs N]`: measure, print the table, write it to FILE."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap

from bench import rows
from bench.measure import BenchError, Row

INTRO = """\
# What it costs

Written by `make bench`. Figures are medians of several runs, alternating with runs of the tool that they are compared
with, so ratios carry over to other machines better than seconds do. Measured once only: a log that grows, a request
answered 503, and azure-ai-ml's download of the code of a run. Memory is the proportional set size: memory that
processes share counts once. Modules are compiled, as after `pip install`, and the output of the ranks has Python's
buffer, whatever the shell sets.
"""

NOTES = """\

The rows with lines printed by Python include the time that the ranks and the launcher take to start. Under torchrun,
that is a second for importing torch on both sides, so three times its rate is out of reach at this length; with the
direct launcher, the start takes half of the CPU time (0.47 of 0.92 s, with compiled modules and buffered output), so
a slower start shows in these rows. The rows with `cat` leave out starting and stopping: they show how fast the logs are
merged.
Importing torch takes some 150 MB of memory, nearly all of what the agents use; the agents of a run share it.

Open MPI 5 starts four Python processes that do not use MPI in 40 ms, less than `azml-dist` needs to read a job.
Programs that use MPI are different: plain `mpirun` spends a second in `MPI_Init` searching for a fabric; a local run
skips this search.
"""


_SLOWS_PYTHON = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""Variables that some containers set. With the first, each start compiles a checkout of this package, as pip does once
for all; with the second, each printed line is a system call."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="file for the table, which is always printed too")
    parser.add_argument("--only", action="append", choices=rows.ALL, help="measure only this; can be repeated")
    parser.add_argument("--runs", type=int, default=5, help="number of runs for each median")
    args = parser.parse_args()

    found: dict[str, list[Row]] = {}
    try:
        for name, row in _measured(args.only or list(rows.ALL), args.runs):
            found.setdefault(name, []).append(row)
            print(_line(row), file=sys.stderr, flush=True)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = "\n".join([INTRO, _machine(args.runs), _parts(found), "", *_table(chain(*found.values())), NOTES])
    print(text)
    if args.file:
        args.file.parent.mkdir(parents=True, exist_ok=True)
        args.file.write_text(text)
    return 0


def _measured(names: list[str], runs: int) -> Iterator[tuple[str, Row]]:
    with TemporaryDirectory(prefix="bench-") as folder:
        os.environ["AZML_DIST_ROOT"] = str(Path(folder, "runs"))  # keep them apart from the user's own runs
        for name in _SLOWS_PYTHON:
            os.environ.pop(name, None)
        for name in names:
            yield from ((name, row) for row in rows.ALL[name](Path(folder, name), runs))


def _parts(found: Collection[str]) -> str:
    """Which parts there are, so that a table that lacks one says so."""
    lacking = [name for name in rows.ALL if name not in found]
    text = f"Measured, each also with `python -m bench --only NAME`: {', '.join(found)}."
    return "\n".join(wrap(text + (f" Not measured here: {', '.join(lacking)}." if lacking else ""), 118))


def _table(found: Iterable[Row]) -> list[str]:
    head = ["| what | here | against | ratio | target | |", "|---|---|---|---|---|---|"]
    return [*head, *map(_line, found)]


def _line(row: Row) -> str:
    sign = "≥" if row.at_least else "≤"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    if row.target is None:
        return f"| {row.what} | {row.ours} | {row.peer} | {ratio} |  |  |"
    target = f"{sign} {row.target:.3g}" + (f" {row.unit}" if row.unit else "")
    return f"| {row.what} | {row.ours} | {row.peer} | {ratio} | {target} | {'hit' if row.hit else '**miss**'} |"


def _machine(runs: int) -> str:
    # No name and no path of the machine: the table is committed.
    torch = version("torch").partition("+")[0]
    python = platform.python_version()
    cores = f"{os.cpu_count()} cores"
    return f"Measured on {cores}, {platform.system()} {platform.machine()}, Python {python}, torch {torch}."


if __name__ == "__main__":
    sys.exit(main())
