"""`diff`: what differs between two runs or jobs, here and on Azure ML."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import call, pytorch, run_here
from submitting import build_in, code_in, job

from azml_dist import AzureML, Environment, Input, Job, Local, PyTorch, diff, submit
from azml_dist.emulator import Emulator

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

YAML = """\
command: bash train.sh --epochs ${{inputs.epochs}} --optimizer adam --learning-rate 0.1
code: code
inputs: {epochs: 3, api_key: abcd1234efgh}
environment: azureml:torch:1
environment_variables: {MINE: null, NCCL_DEBUG: INFO}
"""
OTHER = (
    YAML.replace("0.1", "0.2")
    .replace("epochs: 3", "epochs: 5")
    .replace("INFO", "WARN")
    .replace("abcd1234efgh", "efgh5678abcd")
    .replace("torch:1", "torch:2")
) + "distribution: {type: pytorch, process_count_per_instance: 2}\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "value")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    code_in(tmp_path / "code")
    (tmp_path / "a.yml").write_text(YAML)
    (tmp_path / "b.yml").write_text(OTHER)
    return tmp_path


def fields(found: Any) -> dict[str, tuple[str | None, str | None]]:
    return {field.name: (field.a, field.b) for field in found.fields}


def test_two_jobs_differ_in_their_fields(files: Path) -> None:
    found = diff(Job.load(files / "a.yml"), Job.load(files / "b.yml"))

    command = "bash train.sh --epochs ${{inputs.epochs}} --optimizer adam --learning-rate"
    assert fields(found) == {
        "command": (f"{command} 0.1", f"{command} 0.2"),
        "inputs.epochs": ("3", "5"),
        "inputs.api_key": ("*** (secret)", "*** (secret)"),
        "environment_variables.NCCL_DEBUG": ("INFO", "WARN"),
        "distribution.type": (None, "pytorch"),
        "distribution.process_count_per_node": (None, "2"),
        "environment": ("azureml:torch:1", "azureml:torch:2"),
    }
    assert found.same == ["outputs", "compute", "limits", "services", "code"]
    assert not [*found.results, *found.notes]


def test_what_is_empty_in_both_does_not_differ() -> None:
    named = Job(command="true", environment="azureml:torch:1")
    inline = named.with_(environment=Environment(image="ubuntu"))

    assert fields(diff(named, inline)) == {
        "environment": ("azureml:torch:1", None),
        "environment.image": (None, "ubuntu"),
    }


def test_two_runs_differ_in_their_code_and_in_how_they_ended(files: Path) -> None:
    first = run_here(Job.load(files / "a.yml"), launcher="direct")
    (files / "code/train.sh").write_text("echo said; exit 3\n")
    (files / "code/new.txt").write_text("new\n")
    (files / "code/lib/part.txt").unlink()
    second = run_here(Job.load(files / "a.yml"), launcher="direct")

    ended = call("diff", first.name, second.name, "--code")
    found = json.loads(call("diff", first.name, second.name, "--code", "--json").stdout)

    assert ended.returncode == 0, ended.stderr
    assert found["fields"] == []
    assert found["code"] == {
        "added": ["new.txt"],
        "removed": ["lib/part.txt"],
        "changed": ["train.sh"],
        "same": 1,
        "differs": True,
    }
    assert [(one["name"], one["a"], one["b"]) for one in found["results"]] == [
        ("status", "Completed", "Failed"),
        ("why", None, "rank 0: exit code 3"),
    ]
    assert [line for line in found["diff"] if "train.sh" in line] == ["--- a/train.sh", "+++ b/train.sh"]
    assert "-echo rank $RANK of $WORLD_SIZE" in ended.stdout
    assert "+echo said; exit 3" in ended.stdout
    assert "--- /dev/null\n+++ b/new.txt\n" in ended.stdout
    assert "code changed    train.sh" in ended.stdout


def test_a_run_is_compared_with_the_file_that_it_came_from(files: Path) -> None:
    run = run_here(Job.load(files / "a.yml"), launcher="direct")

    same = call("diff", "a.yml", run.name)
    other = call("diff", run.name, "b.yml")

    assert same.stdout.split("\n") == [
        "same  command, inputs, outputs, variables, world, environment, compute, limits, services, code",
        "",
    ]
    assert "command                              …--learning-rate 0.1  …--learning-rate 0.2" in other.stdout


def test_a_run_on_azure_is_compared_with_one_here(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    one = job(
        command="bash train.sh", code=str(code_in(tmp_path / "code")), distribution=PyTorch(process_count_per_node=2)
    )
    there = azure.submit(one)
    emulator.job(there.name).fail("it failed")
    (tmp_path / "code/train.sh").write_text("echo fixed\n")
    here = run_here(one.with_(node_count=2), launcher="direct")

    found = diff(there, here)

    assert fields(found) == {"node_count": ("1", "2")}
    assert found.code
    assert (found.code.changed, found.code.same) == (["train.sh"], 2)
    assert "+echo fixed" in list(found.text())
    assert tuple(found.results[0]) == ("results", "status", "Failed", "Completed")


def test_an_environment_of_a_job_is_compared_by_what_it_is(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """The workspace names it after its content, and so it has another name there than in a file or a run here."""
    build = build_in(tmp_path / "image")
    for environment in (Environment(image="an/image:1"), build):
        one = job(environment=environment)
        there, here = azure.submit(one), run_here(one, launcher="direct")

        assert fields(diff(there, one)) == fields(diff(one, there)) == fields(diff(there, here)) == {}
        assert "environment" in diff(there, one).same
        other = one.with_(environment=Environment(image="an/image:2"))
        assert fields(diff(there, other))["environment.image"] == (None, "an/image:2")
    (tmp_path / "image/part.txt").write_text("changed\n")
    assert "environment.build" in fields(diff(there, one))


def test_values_are_shown_in_their_own_letters(tmp_path: Path) -> None:
    one, other = (job(inputs={"data": Input(path=str(tmp_path / name))}) for name in ("gr\u00f6\u00dfe", "a"))

    assert "gr\u00f6\u00dfe" in str(fields(diff(one, other))["inputs.data"][0])


def test_what_cannot_be_compared_is_named(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = azure.submit(job())
    emulator.job(run.name).body["jobType"] = "AutoML"

    found = diff(run, pytorch("true"))

    assert list(found.notes) == [
        f"{run.name}: its job is not compared: run {run.name} is an AutoML job, not a single command job"
    ]
    assert not [*found.fields, *found.same]
    ended = call("diff", "nowhere", "nothing.yml")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: there is no run 'nowhere'")


def data_in(folder: Path) -> dict[str, Input]:
    """Two inputs on this machine: a folder and a file."""
    (folder / "data/sub").mkdir(parents=True)
    for name in ("data/a.txt", "data/sub/b.txt", "one.txt"):
        (folder / name).write_text(name)
    return {"data": Input(path=str(folder / "data")), "one": Input(path=str(folder / "one.txt"), type="uri_file")}


def test_an_input_is_the_same_as_its_upload(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """A job file, a run before the submission, one after it, and one of a copy of the data."""
    one = job(inputs=data_in(tmp_path))
    before, there, after = run_here(one, launcher="direct"), azure.submit(one), run_here(one, launcher="direct")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    copy = one.with_(inputs={**one.inputs, "data": Input(path=str(tmp_path / "copy"))})

    for other in (one, before, after, copy, run_here(copy, launcher="direct")):
        for found in (diff(there, other), diff(other, there)):
            assert "inputs" in found.same
            assert (fields(found), found.notes) == ({}, [])


def test_an_input_that_was_downloaded_for_a_repetition_is_the_same(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    there = azure.submit(job(inputs=data_in(tmp_path)))
    shutil.rmtree(tmp_path / "data")

    again = submit(there.rerun(download="all"), on=Local(launcher="direct"))
    again.wait()

    assert (fields(diff(there, again)), diff(there, again).notes) == ({}, [])


def test_an_input_that_has_changed_is_not_said_to_be_its_upload(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    one = job(inputs=data_in(tmp_path))
    there, data = azure.submit(one), tmp_path / "data"
    unknown = f"here: input data: whether {data} is what was uploaded is not known: "
    (data / "a.txt").write_text("data/A.txt")
    changed = diff(there, one, names=("there", "here"))
    (data / "a.txt").write_text("data/a.txt")
    (data / "sub/b.txt").unlink()
    less = diff(there, one, names=("there", "here"))
    shutil.rmtree(data)
    nothing = diff(there, one, names=("there", "here"))

    hash_differs = f"{unknown}it has another hash now, as it was changed since or another client uploaded it"
    assert [*changed.notes, *less.notes] == [hash_differs, hash_differs]
    assert nothing.notes[-1] == f"{unknown}it cannot be read (No such file or directory)"
    for found in (changed, less, nothing):
        assert [*fields(found)] == ["inputs.data"]


def test_a_file_under_another_name_is_not_its_upload(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    one = job(inputs=data_in(tmp_path))
    there, two = azure.submit(one), tmp_path / "two.txt"
    (tmp_path / "one.txt").rename(two)

    found = diff(
        one.with_(inputs={**one.inputs, "one": Input(path=str(two), type="uri_file")}), there, names=("a", "b")
    )

    assert [*fields(found)] == ["inputs.one"]
    assert found.notes == [f"a: input one: {two} has the content that was uploaded as one.txt"]


def test_a_run_here_may_have_read_what_its_data_was_before(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """Though it is now what was uploaded."""
    one = job(inputs=data_in(tmp_path))
    (tmp_path / "data/sub/more.txt").write_text("more")
    here = run_here(one, launcher="direct")
    (tmp_path / "data/sub/more.txt").unlink()
    there = azure.submit(one)

    found = diff(here, there, names=("here", "there"))

    assert [*fields(found)] == ["inputs.data"]
    [note] = found.notes
    assert note.endswith("is what was uploaded is not known: it was changed after the run here began")


def test_files_that_were_not_uploaded_are_part_of_what_a_run_here_reads(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    one = job(command="cat ${{inputs.data}}/sub/b.txt", inputs=data_in(tmp_path))
    (tmp_path / "data/.amlignore").write_text("sub/\n")
    there, here = azure.submit(one), run_here(one, launcher="direct")

    assert list(here.logs(rank=0)) == ["data/sub/b.txt"]
    assert fields(diff(there, one)) == {}
    found = diff(there, here, names=("there", "here"))
    assert [*fields(found)] == ["inputs.data"]
    assert found.notes == [f"here: input data: 1 file of {tmp_path / 'data'}, such as sub/b.txt, was not uploaded"]
