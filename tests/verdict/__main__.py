"""`make score` prints the scores and writes them into `docs/failures.md`.

`--list` prints the cases that are not right instead; `--logs` leaves out the failures that are made anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from verdict import matrix
from verdict.injections import cases
from verdict.score import WAYS, failures, table

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


def main() -> None:
    show("score", table())
    if "--list" in sys.argv:
        for way in WAYS:
            print("", way, *failures(way), sep="\n")
    if "--logs" not in sys.argv:
        make_failures()


def make_failures() -> None:
    """All failures of the matrix, made here: a few minutes."""
    chosen = [case for case in cases() if not case.injection.memory or matrix.can_limit_memory()]
    if left := len(list(cases())) - len(chosen):
        print(f"{left} left out: this user cannot limit the memory of a process here")
    with TemporaryDirectory() as root:
        found = matrix.results(chosen, Path(root), lambda one: print(f"  {one.case.id}", file=sys.stderr, flush=True))
        show("matrix", matrix.table(found))
        print(*matrix.wrong(found), sep="\n")


def show(name: str, lines: Iterable[str]) -> None:
    """Print a table, and write it where the page has one of that name."""
    text = "\n".join(lines)
    print(text)
    if "--list" not in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        part = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
        PAGE.write_text(part.sub(lambda _: f"\n{text}\n\n", page), encoding="utf-8")


main()
