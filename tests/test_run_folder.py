"""What the folder of a run here says about it once it has ended: written by hand, so that nothing needs to run."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from azml_dist.status import RunStatus
from azml_dist.verdict.folder import ends_of_logs, is_logs, of_a_run, read_logs, wanted, whose
from azml_dist.verdict.judge import judge
from azml_dist.verdict.kept import NAME, keep, kept
from azml_dist.verdict.known import Ended, Known, OnPurpose
from azml_dist.verdict.verdict import Evidence, Verdict

VERDICT = Verdict(
    kind="user-code",
    certainty="certain",
    rank=1,
    ranks=[1],
    node=0,
    exception="KeyError",
    message="'labels'",
    file="train.py",
    line=4,
    source="{}['labels']",
    summary="rank 1: KeyError: 'labels' (train.py:4)",
    hint=None,
    followers=[0],
    evidence=[Evidence(1, "user_logs/std_log_process_1.txt", 6, "KeyError: 'labels'"), Evidence(None, "", None, "x")],
    before=("step 1",),
    consequence="stopped",
)


def log_of(rank: int) -> str:
    return f"user_logs/std_log_process_{rank}.txt"


def process(rank: int, node_rank: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"rank": rank, "node_rank": node_rank, "log": log_of(rank), "exit_code": None, "signal": None, **more}


STOPPED: dict[str, Any] = {"signal": 15, "stopped": True, "noticed": 7, "quiet": 0.5}
FAILED: dict[str, Any] = {"exit_code": 1, "stopped": False, "noticed": 6, "quiet": None}


def run_folder(
    at: Path, processes: Sequence[Any], texts: Mapping[int, str] | None = None, **state: Any
) -> tuple[Path, dict[str, Any]]:
    """The folder, and what is in its `run.json`."""
    (at / "user_logs").mkdir(parents=True)
    for rank, text in (texts or {0: "step 1\n", 1: "step 1\n"}).items():
        (at / log_of(rank)).write_text(text)
    whole = {"name": "mine", "folder": str(at), "processes": processes, "status": "Failed", "retry": 0, **state}
    (at / "run.json").write_text(json.dumps(whole))
    return at, whole


def known(folder: Path) -> Known:
    return read_logs(folder).known


def raised(file: str, error: str = "KeyError: 'x'") -> str:
    return f'step 1\nTraceback (most recent call last):\n  File "{file}", line 3, in main\n    f()\n{error}\n'


def test_the_rank_whose_code_failed_is_named_with_its_node_and_its_own_line(tmp_path: Path) -> None:
    texts = {0: "step 1\n", 1: raised(f"{tmp_path / 'run'}/nodes/1/sub/train.py")}
    folder, _ = run_folder(tmp_path / "run", [process(0, **STOPPED), process(1, 1, **FAILED)], texts)
    found = judge(known(folder))

    assert found
    assert (found.kind, found.certainty, found.rank, found.node) == ("user-code", "certain", 1, 1)
    assert (found.file, found.line, found.followers, found.consequence) == ("sub/train.py", 3, [0], "stopped")
    assert [(one.log, one.line) for one in found.evidence] == [(log_of(1), 5)]


def test_in_a_further_attempt_the_code_of_each_node_has_a_folder_of_its_own(tmp_path: Path) -> None:
    processes = [process(0), process(1, 1), process(2, 1)]
    first, _ = run_folder(tmp_path / "a", processes)
    third, _ = run_folder(tmp_path / "b", processes, retry=2)
    nowhere, _ = run_folder(tmp_path / "c", processes, folder=None)

    assert sorted(known(first).code_roots) == [f"{first}/nodes/0/", f"{first}/nodes/1/"]
    assert sorted(known(third).code_roots) == [f"{third}/nodes/retry_002/0/", f"{third}/nodes/retry_002/1/"]
    assert known(nowhere).code_roots == []
    assert known(first).here


def test_a_run_in_a_zip_is_the_same(tmp_path: Path) -> None:
    texts = {0: raised(f"{tmp_path / 'run'}/nodes/0/train.py"), 1: "step 1\n"}
    folder, _ = run_folder(tmp_path / "run", [process(0, **FAILED), process(1, **STOPPED)], texts)
    keep(VERDICT, folder, 0)
    (folder / "plan.json").write_text('{"command": "python train.py"}')
    (folder / "merged.idx").write_bytes(struct.pack("<IQIQ", 1, 7, 0, 7))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for one in filter(Path.is_file, folder.rglob("*")):
            file.write(one, f"runs/mine/{one.relative_to(folder)}")

    assert read_logs(tmp_path / "all.zip") == read_logs(folder)
    assert is_logs(tmp_path / "all.zip")
    assert not is_logs(folder / "run.json")


def test_how_each_process_ended_is_known_where_it_did(tmp_path: Path) -> None:
    processes = [
        process(0, **FAILED),
        process(1, **STOPPED),
        process(2, exit_code=0),
        process(3),
        process(4, signal=9, noticed="odd", quiet="odd"),
        process(5, exit_code=True),
        {"rank": "6", "exit_code": 1},
        "odd",
    ]
    folder, _ = run_folder(tmp_path, processes)

    assert known(folder).ends == {
        0: Ended(1, None, False, 6.0, 0.0),
        1: Ended(None, 15, True, 7.0, 0.5),
        2: Ended(0),
        4: Ended(None, 9),
        5: Ended(None),
    }
    assert known(folder).nodes == dict.fromkeys(range(6), 0)


def test_only_logs_that_are_there_are_read(tmp_path: Path) -> None:
    folder, _ = run_folder(tmp_path, [process(0), process(1, 1), process(2, None)], {1: "a\nb\n"})
    (folder / "user_logs" / "std_log_process_9.txt").write_text("of nobody")
    (log,) = known(folder).logs

    assert (log.name, log.rank, log.node, [line.text for line in log.lines]) == (log_of(1), 1, 1, ["a", "b"])
    assert known(folder).nodes == {0: 0, 1: 1}


@pytest.mark.parametrize(
    ("status", "end", "error"),
    [
        ("Canceled", FAILED, "it ran too long"),
        ("Failed", STOPPED, "it ran too long"),
        ("Failed", FAILED, None),
    ],
)
def test_the_error_of_the_run_counts_unless_a_rank_failed_by_itself(
    tmp_path: Path, status: str, end: dict[str, Any], error: str | None
) -> None:
    folder, _ = run_folder(tmp_path, [process(0, **end), process(1, **STOPPED)], status=status, error="it ran too long")

    assert (known(folder).status, known(folder).error) == (RunStatus(status), error)


def test_the_kills_that_the_kernel_counted_are_known(tmp_path: Path) -> None:
    folder, _ = run_folder(tmp_path / "a", [process(0, signal=9)], out_of_memory_kills=1)
    other, _ = run_folder(tmp_path / "b", [process(0, signal=9)], out_of_memory_kills=None)
    verdicts = [judge(known(one)) for one in (folder, other)]

    assert [known(one).out_of_memory_kills for one in (folder, other)] == [1, None]
    assert [one and one.kind for one in verdicts] == ["host-out-of-memory", "killed"]


FAULT = {"at": 1.5, "attempt": 0, "rank": 1, "ended": [1]}


@pytest.mark.parametrize(
    ("fault", "on_purpose"),
    [
        ({"spec": "kill:rank=1@3s"}, {1: OnPurpose("kill:rank=1@3s", "killed", True)}),
        ({"spec": "exit:rank=1"}, {1: OnPurpose("exit:rank=1", "ended", True)}),
        ({"spec": "stop:rank=1", "ended": []}, {1: OnPurpose("stop:rank=1", "stopped", False)}),
        ({"spec": "stop:rank=1", "ended": [1]}, {1: OnPurpose("stop:rank=1", "stopped", True)}),
        ({"spec": "node:1", "ended": [0, 1, "2"]}, dict.fromkeys((0, 1), OnPurpose("node:1", "killed", True))),
        ({"spec": "slow:rank=1", "ended": None}, {}),
        ({"spec": "kill:rank=1", "attempt": 1}, {}),
        ({"spec": "kill:rank=1", "at": None}, {}),
    ],
)
def test_what_a_fault_did_to_a_rank_is_known(
    tmp_path: Path, fault: dict[str, Any], on_purpose: dict[int, OnPurpose]
) -> None:
    folder, _ = run_folder(tmp_path, [process(0), process(1)], faults=[FAULT | fault, "odd"])

    assert known(folder).on_purpose == on_purpose


def test_faults_of_several_ranks_are_told_apart(tmp_path: Path) -> None:
    faults = [FAULT | {"spec": "kill:rank=1"}, FAULT | {"spec": "exit:rank=0", "ended": [0]}]
    folder, _ = run_folder(tmp_path / "a", [process(0), process(1)], faults=faults)
    odd, _ = run_folder(tmp_path / "b", [process(0), process(1)], faults="odd")

    assert known(folder).on_purpose == {1: ("kill:rank=1", "killed", True), 0: ("exit:rank=0", "ended", True)}
    assert known(odd).on_purpose == {}


@pytest.mark.parametrize(
    ("fault", "end", "kind", "certainty", "said"),
    [
        ("kill:rank=1", {"signal": 9}, "killed", "certain", "killed on purpose, by the fault `kill:rank=1`"),
        ("exit:rank=1", {"exit_code": 3}, "exit-code", "certain", "ended with exit code 3 on purpose"),
        ("exit:rank=1", {"exit_code": 0}, "exit-code", "likely", "ended with exit code 0 on purpose"),
    ],
)
def test_a_rank_that_a_fault_ended_is_named_with_the_fault(
    tmp_path: Path, fault: str, end: dict[str, Any], kind: str, certainty: str, said: str
) -> None:
    processes = [process(0, **STOPPED), process(1, noticed=1, **end)]
    folder, _ = run_folder(tmp_path, processes, faults=[FAULT | {"spec": fault}])
    found = judge(known(folder))

    assert found
    assert (found.kind, found.certainty, found.rank) == (kind, certainty, 1)
    assert said in found.summary
    assert found.evidence[0] == Evidence(1, "run.json", None, f"fault {fault}")


def test_a_rank_that_a_fault_stopped_may_have_kept_the_others_waiting(tmp_path: Path) -> None:
    faults = [FAULT | {"spec": "stop:rank=1", "ended": []}]
    folder, _ = run_folder(tmp_path, [process(0, **STOPPED), process(1, **STOPPED)], faults=faults)
    found = judge(known(folder))

    assert found
    assert (found.kind, found.certainty, found.rank, found.ranks) == ("hang", "likely", 1, [1])


PLAN = {
    "command": "python train.py --batch-size 64",
    "code": {"excluded": [{"path": "data/", "rule": ".amlignore:2: data/"}, "odd"]},
    "request": {
        "properties": {
            "environmentId": "torch:1",
            "environmentVariables": {"HF_TOKEN": "a-secret", "MODE": "fast", "MINE": "<from your environment>", "N": 3},
        }
    },
}


def test_the_plan_says_what_the_job_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "of-the-caller")
    folder, state = run_folder(tmp_path, [process(0)])
    (folder / "plan.json").write_text(json.dumps(PLAN))
    found = known(folder)

    assert (found.command, found.environment) == ("python train.py --batch-size 64", "torch:1")
    assert found.left_out == {"data/": ".amlignore:2: data/"}
    assert list(found.secrets) == ["a-secret", "of-the-caller"]
    assert list(of_a_run(folder, state, {"MINE": "another's"}).secrets) == ["a-secret", "another's"]
    assert list(of_a_run(folder, state, {}).secrets) == ["a-secret", ""]


@pytest.mark.parametrize(
    "plan",
    [
        "",
        "[]",
        "{}",
        '{"command": 3, "code": [], "request": 7}',
        '{"code": {"excluded": 3}, "request": {"properties": {"environmentId": 3, "environmentVariables": []}}}',
        '{"request": {"properties": {"environmentId": "<image python:3.11>"}}}',
    ],
)
def test_a_plan_that_says_nothing_of_use_is_no_hindrance(tmp_path: Path, plan: str) -> None:
    folder, _ = run_folder(tmp_path, [process(0)])
    (folder / "plan.json").write_text(plan)
    found = known(folder)

    assert (found.command, found.environment, found.left_out, list(found.secrets)) == (None, None, {}, [])


def arrived(folder: Path) -> dict[int | None, Mapping[int, int]]:
    return {log.rank: log.arrived for log in known(folder).logs}


def test_lines_have_the_order_in_which_they_arrived(tmp_path: Path) -> None:
    folder, _ = run_folder(tmp_path, [process(0), process(1)], {0: "ab\ncd\nef\n", 1: "xyz\n"})
    (folder / "merged.idx").write_bytes(b"".join(struct.pack("<IQ", *one) for one in [(0, 3), (1, 4), (0, 6)]))

    assert arrived(folder) == {0: {1: 0, 2: 2, 3: 2}, 1: {1: 1}}


def test_the_index_of_a_further_attempt_counts_its_logs_after_those_of_the_earlier_ones(tmp_path: Path) -> None:
    folder, _ = run_folder(tmp_path, [process(0), process(1)], {0: "ab\n", 1: "xyz\n"}, retry=1)
    records = [(0, 30), (1, 40), (3, 4), (2, 3)]
    (folder / "merged.idx").write_bytes(b"".join(struct.pack("<IQ", *one) for one in records))

    assert arrived(folder) == {0: {1: 3}, 1: {1: 2}}


@pytest.mark.parametrize("index", [b"", b"x", struct.pack("<IQ", 7, 3)])
def test_without_an_index_of_use_the_order_is_unknown(tmp_path: Path, index: bytes) -> None:
    folder, _ = run_folder(tmp_path, [process(0), process(1)])
    (folder / "merged.idx").write_bytes(index)

    assert arrived(folder) == {0: {}, 1: {}}


def test_lines_that_came_before_what_the_index_still_has_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azml_dist.verdict.order._MOST", 2)
    folder, _ = run_folder(tmp_path, [process(0), process(1)], {0: "ab\ncd\n", 1: "xyz\n"})
    (folder / "merged.idx").write_bytes(b"".join(struct.pack("<IQ", *one) for one in [(0, 3), (1, 4), (0, 3)]))

    assert arrived(folder) == {0: {1: 0, 2: 2}, 1: {1: 1}}


# --- the verdict that a run stores


def test_the_verdict_of_a_run_that_failed_is_the_one_that_it_stored(tmp_path: Path) -> None:
    folder, _ = run_folder(tmp_path / "a", [process(0, **FAILED)], retry=2)
    keep(VERDICT, folder, 2)
    other, _ = run_folder(tmp_path / "b", [process(0, **FAILED)], status="Canceled")
    keep(VERDICT, other, 0)

    assert read_logs(folder).kept == kept(folder, 2) == VERDICT
    assert (read_logs(folder).name, read_logs(folder).status) == ("mine", RunStatus.FAILED)
    assert read_logs(other).kept is None, "it was canceled, whatever it had found before"
    assert kept(folder, 1) is None


def test_a_verdict_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "other")
    keep(VERDICT, tmp_path, 0)

    assert not (tmp_path / "other").exists()


def test_every_part_of_a_verdict_that_may_be_missing_is_kept_as_missing(tmp_path: Path) -> None:
    none: dict[str, Any] = dict.fromkeys(
        ("rank", "node", "exception", "message", "file", "line", "source", "hint", "consequence")
    )
    bare = replace(VERDICT, ranks=[], followers=[], evidence=[], before=(), **none)
    keep(bare, tmp_path, 0)

    assert kept(tmp_path, 0) == bare


@pytest.mark.parametrize(
    "change",
    [
        {"rank": "0"},
        {"rank": True},
        {"node": 1.5},
        {"line": "4"},
        {"kind": "bad"},
        {"kind": None},
        {"certainty": "sure"},
        {"summary": None},
        {"summary": 3},
        {"message": 3},
        {"hint": ["a"]},
        {"ranks": 1},
        {"ranks": ["1"]},
        {"followers": [True]},
        {"before": [1]},
        {"before": "step 1"},
        {"evidence": {}},
        {"evidence": [1]},
        {"evidence": [{}]},
        {"evidence": [{"rank": "1", "log": "", "line": None, "text": ""}]},
        {"evidence": [{"rank": 1, "log": None, "line": None, "text": ""}]},
        {"evidence": [{"rank": 1, "log": "", "line": "1", "text": ""}]},
        {"evidence": [{"rank": 1, "log": "", "line": None, "text": 1}]},
        {"evidence": [{"rank": 1, "log": "", "line": None, "text": "", "more": 1}]},
        {"more": 1},
    ],
)
def test_a_stored_verdict_with_a_wrong_part_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / NAME).write_text(json.dumps({"attempt": 0, **asdict(VERDICT), **change}))
    assert kept(tmp_path, 0) is None


@pytest.mark.parametrize("name", asdict(VERDICT))
def test_a_stored_verdict_without_a_part_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / NAME).write_text(
        json.dumps({"attempt": 0, **{key: value for key, value in asdict(VERDICT).items() if key != name}})
    )
    assert kept(tmp_path, 0) is None


# --- parts of it, for those who ask while it runs


def test_the_ends_of_logs_are_read_attempt_by_attempt(tmp_path: Path) -> None:
    for name, text in {
        "user_logs/std_log_process_0.txt": "ab\n",
        "user_logs/std_log_process_1.txt": "cd\n",
        "user_logs/retry_001/std_log_process_0.txt": "ef\n",
        "user_logs/retry_001/std_log_process_1.txt": "gh\n",
        "system_logs/launcher.txt": "a word\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "merged.idx").write_bytes(struct.pack("<IQIQIQIQ", 0, 3, 1, 3, 3, 3, 2, 3))
    attempts: list[dict[str, tuple[int, int | None]]] = [
        {f"user_logs/{below}std_log_process_{rank}.txt": (rank, rank + 5) for rank in (0, 1)}
        for below in ("", "retry_001/")
    ]
    found = list(ends_of_logs(tmp_path, attempts, ["system_logs/launcher.txt", "system_logs/gone.txt"]))

    assert [(one.lines[0].text, one.rank, one.node, dict(one.arrived)) for one in found] == [
        ("ab", 0, 5, {1: 0}),
        ("cd", 1, 6, {1: 1}),
        ("ef", 0, 5, {1: 3}),
        ("gh", 1, 6, {1: 2}),
        ("a word", None, None, {}),
    ]


def test_the_name_of_a_log_says_whose_it_is() -> None:
    names = {
        "user_logs/std_log.txt": (0, None),
        "user_logs/std_log_process_007.txt": (7, None),
        "user_logs/std_log_node_00_worker.txt": (0, 0),
        "user_logs/std_log_node_01_worker.txt": (1, 1),
        "user_logs/std_log_node_00_ps.txt": (2, 0),
        "user_logs/std_log_node_01_ps.txt": (3, 1),
        f"user_logs/std_log_process_{'9' * 10}.txt": (None, None),
        "azureml-logs/70_driver_log.txt": (0, None),
        "azureml-logs/70_driver_log_rank_3.txt": (3, None),
        "azureml-logs/70_mpi_log_worker_2.txt": (2, None),
        "system_logs/cs_capability.log": (None, None),
    }
    assert whose(names) == names
    strange = f"user_logs/std_log_node_{'9' * 10}_worker.txt"
    assert whose([strange]) == {strange: (None, None)}


def test_of_several_attempts_the_logs_of_the_last_are_wanted_and_those_of_the_whole_run() -> None:
    first, last = "user_logs/std_log_process_0.txt", "user_logs/retry_002/std_log_process_0.txt"
    whole = ["system_logs/lifecycler.log", "details.txt"]
    old = "azureml-logs/70_driver_log_1.txt"

    assert wanted([first, *whole, "user_logs/retry_001/std_log_process_0.txt", last]) == [last, *whole]
    assert wanted([*whole, first]) == [first, *whole]
    assert wanted([*whole, old]) == [old, *whole]
    assert wanted(whole) == whole
    assert wanted(["train.py", "a/b/c.txt", "user_logs/x.bin"]) == []


def test_a_file_that_is_no_log_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    os.mkfifo(tmp_path / "pipe")

    assert [is_logs(one) for one in (tmp_path, tmp_path / "a.zip", tmp_path / "pipe", tmp_path / "gone")] == [
        True,
        False,
        False,
        False,
    ]
