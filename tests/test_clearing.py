"""`rm` and `prune` delete what they say and nothing else: never a run that is alive, never anything outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oldruns import make_runs
from running import call, pytorch, run_here
from terminals import at_terminal

from azml_dist import Local
from azml_dist.contents.code import keep_code
from azml_dist.contents.store import Contents, note_use
from azml_dist.errors import DistError, NotFound
from azml_dist.local.removal import named, prunable, remove, size_of, wholes
from azml_dist.local.state import RunFolder
from azml_dist.local.unused import remove_unused, unused


def names(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.iterdir() if not folder.name.startswith("."))


def test_rm_deletes_a_run_and_the_link_by_which_mlflow_finds_it(tmp_path: Path) -> None:
    gone = run_here(pytorch("echo hi"), launcher="direct", root=tmp_path)
    kept = run_here(pytorch("echo hi"), launcher="direct", root=tmp_path)

    ended = call("rm", gone.name, "--yes", "--json", "--root", tmp_path)

    told = json.loads(ended.stdout)
    assert (ended.returncode, told["runs"], told["deleted"]) == (0, [gone.name], True), ended.stderr
    assert told["bytes"] > 1000
    assert names(tmp_path) == sorted([kept.name, "mlruns"])
    assert [link.name for link in (tmp_path / "mlruns/0").iterdir() if link.is_symlink()] == [kept.name]


def test_without_a_terminal_nothing_is_deleted_unless_yes_is_said(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)

    for typed in (["rm", "run-0000"], ["prune", "--keep", "0"]):
        ended = call(*typed, "--root", tmp_path)
        assert ended.returncode == 2
        assert "there is no terminal to ask whether to delete 1 run, " in ended.stderr
    assert names(tmp_path) == ["run-0000"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "left", "code"), [("n\r", ["run-0000"], 1), ("y\r", [], 0), ("\x04", ["run-0000"], 130)]
)
def test_at_a_terminal_rm_asks(answer: str, left: list[str], code: int, tmp_path: Path) -> None:
    make_runs(tmp_path, 1)

    with at_terminal("rm", "run-0000", "--root", tmp_path) as terminal:
        terminal.wait_for(lambda shown: "delete 1 run, " in shown and "? [y/N]" in shown)
        terminal.type(answer)
        ended = terminal.end()

    assert (names(tmp_path), ended) == (left, code)


@pytest.mark.slow
def test_a_no_is_told_to_programs_too(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)

    with at_terminal("rm", "run-0000", "--json", "--root", tmp_path) as terminal:
        terminal.wait_for(lambda shown: "? [y/N]" in shown)
        terminal.type("n\r")
        ended = terminal.end()

    assert ended == 1
    assert ' "deleted": false' in terminal.everything


@pytest.mark.slow
def test_a_run_that_is_alive_is_never_deleted(tmp_path: Path) -> None:
    run = Local(launcher="direct", root=tmp_path).submit(pytorch("sleep 600"))
    try:
        with pytest.raises(DistError, match=r"is not deleted: .* is (Running|Preparing)") as error:
            named([run.name], tmp_path)
        assert error.value.problems[0].hint == f"`azml-dist cancel {run.name}` first"
        assert prunable(wholes(tmp_path), keep=0) == []
        [whole] = wholes(tmp_path)
        with pytest.raises(DistError, match="is running"):
            remove(whole)
        assert not run.status.is_final
    finally:
        run.kill()


def test_a_run_whose_state_says_that_it_has_ended_and_that_holds_its_lock_stays(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)
    [whole] = wholes(tmp_path)
    lock = RunFolder(tmp_path / "run-0000").lock()
    try:
        assert whole.why_kept() == "run-0000 is Completed"
        with pytest.raises(DistError, match="it is running"):
            remove(whole)
    finally:
        os.close(lock)

    assert names(tmp_path) == ["run-0000"]


def test_links_are_deleted_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/precious").write_text("precious")
    make_runs(tmp_path / "runs", 1)
    run = tmp_path / "runs/run-0000"
    (run / "outputs").symlink_to(outside)
    (run / "file").symlink_to(outside / "deep/precious")
    (run / "up").symlink_to(tmp_path)

    remove(wholes(tmp_path / "runs")[0])

    assert names(tmp_path / "runs") == []
    assert (outside / "deep/precious").read_text() == "precious"


def test_a_link_with_the_name_of_a_run_is_left_with_all_behind_it(tmp_path: Path) -> None:
    make_runs(tmp_path / "elsewhere", 1)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/linked").symlink_to(tmp_path / "elsewhere/run-0000")

    with pytest.raises(DistError, match="is a link"):
        named(["linked"], tmp_path / "runs")
    assert prunable(wholes(tmp_path / "runs"), keep=0) == []
    assert names(tmp_path / "elsewhere") == ["run-0000"]


@pytest.mark.parametrize("name", ["..", ".", "../elsewhere/run-0000", "/", "", "mlruns", "run-0000/../../elsewhere"])
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", 1)
    make_runs(tmp_path / "elsewhere", 1)

    with pytest.raises(NotFound):
        named([name], tmp_path / "runs")


def test_a_file_of_another_tool_is_not_the_run_that_it_looks_like(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)
    (tmp_path / "run-0000/run.json").write_text('{"model": "theirs"}')

    with pytest.raises(DistError, match=r"run run-0000 is not deleted: .*is not a valid run state"):
        named(["run-0000"], tmp_path)
    assert wholes(tmp_path) == []


def test_members_named_by_a_group_of_another_root_stay(tmp_path: Path) -> None:
    """A group owns the runs that say so, not those that it names."""
    member = {"label": "trial 0", "name": "run-0000", "status": "Completed"}
    details = {"goal": "minimize", "primary_metric": "loss", "sampling": "grid", "seed": None, "best": None}
    make_runs(tmp_path / "sweep", 1, kind="sweep", trials=[member], details=details, world={})
    (tmp_path / "sweep/run-0000").rename(tmp_path / "sweep/group")
    make_runs(tmp_path / "sweep", 1)

    remove(named(["group"], tmp_path / "sweep")[0])

    assert names(tmp_path / "sweep") == ["run-0000"]


def sweep_in(root: Path) -> None:
    members = [{"label": f"trial {i}", "name": f"run-000{i}", "status": "Completed"} for i in range(2)]
    details = {"goal": "minimize", "primary_metric": "loss", "sampling": "grid", "seed": None, "best": None}
    make_runs(root, 1, kind="sweep", trials=members, details=details, world={})
    (root / "run-0000").rename(root / "s")
    make_runs(root, 2, parent="s")


def test_the_trials_of_a_sweep_go_with_it(tmp_path: Path) -> None:
    sweep_in(tmp_path)

    ended = call("rm", "s", "run-0000", "--yes", "--root", tmp_path)

    assert (ended.returncode, names(tmp_path)) == (0, []), ended.stderr
    assert "deleted 1 run" in ended.stderr


def test_one_trial_goes_alone_but_not_while_its_sweep_runs(tmp_path: Path) -> None:
    sweep_in(tmp_path)
    lock = RunFolder(tmp_path / "s").lock()
    with pytest.raises(DistError, match="it is a part of s, which is still running"):
        named(["run-0001"], tmp_path)
    os.close(lock)

    remove(named(["run-0001"], tmp_path)[0])

    assert names(tmp_path) == ["run-0000", "s"]


def test_folders_without_the_right_to_write_are_deleted_too(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)
    inner = tmp_path / "run-0000/nodes/0/data"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    inner.chmod(0o500)
    inner.parent.chmod(0o500)

    remove(wholes(tmp_path)[0])

    assert list(tmp_path.iterdir()) == [tmp_path / ".index.json"]


def test_folders_that_are_nested_too_deeply_are_said(tmp_path: Path) -> None:
    make_runs(tmp_path, 1)
    here = os.open(tmp_path / "run-0000", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)

    try:
        ended = call("rm", "run-0000", "--yes", "--root", tmp_path)
        left = names(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", tmp_path], check=True)  # pytest could not delete it either

    assert "Traceback" not in ended.stderr
    assert left == []
    if ended.returncode:
        assert "nested too deeply" in ended.stderr
        assert "hint: delete it yourself: `rm -rf " in ended.stderr


def test_a_run_in_two_roots_is_deleted_from_neither(tmp_path: Path, own_home: Path) -> None:
    for root in ("a", "b"):
        make_runs(tmp_path / root, 1)
    (own_home / ".azml_dist").mkdir(exist_ok=True)
    (own_home / ".azml_dist/roots").write_text(f"{tmp_path}/a\n{tmp_path}/b\n")

    with pytest.raises(DistError, match=r"there are runs named run-0000 in .*/a and .*/b"):
        named(["run-0000"])


def test_prune_deletes_what_meets_all_criteria(tmp_path: Path) -> None:
    make_runs(tmp_path, 6)  # run-0005 ended 10 minutes ago, each earlier one a minute before the next
    for number in (0, 3, 5):
        file = tmp_path / f"run-000{number}/run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "Failed", "error": "x"}))
    heads = wholes(tmp_path)

    def pruned(**criteria: float | bool) -> list[str]:
        return [whole.head.name[-1] for whole in prunable(heads, **criteria)]  # type: ignore[arg-type]

    assert pruned(keep=4) == ["0", "1"]
    assert pruned(failed=True) == ["0", "3", "5"]
    assert pruned(failed=True, keep=2) == ["0", "3"]
    assert pruned(older_than=13 * 60) == ["0", "1", "2"]
    assert pruned(older_than=13 * 60, failed=True) == ["0"]
    assert pruned(keep=100) == []


def test_prune_wants_a_criterion_and_shows_before_it_deletes(tmp_path: Path) -> None:
    make_runs(tmp_path, 3)

    without = call("prune", "--yes", "--root", tmp_path)
    shown = call("prune", "--keep", "1", "--dry-run", "--root", tmp_path)

    assert (without.returncode, len(names(tmp_path))) == (2, 3)
    assert "say what to delete: --keep N, --older-than AGE or --failed" in without.stderr
    assert shown.stdout.split() == ["run-0000", "run-0001"]
    assert shown.stderr.startswith("2 runs would be deleted, ")
    assert len(names(tmp_path)) == 3

    assert call("prune", "--keep", "1", "--yes", "--root", tmp_path).returncode == 0
    assert names(tmp_path) == ["run-0002"]


@pytest.mark.parametrize("age", ["7", "d", "7 days", "-1d", "1e9d", "7d7h", "nan"])
def test_an_age_that_is_none_is_refused(age: str, tmp_path: Path) -> None:
    make_runs(tmp_path, 1)

    ended = call("prune", "--older-than", age, "--yes", "--root", tmp_path)

    assert (ended.returncode, names(tmp_path)) == (2, ["run-0000"])
    assert "such as 7d, 12h or 30min" in ended.stderr


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(5000))
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "out").symlink_to("/usr")

    assert size_of(tmp_path) == 5000


def test_environments_are_pruned_that_no_run_has_used_for_long(own_home: Path, tmp_path: Path) -> None:
    made = own_home / ".azml_dist/environments"
    for name in ("old", "used", "new"):
        (made / name / "bin").mkdir(parents=True)
        (made / name / "azml-dist.json").write_text("{}")
    for name in ("old", "used"):
        for path in (made / name, made / name / "azml-dist.json"):
            os.utime(path, (time.time() - 9 * 86_400,) * 2)
    (made / "link").symlink_to("/usr")
    make_runs(tmp_path, 1, status="Running", ended_at=None, python=str(made / "used/bin/python"))
    lock = RunFolder(tmp_path / "run-0000").lock()
    (own_home / ".azml_dist/roots").write_text(f"{tmp_path}\n")
    try:
        assert [one.folder.name for one in unused(7 * 86_400)] == ["old"]
        assert [one.folder.name for one in unused(0)] == ["old"]
        ended = call("prune", "--older-than", "7d", "--yes")
        assert "deleted 1 environment, 2 bytes" in ended.stderr
        assert call("prune", "--older-than", "7d", "--failed", "--yes").stderr == "there is nothing to delete\n"
    finally:
        os.close(lock)

    assert sorted(one.name for one in made.iterdir() if not one.name.endswith(".lock")) == ["link", "new", "used"]


@pytest.mark.slow
def test_an_environment_that_is_being_made_stays(own_home: Path) -> None:
    import fcntl

    made = own_home / ".azml_dist/environments/old"
    made.mkdir(parents=True)
    os.utime(made, (time.time() - 9 * 86_400,) * 2)
    [old] = unused(86_400)
    with open(made.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = call("prune", "--older-than", "1d", "--yes", "--json")
        assert ended.returncode == 2
        assert f"environment {made} is not deleted: it is in use" in ended.stderr
        assert json.loads(ended.stdout)["deleted"] is False
    remove_unused(old)
    assert not made.exists()
    with pytest.raises(DistError, match="it is in use"):
        remove_unused(old)


def cached(home: Path, content: bytes, *places: str) -> Path:
    """Code of one file, kept under each of these names; returns where its content is."""
    cache = home / ".azml_dist/cache"
    contents = Contents(cache / "contents")
    kept = contents.add([content])
    for place in places:
        (cache / "code").mkdir(parents=True, exist_ok=True)
        keep_code(cache / "code" / place, contents, {"train.py": kept})
    return contents.path(kept)


def not_used_for_days(folder: Path, days: float) -> None:
    os.utime(folder, (time.time() - days * 86_400,) * 2)


def test_cached_code_and_data_are_pruned_that_no_run_has_used_for_long(own_home: Path, tmp_path: Path) -> None:
    cache = own_home / ".azml_dist/cache"
    shared, of_old = cached(own_home, b"shared", "old", "new"), cached(own_home, b"of old", "older")
    (cache / "data/old/files").mkdir(parents=True)
    (cache / "data/old/files/a.txt").write_text("data")
    for place in ("code/old", "code/older", "data/old"):
        not_used_for_days(cache / place, 9)
    make_runs(tmp_path, 1, status="Running", ended_at=None)
    lock = RunFolder(tmp_path / "run-0000").lock()
    (own_home / ".azml_dist/roots").write_text(f"{tmp_path}\n")
    try:
        named = [str(one.folder.relative_to(cache)) for one in unused(7 * 86_400)]
        assert named == ["code/old", "code/older"], "data that a run may be reading stays"
    finally:
        os.close(lock)

    told = json.loads(call("prune", "--older-than", "7d", "--yes", "--json").stdout)

    assert [Path(path).relative_to(cache).as_posix() for path in told["downloads"]] == [
        "code/old",
        "code/older",
        "data/old",
    ]
    assert (told["environments"], told["deleted"]) == ([], True)
    assert [one.name for one in (cache / "code").iterdir()] == ["new"]
    assert list((cache / "data").iterdir()) == []
    assert (shared.exists(), of_old.exists()) == (True, False)
    assert (cache / "code/new/code/train.py").read_bytes() == b"shared"


def test_what_was_used_since_it_was_found_stays(own_home: Path) -> None:
    folders = [own_home / ".azml_dist" / name for name in ("cache/code/old", "cache/data/old", "environments/old")]
    cached(own_home, b"old", "old")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        not_used_for_days(folder, 9)
    found = unused(86_400)
    assert sorted(one.folder for one in found) == sorted(folders)

    for one in found:
        note_use(one.folder)
        with pytest.raises(DistError, match="it is in use"):
            remove_unused(one)

    assert all(folder.is_dir() for folder in folders)


LISTINGS = """
import sys
from azml_dist.cli import main

listed = []
sys.addaudithook(lambda event, given: listed.append(str(given[0])) if event in ("os.listdir", "os.scandir") else None)
try:
    main()
finally:
    print(sum(name.endswith("/cache/code") for name in listed), file=sys.stderr)
"""
"""Runs the command, and says how often it listed the folder of cached code."""


@pytest.mark.slow
def test_many_folders_are_deleted_without_looking_for_others_after_each(own_home: Path) -> None:
    def listings(count: int) -> int:
        places = [f"old{number}" for number in range(count)]
        cached(own_home, b"old", *places)
        for place in places:
            not_used_for_days(own_home / ".azml_dist/cache/code" / place, 9)
        command = [sys.executable, "-c", LISTINGS, "prune", "--older-than", "7d", "--yes"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert list((own_home / ".azml_dist/cache/code").iterdir()) == []
        return int(ended.stderr.split()[-1])

    assert listings(5) == listings(1)


def test_what_a_killed_deletion_left_goes_with_the_next_one(tmp_path: Path) -> None:
    make_runs(tmp_path, 2)
    (tmp_path / "run-0001").rename(tmp_path / ".gone-1a2b3c4d")  # as `rm` does before it deletes the files

    ended = call("rm", "run-0000", "--yes", "--root", tmp_path)

    assert (ended.returncode, list(tmp_path.iterdir())) == (0, [tmp_path / ".index.json"]), ended.stderr
