"""Runs one can find: their names, the list of them, its filters, and how it fits into a terminal."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from oldruns import make_runs
from running import call, pytorch, run_here, write_job
from terminals import at_terminal

import azml_dist
from azml_dist import Job
from azml_dist.columns import Column, columns_of, fitted, line
from azml_dist.local.summary import INDEX, summaries
from azml_dist.overview import ago, overview
from azml_dist.runs.run import new_name
from azml_dist.show import Table, table_text


@pytest.mark.parametrize(
    ("command", "file", "display_name", "begins"),
    [
        ("python train.py", "proj/job.yml", "Digits 2x2", "digits-2x2-"),
        ("python train.py", "proj/fine-tune.yml", None, "fine-tune-"),
        ("python train.py", "proj/job.yml", None, "train-"),
        ("torchrun --nproc-per-node 2 -m pkg.fit", None, None, "fit-"),
        ("pip install -e . && python tools/fit.py --x 1", None, None, "fit-"),
        ("python -m torch.distributed.run --nnodes 2 fit.py", None, None, "fit-"),
        ("bash run.sh", "proj/job.yml", None, "mycode-"),
        ("python main.py", "proj/job.yml", None, "mycode-"),
        ("python train.py", "proj/jobs.py:big_one", None, "big-one-"),
        ("python train.py", "proj/submit.py:job", None, "train-"),
        ("echo hi", None, None, "mycode-"),
        ('python -u "my train.py" --lr 1', None, None, "my-train-"),
        ("bash -lc 'python \"my fit.py\"'", None, None, "my-fit-"),
        ("bash -c 'cd there && python fit.py'", None, None, "fit-"),
        ("python train.py", None, "Müller Größe", "muller-grosse-"),
        ("python train.py", None, "Mu\u0308ller", "muller-"),
        ("python train.py", "proj/łódź.yml", None, "lodz-"),
        ("python entraîner.py", None, "一", "entrainer-"),
        ("python train.py", None, "ÆØÅ 2²", "aeoa-22-"),
        ("python \u4e00.py", None, "\x1b[2J", "2j-"),
    ],
)
def test_a_run_is_named_after_what_says_most(
    command: str, file: str | None, display_name: str | None, begins: str, tmp_path: Path
) -> None:
    (tmp_path / "mycode").mkdir()
    job = Job(command=command, code=str(tmp_path / "mycode"), display_name=display_name).read_from(file)

    assert new_name(job).startswith(begins)


def test_a_run_is_never_named_src(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()

    assert new_name(Job(command="./a.out", code=str(tmp_path / "src"))).startswith("run-")


def test_a_job_remembers_its_file_through_changes_and_is_equal_to_one_without() -> None:
    job = Job(command="python train.py").read_from("job.yml")

    assert job.with_(node_count=1).with_set("timeout=3").file == "job.yml"
    assert job == Job(command="python train.py")


def test_the_last_20_runs_are_listed_newest_last(tmp_path: Path) -> None:
    make_runs(tmp_path, 30)

    found = overview(tmp_path, limit=20)

    assert [run.name for run in found.runs] == [f"run-{number:04}" for number in range(10, 30)]
    assert found.left_out == 10


def test_a_list_says_what_ran_where_and_how_it_ended(tmp_path: Path) -> None:
    error = "rank 2: KeyError: 'labels' (crash.py:15)"
    make_runs(tmp_path, 1, status="Failed", error=error, file=str(tmp_path / "exp/job.yml"), script="train.py")

    headings, row = overview(tmp_path).lines()

    assert [cell.strip() for cell in headings] == ["name", "what", "where", "world", "status", "started", "took"]
    assert [cell.strip() for cell in row] == [
        "run-0000",
        "exp/job.yml",
        "here",
        "2 x 2 = 4",
        f"Failed: {error}",
        "11 min ago",
        "30.0 s",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("summary", "shown"),
    [("it was cancelled", "Canceled"), ("it had not started after 1 s", "Canceled: it had not started after 1 s")],
)
def test_a_cancelled_run_of_azure_is_listed_with_what_is_known_beyond_that(summary: str, shown: str) -> None:
    run = dict.fromkeys(("started_at", "ended_at", "script", "display_name", "compute", "world", "created_at"))
    there = {**run, "name": "x", "kind": "command", "status": "Canceled", "verdict": {"summary": summary}}

    assert [one.cells(0, "")[4] for one in overview(here=False, there=[there]).runs] == [shown]


def test_the_name_of_a_run_is_listed_once() -> None:
    run = dict.fromkeys(("started_at", "ended_at", "script", "compute", "world", "created_at", "verdict"))
    there = [
        {**run, "name": "x", "kind": "sweep", "status": "Running", "display_name": shown} for shown in ("x", "My sweep")
    ]

    assert [one.cells(0, "")[1] for one in overview(here=False, there=there).runs] == ["", "My sweep"]


def test_a_failure_is_listed_by_its_verdict(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text("batch = {}\nbatch['labels']\n")
    run_here(Job(command="python crash.py", code=str(tmp_path / "crash.py")), root=tmp_path / "runs", launcher="direct")

    [run] = overview(tmp_path / "runs").runs

    assert run.error == "rank 0: KeyError: 'labels' (crash.py:2)"
    assert run.name.startswith("crash-")


def test_only_failed_runs_are_listed_if_asked_for(tmp_path: Path) -> None:
    make_runs(tmp_path / "good", 3)
    make_runs(tmp_path / "bad", 1, status="Failed", error="rank 0 failed with exit code 1")
    (tmp_path / "bad/run-0000").rename(tmp_path / "good/bad")

    assert [run.name for run in overview(tmp_path / "good", failed=True).runs] == ["bad"]


def test_the_trials_of_a_sweep_are_folded_into_one_line(tmp_path: Path) -> None:
    members = [{"label": f"trial {i}", "name": f"s_{i}", "status": "Completed"} for i in range(3)]
    details = {"goal": "minimize", "primary_metric": "loss", "sampling": "grid", "seed": None, "best": None}
    make_runs(tmp_path / "a", 1, kind="sweep", trials=members, details=details, world={})
    make_runs(tmp_path / "b", 3, parent="s")
    (tmp_path / "a/run-0000").rename(tmp_path / "s")
    for number in range(3):
        (tmp_path / f"b/run-{number:04}").rename(tmp_path / f"s_{number}")

    assert [(run.name, run.world) for run in overview(tmp_path).runs] == [("s", "3 trials")]
    assert len(overview(tmp_path, fold=False).runs) == 4
    (tmp_path / "s/run.json").unlink()
    assert [run.name for run in overview(tmp_path).runs] == ["s_0", "s_1", "s_2"]


def test_a_run_of_an_older_version_is_listed(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)

    [run] = overview(tmp_path).runs
    assert (run.name, run.what, str(run.status)) == ("run-0000", "", "Completed")


def test_an_index_is_kept_and_a_run_that_changed_is_read_again(tmp_path: Path) -> None:
    make_runs(tmp_path, 3)
    summaries(tmp_path)
    kept = json.loads((tmp_path / INDEX).read_text())
    assert kept["runs"].keys() == {"run-0000", "run-0001", "run-0002"}

    file = tmp_path / "run-0001/run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "Failed", "error": "changed"}))
    (tmp_path / "run-0002/run.json").unlink()

    assert [(one.name, str(one.status)) for one in summaries(tmp_path)] == [
        ("run-0000", "Completed"),
        ("run-0001", "Failed"),
    ]
    assert json.loads((tmp_path / INDEX).read_text())["runs"].keys() == {"run-0000", "run-0001"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1, "runs": {"run-0000": [1, 2]}}', '{"format": 9}', "null"]
)
def test_a_damaged_index_is_made_anew(text: str, tmp_path: Path) -> None:
    make_runs(tmp_path, 1)
    (tmp_path / INDEX).write_text(text)

    assert [one.name for one in summaries(tmp_path)] == ["run-0000"]
    assert json.loads((tmp_path / INDEX).read_text())["runs"].keys() == {"run-0000"}


def test_an_index_is_never_written_through_a_link(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", 1)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "runs" / INDEX).symlink_to(tmp_path / "precious")

    summaries(tmp_path / "runs")

    assert (tmp_path / "precious").read_text() == "precious"


def test_a_run_that_is_in_the_index_is_listed_without_reading_it(tmp_path: Path) -> None:
    make_runs(tmp_path, 100)
    first = summaries(tmp_path)
    for file in tmp_path.glob("*/run.json"):
        before = file.stat()
        file.write_bytes(b"x" * before.st_size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert len(first) == 100
    assert summaries(tmp_path) == first


COLUMNS = (Column("name"), Column("what", least=6, leaves=1), Column("status", least=8), Column("took", leaves=2))
ROWS = [["a-name", "some/job.yml", "Failed: \x1b[2Jrank 2", "3 s"], ["other", "\u5b57" * 10, "Completed", "12 s"]]


def test_in_a_pipe_nothing_is_cut() -> None:
    assert line(fitted(COLUMNS, ROWS, None)[1]) == r"a-name  some/job.yml          Failed: \x1b[2Jrank 2  3 s"


@pytest.mark.parametrize("width", range(1, 90))
def test_a_table_is_as_wide_as_its_terminal_at_most(width: int) -> None:
    lines = [line(row) for row in fitted(COLUMNS, ROWS, width)]

    assert max(map(columns_of, lines)) <= max(width, 4)  # two columns and the gap between them
    assert "\x1b" not in "".join(lines)


def test_columns_leave_before_names_are_cut() -> None:
    assert [line(row) for row in fitted(COLUMNS, ROWS, 20)] == [
        "name    status",
        "a-name  Failed: \\x1…",
        "other   Completed",
    ]


def test_in_80_columns_the_list_says_what_failed(tmp_path: Path) -> None:
    error = "rank 2: KeyError: 'labels' (crash.py:15)"
    make_runs(tmp_path, 3, status="Failed", error=error, file=str(tmp_path / "exp/job.yml"), script="train.py")

    row = line(overview(tmp_path).lines(80)[-1])

    assert "Failed: rank 2: KeyError" in row


def test_the_cells_of_a_table_are_in_columns_whatever_is_in_them() -> None:
    rows = [("0", "\x1b[31mred", "log"), ("10", "\u5b57\u5b57", "log"), ("2", "plain", "log")]

    shown = table_text(Table(("rank", "last line", "log"), rows)).splitlines()

    assert len({columns_of(row.rpartition("log")[0]) for row in shown}) == 1
    assert "\x1b" not in "".join(shown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "now"), (-60, "now"), (30, "30 s ago"), (90, "1 min ago"), (4000, "1 h ago"), (100_000, "27 h ago")),
        *((200_000, "2 d ago"), (40 * 86_400, "2026-10-21")),
    ],
)
def test_the_start_of_a_run_is_said_by_one_clock(seconds: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = 1_796_040_000.0  # 2026-11-30

    assert ago(now - seconds, now) == text


def test_list_has_all_as_json_and_the_last_20_as_a_table(tmp_path: Path) -> None:
    make_runs(tmp_path, 25)

    table = call("list", "--root", tmp_path)
    short = call("list", "--root", tmp_path, "--limit", "2")
    whole = json.loads(call("list", "--root", tmp_path, "--json").stdout)["runs"]

    assert (len(table.stdout.splitlines()), len(short.stdout.splitlines())) == (21, 3)
    assert "note: 5 older runs are not shown: `azml-dist list --all`" in table.stderr
    assert "note: 1 older run is not shown:" in call("list", "--root", tmp_path, "--limit", "24").stderr
    assert len(call("list", "--root", tmp_path, "--all").stdout.splitlines()) == 26
    assert [run["name"] for run in whole] == [f"run-{number:04}" for number in range(25)]


def test_list_without_a_workspace_says_so_and_watches_only_at_a_terminal(tmp_path: Path) -> None:
    azure = call("list", "--azure", cwd=tmp_path)
    watched = call("list", "--watch", cwd=tmp_path)

    assert (azure.returncode, azure.stderr.splitlines()[0]) == (2, "error: no workspace is configured")
    assert watched.returncode == 2
    assert "--watch is for a terminal" in watched.stderr


def test_list_runs_gives_handles(tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo hi")
    run = run_here(Job.load(file), launcher="direct", root=tmp_path / "runs")
    run_here(pytorch("exit 3"), launcher="direct", root=tmp_path / "runs")

    found = azml_dist.list_runs(root=tmp_path / "runs")

    assert [one.status for one in found] == ["Completed", "Failed"]
    assert found[0].name == run.name
    assert list(found[0].logs()) == ["[node0 rank0] hi"]
    assert "job.yml" in str(found)
    assert "<table>" in found._repr_html_()
    assert [one.name for one in azml_dist.list_runs(root=tmp_path / "runs", failed=True)] == [found[1].name]
    listed = json.loads(call("list", "--root", tmp_path / "runs", "--json").stdout)["runs"]
    verdict = found[1].verdict()
    assert verdict
    assert [one["verdict"] for one in listed] == [None, verdict.to_dict()]


def test_hostile_text_reaches_neither_the_terminal_nor_the_page(tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e<script>alert(1)</script>"
    make_runs(tmp_path, 1, file=f"/x/{hostile}", script=hostile, error=hostile, status="Failed", parent=hostile)
    (tmp_path / "run-0000").rename(tmp_path / hostile.replace("/", ""))

    found = azml_dist.list_runs(root=tmp_path)

    for text in (str(found), found._repr_html_(), *map(line, overview(tmp_path).lines(60))):
        assert not set("\x1b\x07\u202e") & set(text)
    assert "<script" not in found._repr_html_()
    assert "&lt;script" in found._repr_html_()


@pytest.mark.slow
def test_list_watch_renews_its_table_until_ctrl_c(tmp_path: Path) -> None:
    make_runs(tmp_path, 2)

    with at_terminal("list", "--watch", "--root", tmp_path, columns=100, rows=12) as terminal:
        terminal.wait_for(lambda shown: "run-0001" in shown)
        make_runs(tmp_path / "more", 1, status="Failed", error="rank 1: KeyError: 'x' (train.py:3)")
        (tmp_path / "more/run-0000").rename(tmp_path / "crashed")
        shown = terminal.wait_for(lambda shown: "crashed" in shown)
        assert shown.count("run-0001") == 1
        assert "Failed: rank 1: KeyError" in shown
        make_runs(tmp_path / "many", 30)
        for folder in (tmp_path / "many").iterdir():
            folder.rename(tmp_path / f"many-{folder.name}")
        terminal.wait_for(lambda shown: "many-run-0029" in shown)
        terminal.resize(40, 12)
        shown = terminal.wait_for(lambda shown: "took" not in shown and "many-run-0029" in shown)
        assert len(shown.splitlines()) <= 12
        assert shown.count("many-run-0029") == 1
        terminal.type("\x03")
        assert terminal.end() == 130
        assert terminal.is_as_it_was()


@pytest.mark.slow
def test_list_fits_into_a_terminal_of_20_columns(tmp_path: Path) -> None:
    make_runs(tmp_path, 3, error="\x1b]0;owned\x07rank 0", status="Failed")

    with at_terminal("list", "--root", tmp_path, columns=20, rows=24) as terminal:
        assert terminal.end() == 0
        assert len(terminal.shown) == 4
        assert all(line.startswith("run-000") for line in terminal.shown[1:])
        assert b"\x1b]0;owned" not in terminal.raw
