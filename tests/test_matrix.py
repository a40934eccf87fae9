"""Failures that are made on purpose: whom and what the verdict names, here and from the logs that Azure ML keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import pytorch, run_here
from submitting import code_in
from verdict.crash import RIGHT, busy, crash
from verdict.injections import cases
from verdict.matrix import KINDS, RANKS, Result, job_of, results, score, wrong

from azml_dist import AzureML
from azml_dist.emulator import Emulator

pytestmark = [needs("torch"), *(pytest.mark.filterwarnings(one) for one in SDK_WARNINGS)]
PAGE = Path(__file__).parents[1] / "docs" / "failures.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Result]:
    """The failures that take little time, of each kind."""
    return results([case for case in cases() if case.quick], tmp_path_factory.mktemp("matrix"))


def test_each_failure_is_its_own() -> None:
    found = [case.id for case in cases()]

    assert len(set(found)) == len(found) >= 110
    assert {case.launcher for case in cases()} == {"torchrun", "direct", "mpirun", "tensorflow"}
    assert sum(case.quick for case in cases()) >= 12


def test_the_page_has_a_score_of_all_of_them() -> None:
    counts = re.findall(r"^\| \*\*all\*\* \| (\d+) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert counts == [str(len(list(cases())))]


def test_ranks_and_kinds_are_right_and_nothing_wrong_is_called_certain(made: Sequence[Result]) -> None:
    found = score(made, here=True)

    assert found.ranks >= RANKS * found.cases, list(wrong(made))
    assert found.kinds >= KINDS * found.cases, list(wrong(made))
    assert found.wrong_certain == 0, list(wrong(made))


def test_what_a_run_says_of_its_end_is_what_the_verdict_says(made: Sequence[Result]) -> None:
    assert not [one.contradiction for one in made if one.contradiction]


def test_the_logs_that_azure_keeps_give_the_same_verdict_or_none(made: Sequence[Result]) -> None:
    found = score(made, here=False)

    assert found.ranks >= RANKS * found.cases, list(wrong(made))
    assert found.kinds >= KINDS * found.cases, list(wrong(made))
    assert found.wrong_certain == 0, list(wrong(made))


@pytest.mark.parametrize("launcher", ["torchrun", "direct"])
def test_the_same_failure_on_a_busy_machine_is_always_the_same_rank(launcher: str, tmp_path: Path) -> None:
    """`make crash` does it 50 times under each."""
    with busy():
        found = [crash(tmp_path / str(number), launcher) for number in range(2)]

    assert found == [RIGHT] * 2


@pytest.mark.parametrize(
    ("then", "code", "kind", "exception"),
    [
        ("pass", 0, None, None),  # it printed a traceback, and did its work
        ("sys.exit(3)", 3, "user-code", "KeyError"),
        ("sys.exit(-3)", 253, "user-code", "KeyError"),
        ("{}['other']", 1, "user-code", "KeyError"),
        ("open('not-there')", 1, "missing-file", "FileNotFoundError"),
    ],
)
def test_a_traceback_that_was_caught_is_held_against_how_the_process_ended(
    then: str, code: int, kind: str | None, exception: str | None, tmp_path: Path
) -> None:
    caught = "try:\n    {}['labels']\nexcept KeyError:\n    logging.exception('a batch without labels')\n"
    code_in(tmp_path, {"train.py": f"import logging, sys\n{caught}print('Error: none')\n{then}\n"})
    run = run_here(pytorch("python train.py", code=str(tmp_path)), launcher="direct")
    found = run.verdict()

    assert run.state().processes[0].exit_code == code
    assert (found.kind, found.rank, found.exception) == (kind, 0, exception) if found else kind is None
    assert not (found and "exit" in then) or found.certainty == "likely"


@pytest.mark.parametrize(
    ("code", "said"), [(-1, "exit code 255 (-1 as a byte)"), (-9, "exit code 247 (-9 as a byte)"), (5, "exit code 5")]
)
def test_an_exit_without_a_traceback_is_an_exit_code(code: int, said: str, tmp_path: Path) -> None:
    many = "print('Error: busy', file=sys.stderr)\n" * 30
    code_in(tmp_path, {"train.py": f"import sys\n{many}sys.exit({code})\n"})
    run = run_here(pytorch("python train.py", code=str(tmp_path)), launcher="direct")
    found = run.verdict()

    assert found
    assert (found.kind, found.rank, found.message, found.certainty) == ("exit-code", 0, said, "certain")


def test_a_run_on_azure_with_these_logs_has_the_verdict_of_the_folder(
    made: Sequence[Result], emulator: Emulator, azure: AzureML
) -> None:
    for one in made:
        run = azure.submit(job_of(one.case, one.folder))
        there = emulator.job(run.name)
        there.advance("Running")
        for log in (one.folder / "azure" / "user_logs").iterdir():
            there.write_log(f"user_logs/{log.name}", log.read_text())
        there.fail(one.service)
        found = run.verdict()

        assert found, one.case.id
        assert one.there, one.case.id
        there_too = (one.there.kind, one.there.rank, one.there.file, one.there.line)
        assert (found.kind, found.rank, found.file, found.line) == there_too, one.case.id
