"""Files of runs that were damaged or mean harm: passed over and told, and never in the way of other runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import await_, call, pytorch, run_here

from azml_dist import Job, JobError, Local, NotFound, run
from azml_dist.local.find import runs

STATES = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "not a number": b'{"name": "bad", "folder": "", "processes": [], "created_at": NaN}',
    "text for a number": b'{"name": "bad", "folder": "", "processes": [], "created_at": "1"}',
    "a date that there is not": b'{"name": "bad", "folder": "", "processes": [], "created_at": 1e30}',
    "a rank that there is not": b'{"name": "bad", "folder": "", "processes": [], "failed_rank": 3}',
    "texts for processes": b'{"name": "bad", "folder": "", "processes": ["x"]}',
    "half a world": b'{"name": "bad", "folder": "", "processes": [], "world": {"node_count": 1}}',
    "a kind that there is not": b'{"name": "bad", "folder": "", "processes": [], "kind": "x"}',
    "deep": b'{"a":' * 100_000,
    "not UTF-8": b'{"name": "\xff"}',
}
SPECIAL: dict[str, Callable[[Path], Any]] = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a link to itself": lambda file: file.symlink_to(file),
    "a device": lambda file: file.symlink_to("/dev/zero"),
}


def bad_run(root: Path, state: bytes | Callable[[Path], Any]) -> Path:
    file = root / "bad" / "run.json"
    file.parent.mkdir()
    if isinstance(state, bytes):
        file.write_bytes(state)
    else:
        state(file)
    return file


@pytest.mark.parametrize("kind", [*STATES, *SPECIAL])
def test_a_broken_run_json_is_left_out_of_the_list_and_said(kind: str) -> None:
    good = run_here(pytorch("true"), launcher="direct")
    file = bad_run(good.folder.parent, STATES[kind] if kind in STATES else SPECIAL[kind])

    skipped: list[str] = []
    assert [found.name for found in runs(skipped=skipped)] == [good.name]
    assert len(skipped) == 1
    assert str(file) in skipped[0]
    assert run(good.name).status == "Completed"
    with pytest.raises(NotFound, match="is not a valid run state") as error:
        print(run("bad"))
    assert error.value.hint


def test_the_list_says_what_it_leaves_out() -> None:
    good = run_here(pytorch("true"), launcher="direct")
    bad_run(good.folder.parent, b"null")

    ended = call("list")

    assert (ended.returncode, ended.stdout.count(good.name)) == (0, 1)
    assert "note: left out: " in ended.stderr
    assert "bad/run.json is not a valid run state" in ended.stderr


def test_a_run_whose_folder_was_renamed_is_listed_by_the_name_that_finds_it() -> None:
    good = run_here(pytorch("echo found"), launcher="direct")
    renamed = good.folder.rename(good.folder.with_name("renamed"))

    [listed] = json.loads(call("list", "--json").stdout)["runs"]
    assert (listed["name"], listed["folder"]) == ("renamed", str(renamed))
    assert str(run("renamed")).startswith("renamed  Completed")
    assert call("logs", listed["name"]).stdout == "[node0 rank0] found\n"


def test_a_metric_that_is_no_number_is_null_in_json() -> None:
    member = {"label": "trial 0", "name": "bad_0", "status": "Completed", "metric": float("nan")}
    details = {"goal": "minimize", "primary_metric": "loss", "sampling": "grid", "seed": None, "best": None}
    state = {"name": "bad", "folder": "", "processes": [], "status": "Completed", "kind": "sweep", "details": details}
    good = run_here(pytorch("true"), launcher="direct")
    bad_run(good.folder.parent, json.dumps({**state, "trials": [member]}).encode())

    printed = call("status", "bad", "--json").stdout
    assert json.loads(printed, parse_constant=pytest.fail)["trials"][0]["metric"] is None
    assert "loss" in call("status", "bad").stdout


@pytest.mark.parametrize("log", ["/etc/passwd", "../../../etc/passwd", "user_logs/../../../x", ""])
def test_a_log_outside_of_the_runs_folder_is_not_read(log: str) -> None:
    good = run_here(pytorch("true"), launcher="direct")
    data = json.loads((good.folder / "run.json").read_text())
    data["processes"][0]["log"] = log
    (good.folder / "run.json").write_text(json.dumps(data))

    with pytest.raises(NotFound, match="a log outside the run's folder"):
        list(good.logs())


def test_a_name_of_a_member_leads_nowhere_else() -> None:
    member = {"label": "a", "name": "../../x"}
    state = {"name": "bad", "folder": "", "processes": [], "kind": "sweep", "trials": [member], "details": {}}
    good = run_here(pytorch("true"), launcher="direct")
    bad_run(good.folder.parent, json.dumps(state).encode())

    with pytest.raises(NotFound, match=r"the name of trials\.0 is not valid"):
        print(run("bad"))


@pytest.mark.parametrize("noted", [b"\xff\xfe\n", b"\0\n", b"relative\n", b"\x1b[2J\n"])
def test_a_line_that_is_no_path_among_the_noted_roots_hides_nothing(noted: bytes, own_home: Path) -> None:
    good = run_here(pytorch("true"), launcher="direct", root=own_home / "elsewhere")
    roots = own_home / ".azml_dist/roots"
    roots.write_bytes(noted + roots.read_bytes() + noted)

    ended = call("status", good.name)
    listed = call("list")

    assert (ended.returncode, listed.returncode) == (0, 0)
    assert good.name in listed.stdout
    assert "roots: " in listed.stderr
    assert "\x1b" not in listed.stderr


@pytest.mark.parametrize("kind", SPECIAL)
def test_noted_roots_that_are_no_file_are_said(kind: str, own_home: Path) -> None:
    good = run_here(pytorch("true"), launcher="direct")
    roots = own_home / ".azml_dist/roots"
    roots.unlink(missing_ok=True)
    roots.parent.mkdir(exist_ok=True)
    SPECIAL[kind](roots)

    listed = call("list")
    assert good.name in listed.stdout
    assert f"note: left out: {roots}" in listed.stderr
    assert run_here(pytorch("true"), launcher="direct").status == "Completed"


def test_a_root_that_holds_itself_or_is_a_file_hides_nothing(own_home: Path) -> None:
    good = run_here(pytorch("true"), launcher="direct")
    (own_home / "loop").symlink_to(own_home / "loop")
    (own_home / "file").touch()
    (own_home / ".azml_dist").mkdir(exist_ok=True)
    with open(own_home / ".azml_dist/roots", "a") as roots:
        roots.write(f"{own_home}/loop\n{own_home}/file\n{own_home}/gone\n")

    listed = call("list")

    assert good.name in listed.stdout
    assert f"{own_home}/loop: Too many levels of symbolic links" in listed.stderr


LAUNCH = """
import os, signal, sys
from azml_dist import Job, Local
from azml_dist.local import state

event = sys.argv[1]
def kill(name, args):
    if name == event and ".new-" in str(args[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
Local(launcher="direct").submit(Job(command="true", name="mine"))
"""


@pytest.mark.parametrize("event", ["open", "os.rename"])
def test_who_is_killed_while_a_run_comes_into_being_leaves_its_name_free(event: str) -> None:
    killed = subprocess.run([sys.executable, "-c", LAUNCH, event], timeout=60, stdin=subprocess.DEVNULL)

    assert killed.returncode == -signal.SIGKILL
    assert runs() == []
    assert run_here(pytorch("true", name="mine"), launcher="direct").status == "Completed"


def test_a_run_whose_launch_was_killed_is_there_and_failed() -> None:
    hook = LAUNCH.replace("mine", "late").replace('".new-" in', '"plan.json" in')
    killed = subprocess.run([sys.executable, "-c", hook, "open"], timeout=60, stdin=subprocess.DEVNULL)

    assert killed.returncode == -signal.SIGKILL
    assert await_(lambda: run("late").status) == "Failed"
    assert "late" in call("list").stdout
    assert call("logs", "late").returncode in (0, 2)


def test_a_log_that_was_deleted_and_an_index_that_was_cut_end_in_no_traceback() -> None:
    good = run_here(pytorch("echo hi"), launcher="direct")
    index = good.folder / "merged.idx"
    index.write_bytes(index.read_bytes() + b"\x07\x00\x00")
    assert call("logs", good.name).stdout == "[node0 rank0] hi\n"

    (good.folder / good.state().processes[0].log).unlink()
    ended = call("logs", good.name)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {good.folder}/user_logs/std_log_process_0.txt cannot be read: No such file")
    assert "\nhint: " in ended.stderr


def test_an_empty_folder_of_that_name_is_not_taken(tmp_path: Path) -> None:
    """Whoever made it may be about to fill it."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(JobError, match="a run named mine already exists in"):
        Local(root=tmp_path).submit(Job(command="true", name="mine"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_run_that_another_user_may_not_read_is_left_out_and_said(tmp_path: Path) -> None:
    """One of theirs is read, one that was closed to them is not; nobody fails over it."""
    root = tmp_path / "shared"
    open_run, closed = (Local(root=root).submit(Job(command="true")).wait() for _ in range(2))
    for folder in (root, *root.parents):
        if folder.parent.is_relative_to(tempfile.gettempdir()):
            folder.chmod(0o755)
    closed.folder.chmod(0o755)
    (closed.folder / "run.json").chmod(0o600)
    (open_run.folder / "run.json").chmod(0o644)
    ours, theirs = os.pipe()
    if not (pid := os.fork()):
        with contextlib.suppress(BaseException):
            os.setgid(65534)
            os.setuid(65534)
            skipped: list[str] = []
            found = [each.name for each in runs(root, skipped=skipped)]
            os.write(theirs, json.dumps([found, skipped]).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as answer:
        found, skipped = json.loads(answer.read())
    os.waitpid(pid, 0)

    assert found == [open_run.name]
    assert len(skipped) == 1
    assert closed.name in skipped[0]
