"""Job files that mean harm: read, planned and shown, they do nothing, and a run stays in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from running import call

from azml_dist import Job, JobError, Local, submit

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
    assert [p.name for p in (folder / "runs").iterdir() if not p.name.startswith(".")] == [run.name]


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
    assert any("links out of the code folder" in p.message for p in job.plan().findings)


@pytest.mark.parametrize("links", [1, 3])
def test_links_in_a_circle_are_told_and_not_walked(folder: Path, links: int) -> None:
    for number in range(links):
        (folder / "src" / f"link{number}").symlink_to(folder / "src")
    with pytest.raises(JobError, match="leads in a circle"):
        Job(command="x", code=str(folder / "src")).plan()


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo("pipe.yml")
    Path("job.yml").write_text("command: x\nenvironment: file:pipe.yml\n")

    assert "is no file" in call("plan", "job.yml").stderr
    assert call("plan", ".").stdout.count("\n") == 2


def test_control_characters_do_not_reach_the_terminal() -> None:
    Path("job.yml").write_text('command: "echo \\e[2J\\a"\ndisplay_name: "\\e]0;title\\a"\ntags: {a: b}\n')
    Path("wrong.yml").write_text('command: x\n"\\e[2J": 1\ncompute: "\\e[2J x"\n')

    for command in (["plan", "job.yml"], ["plan", "wrong.yml"], ["plan", "."]):
        ended = call(*command)
        assert not any(c in ended.stdout + ended.stderr for c in "\x1b\x07"), command
