"""Sound calls in a world that is not: full disks, closed streams, no home, a folder that is gone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from running import CLI, call, pytorch, run_here, write_job

from azml_dist import Local
from azml_dist.local.find import runs
from azml_dist.local.roots import default_root


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path, "echo hi")
    return tmp_path


def in_bash(line: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A line of the shell, in which `azml-dist` is this one."""
    text = f'azml-dist() {{ "{CLI[0]}" -m azml_dist.cli "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=120, **options)


COMMANDS = ("plan job.yml", "plan job.yml --json", "export job.yml", "schema", "list", "status a", "logs a", "--help")


@pytest.mark.parametrize("typed", COMMANDS)
def test_output_that_cannot_be_written_is_one_line_and_an_exit_code(typed: str) -> None:
    run_here(pytorch("echo hi", name="a"), launcher="direct")

    ended = in_bash(f"azml-dist {typed} > /dev/full")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: the output cannot be written: No space left on device\n"
        "hint: check where stdout goes, and whether there is space left\n"
    )


@pytest.mark.parametrize("typed", ["plan job.yml", "list", "logs a", "run job.yml --launcher direct"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_error(typed: str, closed: str) -> None:
    run_here(pytorch("echo hi", name="a"), launcher="direct")

    ended = in_bash(f"azml-dist {typed} {closed}")

    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_run_whose_output_cannot_be_written_goes_on_to_its_end() -> None:
    ended = in_bash("azml-dist run job.yml --launcher direct > /dev/full")

    assert ended.returncode == 0
    assert "note: the output cannot be written: No space left on device; the run continues" in ended.stderr
    assert "Completed" in ended.stderr


def test_messages_that_cannot_be_written_change_nothing() -> None:
    assert in_bash("azml-dist run job.yml --launcher direct 2> /dev/full").returncode == 0
    assert in_bash("azml-dist plan nowhere.yml 2> /dev/full").returncode == 2


@pytest.mark.parametrize("typed", ["plan job.yml", "run job.yml", "export job.yml", "submit job.yml"])
def test_a_folder_that_is_gone_is_said(typed: str) -> None:
    ended = in_bash(f"mkdir gone; cd gone; rmdir ../gone; azml-dist {typed}")

    assert ended.returncode == 2
    assert ended.stderr.endswith("error: the current folder no longer exists\nhint: `cd` to a folder that exists\n"), (
        ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_what_needs_no_folder_works_where_it_is_gone() -> None:
    run = run_here(pytorch("echo hi", name="a"), launcher="direct")

    for typed in ("list", "status a", "logs a"):
        ended = in_bash(f"mkdir gone; cd gone; rmdir ../gone; azml-dist {typed}")
        assert (ended.returncode, bool(ended.stdout)) == (0, True), ended.stderr
    assert run.name == "a"


WITHOUT_HOME = """
import os, pwd, sys
def getpwuid(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
os.environ.pop("HOME", None)
os.environ.pop("AZML_DIST_ROOT", None)
sys.argv[:1] = ["azml-dist"]
from azml_dist.cli import main
main()
"""


def test_who_has_no_home_can_name_a_root(folder: Path) -> None:
    def typed(*args: str) -> subprocess.CompletedProcess[str]:
        command = [CLI[0], "-c", WITHOUT_HOME, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    refused = typed("run", "job.yml", "--launcher", "direct")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: there is no home folder")
    assert "hint: set HOME, or a folder for runs: `--root FOLDER`" in refused.stderr

    ran = typed("run", "job.yml", "--launcher", "direct", "--root", "runs")
    assert ran.returncode == 0, ran.stderr
    assert len(list((folder / "runs").glob("*/run.json"))) == 1
    assert typed("plan", "job.yml").returncode == 0
    assert typed("list", "--root", "runs").stdout.count("Completed") == 1
    assert typed("list").returncode == 0


def test_a_relative_home_is_no_place_for_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.delenv("AZML_DIST_ROOT")

    refused = call("run", "job.yml", "--launcher", "direct")
    ran = call("run", "job.yml", "--launcher", "direct", "--root", "runs")

    assert refused.returncode == 2
    assert refused.stderr.startswith("error: HOME is not an absolute path: 'relative'\nhint: set HOME, or a folder")
    assert ran.returncode == 0, ran.stderr
    assert not (folder / "relative").exists()


@pytest.mark.parametrize("home", ["/dev/null", "/proc/nowhere", "job.yml"])
def test_a_home_that_is_no_folder_is_said(home: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / home))
    monkeypatch.delenv("AZML_DIST_ROOT")

    ended = call("run", "job.yml", "--launcher", "direct")

    assert ended.returncode == 2
    assert re.fullmatch(r"error: cannot write .*\nhint: choose another folder with `--root`\n", ended.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_are_not_utf_8_are_shown(encoding: str, folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9-\xff")
    (folder / "src").mkdir()
    (folder / "src" / name).touch()
    (folder / "job.yml").write_text("command: 'true'\ncode: src\n")
    env = os.environ | {"PYTHONIOENCODING": encoding}

    planned = call("plan", "job.yml", env=env)
    assert planned.returncode == 2
    assert r"the name of caf\udce9-\udcff in the code is not UTF-8, and azure-ai-ml fails on it" in planned.stdout
    (folder / "src" / ".amlignore").write_text("caf*\n")
    for typed in (["plan", "job.yml"], ["plan", "job.yml", "--json"], ["status", name], ["plan", f"{name}.yml"]):
        ended = call(*typed, env=env)
        assert ended.returncode in (0, 2), ended.stderr
        assert "Traceback" not in ended.stderr
    run = run_here(pytorch("touch ${{outputs.up}}/f"), launcher="direct")
    assert call("download", run.name, "--to", name, env=env).returncode == 0
    assert (folder / name / "outputs/up/f").exists()


@pytest.mark.parametrize("to", ["job.yml", "job.yml/below", "/dev/null", "/proc/nowhere", "a" * 300])
def test_a_download_onto_what_is_no_folder_is_refused(to: str, folder: Path) -> None:
    run = run_here(pytorch("echo hi"), launcher="direct")
    before = (folder / "job.yml").read_text()

    ended = call("download", run.name, "--to", to)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\nhint: .*\n", ended.stderr)
    assert "traceback" not in ended.stderr
    assert (folder / "job.yml").read_text() == before


def test_what_nobody_foresaw_is_one_line_and_its_traceback_is_in_a_file(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    hook = (
        "import sys; sys.addaudithook(lambda e, a: e == 'open' and 'job.yml' in str(a[0]) and "
        "(_ for _ in ()).throw(LookupError('hunter2-hunter2')))\n"
        "sys.argv[:1] = ['azml-dist']\nfrom azml_dist.cli import main\nmain()"
    )
    typed = [CLI[0], "-c", hook, "plan", "job.yml", "--set", "tags.a=secret"]
    ended = subprocess.run(typed, capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout) == (2, "")
    found = re.fullmatch(
        r"error: bug in azml_dist: LookupError: .* \(\w+\.py:\d+\)\n"
        r"hint: please report it; the traceback is in (\S+)\n",
        ended.stderr,
    )
    assert found, ended.stderr
    report = Path(found[1])
    assert report.parent == own_home / ".azml_dist/errors"
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert text.startswith("azml-dist plan\n")
    assert "Traceback (most recent call last)" in text
    assert "LookupError: <MY_API_KEY>" in text
    assert "hunter2" not in text
    assert "secret" not in text


def test_the_python_way_in_has_errors_of_ours_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZML_DIST_ROOT", str(folder / "job.yml"))
    assert default_root() == folder / "job.yml"
    assert runs() == []
    with pytest.raises(Exception, match="cannot write") as error:
        Local(launcher="direct").submit(pytorch("true"))
    assert type(error.value).__name__ == "LaunchError"
