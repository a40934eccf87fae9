"""azure-ai-ml's own `Command` objects as jobs, and back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobcases import CASES, make_files, yaml_of
from test_request import known, sent_by_azure

from azml_dist import Job, JobError, Local, Output, PyTorch, submit
from azml_dist.parameter import Parameter
from azml_dist.request import request_body

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import Input, MpiDistribution, command, dsl, load_component, load_job
    from azure.ai.ml import Output as AzureOutput
    from azure.ai.ml.entities import JobService, SshJobService, UserIdentityConfiguration
    from azure.ai.ml.sweep import Choice

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    logging.disable(logging.CRITICAL)
    yield tmp_path
    logging.disable(logging.NOTSET)


def made(**changes: Any) -> Any:
    return command(**{"command": "python t.py", "environment": "azureml:env:1", **changes})


@pytest.mark.parametrize("case", CASES)
def test_a_command_from_yaml_is_the_job_of_that_yaml(folder: Path, case: str) -> None:
    (folder / "job.yml").write_text(yaml_of(case))

    job = Job.from_command(load_job(folder / "job.yml"))
    assert request_body(job) == request_body(Job.load(folder / "job.yml"))


@pytest.mark.parametrize("case", CASES)
def test_a_job_comes_back_from_its_command(folder: Path, case: str) -> None:
    (folder / "job.yml").write_text(yaml_of(case))
    job = Job.load(folder / "job.yml")

    assert request_body(Job.from_command(job.to_command())) == request_body(job)


def test_everything_a_command_says_is_in_its_job(folder: Path) -> None:
    built = made(
        command="python t.py ${{inputs.rate}} ${{inputs.data}} ${{outputs.model}}",
        code="./src",
        inputs={"rate": 0.1, "flag": True, "data": Input(type="uri_file", path="data.csv", mode="download")},
        outputs={"model": AzureOutput(type="uri_folder", mode="upload", name="m", version="2"), "plain": AzureOutput()},
        distribution=MpiDistribution(process_count_per_instance=2),
        instance_count=3,
        instance_type="X",
        shm_size="4g",
        docker_args="--ipc=host",
        locations=["westus"],
        timeout=60,
        job_tier="Spot",
        priority="low",
        services={"shell": SshJobService(ssh_public_keys="k", nodes="all")},
        identity=UserIdentityConfiguration(),
        environment_variables={"A": "b"},
        tags={"a": "b"},
        properties={"c": "d"},
        name="n",
        display_name="d",
        experiment_name="e",
        description="words",
        compute="gpu",
        parent_job_name="p",
    )
    job = Job.from_command(built)

    assert (job.node_count, job.process_count_per_node, job.code) == (3, 2, str(folder / "src"))
    (folder / "job.yml").touch()
    theirs = sent_by_azure(built)
    assert theirs["properties"].pop("environmentId") == "azureml:env:1"  # which is looked up before it is sent
    ours = request_body(job)
    assert ours["properties"].pop("environmentId") == "env:1"
    assert known(ours, folder) == known(theirs, folder)


def test_an_input_that_was_changed_has_its_new_value_and_the_change_is_pointed_out() -> None:
    built = made(inputs={"epochs": 3})
    built.inputs.epochs = 5

    with pytest.warns(UserWarning, match="input epochs was changed to 5 .* would still send 3"):
        assert Job.from_command(built).inputs["epochs"] == 5


def test_a_called_component_has_its_values_and_waits_for_the_others(folder: Path) -> None:
    (folder / "component.yml").write_text(
        "type: command\nname: c\nversion: 1\nenvironment: azureml:env:1\n"
        "inputs: {a: {type: integer}, b: {type: number, default: 2, max: 9}, c: {type: string, optional: true}}\n"
        "command: echo ${{inputs.a}} ${{inputs.b}} $[[--c ${{inputs.c}}]]\n"
    )
    job = Job.from_command(load_component(folder / "component.yml")(a=1))

    assert job.inputs["c"] == Parameter(type="string", optional=True)
    assert job.plan().command == "echo 1 2.0 "
    assert "$[[" not in request_body(job)["properties"]["command"]


def in_a_pipeline() -> Any:
    steps = []

    @dsl.pipeline()
    def pipeline(rate=0.5):  # type: ignore[no-untyped-def]  # it reads annotations itself, not as text
        steps.append(made(inputs={"rate": 0.1})(rate=rate))

    pipeline(rate=0.5)
    return steps[0]


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (lambda: made(inputs={"rate": 0.1})(rate=Choice([1, 2])), "inputs.rate: a sweep chooses its value (Choice)"),
        (in_a_pipeline, "inputs.rate: it comes from a pipeline (${{parent.inputs.rate}})"),
        (lambda: made(services={"a": JobService()}), "services.a: a JobService without such a type has no place"),
        (lambda: made(parameters={"a": "b"}), "parameters: `parameters` of a command has no place in a job"),
        (lambda: made(component="azureml:c:1"), "component: its component azureml:c:1 is in Azure ML"),
        (lambda: made().sweep(primary_metric="m", goal="minimize", sampling_algorithm="random"), "a Sweep is no"),
        (lambda: "python t.py", "a str is no single command"),
    ],
)
def test_what_a_job_has_no_place_for_is_refused_by_name(what: Any, problem: str) -> None:
    built = what()
    with pytest.raises(JobError) as error:
        Job.from_command(built)
    assert str(error.value).startswith(problem)


def test_a_command_runs_here(folder: Path) -> None:
    built = Job(
        command="echo $RANK of $WORLD_SIZE > ${{outputs.out}}/$RANK",
        outputs={"out": Output()},
        node_count=2,
        distribution=PyTorch(),
        environment="azureml:env:1",
    ).to_command()
    run = submit(built, on=Local(root=folder / "runs", launcher="direct"))
    run.wait(timeout=60)

    assert Path(run.outputs["out"], "1").read_text() == "1 of 2\n"
