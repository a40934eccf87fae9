"""Logs that end too early: in the middle of a traceback, or of its last line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from judging import LOST, log, raised

from azml_dist.verdict.folder import read_logs
from azml_dist.verdict.judge import judge
from azml_dist.verdict.known import Ended, Known
from azml_dist.verdict.verdict import Verdict

WORK = "step 1 loss 0.9\nstep 2 loss 0.8\n"
BROKEN = WORK + raised("", "data.py", 31, 'return table["labels"]')


def why(folder: Path, texts: Mapping[int, str]) -> Verdict:
    """The verdict on logs in a folder, whose texts are written as they are."""
    for rank, text in texts.items():
        (folder / f"std_log_process_{rank}.txt").write_text(text)
    found = judge(read_logs(folder).known)
    assert found is not None
    return found


@pytest.mark.parametrize("message", ["RuntimeError: CUD", "ValueError: Los", "RuntimeError:", "ModuleNotFoundError"])
def test_a_message_that_is_cut_is_not_certain(message: str, tmp_path: Path) -> None:
    assert why(tmp_path, {0: WORK + raised(message) + "\n"}).certainty == "certain"
    assert why(tmp_path, {0: WORK + raised(message)}).certainty == "likely"


@pytest.mark.parametrize(
    "message",
    [
        "KeyError: 'labels'",
        "ModuleNotFoundError: No module named 'tor",
        "torch.OutOfMemoryError: CUDA out of memory. Tr",
    ],
)
def test_a_message_that_says_all_is_certain_without_the_end_of_its_line(message: str, tmp_path: Path) -> None:
    whole = why(tmp_path, {0: WORK + raised(message) + "\n"})

    assert why(tmp_path, {0: WORK + raised(message)}) == whole
    assert whole.certainty == "certain"


def test_a_log_that_is_cut_after_an_exception_may_have_continued(tmp_path: Path) -> None:
    text = WORK + raised("KeyError: 'labels'") + "\nretrying shard 4"

    assert why(tmp_path, {0: text}).certainty == "likely"


@pytest.mark.parametrize("end", ["", "Key", "torch.Out", "\n"])
def test_a_traceback_without_an_exception_names_its_rank_and_place(end: str, tmp_path: Path) -> None:
    found = why(tmp_path, {0: WORK + raised(LOST) + "\n", 1: BROKEN + end})

    assert (found.kind, found.certainty, found.rank) == ("unknown", "unknown", 1)
    assert (found.file, found.line, found.source) == ("data.py", 31, 'return table["labels"]')
    assert found.summary == "rank 1: its log ends in the middle of a traceback (data.py:31)"
    assert found.hint == "look at the end of the whole log: this copy of it is incomplete"
    assert found.exception is None


def test_no_other_rank_is_certain_then(tmp_path: Path) -> None:
    whole = WORK + raised("KeyError: 'labels'") + "\n"

    assert why(tmp_path, {0: whole, 1: WORK}).certainty == "certain"
    found = why(tmp_path, {0: whole, 1: BROKEN})
    assert (found.rank, found.certainty) == (0, "likely")
    assert found.evidence[-1].rank == 1


@pytest.mark.parametrize("end", ["\n", "Runtime", LOST[:20], LOST[:-40]])
def test_a_rank_whose_log_ends_in_a_collective_is_not_blamed(end: str, tmp_path: Path) -> None:
    waiting = WORK + raised("", "train.py", 33, "dist.all_reduce(x)")
    found = why(tmp_path, {0: waiting + end, 1: WORK, 2: WORK + raised(LOST) + "\n"})

    assert (found.kind, found.rank, found.followers) == ("unknown", None, [2])


def test_a_traceback_that_a_stopped_process_could_not_finish_is_no_cause() -> None:
    ends = {0: Ended(1), 1: Ended(signal=15, stopped=True)}
    found = judge(Known([log(0, WORK + raised("KeyError: 'labels'")), log(1, BROKEN)], ends))

    assert found is not None
    assert (found.rank, found.certainty) == (0, "certain")
