"""What azure-ai-ml makes is taken wherever a job is: in Python, in lists, on the command line, on Azure ML."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from submitting import job as our_job
from test_sweep import sent_by_azure
from test_who_submits import start_cli

from azml_dist import AzureML, Job, JobError, Local, Pipeline, PyTorch, RunFailed, SubmitError, Sweep, submit
from azml_dist import Input as InputOfOurs
from azml_dist import Output as OutputOfOurs
from azml_dist.emulator import Emulator
from azml_dist.plan.sweep import sweep_request
from azml_dist.sdk.sweep import to_azure

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import Input, Output, command, dsl, load_job, spark
    from azure.ai.ml.entities import CommandComponent
    from azure.ai.ml.sweep import (
        BanditPolicy,
        BayesianSamplingAlgorithm,
        Choice,
        LogUniform,
        MedianStoppingPolicy,
        Normal,
        QLogNormal,
        QUniform,
        Randint,
        RandomSamplingAlgorithm,
        SweepJobLimits,
        TruncationSelectionPolicy,
        Uniform,
    )

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

FILE = """
import warnings
warnings.simplefilter("ignore")
from azure.ai.ml import Input, Output, command, dsl
from azure.ai.ml.sweep import Choice

cmd = command(command="echo ${{inputs.x}} of $WORLD_SIZE", environment="azureml:torch:1", compute="gpu-cluster",
              inputs={"x": 1}, distribution={"type": "PyTorch"}, instance_count=2)
swept = cmd(x=Choice([3, 4])).sweep(primary_metric="m", goal="minimize", sampling_algorithm="grid", max_total_trials=2)

@dsl.pipeline(compute="cpu")
def piped(n: int = 5):
    first = command(command="echo ${{inputs.n}} > ${{outputs.o}}/x", environment="azureml:torch:1",
                    inputs={"n": 1}, outputs={"o": Output(type="uri_folder")}, environment_variables={"A": "b"})(n=n)
    second = command(command="cat ${{inputs.d}}/x", environment="azureml:torch:1",
                     inputs={"d": Input(type="uri_folder")})(d=first.outputs.o)

pipe = piped(n=7)
component = cmd.component
number = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.py").write_text(FILE)
    return tmp_path / "jobs.py"


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "azml_dist.cli", *arguments], capture_output=True, text=True)


def made(**changes: Any) -> Any:
    return command(**{"command": "python t.py", "environment": "azureml:torch:1", "compute": "gpu-cluster", **changes})


# On the command line


def test_a_command_in_a_python_file_is_planned_and_exported(file: Path) -> None:
    planned, exported = cli("plan", "jobs.py:cmd", "--json"), cli("export", "jobs.py:cmd")

    assert json.loads(planned.stdout)["world"]["world_size"] == 2
    assert "instance_count: 2" in exported.stdout


def test_a_command_in_a_python_file_runs_with_other_inputs(file: Path) -> None:
    done = cli("run", "jobs.py:cmd", "--launcher", "direct", "--set", "inputs.x=9", "--json")

    assert json.loads(done.stdout)["status"] == "Completed", done.stderr
    assert "9 of 2" in done.stderr


def test_a_sweep_in_a_python_file_runs_its_trials(file: Path) -> None:
    done = cli("run", "jobs.py:swept", "--launcher", "direct", "--json")

    assert [trial["values"] for trial in json.loads(done.stdout)["trials"]] == [{"x": 3}, {"x": 4}], done.stderr
    assert "3 of 2" in done.stderr


def test_a_pipeline_in_a_python_file_runs_its_steps(file: Path) -> None:
    done = cli("run", "jobs.py:pipe", "--json")

    assert json.loads(done.stdout)["status"] == "Completed", done.stderr
    assert "7" in done.stderr


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("component", "`component` in jobs.py is of type CommandComponent, not a job"),
        ("number", "`number` in jobs.py is of type int, not a job"),
        ("sweep", "jobs.py has no `sweep`\nhint: did you mean `swept`?"),
    ],
)
def test_what_is_no_job_is_said_and_what_is_one_is_listed(file: Path, name: str, error: str) -> None:
    done = cli("plan", f"jobs.py:{name}")

    assert done.returncode == 2
    assert error in done.stderr.replace("\n\n", "\n")
    if name != "sweep":
        assert "its jobs: `jobs.py:cmd`, `jobs.py:swept`, `jobs.py:pipe`" in done.stderr


def test_a_job_is_loaded_from_a_python_file_that_makes_a_command(file: Path) -> None:
    assert Job.load("jobs.py:cmd").node_count == 2
    with pytest.raises(JobError, match="is of type Sweep, not a job"):
        Job.load("jobs.py:swept")


def test_a_command_in_a_python_file_is_submitted(emulator: Emulator, file: Path) -> None:
    emulator.assets.add_environment("torch")

    with start_cli(emulator, "submit", "jobs.py:cmd", "--set", "inputs.x=9") as process:
        shown, error = process.communicate(timeout=120)

    assert process.returncode == 0, error
    assert emulator.job(shown.splitlines()[0]).body["inputs"]["x"]["value"] == "9"


# In Python


def test_an_executor_takes_a_command(tmp_path: Path) -> None:
    run = Local(root=tmp_path).submit(made(command="echo $((6 * 7))"))

    run.wait(timeout=60)
    assert list(run.logs()) == ["[node0 rank0] 42"]


def test_a_list_may_hold_both(tmp_path: Path) -> None:
    here = Local(root=tmp_path)
    runs = submit([made(command="true"), Job(command="exit 3")], on=here)
    first, second = runs
    assert not isinstance(first, SubmitError)
    assert not isinstance(second, SubmitError)

    first.wait(timeout=60)
    with pytest.raises(RunFailed):
        second.wait(timeout=60)


def test_azure_ml_takes_what_azure_ai_ml_makes_with_ours_in_one_list(emulator: Emulator, azure: AzureML) -> None:
    swept = made(command="echo ${{inputs.x}}", inputs={"x": 1})(x=Choice([3, 4]))
    swept = swept.sweep(primary_metric="m", goal="minimize", sampling_algorithm="random", max_total_trials=2)

    single = azure.submit(made())
    results = submit([made(), our_job(), swept], on=azure)

    names = [one.name for one in (single, *results) if not isinstance(one, SubmitError)]
    assert [emulator.job(name).body["jobType"] for name in names] == ["Command", "Command", "Command", "Sweep"]


def test_a_pipeline_is_not_submitted(azure: AzureML, file: Path) -> None:
    for pipeline in (pipeline_of_two(), Pipeline.from_azure(pipeline_of_two())):
        with pytest.raises(JobError, match=r"not pipelines\n\nhint: `az ml job create -f FILE`"):
            submit(pipeline, on=azure)


def pipeline_of_two() -> Any:
    @dsl.pipeline(compute="cpu", experiment_name="exp")
    def pipe(n):  # type: ignore[no-untyped-def]  # it reads annotations itself, not as text
        first = made(command="echo ${{inputs.n}}", inputs={"n": 1}, outputs={"o": Output(type="uri_folder")})(n=n)
        made(
            command="ls ${{inputs.d}}",
            inputs={"d": Input(type="uri_folder")},
            instance_count=2,
            distribution={"type": "mpi", "process_count_per_instance": 2},
        )(d=first.outputs.o)

    return pipe(n=5)


def test_a_pipeline_keeps_worlds_inputs_and_order(file: Path) -> None:
    pipeline = Pipeline.from_azure(pipeline_of_two())

    assert [(name, step.needs) for name, step in pipeline.steps.items()] == [("first", ()), ("first_1", ("first",))]
    plan = str(pipeline.plan())
    assert "echo 5" in plan
    assert "2 nodes x 2 processes = 4  Mpi" in plan


COMPONENT = """
type: command
name: c
version: 1
inputs: {a: {type: integer, default: 2}, d: {type: uri_folder}, q: {type: string, optional: true}}
outputs: {o: {type: uri_folder}}
code: ./src
environment: {image: "python:3.11", conda_file: {dependencies: [pip]}}
command: python t.py ${{inputs.a}} ${{inputs.d}} ${{outputs.o}} $[[--q ${{inputs.q}}]]
"""
PIPELINE = """
type: pipeline
display_name: My pipe
inputs: {n: 3, data: {type: uri_folder, path: ./data}, far: {type: uri_folder, path: "azureml:d:1"}}
settings: {default_compute: azureml:cpu, continue_on_step_failure: false}
jobs:
  one:
    type: command
    component: ./component.yml
    inputs: {a: "${{parent.inputs.n}}", d: "${{parent.inputs.data}}"}
  two:
    type: command
    command: ls ${{inputs.x}} ${{inputs.y}} ${{inputs.z}} && echo ${{inputs.k}}
    environment: azureml:torch:1
    inputs:
      x: "${{parent.jobs.one.outputs.o}}"
      y: {type: uri_folder, path: ./data, mode: download}
      z: "${{parent.inputs.far}}"
      k: 5
    environment_variables: {A: b}
    resources: {instance_count: 2}
    distribution: {type: pytorch, process_count_per_instance: 2}
    limits: {timeout: 50}
"""


def test_a_pipeline_from_yaml_is_the_pipeline_of_that_yaml(file: Path) -> None:
    for folder, name, text in (("src", "t.py", "1\n"), ("data", "x", "x\n")):
        (file.parent / folder).mkdir()
        (file.parent / folder / name).write_text(text)
    (file.parent / "component.yml").write_text(COMPONENT)
    (file.parent / "pipe.yml").write_text(PIPELINE)

    ours, theirs = Pipeline.load("pipe.yml"), Pipeline.from_azure(load_job("pipe.yml"))

    assert theirs.goes_on is ours.goes_on is False
    assert sorted(str(theirs.plan()).splitlines()) == sorted(str(ours.plan()).splitlines())
    for name, step in ours.steps.items():
        found = theirs.steps[name].job
        assert step.job
        assert found
        # azure-ai-ml forgets the name of a component that it read from a file.
        assert found.with_(display_name=None) == step.job.with_(display_name=None)


REFUSED: dict[str, tuple[Any, str]] = {
    "component": (lambda: made().component, "CommandComponent of azure-ai-ml is a component, not yet a job"),
    "function": (lambda: dsl.pipeline(lambda: None), "is a function, not a job"),
    "spark": (
        lambda: spark(
            code=".",
            entry={"file": "x.py"},
            driver_cores=1,
            driver_memory="1g",
            executor_cores=1,
            executor_memory="1g",
            executor_instances=1,
            resources={"instance_type": "t", "runtime_version": "3.4"},
        ),
        "a Spark of azure-ai-ml is a kind of job that azml-dist can neither run nor submit",
    ),
    "text": (lambda: 7, "an object of type int is not a job"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_by_its_name_with_a_way(file: Path, case: str) -> None:
    what, error = REFUSED[case]
    take: Any
    for take in (Local().submit, AzureML().submit, lambda one: submit(one, on="local"), lambda one: submit([one])):
        with pytest.raises(JobError, match=error) as caught:
            take(what())
        assert caught.value.hint


def test_a_component_that_is_called_is_a_job(tmp_path: Path) -> None:
    component = CommandComponent(
        name="c", command="echo ${{inputs.x}}", environment="azureml:torch:1", inputs={"x": Input(type="integer")}
    )

    run = Local(root=tmp_path).submit(component(x=5))

    run.wait(timeout=60)
    assert list(run.logs()) == ["[node0 rank0] 5"]


# Sweeps


SWEEPS: dict[str, Any] = {
    "spaces": {
        "spaces": {
            "a": Choice(["x", "y"]),
            "b": Randint(7),
            "c": Uniform(0, 1),
            "d": QUniform(0, 1, 0.25),
            "e": LogUniform(-3, -1),
            "f": Normal(0, 1),
            "g": QLogNormal(0, 1, 1),
        },
        "sampling_algorithm": "random",
    },
    "random with a seed": {"sampling_algorithm": RandomSamplingAlgorithm(seed=5, rule="sobol")},
    "grid": {"sampling_algorithm": "grid"},
    "bayesian": {"sampling_algorithm": BayesianSamplingAlgorithm()},
    "bandit": {"early_termination_policy": BanditPolicy(slack_factor=0.1, evaluation_interval=2, delay_evaluation=5)},
    "median": {"early_termination_policy": MedianStoppingPolicy(evaluation_interval=2)},
    "truncation": {"early_termination_policy": TruncationSelectionPolicy(truncation_percentage=20)},
    "limits": {"max_concurrent_trials": 2, "timeout": 7200, "trial_timeout": 600},
    "world": {
        "command": {
            "instance_count": 2,
            "shm_size": "4g",
            "environment_variables": {"A": "b"},
            "distribution": {"type": "PyTorch", "process_count_per_instance": 2},
            "tags": {"a": "b"},
            "outputs": {"o": Output(type="uri_folder")},
        }
    },
}


def swept(case: str) -> Any:
    given = dict(SWEEPS[case])
    spaces = given.pop("spaces", {"a": Choice([1, 2])})
    text = " ".join(f"${{{{inputs.{name}}}}}" for name in spaces)
    data = Input(type="uri_folder", path="azureml://datastores/w/paths/d")
    inputs = {**dict.fromkeys(spaces, 0.5), "data": data}
    node = made(command=f"echo {text} ${{{{inputs.data}}}}", inputs=inputs, **given.pop("command", {}))
    fields = {"sampling_algorithm": "random", "max_total_trials": 3, **given}
    # azure-ai-ml takes some spaces in the call, and all of them here.
    sweep = node(**dict.fromkeys(spaces, Choice([1, 2]))).sweep(primary_metric="m", goal="maximize", **fields)
    sweep.search_space = spaces
    return sweep


@pytest.mark.parametrize("case", SWEEPS)
def test_a_sweep_is_what_azure_ai_ml_sends_of_it(file: Path, case: str) -> None:
    ours = sweep_request(Sweep.from_azure(swept(case)))["properties"]
    theirs = sent_by_azure(swept(case))

    assert said(ours) == said(theirs)


def said(properties: dict[str, Any]) -> dict[str, Any]:
    """A request without what is generated or only known to the service, and without what says nothing."""
    found = {name: value for name, value in properties.items() if name not in ("experimentName", "displayName")}
    trial = {name: value for name, value in found["trial"].items() if value and name not in ("codeId", "environmentId")}
    early = {name: value for name, value in (found.get("earlyTermination") or {}).items() if value}
    found |= {"trial": trial, "earlyTermination": early}
    found["computeId"] = str(found.get("computeId")).removeprefix("azureml:")
    return {name: value for name, value in found.items() if value}


def test_a_sweep_from_yaml_is_the_sweep_of_that_yaml(file: Path) -> None:
    (file.parent / "sweep.yml").write_text(
        "type: sweep\ncompute: gpu-cluster\ninputs: {n: 2}\n"
        "search_space: {lr: {type: uniform, min_value: 0, max_value: 1}}\n"
        "sampling_algorithm: random\nobjective: {goal: minimize, primary_metric: m}\n"
        "limits: {max_total_trials: 3, timeout: 100}\nearly_termination: {type: median_stopping}\n"
        "trial:\n  command: python t.py ${{search_space.lr}} ${{inputs.n}}\n  environment: azureml:torch:1\n"
        "  resources: {instance_count: 2}\n  distribution: {type: pytorch}\n"
    )

    found = Sweep.from_azure(load_job("sweep.yml"))

    assert said(sweep_request(found)["properties"]) == said(sweep_request(Sweep.load("sweep.yml"))["properties"])


def test_limits_that_are_set_later_count(file: Path) -> None:
    sweep = swept("grid")
    sweep.limits = SweepJobLimits(max_total_trials=1)

    assert len(list(Sweep.from_azure(sweep).trials(seed=0))) == 1


def test_ids_of_the_workspace_may_replace_the_environment_and_code_of_a_sweep(file: Path) -> None:
    sweep = Sweep.from_azure(swept("grid"))
    made_of_it = to_azure(sweep, environment="azureml:e:7", code="azureml:c:8")

    assert (made_of_it.trial.environment, made_of_it.trial.code) == ("azureml:e:7", "azureml:c:8")


def test_the_code_of_a_sweep_is_seen_from_where_it_was_made(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "src").mkdir(parents=True)
    text = "type: sweep\ntrial: {command: 'echo ${{search_space.lr}}', environment: 'azureml:e:1', code: src}\n"
    text += "search_space: {lr: {type: choice, values: [1]}}\nlimits: {max_total_trials: 1}\n"
    text += "sampling_algorithm: grid\nobjective: {primary_metric: m, goal: minimize}\n"
    (tmp_path / "elsewhere" / "sweep.yml").write_text(text)
    found = Sweep.from_azure(load_job(str(tmp_path / "elsewhere" / "sweep.yml")))

    assert found.job.code == str(tmp_path / "elsewhere" / "src")


def test_a_choice_between_spaces_is_refused_by_its_name(file: Path) -> None:
    sweep = swept("grid")
    sweep.search_space = {"a": {"type": "choice", "values": [1]}}
    sweep.search_space["a"] = object()

    with pytest.raises(JobError, match=r"search_space\.a: `object` is not a parameter expression") as error:
        Sweep.from_azure(sweep)
    assert str(error.value.hint).startswith("known here: Choice, ")


def test_a_space_with_a_wrong_bound_is_refused_by_its_field(file: Path) -> None:
    sweep = swept("grid")
    sweep.search_space["a"] = Uniform(min_value=2, max_value="x")
    with pytest.raises(JobError) as error:
        Sweep.from_azure(sweep)
    assert [one.where for one in error.value.problems] == ["search_space.a.max_value"]


def test_what_is_no_sweep_is_refused(file: Path) -> None:
    with pytest.raises(JobError, match="a Command is not a sweep") as error:
        Sweep.from_azure(made())
    assert error.value.hint == "use `command(...).sweep(...)` of azure-ai-ml"
    with pytest.raises(JobError, match="a Command is not a pipeline") as error:
        Pipeline.from_azure(made())
    assert error.value.hint


ROUND_TRIPS: dict[str, dict[str, Any]] = {
    "choices": {"search_space": {"a": {"type": "choice", "values": [1, "x"]}}, "sampling_algorithm": "grid"},
    "choices between mappings": {"search_space": {"a": {"type": "choice", "values": [{"x": 1}, {"x": 2}]}}},
    "limits": {
        "search_space": {"a": {"type": "quniform", "min_value": 0, "max_value": 1, "q": 0.1}},
        "limits": {"max_total_trials": 4, "max_concurrent_trials": 2, "timeout": 100, "trial_timeout": 50},
    },
    "a seed": {
        "search_space": {"a": {"type": "uniform", "min_value": 0, "max_value": 1}},
        "sampling_algorithm": {"type": "random", "seed": 3, "rule": "sobol", "logbase": "e"},
    },
    "a policy": {
        "search_space": {"a": {"type": "uniform", "min_value": 0, "max_value": 1}},
        "sampling_algorithm": "bayesian",
        "early_termination": {"type": "bandit", "slack_amount": 0.2, "evaluation_interval": 2},
    },
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_a_sweep_comes_back_from_azure_ai_mls(file: Path, case: str) -> None:
    one = our_job(
        command="echo ${{inputs.a}} ${{inputs.d}}",
        inputs={"a": 1, "d": InputOfOurs(path="azureml:d:1")},
        outputs={"o": OutputOfOurs()},
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        shm_size="4g",
        docker_args="--ipc=host",
        environment_variables={"A": "b"},
        identity={"type": "managed"},
        queue={"tier": "spot"},
        name="one",
        tags={"a": "b"},
    )
    sweep = Sweep.model_validate(
        {"job": one, "objective": {"primary_metric": "m", "goal": "minimize"}, **ROUND_TRIPS[case]}
    )

    assert sweep_request(Sweep.from_azure(sweep.to_azure())) == sweep_request(sweep)
