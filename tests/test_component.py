"""Command components: jobs whose inputs are still to be given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from running import call

from azml_dist import Input, Job, JobError, LaunchError, LaunchPlan, Local, Output, PyTorch, submit
from azml_dist.files.component import is_component
from azml_dist.model.given import open_inputs_of, refuse_open_inputs, with_inputs
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import Parameter
from azml_dist.plan.plan import plan_job

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


def changed_file(old: str, new: str) -> str:
    assert old in COMPONENT
    Path("component.yml").write_text(COMPONENT.replace(old, new))
    return "component.yml"


def changed(old: str, new: str) -> Job:
    return Job.load(changed_file(old, new))


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
        ("epochs", "0", "0 is too small; the minimum is 1"),
        ("epochs", "101", "101 is too large; the maximum is 100"),
        ("epochs", "2.5", "'2.5' is not a whole number"),
        ("rate", "fast", "'fast' is not a number"),
        ("rate", "nan", "'nan' is not a number"),
        ("rate", "inf", "'inf' is not a number"),
        ("epochs", "-3", "-3 is too small"),
        ("epochs", "1" * 20, "11111111111111111111 is too large"),
        ("kind", "sdg", "'sdg' is not one of sgd, adam"),
        ("kind", "SGD", "'SGD' is not one of sgd, adam"),
        ("shuffle", "1", "'1' is not true or false"),
    ],
)
def test_a_value_that_the_component_does_not_take_is_refused(name: str, value: str, problem: str) -> None:
    with pytest.raises(JobError) as error:
        with_inputs(Job.load("component.yml"), {name: value})
    assert str(error.value).startswith(f"inputs.{name}: {problem}")
    assert error.value.hint == ("did you mean `sgd`?" if name == "kind" else None)


def test_an_input_that_is_not_declared_is_answered_with_those_that_are() -> None:
    with pytest.raises(JobError) as error:
        with_inputs(Job.load("component.yml"), {"epoch": 1})
    assert (error.value.problems[0].message, error.value.hint) == (
        "the job has no input `epoch`",
        "did you mean `epochs`?",
    )
    with pytest.raises(JobError) as error:
        with_inputs(Job(command="x"), {"epoch": 1})
    assert (error.value.problems[0].message, error.value.hint) == ("the job has no input `epoch`", "it has no inputs")


def test_a_path_is_a_file_or_a_folder_by_what_is_there(folder: Path) -> None:
    job = changed("{type: uri_file, optional: true}", "{type: path, optional: true}")

    for path, kind in (("images", "uri_folder"), ("src/train.py", "uri_file"), ("nowhere", "uri_folder")):
        found = with_inputs(job, {"extra": path}).inputs["extra"]
        assert found == Input(type=kind, path=str(folder / path))  # type: ignore[arg-type]
    given = with_inputs(job, {"data": "azureml:d:1"}).inputs["data"]
    assert given == Input(type="uri_folder", path="azureml:d:1", mode="download")
    with pytest.raises(JobError, match=r"inputs\.data: 3 is not a path"):
        with_inputs(job, {"data": 3})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "7", 7),
        ("epochs", " +7 ", 7),
        ("rate", "-3", -3),
        ("rate", "+3", 3),
        ("rate", "-0.5", -0.5),
        ("rate", "1e-3", 0.001),
        ("shuffle", "TRUE", True),
        ("shuffle", "false", False),
        ("kind", "adam", "adam"),
    ],
)
def test_a_text_becomes_a_value_of_the_inputs_type(name: str, text: str, value: object) -> None:
    given = with_inputs(Job.load("component.yml"), {name: text}).inputs[name]

    assert (given, type(given)) == (value, type(value))


def test_a_path_may_be_given_for_data_that_has_one(folder: Path) -> None:
    job = Job(command="echo ${{inputs.d}}", inputs={"d": Input(path="azureml:d:1", mode="download")})

    assert with_inputs(job, {"d": "images"}).inputs["d"] == Input(path=str(folder / "images"), mode="download")


def test_an_output_without_a_value_in_a_field_has_its_default() -> None:
    job = changed("model: {type: uri_folder, description: weights}", "model: {type: uri_file, mode: }")

    assert job.outputs == {"model": Output(type="uri_file")}


def test_an_output_may_have_what_only_a_component_says_of_it() -> None:
    job = changed("model: {type: uri_folder,", "model: {type: path, early_available: true,")

    assert job.outputs == {"model": Output(type="uri_folder")}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("default: 3,", "default: few,", "component.yml:9: inputs.epochs: the default: 'few' is not a whole number"),
        (
            "name: train_digits",
            "name: Train-Digits",
            "component.yml:2: name: 'Train-Digits' is not a valid name",
        ),
        ("name: train_digits", "name: 5", "component.yml:2: name: 5 is not a valid name for a component"),
        ("  note: {", "  DATA: {", "component.yml:13: inputs.DATA: `data` and `DATA` are the same name to azure-ai-ml"),
        (
            "type: integer",
            "type: integr",
            "component.yml:9: inputs.epochs.type: 'integr' is not one of",
        ),
        ("min: 1", "mim: 1", "component.yml:9: inputs.epochs.mim: unknown field `mim`\n\nhint: did you mean `min`?"),
        (
            "description: trains",
            "additional_includes: []",
            "component.yml:5: additional_includes: azml_dist does not support `additional_includes`",
        ),
        (
            "{type: uri_folder, mode: d",
            "{type: uri_folder, default: x, mode: d",
            "component.yml:8: inputs.data: data cannot have",
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


@pytest.mark.parametrize(
    ("inputs", "is_one"),
    [
        ("{a: {default: 3}}", True),
        ("{a: {optional: true}}", True),
        ("{a: {min: 3}}", True),
        ("{a: {max: 3}}", True),
        ("{a: {type: number}}", True),
        ("{a: 3}", False),
        ("{a: {value: 3, default: 4}}", False),
        ("{a: {path: 'azureml:d:1', optional: true}}", False),
        ("{}", False),
    ],
)
def test_a_file_is_a_component_if_it_declares_an_input(inputs: str, is_one: bool) -> None:
    assert is_component(yaml.safe_load(f"command: x\ninputs: {inputs}")) is is_one
    assert is_component(yaml.safe_load(f"type: sweep\ncommand: x\ninputs: {inputs}")) is False


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
        "error: component.yml:8: inputs.data: it has no value yet\nhint: set it: `--input data=PATH`"
    )
    assert not (folder / "runs").exists()


def test_what_is_asked_for_is_told_by_its_kind() -> None:
    changed("  kind:", "  other: {type: string}\n  which: {type: string, enum: [a, b]}\n  kind:")
    job = Job.load("component.yml")
    assert open_inputs_of(job) == ["data", "other", "which"]
    assert open_inputs_of(Job(command="x", inputs={"a": 1})) == []

    with pytest.raises(JobError) as error:
        refuse_open_inputs(job)
    assert [(one.message, one.hint, one.where) for one in error.value.problems] == [
        (
            "it has no value yet",
            f"set it: `--input {name}={what}`, in Python `Local(inputs={{{name!r}: ...}})`",
            f"inputs.{name}",
        )
        for name, what in (("data", "PATH"), ("other", "VALUE"), ("which", "a|b"))
    ]
    refuse_open_inputs(with_inputs(job, {"data": "images", "other": "x", "which": "a"}))


def test_a_value_of_a_setting_is_checked_like_one_of_an_input() -> None:
    with pytest.raises(JobError) as error:
        Job.load("component.yml").with_set("inputs.epochs=0")
    assert str(error.value) == "--set inputs.epochs: 0 is too small; the minimum is 1"


def test_a_value_is_checked_when_it_is_set_too() -> None:
    ended = call("plan", "component.yml", "--set", "inputs.epochs=0")
    assert (ended.returncode, ended.stderr.split("\n")[0]) == (
        2,
        "error: --set inputs.epochs: 0 is too small; the minimum is 1",
    )


def test_a_count_that_only_a_pipeline_knows_is_asked_for_by_the_name_of_its_input() -> None:
    text = COMPONENT.replace("process_count_per_instance: 2", "process_count_per_instance: '${{parent.x}}'")
    Path("component.yml").write_text(text.replace("instance_count: 2", "instance_count: '${{parent.inputs.nodes}}'", 1))
    job = Job.load("component.yml")
    with pytest.raises(JobError) as error:
        job.plan()

    assert [(one.where, one.hint) for one in error.value.problems] == [
        ("node_count", "set it: `--input nodes=N`"),
        ("distribution.process_count_per_node", "set it: `--set distribution.process_count_per_node=N`"),
    ]
    assert with_inputs(job, {"nodes": "3"}).node_count == 3

    both = Job.load(changed_file("process_count_per_instance: 2", "process_count_per_instance: '${{parent.inputs.n}}'"))
    assert with_inputs(both, {"n": 8}).distribution == PyTorch(process_count_per_node=8)


def test_a_count_may_be_an_expression_that_is_given_like_an_input() -> None:
    changed("instance_count: 2", "instance_count: '${{parent.inputs.nodes}}'")
    ended = call("plan", "component.yml")
    assert ended.returncode == 2
    assert (
        "component.yml:22: resources.instance_count: `${{parent.inputs.nodes}}` is a number that only a pipeline knows"
        in ended.stderr
    )
    assert "hint: set it: `--input nodes=N`" in ended.stderr

    for given in (["--input", "nodes=3"], ["--set", "resources.instance_count=3"]):
        assert json.loads(call("plan", "component.yml", *given, "--json").stdout)["world"]["node_count"] == 3


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "default: 3,",
            "default: 300,",
            ("value-outside", "warning", "300 is too large; the maximum is 100; azure-ai-ml accepts it anyway"),
        ),
        (
            "enum: [sgd, adam], default: sgd",
            "enum: [sgd, adam], default: sdg",
            ("value-outside", "warning", "'sdg' is not one of sgd, adam; azure-ai-ml accepts it anyway"),
        ),
        (
            "description: trains",
            "limits: {timeout: 60}",
            ("ignored-field", "note", "azure-ai-ml ignores `limits` in a component"),
        ),
        (
            "description: trains",
            "descripton: x",
            ("ignored-field", "note", "azure-ai-ml ignores `descripton` in a component"),
        ),
        (
            "name: train_digits\n",
            "",
            ("component-without-name", "error", "azure-ai-ml does not accept a component without a `name`"),
        ),
        (
            "{type: uri_folder, description: weights}",
            "{type: string}",
            (
                "value-output",
                "note",
                "`model` is a value, not data (a preview feature of Azure ML); locally it is the file with the value",
            ),
        ),
    ],
)
def test_what_azure_ai_ml_lets_pass_is_a_finding(old: str, new: str, finding: tuple[str, str, str]) -> None:
    assert Job.load("component.yml").plan().findings == ()

    job = changed(old, new)

    assert [found[:3] for found in job.plan().findings] == [finding]
    assert [found[:3] for found in job.with_(tags={"a": "b"}).plan().findings] == [finding]


def test_an_empty_default_is_a_warning_as_a_pipeline_leaves_it_to_the_component() -> None:
    job = changed("{type: string, enum: [sgd, adam], default: sgd}", "{type: string, default: ''}")

    assert {(found.code, found.level) for found in job.plan().findings} == {
        ("torn-value", "warning"),
        ("empty-input", "warning"),
    }


def test_a_default_that_is_let_pass_is_written_too(folder: Path) -> None:
    with_inputs(changed("default: 3,", "default: 300,"), {"data": "images"}).dump(folder / "job.yml")

    assert Job.load(folder / "job.yml").inputs["epochs"] == 300


def test_a_truth_value_is_the_same_however_it_is_written() -> None:
    assert changed("{type: boolean, default: false}", "{type: boolean, enum: ['True', 'false'], default: no}")
    assert Job.load("component.yml").plan().findings == ()


MARKED = """\
type: command
version: 1
command: {command}
inputs: {{note: {{type: string, optional: true}}, data: {{type: uri_folder, optional: true}}}}
environment: azureml:env:1
"""


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("'cat ${{inputs.note}} kept.txt'", "`${{inputs.note}}` has no value: the input is optional"),
        ("'cat ${{ inputs.data }} kept.txt'", "`${{inputs.data}}` has no value: the input is optional"),
        ("'cat \"${{inputs.note}}\"'", "`${{inputs.note}}` has no value"),
        ("'echo $[[-a ${{inputs.note}}]] ${{inputs.note}}'", "`${{inputs.note}}` has no value"),
        ("'echo [--note ${{inputs.note}}]'", "`${{inputs.note}}` has no value"),
        ("'echo [--other ${{inputs.other}}]'", "`${{inputs.other}}` in the command: there is no input `other`"),
        ("'echo $[[a $[[${{inputs.note}}]] ]]'", "`$[[a ]]`: this `$[[` is never closed"),
    ],
)
def test_what_has_no_value_and_is_not_left_out_is_refused(folder: Path, command: str, problem: str) -> None:
    (folder / "marked.yml").write_text(MARKED.format(command=command))

    with pytest.raises(JobError) as error:
        Job.load("marked.yml").plan()

    assert str(error.value).startswith(f"command: {problem}")


@pytest.mark.parametrize("name", ["note", "data"])
@pytest.mark.parametrize("verb", ["plan", "run", "submit"])
def test_every_command_refuses_it_alike(folder: Path, verb: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bash would read `<input note>` as redirections, and write over the file that follows."""
    monkeypatch.setenv("AZML_DIST_ROOT", str(folder / "runs"))
    (folder / "kept.txt").write_text("kept")
    (folder / "marked.yml").write_text(MARKED.format(command=f"'cat ${{{{inputs.{name}}}}} kept.txt'"))

    ended = call(verb, "marked.yml")

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: marked.yml:3: command: `${{{{inputs.{name}}}}}` has no value: the input")
    assert not (folder / "runs").exists()
    assert (folder / "kept.txt").read_text() == "kept"


def test_given_a_value_it_is_put_in_place(folder: Path) -> None:
    (folder / "marked.yml").write_text(MARKED.format(command="'echo ${{inputs.note}} $[[${{inputs.data}}]]'"))
    plan = with_inputs(Job.load("marked.yml"), {"note": "<b>"}).plan()

    assert plan.command == "echo <b> "


class Unchecked(Local):
    """An executor that has lost its checks."""

    def plan(self, job: JobFields) -> LaunchPlan:
        return plan_job(job)


def test_no_plan_with_a_mark_in_it_is_started(folder: Path) -> None:
    """Whatever was overlooked before: the last look is at the command and the environment themselves."""
    job = Job.load("component.yml")
    assert job.plan().marks[:2] == ["path of input data", "path of output model"]

    with pytest.raises(LaunchError, match="needs the path of input data, which is unknown"):
        Unchecked(root=folder / "runs", launcher="direct").submit(job)

    assert [path.name for path in (folder / "runs").iterdir()] == ["mlruns"]
