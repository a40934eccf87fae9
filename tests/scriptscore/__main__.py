"""`make score` prints how often the findings about scripts are right, and writes it into `docs/script.md`."""

from __future__ import annotations

from pathlib import Path

from scriptscore.score import EVERY, into, table, wrong

PAGE = Path(__file__).parents[2] / "docs" / "script.md"


def main() -> None:
    print("\n".join(table()))
    for case in EVERY:
        if problem := wrong(case):
            print(f"{case.code}: {problem}\n{case.script}")
    PAGE.write_text(into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


main()
