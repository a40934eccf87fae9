"""Some of the scripts that `make score` runs, which hang or are slow, and what the page says of all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hangscore.cases import ALIVE, HANGS, HERE, Case
from hangscore.score import every, run
from needs import needs

PAGE = Path(__file__).parents[1] / "docs" / "hangs.md"
QUICK = [(case, launcher) for case in [*HANGS, *ALIVE] if case.quick for launcher in case.launchers[-1:]]


@needs("torch", "mpirun", "mpi4py", "py-spy")
@pytest.mark.parametrize(("case", "launcher"), QUICK, ids=lambda one: one if isinstance(one, str) else one.name)
def test_the_rank_and_the_line_are_named(case: Case, launcher: str, tmp_path: Path) -> None:
    found = run(case, launcher, tmp_path)

    assert found.right, found.verdict or found.status


@pytest.mark.parametrize("case", HANGS, ids=lambda case: case.name)
def test_each_hang_declares_its_line_once(case: Case) -> None:
    assert case.script.count(HERE) == 1
    compile(case.script, "train.py", "exec")


def test_the_page_has_a_score_of_all_of_them_above_the_bar() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("<!-- score -->")[2].partition("<!-- end of score -->")[0]
    hang = re.search(
        r"all that hang\*\* \| (\d+) \| \d+ \((\d+) %\) \| \d+ \((\d+) %\) \| \d+ \((\d+) %\) \| 0 \|", page
    )
    slow = re.search(r"slow, but alive \| (\d+) \| silent: (\d+) \| \| \| 0 \|", page)

    assert hang
    assert int(hang[1]) == sum(case.odd is not None for case, _ in every())
    assert min(int(hang[2]), int(hang[3]), int(hang[4])) >= 95
    assert slow
    assert slow[1] == slow[2] == str(len(ALIVE))
