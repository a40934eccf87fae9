"""Command components: jobs whose inputs are still to be given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import call

from azml_dist import Input, Job, JobError, Local, submit
from azml_dist.inputs import with_inputs
from azml_dist.parameter import Parameter

COMPONENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
name: train_digits
version: 1.10
type: command
description: trains
is_deterministic: false
inputs:
  data: {type: uri_folder, mode: download, description: images}
  epochs: {type: integer, default: 3, min: 1, max: 100}
  rate: {type: number, default: 1}
  kind: {type: string, enum: [sgd, adam], default: sgd}
  shuffle: {type: boolean, default: false}
  note: {type: string, optional: true}
  extra: {type: uri_file, optional: true}
outputs:
  model: {type: uri_folder, description: weights}
code: src
environment: azureml:env:1
command: >-
  echo $RANK ${{inputs.data}} ${{inputs.epochs}} ${{inputs.rate}} ${{inputs.kind}} ${{inputs.shuffle}}
  $[[--note '${{inputs.note}}']] $[[--extra ${{inputs.extra}}]] ${{outputs.model}}
resources: {instance_count: 2}
distribution: {type: pytorch, process_count_per_instance: 2}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "component.yml").write_text(COMPONENT)
    return tmp_path


def changed(old: str, new: str) -> Job:
    assert old in COMPONENT
    Path("component.yml").write_text(COMPONENT.replace(old, new))
    return Job.load("component.yml")


def refused(old: str, new: str) -> str:
    with pytest.raises(JobError) as error:
        changed(old, new)
    return str(error.value)


def test_a_component_loads_as_a_job_with_inputs_to_be_given(folder: Path) -> None:
    job = Job.load("component.yml")

    assert job.inputs["epochs"] == Parameter(type="integer", default=3, min=1, max=100)
    assert job.open_inputs == ["data"]
    assert (job.node_count, job.process_count_per_node, job.code) == (2, 2, str(folder / "src"))
    assert (job.name, job.display_name) == (None, "train_digits")


def test_its_plan_marks_what_is_open_takes_defaults_and_leaves_out_what_is_optional() -> None:
    plan = Job.load("component.yml").plan()

    assert plan.command == "echo $RANK <path of input data> 3 1.0 sgd False   <path of output model>"
    assert plan.processes[0].env["AZUREML_PARAMETER_epochs"] == "3"
    assert "AZUREML_PARAMETER_note" not in plan.processes[0].env


def test_given_inputs_take_their_places() -> None:
    job = with_inputs(Job.load("component.yml"), {"data": "images", "rate": "0.5", "note": "a b", "shuffle": "true"})

    assert job.inputs["data"] == Input(path=str(Path("images").absolute()), mode="download")
    assert job.plan().command.endswith("images 3 0.5 sgd True --note 'a b'  <path of output model>")


def test_what_goes_to_azure_ml_has_no_optional_parts() -> None:
    body = with_inputs(Job.load("component.yml"), {"data": "images", "note": "n"}).plan().request["properties"]

    assert body["command"].endswith("${{inputs.shuffle}} --note '${{inputs.note}}'  ${{outputs.model}}")
    assert body["inputs"]["epochs"] == {"jobInputType": "literal", "value": "3"}
    assert "extra" not in body["inputs"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("epochs", "0", "0 is too small; at least 1 is needed"),
        ("epochs", "101", "101 is too large; at most 100 is possible"),
        ("epochs", "2.5", "'2.5' is not a whole number"),
        ("rate", "fast", "'fast' is not a number"),
        ("rate", "nan", "'nan' is not a number"),
        ("kind", "sdg", "'sdg' is not one of sgd, adam"),
        ("shuffle", "1", "'1' is not true or false"),
    ],
)
def test_a_value_that_the_component_does_not_take_is_refused(name: str, value: str, problem: str) -> None:
    with pytest.raises(JobError) as error:
        with_inputs(Job.load("component.yml"), {name: value})
    assert str(error.value).startswith(f"inputs.{name}: {problem}")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("default: 3,", "default: 300,", "component.yml:9: inputs.epochs: the default: 300 is too large"),
        (
            "type: integer",
            "type: integr",
            "component.yml:9: inputs.epochs.type: 'integr' is not one of",
        ),
        ("min: 1", "mim: 1", "component.yml:9: inputs.epochs.mim: unknown field `mim`\n\nhint: did you mean `min`?"),
        ("description: trains", "limits: {}", "component.yml:5: limits: `limits` of a component is not supported"),
        ("description: trains", "additional_includes: []", "component.yml:5: additional_includes: `additional"),
        ("description: trains", "descripton: x", "component.yml:5: descripton: unknown field `descripton`"),
        (
            "{type: uri_folder, mode: d",
            "{type: uri_folder, default: x, mode: d",
            "component.yml:8: inputs.data: data has",
        ),
        (
            "${{inputs.kind}}",
            "${{inputs.knd}}",
            "component.yml:19: command: `${{inputs.knd}}` in the",
        ),
    ],
)
def test_what_is_wrong_in_a_component_is_named_with_its_line(old: str, new: str, problem: str) -> None:
    assert refused(old, new).startswith(problem)


def test_a_component_without_a_schema_is_known_by_what_it_declares() -> None:
    job = changed("$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json\n", "")
    assert job.open_inputs == ["data"]


def test_a_component_runs_here_once_its_inputs_are_given(folder: Path) -> None:
    local = Local(inputs={"data": "images", "kind": "adam"}, root=folder / "runs", launcher="direct")
    run = submit(Job.load("component.yml"), on=local)
    run.wait(timeout=60)

    assert "".join(run.logs(rank=3)).startswith(f"3 {folder}/images 3 1.0 adam False {folder}/runs")


def test_an_input_without_a_value_is_asked_for_before_anything_starts(folder: Path) -> None:
    ended = call("run", "component.yml", "--root", folder / "runs")

    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "error: component.yml:8: inputs.data: it has no value yet\nhint: give it: `--input data=PATH`"
    )
    assert not (folder / "runs").exists()


def test_a_value_is_checked_when_it_is_set_too() -> None:
    ended = call("plan", "component.yml", "--set", "inputs.epochs=0")
    assert (ended.returncode, ended.stderr.split("\n")[0]) == (
        2,
        "error: --set inputs.epochs: 0 is too small; at least 1 is needed",
    )


def test_a_count_may_be_an_expression_that_is_given_like_an_input() -> None:
    changed("instance_count: 2", "instance_count: '${{parent.inputs.nodes}}'")
    ended = call("plan", "component.yml")
    assert ended.returncode == 2
    assert (
        "component.yml:22: resources.instance_count: `${{parent.inputs.nodes}}` is a number that only a pipeline knows"
        in ended.stderr
    )
    assert "hint: give it: `--input nodes=N`" in ended.stderr

    for given in (["--input", "nodes=3"], ["--set", "resources.instance_count=3"]):
        assert json.loads(call("plan", "component.yml", *given, "--json").stdout)["world"]["node_count"] == 3
