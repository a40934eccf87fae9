"""Without a name, commands take the run that was started last from here, and say which one that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oldruns import make_runs
from running import call, pytorch, run_here

from azml_dist.latest import note_started, started_last


def run_in(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str = "echo hi") -> str:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return run_here(pytorch(command), launcher="direct").name


def test_without_a_name_the_last_run_from_this_folder_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = run_in(tmp_path / "a", monkeypatch, "echo from a")
    newer = run_in(tmp_path / "b", monkeypatch, "echo from b; exit 3")

    from_a = call("logs", cwd=tmp_path / "a")
    from_b = call("logs", cwd=tmp_path / "b")
    elsewhere = call("status", "--json", cwd=tmp_path)

    assert (from_a.stdout, from_a.stderr) == (
        "[node0 rank0] from a\n",
        f"run {older}, which was started last\n",
    )
    assert from_b.stdout == "[node0 rank0] from b\n"
    assert json.loads(elsewhere.stdout)["name"] == newer
    assert json.loads(call("why", "--json", cwd=tmp_path / "b").stdout)["name"] == newer
    assert call("wait", cwd=tmp_path / "b").returncode == 1


def test_a_run_that_was_deleted_is_not_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = run_in(tmp_path / "a", monkeypatch)
    gone = run_in(tmp_path / "a", monkeypatch)
    assert call("rm", gone, "--yes").returncode == 0

    assert json.loads(call("status", "--json").stdout)["name"] == kept


def test_in_a_root_the_newest_run_is_meant(tmp_path: Path) -> None:
    make_runs(tmp_path, 3)

    assert json.loads(call("status", "--json", "--root", tmp_path).stdout)["name"] == "run-0002"


@pytest.mark.parametrize("command", ["cancel", "rm", "download"])
def test_what_ends_or_copies_or_deletes_a_run_needs_its_name(command: str) -> None:
    ended = call(command)

    assert ended.returncode == 2
    assert "Missing argument" in ended.stderr


def test_no_run_at_all_is_said(tmp_path: Path) -> None:
    ended = call("logs", cwd=tmp_path)

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no run was started from here\nhint: ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1, "root": 2, "workspace": 3, "at": 4}', '{"name": "a"}'])
def test_a_damaged_note_is_passed_over(text: str, own_home: Path, tmp_path: Path) -> None:
    note_started("kept", root=str(tmp_path))
    (own_home / ".azml_dist/last/other.json").write_text(text)

    assert [one.name for one in started_last()] == ["kept"]


def test_a_home_that_cannot_be_written_stops_no_run(own_home: Path) -> None:
    (own_home / ".azml_dist").mkdir(exist_ok=True)
    (own_home / ".azml_dist/last").write_text("a file")

    note_started("kept", root="/")

    assert list(started_last()) == []
