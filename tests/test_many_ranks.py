"""The table of a run of many ranks: those that matter, no rank twice, no gaps."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from azml_dist.local.ranks import processes_table
from azml_dist.local.state import ProcessState, RunState
from azml_dist.show import abbreviated


def state(count: int, end: Callable[[ProcessState], None], status: str = "Failed", **fields: object) -> RunState:
    processes = [
        ProcessState(r, r // 8, r % 8, f"user_logs/std_log_process_{r}.txt", pid=100 + r) for r in range(count)
    ]
    for process in processes:
        end(process)
    return RunState("x", "/x", processes, status=status, **fields)  # type: ignore[arg-type]


def stopped_but(*failed: int) -> Callable[[ProcessState], None]:
    def end(process: ProcessState) -> None:
        if process.rank in failed:
            process.exit_code = 1
        else:
            process.signal, process.stopped = 15, True

    return end


def ranks_of(row: object) -> list[int]:
    assert isinstance(row, tuple)
    spans = re.findall(r"(\d+)(?:-(\d+))?", row[0])
    return [rank for first, last in spans for rank in range(int(first), int(last or first) + 1)]


def test_few_processes_have_a_row_each() -> None:
    table = processes_table(state(16, stopped_but(3), failed_rank=3))

    assert [row and row[0] for row in table.rows] == [*map(str, range(16))]


def test_of_many_the_failed_ones_come_first_and_the_others_share_a_row() -> None:
    table = processes_table(state(64, stopped_but(30, 31), failed_rank=30), odd=[30])

    assert table.rows == [
        ("30", "3", "exit code 1", "user_logs/std_log_process_30.txt"),
        ("31", "3", "exit code 1", "user_logs/std_log_process_31.txt"),
        ("0-29 and 32-63", "0-7", "stopped (signal 15)", "user_logs/std_log_process_0.txt and 61 more"),
    ]


def test_ranks_that_keep_a_hanging_run_waiting_have_a_row() -> None:
    table = processes_table(state(64, lambda _: None, status="Running"), odd=[7])

    assert [(row[0], row[-2]) for row in table.rows if row] == [("7", "not yet"), ("0-6 and 8-63", "not yet")]


def end_anyhow(process: ProcessState) -> None:
    process.exit_code = process.rank % 200
    process.role = "ps" if process.rank % 5 == 0 else "worker"


@pytest.mark.parametrize(
    "end", [stopped_but(), stopped_but(*range(64)), stopped_but(*range(0, 512, 2)), lambda _: None, end_anyhow]
)
@pytest.mark.parametrize("count", [17, 64, 512])
@pytest.mark.parametrize("odd", [[], [5], [*range(0, 512, 3)]])
def test_every_rank_is_there_once_in_a_few_rows(
    count: int, end: Callable[[ProcessState], None], odd: list[int]
) -> None:
    table = processes_table(state(count, end, failed_rank=9), odd)

    assert sorted(rank for row in table.rows for rank in ranks_of(row)) == [*range(count)]
    assert len(table.rows) <= 21


def test_a_shortened_table_has_one_gap() -> None:
    rows = [*range(100)]

    assert abbreviated(rows) == [0, 1, 2, 3, 4, 5, 6, 7, None, 97, 98, 99]
    assert abbreviated(rows, [50, None, 3, 50, 12, 100, -1]) == [0, 1, 2, 3, 4, 5, 6, 7, 12, 50, None]
    assert abbreviated(rows, rows) == [*range(16), None]
    assert abbreviated(rows[:16], [3]) == rows[:16]
