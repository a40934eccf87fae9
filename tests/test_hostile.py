"""Job files that mean harm: read, planned and shown, they do nothing, and a run stays in its folder."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from running import call, run_here

import azml_dist
from azml_dist import DistError, Job, JobError, Local, submit
from azml_dist.show import title_html

TOUCH = "$(touch PWNED)`touch PWNED`"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "t.py").write_text("open('PWNED', 'w')\n")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "command: !!python/object/apply:os.system ['touch PWNED']",
        "command: x\ntags: {a: !!python/object/new:os.system ['touch PWNED']}",
        "command: x\ninputs: {a: !!python/name:os.system }",
        "!!python/object/apply:subprocess.run [[touch, PWNED]]",
        "command: x\nenvironment: {image: i, conda_file: !!python/object/apply:os.system ['touch PWNED']}",
    ],
)
def test_a_tag_makes_nothing(text: str) -> None:
    Path("job.yml").write_text(text)
    for command in (["plan", "job.yml"], ["export", "job.yml"], ["run", "job.yml"]):
        assert call(*command).returncode == 2
    call("plan", ".")
    assert not Path("PWNED").exists()


def test_what_stands_in_a_field_is_not_run_by_looking_at_it() -> None:
    Path("job.yml").write_text(
        f"command: 'python t.py ${{{{inputs.a}}}} {TOUCH}'\ncode: src\ninputs: {{a: '{TOUCH}'}}\n"
        f"display_name: '{TOUCH}'\ndescription: '{TOUCH}'\ntags: {{'{TOUCH}': '{TOUCH}'}}\ncompute: '{TOUCH[:6]}'\n"
        f"environment: {{image: '{TOUCH}', conda_file: {{dependencies: ['{TOUCH}']}}}}\n"
        f"environment_variables: {{A: '{TOUCH}'}}\nresources: {{docker_args: '{TOUCH}', instance_type: '{TOUCH}'}}\n"
        f"outputs: {{o: {{path: '{TOUCH}'}}}}\nservices: {{'{TOUCH}': {{type: ssh, ssh_public_keys: '{TOUCH}'}}}}\n"
    )
    for command in (["plan", "job.yml"], ["plan", "job.yml", "--json"], ["plan", "."], ["export", "job.yml"]):
        assert call(*command).returncode == 0, command
    assert not list(Path.cwd().rglob("PWNED"))


@pytest.mark.parametrize(
    "text",
    [
        "command: x\nname: ../../outside",
        "command: x\nname: /outside",
        "command: x\nname: ..",
        "command: x\noutputs: {../../outside: {}}",
        "command: x\noutputs: {..: {}}",
        "command: x\ninputs: {../../outside: {path: src}}",
        "command: x\nexperiment_name: ../../outside",
    ],
)
def test_a_name_is_no_way_out_of_the_runs_folder(text: str, folder: Path) -> None:
    Path("job.yml").write_text(text)
    assert call("run", "job.yml", "--root", folder / "runs").returncode == 2
    assert sorted(p.name for p in folder.iterdir()) == ["job.yml", "src"]


def test_texts_that_may_hold_anything_make_no_paths(folder: Path) -> None:
    job = Job(command="echo hi", display_name="../../outside", description="../x", tags={"../a": "../b"})
    run = submit(job, on=Local(root=folder / "runs", launcher="direct"))
    run.wait(timeout=60)

    assert run.name.startswith("outside-")
    assert sorted(p.name for p in folder.iterdir()) == ["runs", "src"]
    assert [p.parent.name for p in (folder / "runs").glob("*/run.json")] == [run.name]


def test_an_outputs_path_is_no_place_on_this_machine(folder: Path) -> None:
    Path("job.yml").write_text(f"command: echo x > ${{{{outputs.o}}}}/f\noutputs: {{o: {{path: {folder}/outside}}}}\n")
    assert call("run", "job.yml", "--root", folder / "runs", "--launcher", "direct").returncode == 0

    assert not (folder / "outside").exists()
    assert len(list((folder / "runs").glob("*/outputs/o/f"))) == 1


def test_what_a_run_writes_through_its_code_does_not_reach_the_original(folder: Path) -> None:
    (folder / "secret").write_text("before\n")
    (folder / "src" / "link").symlink_to(folder / "secret")
    job = Job(command="cat link; echo after > link", code=str(folder / "src"))
    run = submit(job, on=Local(root=folder / "runs", launcher="direct"))
    run.wait(timeout=60)

    assert "before" in "".join(run.logs())
    assert (folder / "secret").read_text() == "before\n"
    assert "links-out-of-the-code" in [finding.code for finding in job.plan().findings]


@pytest.mark.parametrize("links", [1, 3])
def test_links_in_a_circle_are_told_and_not_walked(folder: Path, links: int) -> None:
    for number in range(links):
        (folder / "src" / f"link{number}").symlink_to(folder / "src")
    with pytest.raises(JobError, match="is circular"):
        Job(command="x", code=str(folder / "src")).plan()


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo("pipe.yml")
    Path("job.yml").write_text("command: x\nenvironment: file:pipe.yml\n")

    assert "is not a file" in call("plan", "job.yml").stderr
    assert call("plan", ".").stdout.count("\n") == 2


def test_control_characters_do_not_reach_the_terminal() -> None:
    Path("job.yml").write_text('command: "echo \\e[2J\\a"\ndisplay_name: "\\e]0;title\\a"\ntags: {a: b}\n')
    Path("wrong.yml").write_text('command: x\n"\\e[2J": 1\ncompute: "\\e[2J x"\n')

    for command in (["plan", "job.yml"], ["plan", "wrong.yml"], ["plan", "."]):
        ended = call(*command)
        assert not any(c in ended.stdout + ended.stderr for c in "\x1b\x07"), command


@pytest.fixture
def prepared(folder: Path) -> Iterator[Path]:
    """The folder of a run that seems to go on, as somebody else may have prepared it."""
    run = folder / "runs" / "trap"
    (run / "user_logs").mkdir(parents=True)
    process = {"rank": 0, "node_rank": 0, "local_rank": 0, "log": "user_logs/std_log.txt"}
    state = {"name": "trap", "folder": str(run), "status": "Running", "processes": [process]}
    (run / "run.json").write_text(json.dumps(state))
    (folder / "victim").write_text("mine\n")
    with open(run / "run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield run


@pytest.mark.parametrize("victim", ["victim", "not-there-yet"])
def test_a_request_to_cancel_is_not_written_through_a_link(victim: str, prepared: Path, folder: Path) -> None:
    (prepared / "cancel").symlink_to(folder / victim)

    azml_dist.run(str(prepared)).cancel()

    assert (folder / "victim").read_text() == "mine\n"
    assert not (folder / "not-there-yet").exists()
    assert (prepared / "cancel").is_file()
    assert not (prepared / "cancel").is_symlink()


def test_a_request_to_cancel_does_not_wait_at_a_pipe(prepared: Path) -> None:
    os.mkfifo(prepared / "cancel")

    azml_dist.run(str(prepared)).cancel()

    assert (prepared / "cancel").is_file()


def test_a_folder_in_place_of_the_request_is_said_in_one_line(prepared: Path) -> None:
    (prepared / "cancel").mkdir()

    with pytest.raises(DistError, match="run trap cannot be cancelled: Is a directory") as error:
        azml_dist.run(str(prepared)).cancel()
    assert error.value.hint
    assert [path.name for path in prepared.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["run.lock", "merged.idx", "cancel", "user_logs/std_log.txt"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, partial(os.symlink, "/dev/zero")])
def test_what_is_no_file_in_a_runs_folder_is_not_waited_at(
    make: Callable[[Path], None], name: str, prepared: Path
) -> None:
    (prepared / "merged.idx").write_bytes(struct.pack("<IQ", 0, 4))
    (prepared / "user_logs/std_log.txt").write_text("abc\n")
    (prepared / name).unlink(missing_ok=True)
    make(prepared / name)

    for command in (["status"], ["logs"], ["logs", "--tail", "2"], ["page"]):
        ended = call(*command, prepared)
        assert ended.returncode in (0, 1, 2), ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("log", ["../../victim", "user_logs/link", "linked/victim"])
def test_logs_are_read_from_the_runs_folder_alone(log: str, prepared: Path, folder: Path) -> None:
    (prepared / "user_logs/link").symlink_to(folder / "victim")
    (prepared / "linked").symlink_to(folder)
    (prepared / "run.json").write_text((prepared / "run.json").read_text().replace("user_logs/std_log.txt", log))
    (prepared / "merged.idx").write_bytes(struct.pack("<IQ", 0, 5))

    for command in (["status"], ["logs"], ["logs", "--tail", "2"], ["page"]):
        ended = call(*command, prepared)
        assert "mine" not in ended.stdout + ended.stderr + _page_of(prepared)
        assert "Traceback" not in ended.stderr, ended.stderr


def _page_of(run: Path) -> str:
    """The page of a run, if it has one."""
    file = run / "page.html"
    return (
        file.read_text(encoding="utf-8").partition('id="sheet">')[2].partition("</script>")[0] if file.exists() else ""
    )


ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt.exe\r"
BARE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_a_run_json_cannot_write_to_the_terminal_or_into_a_notebook(folder: Path) -> None:
    run = run_here(Job(command="true"), root=folder / "runs", launcher="direct")
    state = json.loads((run.folder / "run.json").read_text())
    hostile = f"{ESCAPES}<script>alert(1)</script>"
    state |= {"name": hostile, "status": hostile, "error": hostile, "hint": hostile, "findings": [hostile]}
    state["world"]["distribution"] = state["processes"][0]["role"] = hostile
    (run.folder / "run.json").write_text(json.dumps(state))

    for typed in (["list"], ["status", run.name], ["status", run.name, "--json"], ["download", run.name]):
        ended = call(*typed, "--root", "runs")
        assert not BARE.search(ended.stdout + ended.stderr), typed
    assert not BARE.search(str(run))
    assert not BARE.search(run.page().html)
    assert "<script>alert" not in run.page().html
    html = run._repr_html_()
    assert not BARE.search(html)
    assert "<script" not in html
    assert "&lt;script" in html


def test_names_of_files_and_folders_cannot_write_to_the_terminal(folder: Path) -> None:
    name = ESCAPES.replace("/", "")
    (folder / "src" / name).touch()
    (folder / "src" / "link").symlink_to(folder / name)
    (folder / name).write_text("secret\n")
    Path("job.yml").write_text("command: 'mkdir outputs; touch \"outputs/'$(printf '\\033[2J')'\"'\ncode: src\n")
    runs = folder / f"runs{name}"
    runs.mkdir()
    (runs / "bad").mkdir()
    (runs / "bad/run.json").write_text(f'"{name}')

    for typed in (
        ["plan", "job.yml"],
        ["plan", name],
        ["plan", f"job.yml:{name}"],
        ["run", "job.yml", "--launcher", "direct", "--root", str(runs)],
        ["list", "--root", str(runs)],
        ["status", name],
        ["status", "bad", "--root", str(runs)],
        ["logs", "bad", "--root", str(folder / name)],
        [name],
        ["plan", "job.yml", f"--{name}"],
        ["run", "job.yml", "--launcher", name],
    ):
        ended = call(*typed)
        assert not BARE.search(ended.stdout + ended.stderr), typed
        assert ended.returncode in (0, 1, 2)
    with pytest.raises(JobError) as error:
        Job.load(name + ".yml")
    assert not BARE.search(str(error.value))


def test_an_address_that_is_a_script_is_no_link() -> None:
    assert "<a " not in title_html("run", studio="javascript:alert(1)")
    assert '<a href="https://ml.azure.com/&quot;&gt;x">' in title_html("run", studio='https://ml.azure.com/">x')
