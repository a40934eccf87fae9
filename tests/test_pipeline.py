"""Pipelines: their YAML, what each step means, runs on this machine; and our jobs as steps of azure-ai-ml's own."""

from __future__ import annotations

import json
import textwrap
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from running import await_, call, cli, find, living

from azml_dist import Input, Job, JobError, Local, Output, Pipeline, PyTorch, RunFailed, Workspace, submit
from azml_dist.emulator import Emulator
from azml_dist.emulator.credential import TokenOfEachScope
from azml_dist.model.pipeline import placed

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import dsl

pytestmark = pytest.mark.filterwarnings("ignore")

TWO = """\
type: pipeline
display_name: two steps
inputs:
  greeting: hello
outputs:
  report:
settings:
  default_compute: azureml:gpu
jobs:
  train:
    command: cat ${{inputs.words}}/$RANK.txt; cat ${{inputs.words}}/*.txt > ${{outputs.model}}/model.txt
    distribution: {type: pytorch, process_count_per_instance: 2}
    environment: azureml:env:1
    inputs:
      words: ${{parent.jobs.prepare.outputs.words}}
    outputs:
      model: ${{parent.outputs.report}}
  prepare:
    type: command
    command: for i in 0 1; do echo ${{inputs.word}} $i > ${{outputs.words}}/$i.txt; done
    environment: azureml:env:1
    compute: azureml:cpu
    inputs:
      word: ${{parent.inputs.greeting}}
    outputs:
      words:
"""
COMPONENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
type: command
name: count
version: 1
inputs:
  data: {type: uri_folder}
  times: {type: integer, default: 1}
  note: {type: string, optional: true}
outputs:
  counted: {type: uri_file}
command: >-
  for i in $(seq ${{inputs.times}}); do cat ${{inputs.data}}/*; done > ${{outputs.counted}};
  echo counted $[[with ${{inputs.note}}]]
environment: azureml:env:1
"""


def write(folder: Path, text: str, name: str = "pipeline.yml") -> Path:
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


def run_here(pipeline: Pipeline, root: Path, at_a_time: int = 1, **options: Any) -> Any:
    run = Local(root=root, launcher="direct", **options).submit(pipeline, at_a_time=at_a_time)
    with suppress(RunFailed):
        run.wait(timeout=120)
    return run


def statuses(run: Any) -> dict[str, str]:
    return {member.label: member.status for member in run.state().members}


def lines_of(run: Any, step: str) -> list[str]:
    return list(run.members[step].logs())


def steps(**jobs: str) -> str:
    """A pipeline of one-line commands; `b: a` lets b read what a writes."""
    text = "type: pipeline\njobs:\n"
    for name, command in jobs.items():
        needs, _, command = command.rpartition(" < ")
        text += f"  {name}:\n    environment: azureml:env:1\n    outputs: {{out: }}\n"
        text += f"    command: '{command} && echo {name} > ${{{{outputs.out}}}}/{name}'\n"
        inputs = {f"from_{need}": f"${{{{parent.jobs.{need}.outputs.out}}}}" for need in needs.split()}
        text += f"    inputs: {json.dumps(inputs)}\n" if inputs else ""
    return text


def test_outputs_of_a_step_are_inputs_of_the_next_whose_processes_are_a_world(tmp_path: Path) -> None:
    run = run_here(Pipeline.load(write(tmp_path, TWO)), tmp_path / "runs")

    assert run.status == "Completed"
    assert [m.label for m in run.state().members] == ["prepare", "train"]
    assert sorted(lines_of(run, "train")) == ["[node0 rank0] hello 0", "[node0 rank1] hello 1"]
    assert run.members["train"].folder == tmp_path / "runs" / f"{run.name}_train"


def test_a_pipeline_is_submitted_here_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZML_DIST_ROOT", str(tmp_path / "runs"))

    run = submit(Pipeline.load(write(tmp_path, steps(a="true"))), on="local")

    assert run.wait().status == "Completed"


def test_outputs_of_the_pipeline_are_those_of_its_steps(tmp_path: Path) -> None:
    run = run_here(Pipeline.load(write(tmp_path, TWO)), tmp_path / "runs")

    assert (run.outputs["report"] / "model.txt").read_text() == "hello 0\nhello 1\n"


def test_inputs_of_the_pipeline_are_given_to_its_steps(tmp_path: Path) -> None:
    run = run_here(Pipeline.load(write(tmp_path, TWO)).with_inputs({"greeting": "good day"}), tmp_path / "runs")

    assert "[node0 rank0] good day 0" in lines_of(run, "train")


def test_the_plan_of_a_pipeline_has_that_of_each_step_in_their_order(tmp_path: Path) -> None:
    pipeline = Pipeline.load(write(tmp_path, TWO))
    plan = pipeline.plan()
    found = plan.to_dict()

    assert (found["type"], found["name"]) == ("pipeline", pipeline.name)
    assert [(one["name"], one["kind"], one["needs"]) for one in found["steps"]] == [
        (one.name, one.kind, list(one.needs)) for one in pipeline.steps.values()
    ]
    first = plan.plans["prepare"]
    assert first
    assert found["steps"][0]["name"] == "prepare"
    assert found["steps"][0]["plan"] == first.to_dict()
    assert found["findings"] == [one.to_dict() for one in plan.findings]
    assert repr(plan) == f"<PipelinePlan: {', '.join(pipeline.steps)}>"


def test_the_plan_of_a_step_that_does_not_run_here_is_none(tmp_path: Path) -> None:
    steps = Pipeline.load(write(tmp_path, OTHER)).plan().to_dict()["steps"]

    assert [one["name"] for one in steps if one["plan"] is None] == ["swept", "many", "theirs"]


@pytest.mark.parametrize(
    ("head", "compute"),
    [
        ("compute: azureml:c", "c"),
        ("settings: {default_compute: azureml:d}", "d"),
        ("compute: c\nsettings: {default_compute: azureml:d}", "c"),
        ("settings: {default_compute: azureml:serverless}", None),
        ("settings: {}", None),
    ],
)
def test_a_step_without_a_compute_has_that_of_the_pipeline(head: str, compute: str | None, tmp_path: Path) -> None:
    file = write(tmp_path, f"type: pipeline\n{head}\njobs: {{a: {{command: echo, environment: 'azureml:e:1'}}}}\n")

    assert Pipeline.load(file).step("a").compute == compute


def test_what_only_a_plan_finds_wrong_in_a_step_has_its_line(tmp_path: Path) -> None:
    text = """\
    type: pipeline
    jobs:
      fine: {command: echo, environment: 'azureml:e:1'}
      a:
        command: echo ${{inputs.x}}
        environment: azureml:e:1
        inputs:
          x: {path: ./nowhere}
    """
    file = write(tmp_path, text)
    with pytest.raises(JobError) as error:
        Pipeline.load(file).plan()
    assert [one.where for one in error.value.problems] == [f"{file}:8: jobs.a.inputs.x.path"]


def test_a_step_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        Pipeline.load(write(tmp_path, TWO)).step("trian")
    assert (error.value.problems[0].message, error.value.hint) == (
        "the pipeline has no step 'trian'",
        "did you mean `train`?",
    )
    assert (error.value.problems[0].where or "").endswith("pipeline.yml:9: jobs")


def test_literals_of_the_pipeline_are_put_into_texts_of_its_steps(tmp_path: Path) -> None:
    text = """\
    type: pipeline
    inputs: {n: 3, word: hello, data: {type: uri_folder, path: azureml:d:1}}
    jobs:
      a:
        command: echo ${{inputs.n}}
        environment: azureml:e:1
        display_name: a ${{parent.inputs.word}} of ${{parent.inputs.n}}
        resources: {instance_type: "${{parent.inputs.word}}s"}
        inputs: {n: "${{parent.inputs.n}}"}
    """
    job = Pipeline.load(write(tmp_path, text)).step("a")

    assert job.display_name == "a hello of 3"
    assert (job.instance_type, job.inputs) == ("hellos", {"n": 3})
    with pytest.raises(JobError, match="`data` is data, but a literal value is needed here") as error:
        Pipeline.load(write(tmp_path, text.replace("${{parent.inputs.word}}s", "${{parent.inputs.data}}")))
    assert error.value.hint == "`--input data=VALUE`"


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("jobs: []", "`jobs` must be a mapping of names to steps", "2: jobs"),
        ("jobs: {}", "`jobs` must be a mapping of names to steps", "2: jobs"),
        ("jobs: {a: {command: c}}\nsettings: 3", "`settings` must be a mapping of fields to values", "3: settings"),
        ("jobs: {a: {command: c}}\nsetings: {}", "unknown field `setings`", "3: setings"),
        ("component: ./x.yml", "azml_dist does not run a pipeline that consists of one component", "2: component"),
    ],
)
def test_a_pipeline_of_another_shape_is_refused(text: str, message: str, where: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"type: pipeline\n{text}\n")
    with pytest.raises(JobError) as error:
        Pipeline.load(file)
    assert (error.value.problems[0].message, error.value.problems[0].where) == (message, f"{file}:{where}")


def test_an_input_may_change_the_mode_and_type_of_the_data_that_it_takes_from_the_pipeline(tmp_path: Path) -> None:
    text = """\
    type: pipeline
    inputs:
      data: {type: uri_folder, path: azureml:d:1}
    jobs:
      a:
        command: echo ${{inputs.x}} ${{inputs.y}}
        environment: azureml:e:1
        inputs:
          x: {path: "${{parent.inputs.data}}", mode: download, type: uri_file}
          y: ${{parent.inputs.data}}
    """
    job = Pipeline.load(write(tmp_path, text)).step("a")

    assert job.inputs == {
        "x": Input(type="uri_file", path="azureml:d:1", mode="download"),
        "y": Input(type="uri_folder", path="azureml:d:1"),
    }


def test_a_component_file_that_is_empty_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("")
    with pytest.raises(JobError, match=r"c\.yml: it is empty; a component was expected"):
        Pipeline.load(write(tmp_path, "type: pipeline\njobs: {b: {component: ./c.yml}}\n"))


def test_an_input_that_comes_from_a_step_has_the_place_and_type_of_its_output(tmp_path: Path) -> None:
    job = Job(command="x", inputs={"a": Input(path="azureml:old:1", mode="download"), "b": 3})
    found = placed(job, {"a": ("uri_file", str(tmp_path / "x.csv"))})

    assert found.inputs == {"a": Input(type="uri_file", path=str(tmp_path / "x.csv"), mode="download"), "b": 3}
    assert placed(job, {"b": ("uri_file", "/x")}).inputs == job.inputs
    assert placed(job, {}) is job


def test_a_step_has_the_default_compute_unless_it_has_its_own(tmp_path: Path) -> None:
    found = Pipeline.load(write(tmp_path, TWO)).steps

    assert {name: step.job.compute for name, step in found.items() if step.job} == {"prepare": "cpu", "train": "gpu"}


@pytest.mark.parametrize("reference", ["./count.yml", "file:./count.yml"])
def test_a_step_with_a_component_file_runs(reference: str, tmp_path: Path) -> None:
    write(tmp_path, COMPONENT, "count.yml")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("line\n")
    file = write(
        tmp_path,
        f"""\
        type: pipeline
        inputs:
          folder: {{type: uri_folder, path: ./data}}
          times: 2
        jobs:
          count:
            component: {reference}
            inputs: {{data: "${{{{parent.inputs.folder}}}}", times: "${{{{parent.inputs.times}}}}", note: care}}
          show:
            command: cat ${{{{inputs.file}}}}
            environment: azureml:env:1
            inputs: {{file: "${{{{parent.jobs.count.outputs.counted}}}}"}}
        """,
    )

    run = run_here(Pipeline.load(file), tmp_path / "runs")

    assert lines_of(run, "count") == ["[node0 rank0] counted with care"]
    assert lines_of(run, "show") == ["[node0 rank0] line"] * 2


def test_defaults_and_optional_inputs_of_a_component_may_be_left_out(tmp_path: Path) -> None:
    component = textwrap.indent(COMPONENT, " " * 6)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("line\n")
    text = f"type: pipeline\njobs:\n  count:\n    inputs: {{data: {{path: ./data}}}}\n    component:\n{component}"

    run = run_here(Pipeline.load(write(tmp_path, text)), tmp_path / "runs")

    assert lines_of(run, "count") == ["[node0 rank0] counted"]
    assert (run.members["count"].outputs["counted"] / "counted").read_text() == "line\n"


def test_fields_of_a_step_come_before_those_of_its_component(tmp_path: Path) -> None:
    write(tmp_path, COMPONENT, "count.yml")
    file = write(
        tmp_path,
        """\
        type: pipeline
        inputs: {nodes: 3}
        jobs:
          count:
            component: ./count.yml
            compute: azureml:big
            distribution: {type: pytorch, process_count_per_instance: 4}
            resources: {instance_count: "${{parent.inputs.nodes}}", shm_size: 8g}
            environment_variables: {A: b}
            inputs: {data: {path: azureml:c:1}}
        """,
    )
    job = Pipeline.load(file).step("count")

    assert (job.compute, job.node_count, job.shm_size) == ("big", 3, "8g")
    assert job.distribution == PyTorch(process_count_per_node=4)
    assert job.environment_variables == {"A": "b"}


def test_one_step_runs_with_what_others_would_have_given_it(tmp_path: Path) -> None:
    file = write(tmp_path, TWO)
    for i in (0, 1):
        (tmp_path / f"{i}.txt").write_text(f"mine {i}\n")
    root = ("--root", tmp_path / "runs", "--launcher", "direct")

    ended = call("run", f"{file}:train", "--input", f"words={tmp_path}", *root)

    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == ["[node0 rank0] mine 0", "[node0 rank1] mine 1"]
    refused = call("run", f"{file}:train", *root)
    assert refused.returncode == 2
    assert "hint: give a local path for it: `--input words=PATH`" in refused.stderr


BAD = {
    "a step that is not there": (
        "b: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.z.outputs.o}}'}}",
        "there is no step `z`",
    ),
    "an output that is not there": (
        "a: {command: c, environment: 'azureml:e:1'}\n  b: {command: c, environment: 'azureml:e:1',"
        " inputs: {x: '${{parent.jobs.a.outputs.o}}'}}",
        "step `a` has no output `o`",
    ),
    "an input that is not there": (
        "b: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.inputs.y}}'}}",
        "the pipeline has no input `y`",
    ),
    "an output of the pipeline that is not there": (
        "b: {command: c, environment: 'azureml:e:1', outputs: {x: '${{parent.outputs.y}}'}}",
        "'${{parent.outputs.y}}' is not an output of the pipeline",
    ),
    "a text around an expression": (
        "b: {command: c, environment: 'azureml:e:1', inputs: {x: 'a ${{parent.inputs.y}}'}}",
        "is not an input or output of a step or of the pipeline",
    ),
    "a circle": (
        "a: {command: c, environment: 'azureml:e:1', outputs: {o: }, inputs: {x: '${{parent.jobs.b.outputs.o}}'}}\n"
        "  b: {command: c, environment: 'azureml:e:1', outputs: {o: }, inputs: {x: '${{parent.jobs.a.outputs.o}}'}}",
        "steps wait for each other: a, b",
    ),
    "a step that waits for a circle": (
        "a: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.b.outputs.o}}'}}\n"
        "  b: {command: c, environment: 'azureml:e:1', outputs: {o: }, inputs: {x: '${{parent.jobs.d.outputs.o}}'}}\n"
        "  d: {command: c, environment: 'azureml:e:1', outputs: {o: }, inputs: {x: '${{parent.jobs.b.outputs.o}}'}}",
        "steps wait for each other: b, d",
    ),
    "a circle of inputs": (
        "a: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.b.inputs.y}}'}}\n"
        "  b: {command: c, environment: 'azureml:e:1', inputs: {y: '${{parent.jobs.a.inputs.x}}'}}",
        "jobs.b.inputs.y: these inputs of steps wait for each other: a.x, b.y",
    ),
    "an input of itself": (
        "a: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.a.inputs.x}}'}}",
        "jobs.a.inputs.x: these inputs of steps wait for each other: a.x",
    ),
    "a way into a circle": (
        "a: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.b.inputs.x}}'}}\n"
        "  b: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.b.inputs.x}}'}}",
        "inputs of steps wait for each other: b.x",
    ),
    "a component that is not there": ("b: {component: ./nowhere.yml}", "nowhere.yml"),
    "a name that leads out of the folder": ("../b: {command: c}", "'../b' is not a valid name for a step"),
    "an input as in previews": (
        "b: {command: c, environment: 'azureml:e:1', inputs: {x: '${{jobs.a.outputs.o}}'}}",
        "azure-ai-ml does not accept ${{jobs.a.outputs.o}}",
    ),
    "a path as in previews": (
        "b: {command: c, environment: 'azureml:e:1', inputs: {x: {path: '${{inputs.o}}'}}}",
        "azure-ai-ml does not accept ${{inputs.o}}",
    ),
    "a name with a hyphen": ("step-b: {command: c}", "not starting with a digit: `step_b`"),
    "a name with capitals": ("stepB: {command: c}", "not starting with a digit: `stepb`"),
    "a name with an accent": ("Größe: {command: c}", "not starting with a digit: `grosse`"),
    "a type of component": ("b: {type: component, component: 'azureml:c:1'}", "'component' is not a type of step"),
    "a type that nobody knows": ("b: {type: comand, command: c}", "did you mean `command`?"),
    "an output that leads out of the folder": (
        "b: {command: c, environment: 'azureml:e:1', outputs: {../../x: }}",
        "'../../x' is not valid",
    ),
    "no command": ("b: {environment: 'azureml:e:1'}", "`command` is missing"),
    "a component that is a list": ("b: {component: [./c.yml]}", "['./c.yml'] is not a component"),
    "a step that is a text": ("b: echo", "'echo' is not a mapping of fields to values"),
    "an input of a step that is not there": (
        "a: {command: c, environment: 'azureml:e:1', inputs: {abc: 1}}\n"
        "  b: {command: c, environment: 'azureml:e:1', inputs: {x: '${{parent.jobs.a.inputs.abd}}'}}",
        "step `a` has no input `abd`",
    ),
    "an input of another kind of step that is not there": (
        "b: {type: spark, inputs: {x: '${{parent.jobs.c.outputs.o}}'}}",
        "there is no step `c`",
    ),
    "a literal for data": (
        "a: {command: c, environment: 'azureml:e:1', inputs: {n: 1}}\n"
        "  b: {command: c, environment: 'azureml:e:1', inputs: {x: {path: '${{parent.jobs.a.inputs.n}}'}}}",
        "${{parent.jobs.a.inputs.n}} is a literal value, but data is needed here",
    ),
    "an unknown field": ("b: {command: c, environmnet: 'azureml:e:1'}", "did you mean `environment`?"),
}


@pytest.mark.parametrize(
    ("head", "step", "missing"),
    [
        ("", "", True),
        ("", ", compute: azureml:c", False),
        ("", ", resources: {instance_type: x}", True),
        ("compute: azureml:c", "", False),
        ("settings: {default_compute: azureml:serverless}", "", False),
        ("settings: {continue_on_step_failure: false}", "", True),
        ("", ", type: spark", False),
        ("", ", type: sweep", True),
    ],
)
def test_a_step_without_any_compute_is_an_error(head: str, step: str, missing: bool, tmp_path: Path) -> None:
    """azure-ai-ml 1.35 does not send it; that it runs here makes it an error of the plan, and not of the file."""
    file = write(tmp_path, f"type: pipeline\n{head}\njobs:\n  a: {{command: echo, environment: 'azureml:e:1'{step}}}\n")

    found = [(f.code, f.level, f.where) for f in Pipeline.load(file).plan().findings if f.level == "error"]

    assert found == ([("no-compute", "error", f"{file}:4: jobs.a")] if missing else [])


def test_a_value_that_a_component_does_not_list_is_let_pass_and_found(tmp_path: Path) -> None:
    # In a step, a component's name may be any, too.
    component = COMPONENT.replace("default: 1}", "default: 1, max: 3}").replace("name: count", "name: Count-words")
    write(tmp_path, component, "component.yml")
    step = "{component: ./component.yml, compute: azureml:c, inputs: {data: {path: 'azureml:d:1'}, times: 9}}"
    plan = Pipeline.load(write(tmp_path, f"type: pipeline\njobs:\n  a: {step}\n")).plan()

    [finding] = plan.findings
    assert (finding.code, finding.message[:14], finding.where and finding.where[-16:]) == (
        "value-outside",
        "9 is too large",
        "jobs.a.inputs.times"[-16:],
    )
    assert plan.plans["a"] is not None
    assert "seq 9)" in plan.plans["a"].command


_OF_A_CIRCLE = "let one of them take its input from a step that comes before it, or from the pipeline"
PLACES = {
    "a step that is not there": (3, "jobs.b.inputs.x", "known here: b"),
    "an output that is not there": (4, "jobs.b.inputs.x", None),
    "an input that is not there": (3, "jobs.b.inputs.x", "the pipeline has no inputs"),
    "an output of the pipeline that is not there": (3, "jobs.b.outputs.x", None),
    "a text around an expression": (
        3,
        "jobs.b.inputs.x",
        "write only `${{parent.inputs.NAME}}` or `${{parent.jobs.STEP.outputs.NAME}}`, with nothing around it",
    ),
    "a circle": (3, "jobs.a", _OF_A_CIRCLE),
    "a step that waits for a circle": (4, "jobs.b", _OF_A_CIRCLE),
    "an input as in previews": (3, "jobs.b.inputs.x", "write `${{parent.jobs.a.outputs.o}}`"),
    "a path as in previews": (3, "jobs.b.inputs.x", "write `${{parent.inputs.o}}`"),
    "a name with a hyphen": (
        3,
        "jobs.step-b",
        "use lower-case letters, digits and `_`, not starting with a digit: `step_b`",
    ),
    "a circle of inputs": (4, "jobs.b.inputs.y", "set the value of one of them"),
    "an input of itself": (3, "jobs.a.inputs.x", "set the value of one of them"),
    "a way into a circle": (4, "jobs.b.inputs.x", "set the value of one of them"),
    "a component that is not there": (3, "jobs.b.component", "HERE has pipeline.yml"),
    "a name that leads out of the folder": (
        3,
        "jobs.../b",
        "use lower-case letters, digits and `_`, not starting with a digit",
    ),
    "a name with capitals": (
        3,
        "jobs.stepB",
        "use lower-case letters, digits and `_`, not starting with a digit: `stepb`",
    ),
    "a name with an accent": (
        3,
        "jobs.Größe",
        "use lower-case letters, digits and `_`, not starting with a digit: `grosse`",
    ),
    "a type of component": (3, "jobs.b.type", "leave it out for a command or a command component"),
    "a type that nobody knows": (3, "jobs.b.type", "did you mean `command`?"),
    "an output that leads out of the folder": (3, "jobs.b.outputs.../../x", None),
    "no command": (3, "jobs.b", "a step needs a `component` or a `command`"),
    "a component that is a list": (3, "jobs.b.component", None),
    "a step that is a text": (3, "jobs.b", None),
    "an input of a step that is not there": (4, "jobs.b.inputs.x", "did you mean `abc`?"),
    "an input of another kind of step that is not there": (3, "jobs.b.inputs", "known here: b"),
    "a literal for data": (4, "jobs.b.inputs.x", None),
    "an unknown field": (3, "jobs.b.environmnet", "did you mean `environment`?"),
}
"""The line, the field and the hint of each."""


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_pipeline_is_said_with_its_line(case: str, tmp_path: Path) -> None:
    text, told = BAD[case]
    file = write(tmp_path, f"type: pipeline\njobs:\n  {text}\n")

    with pytest.raises(JobError) as error:
        Pipeline.load(file)

    assert told in str(error.value)
    first = error.value.problems[0]
    line, field, hint = PLACES[case]
    assert (first.where, first.hint) == (f"{file}:{line}: {field}", hint and hint.replace("HERE", str(tmp_path)))


OTHER = """\
type: pipeline
jobs:
  fine: {command: touch it, environment: 'azureml:e:1'}
  swept: {type: sweep, trial: ./t.yml}
  many: {type: parallel, component: ./p.yml}
  theirs: {component: 'azureml://registries/azureml/components/x/versions/1'}
"""


def test_steps_of_other_kinds_are_named_and_refused_before_anything_starts(tmp_path: Path) -> None:
    pipeline = Pipeline.load(write(tmp_path, OTHER))

    with pytest.raises(JobError) as error:
        Local(root=tmp_path / "runs").submit(pipeline)

    assert [p.message.split(";")[0] for p in error.value.problems] == [
        "step `swept` is a sweep",
        "step `many` is a parallel job",
        "step `theirs` is a component of a workspace or registry, azureml://registries/azureml/components/x/versions/1",
    ]
    assert not list((tmp_path / "runs").glob("*"))


def test_a_command_beside_steps_of_other_kinds_runs_alone(tmp_path: Path) -> None:
    assert Pipeline.load(write(tmp_path, OTHER)).step("fine").command == "touch it"


def test_what_is_missing_for_a_late_step_is_said_before_the_first_one_starts(tmp_path: Path) -> None:
    file = write(tmp_path, steps(a="true", b="a < true") + "    code: ./nowhere\n")

    with pytest.raises(JobError, match="there is no code folder"):
        Local(root=tmp_path / "runs").submit(Pipeline.load(file))

    assert not list((tmp_path / "runs").glob("*"))


def test_what_an_input_needs_is_asked_for_by_the_name_that_the_pipeline_has_for_it(tmp_path: Path) -> None:
    write(tmp_path, COMPONENT.replace("integer, default: 1", "integer"), "count.yml")
    file = write(
        tmp_path,
        """\
        type: pipeline
        inputs: {raw: {path: azureml:c:1}}
        jobs:
          count: {component: ./count.yml, inputs: {data: "${{parent.inputs.raw}}"}}
        """,
    )

    with pytest.raises(JobError) as error:
        Local(root=tmp_path).submit(Pipeline.load(file))
    assert [p.hint for p in error.value.problems] == ["set it: `--set jobs.count.inputs.times=VALUE`"]

    with pytest.raises(JobError) as error:
        Local(root=tmp_path).submit(Pipeline.load(file).with_set("jobs.count.inputs.times=2"))
    assert [p.hint for p in error.value.problems] == ["set it: `--input raw=PATH`"]


def test_a_pipeline_asks_for_its_own_inputs(tmp_path: Path) -> None:
    file = write(tmp_path, TWO.replace("greeting: hello", "greeting: {type: string}").replace("echo", "echo "))

    assert "input greeting  <input greeting>" in call("plan", file).stdout
    with pytest.raises(JobError, match="it has no value yet"):
        Local(root=tmp_path / "runs").submit(Pipeline.load(file))


def test_steps_that_do_not_need_a_failed_one_go_on(tmp_path: Path) -> None:
    """The default of Azure ML ("CLI (v2) pipeline job YAML schema": continue_on_step_failure)."""
    run = run_here(Pipeline.load(write(tmp_path, steps(a="exit 3", b="a < true", c="true"))), tmp_path / "runs")

    assert statuses(run) == {"a": "Failed", "b": "NotStarted", "c": "Completed"}
    assert run.status == "Failed"
    assert run.state().error.startswith("step `a`: ")
    assert run.state().error.endswith("; not started: b")


def test_a_failed_step_ends_the_pipeline_if_it_says_so(tmp_path: Path) -> None:
    text = steps(a="exit 3", c="true") + "settings: {continue_on_step_failure: false}\n"

    run = run_here(Pipeline.load(write(tmp_path, text)), tmp_path / "runs")

    assert statuses(run) == {"a": "Failed", "c": "NotStarted"}


def test_steps_that_do_not_need_each_other_run_at_a_time(tmp_path: Path) -> None:
    """Each waits for the other."""
    wait = (
        f"touch {tmp_path}/$AZUREML_RUN_ID.here; while [ $(ls {tmp_path}/*.here | wc -l) -lt 2 ]; do sleep 0.02; done"
    )

    run = run_here(Pipeline.load(write(tmp_path, steps(a=wait, b=wait))), tmp_path / "runs", at_a_time=2)

    assert statuses(run) == {"a": "Completed", "b": "Completed"}


def test_the_object_of_a_pipeline_has_its_steps(tmp_path: Path) -> None:
    file = write(tmp_path, steps(a="echo hi", b="a < exit 3"))

    ended = call("run", file, "--root", tmp_path / "runs", "--json")
    state = json.loads(ended.stdout)

    assert ended.returncode == 1
    assert (state["status"], state["kind"]) == ("Failed", "pipeline")
    assert [(s["label"], s["status"], s["exit_code"]) for s in state["steps"]] == [
        ("a", "Completed", 0),
        ("b", "Failed", 3),
    ]
    assert "[a node0 rank0] hi" in ended.stderr
    assert find(str(tmp_path / "runs" / state["steps"][1]["name"])).state().parent == state["name"]


def test_a_line_that_comes_in_two_pieces_does_not_start_its_step_twice(tmp_path: Path) -> None:
    file = write(tmp_path, steps(a="printf one; sleep 1; echo line"))

    ended = call("run", file, "--root", tmp_path / "runs")

    assert ended.stdout.startswith("[a node0 rank0] oneline\n")
    assert ended.stderr.count("a: Running\n") == 1, ended.stderr


def test_a_component_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    file = write(tmp_path, "type: pipeline\njobs:\n  a: {component: ./nowhere.yml}\n")

    assert call("plan", file).stderr.count("there is no file") == 1


def test_ctrl_c_ends_the_step_and_starts_no_more(tmp_path: Path) -> None:
    file = write(tmp_path, steps(a="echo begun; sleep 1000", b="true"))

    with cli("run", file, "--root", tmp_path / "runs", "--json", mark=str(tmp_path)) as process:
        await_(lambda: any("begun" in f.read_text() for f in (tmp_path / "runs").glob("*_a/user_logs/std_log.txt")))
        process.terminate()
        stdout, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert [s["status"] for s in json.loads(stdout)["steps"]] == ["Canceled", "NotStarted"]
    await_(lambda: not living(str(tmp_path)))


def test_a_pipeline_is_planned_offline_and_nothing_is_executed(tmp_path: Path) -> None:
    file = write(tmp_path, steps(a=f"touch {tmp_path}/never", b="a < true"))

    plan = json.loads(call("plan", file, "--json").stdout)

    assert [(s["name"], s["needs"], s["plan"]["world"]["world_size"]) for s in plan["steps"]] == [
        ("a", [], 1),
        ("b", ["a"], 1),
    ]
    assert not (tmp_path / "never").exists()


def test_the_plan_of_a_pipeline_is_a_table_of_its_steps(tmp_path: Path) -> None:
    shown = call("plan", write(tmp_path, TWO)).stdout

    assert shown.startswith("two steps  pipeline: 2 steps\n\ninput greeting  hello\n\n")
    assert "train    1 node x 2 processes = 2  PyTorch  prepare\n" in shown


def test_a_finding_of_a_step_says_which_one_it_is_of(tmp_path: Path) -> None:
    """One in the script has its place there, which several steps may share."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text('import os\n\nprint(os.environ["OMPI_COMM_WORLD_RANK"])\n')
    step = "{command: python train.py, code: src, environment: 'azureml:e:1', distribution: {type: pytorch}%s}"
    jobs = {"prepare": ", compute: azureml:c", "train": "", "score": ", compute: azureml:c"}
    text = "type: pipeline\njobs:\n" + "".join(f"  {name}: {step % more}\n" for name, more in jobs.items())
    file = write(tmp_path, f"{text}  clean: {{type: spark, compute: azureml:c}}\n")

    shown, told = call("plan", file).stdout, json.loads(call("plan", file, "--json").stdout)

    found = [(one["code"], one["where"].rpartition("/")[2], one["step"]) for one in told["findings"]]
    unset = ("variable-not-set", "train.py:3")
    assert found == [
        (*unset, "prepare"),
        (*unset, "train"),
        (*unset, "score"),
        ("step-does-not-run-here", "pipeline.yml:6: jobs.clean", "clean"),
        ("no-compute", "pipeline.yml:4: jobs.train", "train"),
    ]
    assert "\nerror  steps `prepare`, `train`, `score`: train.py:3: `OMPI_COMM_WORLD_RANK` is not set" in shown
    assert shown.count("OMPI_COMM_WORLD_RANK` is not set") == 1
    assert f"\nerror  {file}:4: jobs.train: step `train` has no compute" in shown
    assert "step" not in told["steps"][0]["plan"]["findings"][0]


def test_fields_of_a_pipeline_are_set_by_the_names_in_its_file(tmp_path: Path) -> None:
    pipeline = Pipeline.load(write(tmp_path, TWO)).with_set(
        "inputs.greeting=hi", "jobs.train.resources.instance_count=2", "settings.default_compute=azureml:other"
    )
    job = pipeline.step("train")

    assert (job.node_count, job.compute) == (2, "other")
    assert pipeline.step("prepare").inputs["word"] == "hi"
    with pytest.raises(JobError, match="the pipeline has no step `tarin`"):
        pipeline.with_set("jobs.tarin.compute=x")


def test_a_pipeline_is_not_submitted_and_the_way_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, TWO)

    ended = call("submit", file)

    assert ended.returncode == 2
    assert f"hint: use `az ml job create -f {file}`" in ended.stderr


def test_a_pipeline_of_our_jobs_is_submitted_by_the_client_of_azure_ai_ml(
    emulator: Emulator, azure_sdk: None, tmp_path: Path
) -> None:
    """What is on the wire: the component of a step, and its node."""
    emulator.assets.add_environment("env")
    fields: dict[str, Any] = {"environment": "azureml:env:1", "shm_size": "64g", "compute": "gpu-cluster"}
    train = Job(
        command="python t.py --lr ${{inputs.lr}} --out ${{outputs.model}}",
        inputs={"lr": 0.1},
        outputs={"model": Output()},
        node_count=2,
        distribution=PyTorch(process_count_per_node=4),
        docker_args="--ipc=host",
        environment_variables={"A": "b"},
        **fields,
    )
    reading = Job(command="ls ${{inputs.model}}", inputs={"model": Input(path="azureml:m:1")}, **fields)
    space = {"lr": {"type": "uniform", "min_value": 0, "max_value": 1}}

    @dsl.pipeline(name="p")
    def made():  # type: ignore[no-untyped-def]
        swept = train.sweep(primary_metric="loss", goal="minimize", search_space=space, max_total_trials=4)
        step = train.to_command()(lr=0.2)
        look = reading.to_command()(model=step.outputs.model)
        assert look
        return {"model": swept.outputs.model}

    here = emulator.workspace
    credential = TokenOfEachScope(here)
    workspace = Workspace(here.subscription_id, here.resource_group, here.name, credential=credential)
    sent = workspace.client.jobs.create_or_update(made(), experiment_name="e")

    nodes = emulator.jobs.named(sent.name).body["jobs"]
    step, swept = nodes["step"], nodes["swept"]
    assert step["distribution"] == {"distribution_type": "PyTorch", "process_count_per_instance": 4}
    assert step["resources"] == {"instance_count": 2, "shm_size": "64g", "docker_args": "--ipc=host"}
    assert step["environment_variables"] == {"A": "b"}
    assert nodes["look"]["inputs"]["model"]["value"] == "${{parent.jobs.step.outputs.model}}"
    component = emulator.assets.by_id(step["componentId"])["properties"]["componentSpec"]
    assert component["command"] == "python t.py --lr ${{inputs.lr}} --out ${{outputs.model}}"
    assert component["environment"].endswith("/environments/env/versions/1")
    assert swept["resources"] == step["resources"]
    trial = emulator.assets.by_id(swept["trial"]["componentId"])["properties"]["componentSpec"]
    assert trial["distribution"]["process_count_per_instance"] == 4
    assert trial["resources"]["shm_size"] == "64g"
