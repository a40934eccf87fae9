"""`make score` runs all scripts that hang or are slow, prints the score, and writes it into `docs/hangs.md`.

Words after the command choose cases whose names have one of them; then only the answers are printed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hangscore.score import Result, every, into, results, table, wrong

PAGE = Path(__file__).parents[2] / "docs" / "hangs.md"


def main() -> None:
    words = sys.argv[1:]
    chosen = [
        one for one in every() if not words or all(word in f"{one[1]} {one[0].group} {one[0].name}" for word in words)
    ]
    with TemporaryDirectory() as root:
        found = results(chosen, Path(root), _show)
    lines = list(table(found))
    print(*lines, *wrong(found), sep="\n")
    if not words:
        PAGE.write_text(into(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")


def _show(one: Result) -> None:
    said = one.verdict.summary if one.verdict else f"nothing ({one.status})"
    print(
        f"  {'ok  ' if one.right else 'BAD '} {one.after:4} s {one.case.name}, {one.launcher}: {said}",
        file=sys.stderr,
        flush=True,
    )


main()
