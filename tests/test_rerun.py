"""A run of the workspace, again on this machine: the real client submits it, the emulated service fails it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import call
from submitting import code_in, job, logged_in

from azml_dist import AzureML, Input, Job, JobError, Local, Output, PyTorch, RunFailed, Sweep, list_runs, submit
from azml_dist.azureml.run import AzureRun
from azml_dist.cli.named import file_or_run, is_file
from azml_dist.emulator import Emulator
from azml_dist.local.groups.run import GroupRun
from azml_dist.local.run import LocalRun
from azml_dist.verdict.compared import Ended, compared

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

SCRIPT = """\
import os
rank = int(os.environ["RANK"])
print("rank", rank, flush=True)
batch = {"images": 1}
if rank == 2:
    print(batch["labels"])
elif os.environ.get("WAIT", "yes") == "yes":
    import time
    time.sleep(30)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AZML_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AZML_DIST_ROOT", str(tmp_path / "runs"))
    return tmp_path / "cache"


@pytest.fixture
def login(emulator: Emulator, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated workspace is that of whoever types."""
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def failed(emulator: Emulator, azure: AzureML, tmp_path: Path, login: None) -> AzureRun:
    """A run of 2 x 2 processes that failed on rank 2; the folder of its code has changed since."""
    code = code_in(tmp_path / "code", {"train.py": SCRIPT, ".gitignore": "*.py\n", ".amlignore": ""})
    world = {"node_count": 2, "distribution": PyTorch(process_count_per_node=2)}
    run = azure.submit(job(code=str(code), command="python train.py", experiment_name="nights", **world))
    emulator.run(run.name)
    (code / "train.py").write_text("print('changed')\n")
    return run


def test_the_way_from_a_failed_run_to_the_fixed_one(emulator: Emulator, failed: AzureRun) -> None:
    """It fails here on the same rank, from its own code; with a change it completes; and it is submitted again."""
    verdict = failed.verdict()
    assert verdict

    again = call("rerun", failed.name, "--launcher", "direct", "--json")
    found = json.loads(again.stdout)

    assert again.returncode == 1
    assert found["from"] == {
        "name": failed.name,
        "workspace": emulator.workspace.name,
        "attempt": 0,
        "snapshot": found["from"]["snapshot"],
        "status": "Failed",
        "verdict": verdict.to_dict(),
        "changed": [],
    }
    assert found["compared"] == {"with": failed.name, "outcome": "same", "summary": "the same failure on the same rank"}
    for name in ("kind", "rank", "exception", "message", "file", "line", "source"):
        assert found["verdict"][name] == getattr(verdict, name)
    assert verdict.rank == 2
    assert failed.name in call("list").stdout.splitlines()[1]
    assert f"from  {failed.name} in workspace {emulator.workspace.name}" in call("status", found["name"]).stdout

    fix = ("--set", "command=sed -i s/labels/images/ train.py; WAIT=no python train.py")
    fixed = call("rerun", failed.name, "--launcher", "direct", *fix)

    assert fixed.returncode == 0, fixed.stderr
    assert "it completed here, with another `command`" in fixed.stderr
    assert f"azml-dist submit {failed.name} --set 'command=" in fixed.stderr

    checked = call("check", failed.name, "--json")

    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["compute"]["name"] == "gpu-cluster"

    emulator.forget()
    sent = call("submit", failed.name, "--no-check")

    assert sent.returncode == 0, sent.stderr
    assert f"submitting the job of run {failed.name} in the workspace again: `python train.py`" in sent.stderr
    new = sent.stdout.splitlines()[0]
    assert new != failed.name
    assert described(emulator, new) == described(emulator, failed.name)
    assert "blobs.put" not in emulator.counts()


def described(emulator: Emulator, name: str) -> str:
    """What the service says about a job, but for its name and its state."""
    properties = emulator.job(name).resource()["properties"] | {"status": None}
    return json.dumps(properties, sort_keys=True).replace(name, "NAME")


def test_a_local_run_runs_again_from_what_it_kept(tmp_path: Path, cache: Path) -> None:
    """Its code, with the modes of its files, its inputs and what it had written; deleted with the run."""
    code = code_in(tmp_path / "code", {"go.sh": "#!/bin/bash\ncat $1/d; ls $2; echo a > $2/a", "old": "1"})
    (code / "go.sh").chmod(0o755)
    data = code_in(tmp_path / "data", {"d": "data\n"})
    command = "./go.sh ${{inputs.data}} ${{outputs.model}}"
    inputs, outputs = {"data": Input(path=str(data))}, {"model": Output()}
    first = Local().submit(Job(code=str(code), command=command, inputs=inputs, outputs=outputs)).wait()
    for file in code.iterdir():
        file.unlink()

    again = submit(first.rerun(resume=True), on="local")
    again.wait()

    assert str(first.logs(rank=0)) == "data"
    assert str(again.logs(rank=0)) == "data\na"
    assert isinstance(again, LocalRun)
    origin = again.state().origin
    kept = again.code()
    assert kept
    assert origin == {
        "name": first.name,
        "workspace": None,
        "attempt": 0,
        "snapshot": kept.digest,
        "status": "Completed",
        "verdict": None,
        "changed": [],
    }
    contents = [path for path in (tmp_path / "runs" / ".contents").glob("??/*") if path.parent.name != "index"]
    assert len(contents) == 2

    assert call("rm", first.name, again.name, "--yes").returncode == 0
    assert not [path for path in contents if path.exists()]


def test_why_a_repetition_failed_does_not_point_into_code_that_others_share(tmp_path: Path, cache: Path) -> None:
    code = code_in(tmp_path / "code", {"fails.py": "raise KeyError('labels')\n"})
    first = Local().submit(Job(code=str(code), command="python fails.py", name="first"))
    with pytest.raises(RunFailed):
        first.wait()
    with pytest.raises(RunFailed):
        submit(first.rerun(), on="local").wait()

    *_, again = list_runs()
    assert f"where {code}/fails.py:1" in " ".join(call("why", "first").stdout.split())
    assert "where fails.py:1 " in " ".join(call("why", again.name).stdout.split())


@pytest.mark.usefixtures("cache")
def test_why_of_a_run_means_the_run_though_its_download_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Local().submit(Job(command="echo no >&2; exit 3", name="first"))
    with pytest.raises(RunFailed):
        run.wait()
    assert call("download", "first").returncode == 0

    assert call("why", "first").stdout.startswith("run first: Failed in ")
    assert call("why", "./first").stdout.startswith("first: Unknown")


def test_a_sweep_here_is_refused_and_its_trial_runs_again(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "sweep.yml"
    file.write_text(
        "type: sweep\ntrial: {command: 'echo ${{search_space.x}}', environment: 'azureml:e:1'}\n"
        "sampling_algorithm: grid\n"
        "search_space: {x: {type: choice, values: [7]}}\nobjective: {primary_metric: loss, goal: minimize}\n"
        "limits: {max_total_trials: 1}\n"
    )
    run = Local().submit(Sweep.load(file))
    with pytest.raises(RunFailed, match="no trial logged"):
        run.wait()

    with pytest.raises(JobError, match=f"run {run.name} is a sweep, not a single job") as refused:
        run.rerun()
    assert isinstance(run, GroupRun)
    trial = next(iter(run.members.values()))
    assert trial.name in str(refused.value.hint)
    again = submit(trial, on="local")
    again.wait()
    assert str(again.logs(rank=0)) == "7"


def test_a_run_of_an_older_version_says_why_it_cannot_run_again(tmp_path: Path, cache: Path) -> None:
    run = Local().submit(Job(command="true")).wait()
    (run.folder / "job.yml").unlink()

    with pytest.raises(JobError, match="was started before runs kept their code and job"):
        Job.from_run(run)


FAILED = {"kind": "user-code", "certainty": "certain", "rank": 1, "exception": "KeyError", "message": "'x'"}
FAILED |= {"file": "train.py", "line": 4, "summary": "rank 1: KeyError"}
NO_FILE = {**FAILED, "file": None, "line": None}
DONE = ("Completed", None)


@pytest.mark.parametrize(
    ("there", "here", "outcome", "summary"),
    [
        (DONE, DONE, "same", "both completed"),
        (("Failed", FAILED), DONE, "not-reproduced", "not reproduced: it completed here"),
        (DONE, ("Failed", FAILED), "another", "it completed there; here: rank 1: KeyError"),
        (DONE, ("Failed", None), "another", "it completed there; here: the reason is not known"),
        (("Failed", FAILED), ("Failed", FAILED), "same", "the same failure on the same rank"),
        (("Failed", FAILED), ("Failed", {**FAILED, "message": "a path"}), "same", "the same failure on the same rank"),
        (("Failed", {**FAILED, "rank": None}), ("Failed", {**FAILED, "rank": None}), "same", "the same failure"),
        (
            ("Failed", FAILED),
            ("Failed", {**FAILED, "rank": 0}),
            "same-on-another-rank",
            "the same failure, on rank 0 instead of rank 1",
        ),
        (("Failed", FAILED), ("Failed", {**FAILED, "line": 5}), "another", "another failure; there: rank 1: KeyError"),
        (("Failed", FAILED), ("Failed", {**FAILED, "file": "a.py"}), "another", None),
        (("Failed", FAILED), ("Failed", {**FAILED, "kind": "shape-mismatch"}), "another", None),
        (("Failed", FAILED), ("Canceled", {**FAILED, "exception": None}), "another", None),
        (("Failed", NO_FILE), ("Failed", NO_FILE), "same", None),
        (("Failed", NO_FILE), ("Failed", FAILED), "same", None),
        (("Failed", NO_FILE), ("Failed", {**FAILED, "message": "'y'"}), "another", None),
        (
            ("Failed", FAILED),
            ("Failed", {**FAILED, "certainty": "unknown"}),
            "unknown",
            "not known whether it is the same failure; there: rank 1: KeyError",
        ),
        (("Failed", {**FAILED, "certainty": "unknown"}), ("Failed", FAILED), "unknown", None),
        (("Failed", None), ("Failed", FAILED), "unknown", None),
        (("Failed", FAILED), ("Failed", None), "unknown", None),
    ],
)
def test_whether_a_repetition_failed_in_the_same_way(there: Any, here: Any, outcome: str, summary: str | None) -> None:
    found = compared(Ended(*there), Ended(*here))

    assert found
    assert found.outcome == outcome
    assert summary is None or found.summary == summary
    assert found.to_dict("first") == {"with": "first", "outcome": outcome, "summary": found.summary}


def test_a_changed_job_that_completes_proves_nothing_of_the_old_one() -> None:
    said = [
        compared(Ended("Failed", FAILED), Ended(*DONE), changed) for changed in (["code"], ["code", "inputs", "tags"])
    ]

    assert [one and one.summary for one in said] == [
        "it completed here, with another `code`",
        "it completed here, with another `code`, `inputs` and `tags`",
    ]
    assert compared(Ended("Failed", FAILED), Ended("Running", None)) is None


@pytest.mark.parametrize("name", ["job.yml", "a/b.yaml", "train.py", "train.py:job", "PIPE.YML:step", "here"])
def test_what_looks_like_a_file_is_never_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Otherwise a typing error could cost money."""
    monkeypatch.chdir(code_in(tmp_path, {"here": ""}))

    assert is_file(name)
    assert file_or_run(name) is name


def test_a_name_without_a_file_or_a_run(cache: Path, login: None) -> None:
    found = call("submit", "jobyml")

    assert found.returncode == 2
    assert "error: there is no file 'jobyml', and no run of that name on this machine or in workspace" in found.stderr
    assert "error: job.yml is a file, and `rerun` needs the name of a run" in call("rerun", "job.yml").stderr


def test_an_exported_run_is_a_job_file_without_secrets(
    emulator: Emulator, azure: AzureML, tmp_path: Path, cache: Path, login: None
) -> None:
    code = code_in(tmp_path / "code", {"a/train.py": "pass"})
    variables = {"WANDB_API_KEY": "0123456789abcdef", "A": "b"}
    run = azure.submit(job(code=str(code), command="python a/train.py", environment_variables=variables))

    exported = call("export", run.name, "--code", str(tmp_path / "home"))

    assert exported.returncode == 0, exported.stderr
    assert "0123456789abcdef" not in exported.stdout
    (tmp_path / "job.yml").write_text(exported.stdout)
    loaded = Job.load(tmp_path / "job.yml")
    assert loaded.environment_variables == {"WANDB_API_KEY": None, "A": "b"}
    assert loaded.code == str(tmp_path / "home")
    assert (tmp_path / "home" / "a" / "train.py").read_text() == "pass"
    assert loaded.environment == "azureml:torch:1"
    assert "exists already" in call("export", run.name, "--code", str(tmp_path / "home")).stderr


def test_a_secret_of_the_run_reaches_its_repetition_and_no_file(
    azure: AzureML, tmp_path: Path, cache: Path, login: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    variables = {"WANDB_API_KEY": "0123456789abcdef"}
    run = azure.submit(job(command="[ $WANDB_API_KEY = 0123456789abcdef ]", environment_variables=variables))

    again = submit(run.rerun(run.job().with_set("command=[ ${#WANDB_API_KEY} = 16 ]")), on="local")
    again.wait()

    assert isinstance(again, LocalRun)
    files = [path for path in again.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"0123456789abcdef" in path.read_bytes()]


def test_what_ran_here_is_submitted_from_what_it_kept(
    emulator: Emulator, azure: AzureML, tmp_path: Path, cache: Path, login: None
) -> None:
    """Also a file that an ignore rule in its code names."""
    code = code_in(tmp_path / "code", {"go.sh": "echo here", ".amlignore": "none"})
    run = Local().submit(job(code=str(code), command="bash go.sh")).wait()
    (code / "go.sh").write_text("exit 1")

    sent = call("submit", run.name, "--no-check", "--set", "experiment_name=other")

    assert sent.returncode == 0, sent.stderr
    assert f"submitting the job of run {run.name} on this machine again: `bash go.sh`, " in sent.stderr
    assert "its own code (2 files)" in sent.stderr
    assert "  changed: --set experiment_name=other" in sent.stderr
    there = emulator.run(sent.stdout.splitlines()[0])
    assert there.job.status == "Completed"
    assert there.job.log("user_logs/std_log.txt") == "here\n"
