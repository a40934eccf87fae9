"""A detached run outlives the terminal and the process that started it; everything else finds it by its name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import MARK, await_, call, cli, find, living, write_job
from terminals import at_terminal

import azml_dist
from azml_dist import Job, JobError, Local
from azml_dist.local.find import find as find_run

pytestmark = pytest.mark.slow

START = """
import os, signal, sys
from azml_dist import Job, Local, Sweep

job = Job(command=sys.argv[2], name="mine", inputs={"x": 0})
if sys.argv[1] == "sweep":
    space = {"x": {"type": "choice", "values": [1, 2]}}
    objective = {"primary_metric": "loss", "goal": "minimize"}
    limits = {"max_total_trials": 2}
    what = Sweep(job=job, search_space=space, objective=objective, sampling_algorithm="grid", limits=limits)
else:
    what = job
run = Local(launcher="direct", detach=True).submit(what)
print(run.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def held(gate: Path, then: str = "echo over") -> str:
    """A command that waits for a file."""
    return f"echo begun; while [ ! -e {gate} ]; do sleep 0.05; done; {then}"


def started(kind: str, command: str) -> subprocess.CompletedProcess[str]:
    """Start a detached run in a process that is killed as soon as it has."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", START, kind, command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_a_detached_run_outlives_its_terminal(tmp_path: Path) -> None:
    file = write_job(tmp_path, held(tmp_path / "gate"))

    with at_terminal("run", file, "--detach", "--launcher", "direct") as terminal:
        assert terminal.end() == 0
        name = terminal.shown[0]
    run = find(name)
    await_(lambda: "begun" in call("logs", name).stdout)
    assert run.status == "Running"
    assert any("azml-dist logs" in line and "--follow" in line for line in terminal.shown)

    with cli("logs", name, "--follow") as follower:
        (tmp_path / "gate").touch()
        stdout, stderr = follower.communicate(timeout=60)

    assert (follower.returncode, stdout) == (0, "[node0 rank0] begun\n[node0 rank0] over\n"), stderr
    assert [one.name for one in azml_dist.list_runs()] == [name]


def test_a_detached_run_outlives_the_kill_of_the_process_that_started_it(tmp_path: Path) -> None:
    ended = started("job", held(tmp_path / "gate"))

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "mine\n"), ended.stderr
    run = find("mine")
    await_(lambda: list(run.logs()) == ["[node0 rank0] begun"])
    (tmp_path / "gate").touch()
    assert run.wait(timeout=60).status == "Completed"


def test_a_detached_run_is_cancelled_by_its_name_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, f"{tmp_path}-{os.getpid()}")
    name = json.loads(
        call("run", write_job(tmp_path, "sleep 1000"), "--detach", "--launcher", "direct", "--json").stdout
    )["name"]
    await_(lambda: living(str(tmp_path)))

    ended = call("cancel", name)

    assert (ended.returncode, ended.stderr) == (0, f"run {name}: Canceled\n")
    await_(lambda: not living(str(tmp_path)))


def test_a_detached_sweep_outlives_the_kill_of_the_process_that_started_it(tmp_path: Path) -> None:
    ended = started("sweep", held(tmp_path / "gate", "echo ${{inputs.x}}"))

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "mine\n"), ended.stderr
    await_(lambda: find_run("mine_0"))
    assert find("mine").status == "Running"
    (tmp_path / "gate").touch()
    await_(lambda: find("mine").status.is_final, seconds=60)
    assert [member.status for member in find("mine").state().members] == ["Completed", "Completed"]
    assert (find("mine").folder / "driver.txt").read_text() == ""


def test_what_is_wrong_with_a_detached_sweep_is_said_as_always(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yml"
    sweep = {
        "type": "sweep",
        "trial": {"command": "echo ${{search_space.x}}", "code": "azureml:there:1"},
        "search_space": {"x": {"type": "choice", "values": [1, 2]}},
        "objective": {"primary_metric": "loss", "goal": "minimize"},
        "sampling_algorithm": "grid",
        "limits": {"max_total_trials": 1},
    }
    file.write_text(json.dumps(sweep))

    ended = call("run", file, "--detach")
    assert ended.returncode == 2
    assert "is a code asset in Azure ML, not a folder on this machine" in ended.stderr
    assert json.loads(call("list", "--json").stdout) == {"runs": []}


def test_a_script_does_not_wait_for_its_detached_runs_and_warns_of_nothing(tmp_path: Path) -> None:
    script = START.replace("os.kill(os.getpid(), signal.SIGKILL)", "")
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, "job", held(tmp_path / "gate")],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "mine\n", "")
    (tmp_path / "gate").touch()
    assert find("mine").wait(timeout=60).status == "Completed"


def test_pdb_needs_a_terminal_and_is_refused() -> None:
    with pytest.raises(JobError, match="pdb needs your terminal"):
        Local(detach=True, pdb=True)


def test_a_detached_run_can_be_waited_for_by_its_handle() -> None:
    run = Local(launcher="direct", detach=True).submit(Job(command="true"))

    assert run.wait(timeout=60).status == "Completed"
