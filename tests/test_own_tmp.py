"""Each emulated node has a `/tmp` of its own, empty at the start, where the system allows it; else the run says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import needs
from running import call, launchers, lines_of, log_of, run_here, write_job

from azml_dist import Input, Job, Mpi, Output, PyTorch
from azml_dist.local.launchers.starting import spawn

TRY = "import sys; from azml_dist.local.launchers.own_tmp import make_room; make_room(sys.argv[1], [])"


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The system lets this user make mount namespaces."""
    tried = subprocess.run(
        [sys.executable, "-c", TRY, tmp_path_factory.mktemp("room")], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"this system makes no mount namespaces: {tried.stderr.splitlines()[-1]}")


@pytest.fixture
def in_tmp(allowed: None) -> Iterator[Path]:
    """A folder in the machine's own `/tmp`, with a file."""
    folder = Path(tempfile.mkdtemp(prefix="test-own-tmp-", dir="/tmp"))
    (folder / "data.txt").write_text("data\n")
    yield folder
    shutil.rmtree(folder)


def mark(name: str) -> str:
    """A command for each process: say what is there, and leave a mark."""
    return f"[ -e /tmp/{name}_done ] && echo done before || echo first; touch /tmp/{name}_done"


@launchers
def test_a_lock_in_tmp_is_a_nodes_own_and_closed_in_the_next_run(launcher: str, allowed: None) -> None:
    job = Job(command=mark(f"lock_{os.getpid()}"), node_count=2, distribution=PyTorch())

    for _ in range(2):
        run = run_here(job, launcher=launcher)
        assert [log_of(run, rank) for rank in range(2)] == ["first\n", "first\n"]
        assert run.state().findings == []

    assert not Path(f"/tmp/lock_{os.getpid()}_done").exists()


@needs("mpirun")
def test_so_it_is_under_mpirun(allowed: None) -> None:
    run = run_here(Job(command=mark(f"mpi_{os.getpid()}"), node_count=2, distribution=Mpi()))

    assert [log_of(run, rank) for rank in range(2)] == ["first\n", "first\n"], run.state().error


def test_processes_of_a_node_share_it(allowed: None) -> None:
    tells = "[ $LOCAL_RANK = 0 ] && echo from $RANK > /tmp/part && mv /tmp/part /tmp/told"
    waits = "until [ -e /tmp/told ]; do sleep 0.02; done"
    job = Job(command=f"{tells}; {waits}; cat /tmp/told", node_count=2, distribution=PyTorch(process_count_per_node=2))
    run = run_here(job, launcher="direct")

    assert [log_of(run, rank).strip() for rank in range(4)] == ["from 0", "from 0", "from 2", "from 2"]


def test_what_was_written_to_it_is_kept_with_the_run(allowed: None) -> None:
    written, nothing = run_here(Job(command="echo 1 > /tmp/a; pwd")), run_here(Job(command="ls /tmp > list"))

    assert [path.read_text() for path in (written.folder / "tmp").rglob("a")] == ["1\n"]
    assert lines_of(written) == [f"[node0 rank0] {written.folder}/nodes/0"]
    assert not (nothing.folder / "tmp").exists()


def test_no_program_stands_between_the_run_and_a_process_in_it(allowed: None) -> None:
    """A shell that changes the folder would leave `OLDPWD`."""
    run = run_here(Job(command="touch /tmp/a; echo ${OLDPWD-none}; pwd"), launcher="direct")

    assert lines_of(run) == ["[node0 rank0] none", f"[node0 rank0] {run.folder}/nodes/0"]


def test_a_process_that_cannot_enter_its_node_ends_and_its_log_says_so(tmp_path: Path, allowed: None) -> None:
    no_namespace, log = os.open(os.devnull, os.O_RDONLY), os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    pid = spawn(["/bin/echo", "started"], str(tmp_path), {}, log, namespaces=[no_namespace])
    os.close(no_namespace)
    os.close(log)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert (tmp_path / "log").read_text() == f"{tmp_path}: cannot enter a namespace of the node\n"


@launchers
def test_inputs_and_the_runs_own_folder_in_tmp_are_seen(launcher: str, in_tmp: Path) -> None:
    command = "cat ${{inputs.data}}/data.txt > ${{outputs.out}}/copy; echo text > outputs/text; ls -d " + str(in_tmp)
    job = Job(
        command=command,
        distribution=PyTorch(),
        inputs={"data": Input(path=str(in_tmp))},
        outputs={"out": Output()},
    )
    run = run_here(job, launcher=launcher, root=in_tmp / "runs")

    assert run.status == "Completed", lines_of(run)
    assert (run.outputs["out"] / "copy").read_text() == "data\n"
    assert (run.folder / "artifacts" / "outputs" / "text").read_text() == "text\n"


def test_what_a_variable_names_is_seen(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(in_tmp))
    monkeypatch.setenv("MY_CACHES", f"/nowhere:{in_tmp / 'data.txt'}")
    temp = "import tempfile; print(tempfile.gettempdir())"

    run = run_here(Job(command=f"cat ${{MY_CACHES#*:}}; python -c '{temp}'"))

    assert lines_of(run) == ["[node0 rank0] data", f"[node0 rank0] {in_tmp}"]


def test_a_file_there_that_only_the_command_names_is_not_and_that_is_told(in_tmp: Path) -> None:
    run = run_here(Job(command=f"cat {in_tmp}/data.txt"))

    assert "No such file" in lines_of(run)[0]
    assert [finding.split(" of this machine")[0] for finding in run.state().findings] == [
        f"the run does not see {in_tmp}/data.txt"
    ]


def test_a_further_attempt_begins_with_an_empty_one(allowed: None) -> None:
    run = run_here(Job(command="ls /tmp/again; touch /tmp/again; exit 1"), retries=1)

    assert [line for line in lines_of(run) if line == "[node0 rank0] /tmp/again"] == []


def test_a_system_that_does_not_allow_it_is_no_obstacle_and_the_job_that_uses_tmp_is_told(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "ls", "rm"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "start.sh").write_text(f"ls /tmp > /tmp/{tmp_path.name}; rm /tmp/{tmp_path.name}\n")
    uses = write_job(tmp_path, "bash start.sh", code=str(tmp_path / "code"))
    environ = {**os.environ, "PATH": str(programs)}

    done = call("run", uses, "--launcher", "direct", env=environ)
    other = call("run", uses, "--launcher", "direct", "--set", "command=ls", "--set", "code=null", env=environ)

    assert (done.returncode, other.returncode) == (0, 0), done.stderr
    assert (
        "note: start.sh uses /tmp, and in this run all nodes share the machine's (`nsenter` is not installed)"
        in done.stderr
    )
    assert "note:" not in other.stderr
