"""`python -m bench [FILE] [--only NAME]... [--runs N]`: measure, print the table, write it to FILE."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import rows
from bench.measure import BenchError
from bench.rows import Row

INTRO = """\
# What it costs

Written by `make bench`. Every figure is the median of runs that took turns with those of its peer, so the ratios hold
on other machines better than the seconds do. Memory is the proportional set size: what processes share counts once.
"""

NOTES = """\

The row of lines printed by Python holds what the ranks and the launcher take to start. Under torchrun that is a second
for the import of torch, here and there alike, so three times its lines are out of reach at this length; the rows of
`cat` leave starting and stopping out, and show what the merging itself does. A bare import of torch is some 150 MB of
memory that the agents of a run share: nearly all of what is left of theirs.

Open MPI 5 starts four Pythons that call nothing of MPI in 40 ms, less than `azml-dist` takes to read a job. A program
of MPI is another matter: there `mpirun` of itself waits for a second in `MPI_Init`, to see if there is a fabric; a
run here does not look for one.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="where the table goes; the terminal shows it either way")
    parser.add_argument("--only", action="append", choices=rows.ALL, help="measure this alone; can be repeated")
    parser.add_argument("--runs", type=int, default=5, help="runs a median is taken of")
    args = parser.parse_args()

    found: list[Row] = []
    try:
        for row in _measured(args.only or list(rows.ALL), args.runs):
            found.append(row)
            print(_line(row), file=sys.stderr, flush=True)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = "\n".join([INTRO, _machine(args.runs), "", *_table(found), NOTES])
    print(text)
    if args.file:
        args.file.parent.mkdir(parents=True, exist_ok=True)
        args.file.write_text(text)
    return 0


def _measured(names: list[str], runs: int) -> Iterator[Row]:
    with TemporaryDirectory(prefix="bench-") as folder:
        os.environ["AZML_DIST_ROOT"] = str(Path(folder, "runs"))  # not among the runs of whoever measures
        for name in names:
            yield from rows.ALL[name](Path(folder, name), runs)


def _table(found: list[Row]) -> list[str]:
    head = ["| what | here | against | ratio | target | |", "|---|---|---|---|---|---|"]
    return [*head, *map(_line, found)]


def _line(row: Row) -> str:
    sign = "≥" if row.at_least else "≤"
    ratio = f"{row.ratio:.2f}" if row.peer else ""
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
