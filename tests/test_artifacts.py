"""What a run leaves behind is kept, all of it, and whatever it is, a run whose processes ended well is completed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import call, pytorch, run_here, together

from azml_dist import Job, Output, RunStatus
from azml_dist.local.run import LocalRun
from azml_dist.local.supervisor.artifacts import collect
from azml_dist.model.parts import DataType

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="as root")
NOBODY = 65534


def written_by(*commands: str) -> LocalRun:
    """A completed run, each of whose nodes has run its command."""
    cases = " ".join(f"{node}) {command};;" for node, command in enumerate(commands))
    run = run_here(pytorch(f"case $NODE_RANK in {cases} esac", len(commands)), launcher="direct")
    assert run.status == RunStatus.COMPLETED, run.state().error
    return run


def kept(run: LocalRun) -> dict[str, str]:
    files = [path for path in run.folder.glob("artifacts/**/*") if path.is_file()]
    return {path.relative_to(run.folder / "artifacts").as_posix(): path.read_text().strip() for path in files}


def left(run: LocalRun) -> list[str]:
    """Files that are still in the folders of the nodes that are to be collected."""
    folders = [folder for name in ("outputs", "logs") for folder in run.folder.glob(f"nodes/*/{name}")]
    return [str(path) for folder in folders for path in [folder, *folder.rglob("*")] if not path.is_dir()]


A_FILE, A_FOLDER = "echo $RANK > outputs/a", "mkdir outputs/a && echo $RANK > outputs/a/b"


@pytest.mark.parametrize(("first", "second"), [(A_FILE, A_FOLDER), (A_FOLDER, A_FILE)])
def test_a_file_and_a_folder_of_one_name_are_both_kept_and_told(first: str, second: str) -> None:
    run = written_by(first, second)

    names = [f"outputs/a{'/b' if command == A_FOLDER else ''}" for command in (first, second)]
    assert kept(run) == {names[0]: "0", f"node_1/{names[1]}": "1"}
    [finding] = run.state().findings
    assert finding.startswith("./outputs/a was written by node 0 and node 1, as a file and as a folder: on Azure ML")
    assert left(run) == []


def test_each_of_many_nodes_that_wrote_one_name_keeps_its_own() -> None:
    run = written_by(A_FILE, A_FOLDER, A_FOLDER, A_FILE)

    assert kept(run) == {
        "outputs/a": "0",
        "node_1/outputs/a/b": "1",
        "node_2/outputs/a/b": "2",
        "node_3/outputs/a": "3",
    }
    [finding] = run.state().findings
    assert "node 0 and node 1 and node 2 and node 3" in finding
    assert left(run) == []


def test_folders_that_several_nodes_have_become_one() -> None:
    command = "mkdir -p outputs/x/y logs/tb && echo $RANK > outputs/x/y/$RANK && echo $RANK > logs/tb/$RANK"
    run = written_by(command, "true", command)

    assert kept(run) == {f"{folder}/{rank}": str(rank) for folder in ("outputs/x/y", "logs/tb") for rank in (0, 2)}
    assert run.state().findings == []
    assert left(run) == []


def test_a_clash_deep_in_folders_takes_nothing_else_along() -> None:
    command = "mkdir -p outputs/x/y && echo $RANK > outputs/x/y/$RANK && echo $RANK > outputs/x/y/both"
    run = written_by(command, command)

    assert kept(run) == {
        "outputs/x/y/0": "0",
        "outputs/x/y/1": "1",
        "outputs/x/y/both": "0",
        "node_1/outputs/x/y/both": "1",
    }
    [finding] = run.state().findings
    assert "./outputs/x/y/both was written by node 0 and node 1: on Azure ML the upload fails" in finding


def test_a_folder_without_files_is_not_there_as_in_the_services_storage() -> None:
    run = written_by("mkdir -p outputs/empty/deep")

    assert not (run.folder / "artifacts").exists()
    assert run.state().findings == []


def test_links_lead_to_the_same_files_as_before() -> None:
    run = written_by(
        "cd outputs; mkdir step_1 deep; echo weights > step_1/w; ln -s step_1 latest; ln -s $PWD/step_1 deep/absolute;"
        " ln -s ../outputs/step_1/w ../logs/beside; ln -s /nowhere dangling; ln -s /usr outside"
    )

    artifacts = run.folder / "artifacts"
    for link in ("outputs/latest/w", "outputs/deep/absolute/w", "logs/beside"):
        assert (artifacts / link).read_text() == "weights\n", link
    assert os.readlink(artifacts / "outputs/latest") == "step_1"
    assert not os.path.isabs(os.readlink(artifacts / "outputs/deep/absolute"))
    assert os.readlink(artifacts / "outputs/dangling") == "/nowhere"
    assert os.readlink(artifacts / "outputs/outside") == "/usr"
    assert left(run) == []


def test_nothing_is_written_through_a_link_to_a_folder(tmp_path: Path) -> None:
    run = written_by(f"ln -s {tmp_path} outputs/a", A_FOLDER)

    assert list(tmp_path.iterdir()) == []
    assert kept(run) == {"node_1/outputs/a/b": "1"}
    assert os.readlink(run.folder / "artifacts/outputs/a") == str(tmp_path)


@pytest.mark.parametrize("instead", ["echo 0 > outputs", "ln -s . outputs", "ln -s /nowhere outputs", "mkfifo outputs"])
def test_something_else_in_place_of_outputs_ends_no_run(instead: str) -> None:
    run = written_by(f"rmdir outputs; {instead}", "echo 1 > outputs/a")

    assert os.path.lexists(run.folder / "artifacts/outputs")
    assert (run.folder / "artifacts/node_1/outputs/a").read_text() == "1\n"


def test_pipes_and_sockets_end_no_run() -> None:
    bind = "import socket; socket.socket(socket.AF_UNIX).bind('outputs/s')"
    run = written_by(f'mkfifo outputs/p; python -c "{bind}"; echo 0 > outputs/a', "mkfifo outputs/p")

    assert kept(run) == {"outputs/a": "0"}
    assert (run.folder / "artifacts/node_1/outputs/p").is_fifo()
    assert left(run) == []


def test_folders_of_any_depth_are_kept() -> None:
    dig = "import os\nos.chdir('outputs')\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nopen('end', 'w')"
    run = run_here(Job(command=["python", "-c", dig]))

    assert run.status == RunStatus.COMPLETED, run.state().error
    assert left(run) == []
    descend = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(3000): os.chdir('d')\nprint(os.listdir())"
    ended = subprocess.run(["python", "-c", descend, run.folder / "artifacts/outputs"], capture_output=True, text=True)
    assert ended.stdout == "['end']\n"
    subprocess.run(["rm", "-r", run.folder], check=True)  # Python's own `rmtree` does not get that far


def test_names_may_hold_anything() -> None:
    run = written_by(r"touch $'outputs/\xff\e[2J' $'stray \xff\e[2J\n'")

    assert [os.fsencode(name) for name in os.listdir(run.folder / "artifacts/outputs")] == [b"\xff\x1b[2J"]
    [finding] = run.state().findings
    assert finding.startswith(r"stray \xff\x1b[2J")
    assert "\x1b" not in finding
    assert "\n" not in finding
    assert "stray" in call("status", run.name).stdout


def test_what_is_staged_in_outputs_is_kept_when_it_was_written_again(tmp_path: Path) -> None:
    (tmp_path / "outputs/deep").mkdir(parents=True)
    for name in ("same", "changed", "deep/changed"):
        (tmp_path / "outputs" / name).write_text("before")
    job = Job(
        command="for f in outputs/changed outputs/deep/changed; do echo -n 'after!' > $f; done", code=str(tmp_path)
    )

    run = run_here(job)

    assert kept(run) == {"outputs/changed": "after!", "outputs/deep/changed": "after!"}
    assert run.state().findings == []


def test_a_staged_file_that_is_written_again_at_the_same_length_would_be_lost(tmp_path: Path) -> None:
    (tmp_path / "state.txt").write_text("before")
    (tmp_path / "other.txt").write_text("before")

    run = run_here(Job(command="echo -n 'after!' > state.txt", code=str(tmp_path)))

    [finding] = run.state().findings
    assert finding.startswith("state.txt would be lost on Azure ML")


def test_a_file_named_outputs_in_the_code_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")

    run = run_here(Job(command="cat outputs", code=str(tmp_path)))

    assert run.status == RunStatus.COMPLETED, run.state().error
    assert not (run.folder / "artifacts").exists()


def test_a_stray_file_counts_once_though_every_node_has_it() -> None:
    run = written_by(*["touch a b c d $NODE_RANK"] * 2)

    assert run.state().findings == [
        "0, 1, a and 3 more would be lost on Azure ML, which keeps ./outputs, ./logs and named outputs"
    ]


def test_of_many_clashes_some_are_told_and_the_others_counted() -> None:
    run = written_by(*["seq -f outputs/%g 1000 | xargs touch"] * 2)

    *told, last = run.state().findings
    assert (len(told), last) == (10, "990 more files were written by several nodes")
    assert len(kept(run)) == 2000


def test_thousands_of_stray_files_are_counted_up_to_a_bound() -> None:
    run = written_by("seq -f f%05g 12000 | xargs touch")

    [finding] = run.state().findings
    assert finding.startswith("f00001, f00002, f00003 and at least 9997 more would be lost")


@pytest.mark.parametrize("kind", ["uri_folder", "mltable"])
def test_the_output_named_artifacts_is_all_that_the_run_keeps(kind: DataType, tmp_path: Path) -> None:
    command = (
        "echo $RANK > outputs/$RANK; mkdir -p ${{outputs.artifacts}}/own; echo $RANK > ${{outputs.artifacts}}/own/$RANK"
    )
    job = pytorch(command, 2, outputs={"artifacts": Output(type=kind), "other": Output()})

    run = run_here(job, launcher="direct", root=tmp_path / "runs in a folder")

    assert run.status == RunStatus.COMPLETED, run.state().error
    assert run.outputs == {"artifacts": run.folder / "artifacts", "other": run.folder / "outputs/other"}
    logs = {f"user_logs/std_log_process_{rank}.txt": "" for rank in (0, 1)}
    assert kept(run) == {f"{folder}/{rank}": str(rank) for folder in ("outputs", "own") for rank in (0, 1)} | logs
    assert run.state().findings == []
    assert os.listdir(run.outputs["other"]) == []


def test_an_output_named_artifacts_that_is_a_file_is_one_as_any_other() -> None:
    job = Job(command="echo 1 > ${{outputs.artifacts}}", outputs={"artifacts": Output(type="uri_file")})

    run = run_here(job)

    assert (run.outputs["artifacts"] / "artifacts").read_text() == "1\n"


def test_a_step_reads_the_artifacts_of_another(tmp_path: Path) -> None:
    keep = "mkdir -p outputs && echo hi > outputs/x.txt && echo said"
    read = "cat ${{inputs.i}}/outputs/x.txt ${{inputs.i}}/user_logs/std_log.txt"
    steps = {
        "a": {"command": keep, "compute": "azureml:c", "outputs": {"artifacts": None}},
        "b": {"command": read, "compute": "azureml:c", "inputs": {"i": "${{parent.jobs.a.outputs.artifacts}}"}},
    }
    (tmp_path / "p.yml").write_text(json.dumps({"type": "pipeline", "name": "p", "jobs": steps}))

    ended = call("run", tmp_path / "p.yml")

    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if "b node0" in line] == [
        "[b node0 rank0] hi",
        "[b node0 rank0] said",
    ]


@as_root
def test_what_its_owner_protected_is_kept() -> None:
    """Root may do anything; so another user collects."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        for node, mode in enumerate((0o000, 0o555, 0o111)):
            protected = folder / f"nodes/{node}/outputs/{node}"
            protected.mkdir(parents=True)
            (protected / "unreadable").touch(mode=0)
            protected.chmod(mode)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        if not (pid := os.fork()):
            code = 1
            try:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                nodes = [str(folder / "nodes" / str(node)) for node in range(3)]
                code = 0 if collect(folder, nodes, {}) == [] else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert sorted(p.parent.name for p in (folder / "artifacts").rglob("unreadable")) == ["0", "1", "2"]
    finally:
        subprocess.run(["rm", "-r", folder], check=True)


@contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@as_root
def test_a_full_disk_leaves_files_where_they_are_and_the_run_as_it_ended(tmp_path: Path) -> None:
    deep = "/".join("d" * 60)  # folders that the clash needs a second time
    fill = "if [ $RANK = 0 ]; then for i in $(seq 999); do touch outputs/$i || break; done; fi 2> /dev/null"
    command = f"mkdir -p outputs/{deep}; touch outputs/{deep}/f; {together(fill)}"
    with disk(tmp_path, "nr_inodes=600"):
        run = run_here(pytorch(command, 2), root=tmp_path, launcher="direct")

        state = run.state()
        assert (state.status, state.error) == ("Completed", None)
        [told] = [finding for finding in state.findings if finding.startswith("could not be moved into artifacts/")]
        assert "of node 1: No space left on device" in told
        assert (run.folder / "artifacts/outputs" / deep / "f").exists()
        assert (run.folder / "nodes/1/outputs" / deep / "f").exists()


@as_root
def test_files_on_another_disk_are_kept_too(tmp_path: Path) -> None:
    """Where something is mounted in a working directory, nothing can be renamed out of it."""
    outputs = tmp_path / "nodes/0/outputs"
    outputs.mkdir(parents=True)
    with disk(outputs, "size=1m"):
        (outputs / "x").mkdir()
        (outputs / "x/f").write_text("here")
        (outputs / "l").symlink_to("x")
        os.mkfifo(outputs / "p")

        [finding] = collect(tmp_path, [str(tmp_path / "nodes/0")], {})

    assert (tmp_path / "artifacts/outputs/x/f").read_text() == "here"
    assert os.readlink(tmp_path / "artifacts/outputs/l") == "x"
    assert finding.startswith("could not be moved into artifacts/ and is still in nodes/: ./outputs/p of node 0")
