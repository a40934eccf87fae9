"""A folder of job files, a line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import call

JOBS = {
    "a/ddp.yml": "command: x\nresources: {instance_count: 2}\n"
    "distribution: {type: pytorch, process_count_per_instance: 4}\n",
    "a/single.yaml": "command: x\nenvironment: azureml:e:1\n",
    "a/wrong.yml": "command: x\nresources: {instance_cont: 2}\nlimits: {tmeout: 1}\n",
    "b/broken.yml": "command: [a\nb: }\n",
    "b/lost.yml": "command: x\ncode: nowhere\n",
    "b/part.yml": "type: command\nversion: 1\nname: p\ncommand: echo ${{inputs.a}}\nenvironment: azureml:e:1\n"
    "inputs: {a: {type: integer}}\n",
    "conda.yml": "name: e\ndependencies: [pip]\n",
    "data.yml": "$schema: https://x/data.schema.json\ntype: uri_folder\npath: x\n",
    "environment.yml": "name: e\nimage: python:3.11\n",
    "automl.yml": "type: automl\ntask: classification\n",
    "deployment.yml": "$schema: https://x/modelBatchDeployment.schema.json\ntype: pipeline\nname: d\n",
    "list.yml": "- a\n- b\n",
    ".hidden/job.yml": "command: x\n",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in JOBS.items():
        (tmp_path / "jobs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "jobs" / name).write_text(text)


def test_each_job_has_a_line_with_what_it_means_or_what_is_wrong() -> None:
    ended = call("plan", "jobs")
    lines = ended.stdout.splitlines()

    assert ended.returncode == 2
    assert [line.split()[0] for line in lines[1:]] == [
        "jobs/a/ddp.yml",
        "jobs/a/single.yaml",
        "jobs/a/wrong.yml",
        "jobs/b/broken.yml",
        "jobs/b/lost.yml",
        "jobs/b/part.yml",
    ]
    assert lines[1].split(maxsplit=1)[1] == "2 nodes x 4 processes = 8  PyTorch  1 warning"
    assert lines[2].split(maxsplit=1)[1] == "1 node x 1 process = 1"
    wrong = "WRONG  line 2: resources.instance_cont: unknown field `instance_cont` (and 1 more)"
    assert lines[3].split(maxsplit=1)[1] == wrong
    assert lines[6].split(maxsplit=1)[1] == "1 node x 1 process = 1  needs inputs: a"


def test_what_is_plainly_no_job_is_left_out_and_said() -> None:
    said = [line for line in call("plan", "jobs").stderr.splitlines() if line.startswith("note: ")]

    assert said == [
        "note: jobs/automl.yml is not a job: an AutoML job",
        "note: jobs/conda.yml is not a job: a conda file",
        "note: jobs/data.yml is not a job: its schema is data",
        "note: jobs/deployment.yml is not a job: its schema is modelBatchDeployment",
        "note: jobs/environment.yml is not a job: an environment",
        "note: jobs/list.yml is not a job: it has no fields of a job",
    ]


def test_a_folder_of_good_jobs_ends_well() -> None:
    assert call("plan", "jobs/a", "--set", "node_count=2").returncode == 2  # of which job?
    Path("jobs/a/wrong.yml").unlink()
    assert call("plan", "jobs/a").returncode == 0


def test_json_holds_the_same() -> None:
    found = json.loads(call("plan", "jobs", "--json").stdout)

    assert [bool(job["problems"]) for job in found["jobs"]] == [False, False, True, True, True, False]
    assert found["jobs"][0]["kind"] == "PyTorch"
    assert found["jobs"][2]["problems"][0] == {
        "message": "unknown field `instance_cont`",
        "hint": "did you mean `instance_count`?",
        "where": "jobs/a/wrong.yml:2: resources.instance_cont",
    }
    assert {"file": "jobs/conda.yml", "why": "a conda file"} in found["skipped"]
