"""What people type who come from other tools is understood, or answered with the right words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import call, write_job

from azml_dist import Input, Job, JobError, Output, Pipeline, PyTorch

JOB = Job(
    command="python train.py --epochs ${{inputs.epochs}}",
    inputs={"epochs": 3, "workers": 2, "data": Input(path="azureml:d:1")},
    outputs={"model": Output()},
    distribution=PyTorch(process_count_per_node=2),
)


@pytest.mark.parametrize("name", ["nodes", "num_nodes", "nnodes", "instances", "instance_count", "node_count"])
def test_nodes_are_nodes_under_any_name(name: str) -> None:
    assert JOB.with_set(f"{name}=4").node_count == 4


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("epochs=3", "did you mean `inputs.epochs`?"),
        ("epoch=3", "did you mean `inputs.epochs`?"),
        ("workers=3", "did you mean `inputs.workers`?"),
        ("data=there", "did you mean `inputs.data`?"),
        ("model=there", "did you mean `outputs.model`?"),
        ("processes=4", "set `distribution.process_count_per_node`: how many processes start on each node"),
        ("nproc_per_node=4", "set `distribution.process_count_per_node`: how many processes start on each node"),
        ("process_count_per_node=4", "did you mean `distribution.process_count_per_node`?"),
        ("cluster=mine", "set `compute`: the name of a cluster"),
        ("image=mine", "set `environment`: its name, or `file:PATH`"),
        ("node_cout=4", "did you mean `node_count`?"),
    ],
)
def test_a_name_of_others_is_answered_with_the_field(setting: str, hint: str) -> None:
    with pytest.raises(JobError) as error:
        JOB.with_set(setting)

    assert error.value.hint == hint


def test_gpus_are_answered_with_what_decides_them() -> None:
    with pytest.raises(JobError) as error:
        JOB.with_set("gpus=8")

    assert str(error.value).startswith("--set: `gpus` is not a field of a job")
    assert "VM size" in (error.value.hint or "")
    assert "distribution.process_count_per_node" in (error.value.hint or "")


def test_an_input_of_a_pipeline_is_the_answer_too(tmp_path: Path) -> None:
    steps = {"a": {"type": "command", "command": "echo ${{inputs.x}}", "inputs": {"x": "${{parent.inputs.epochs}}"}}}
    steps["a"]["environment"] = "azureml:e:1"
    (tmp_path / "p.yml").write_text(json.dumps({"type": "pipeline", "inputs": {"epochs": 3}, "jobs": steps}))

    with pytest.raises(JobError) as error:
        Pipeline.load(tmp_path / "p.yml").with_set("epochs=4")

    assert error.value.hint == "did you mean `inputs.epochs`?"


@pytest.mark.parametrize("typed", [["-f"], ["--file"]])
def test_a_job_may_be_given_as_az_ml_has_it(typed: list[str], tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo hi")

    planned = call("plan", *typed, file, "--json")
    ran = call("run", *typed, file, "--launcher", "direct")
    exported = call("export", *typed, file)

    assert json.loads(planned.stdout)["command"] == "echo hi"
    assert ran.stdout == "[node0 rank0] hi\n"
    assert "echo hi" in exported.stdout


def test_two_jobs_or_none_are_refused(tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo hi")

    two, none = call("plan", file, "--file", file), call("run")

    assert (two.returncode, none.returncode) == (2, 2)
    assert "are two jobs: give one" in two.stderr
    assert "Missing argument 'JOB'" in none.stderr


def test_a_dry_run_shows_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo hi $RANK", processes=2, inputs={"data": {"path": "azureml:d:1"}})

    refused = call("run", file, "--dry-run")
    ran = call("run", file, "--dry-run", "--input", f"data={tmp_path}", "--json", "--output-dir", tmp_path / "runs")
    submitted = call("submit", file, "--dry-run", "--set", "nodes=3", cwd=tmp_path)

    assert refused.returncode == 2
    assert "azureml:d:1 can be read only on Azure ML" in refused.stderr
    plan = json.loads(ran.stdout)
    assert (plan["world"]["world_size"], ran.stderr) == (2, "nothing was started\n")
    assert not (tmp_path / "runs").exists()
    assert "3 nodes x 2 processes = 6" in submitted.stdout
    assert submitted.stderr.startswith("nothing was submitted; ")


def test_the_folder_of_runs_is_also_an_output_dir(tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo hi")

    name = json.loads(call("run", file, "--launcher", "direct", "--json", "--output-dir", tmp_path / "o").stdout)[
        "name"
    ]

    assert (tmp_path / "o" / name / "run.json").is_file()
    assert [
        run["name"] for run in json.loads(call("list", "--output-dir", tmp_path / "o", "--json").stdout)["runs"]
    ] == [name]
    assert call("download", name, "--output-dir", tmp_path / "got").stdout == f"{tmp_path}/got\n"
