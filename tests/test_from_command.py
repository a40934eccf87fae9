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

from azml_dist import Input as OurInput
from azml_dist import Job, JobError, Local, Output, PyTorch, submit
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Build, Environment, Identity
from azml_dist.plan.request import request_body

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import Input, MpiDistribution, command, dsl, load_component, load_job
    from azure.ai.ml import Output as AzureOutput
    from azure.ai.ml.entities import (
        AmlTokenConfiguration,
        CommandJob,
        CommandJobLimits,
        IdentityConfiguration,
        JobResourceConfiguration,
        JobService,
        ResourceConfiguration,
        SshJobService,
        TensorBoardJobService,
        UserIdentityConfiguration,
        VsCodeJobService,
    )
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


@pytest.mark.parametrize("name", ["client_id", "object_id", "resource_id"])
def test_a_managed_identity_is_the_same_in_the_command(name: str) -> None:
    job = Job(
        command="x",
        environment="e@latest",
        compute="c",
        identity=Identity.model_validate({"type": "managed", name: "/a"}),
    )

    identity = job.to_command().identity

    assert {one: getattr(identity, one) for one in ("client_id", "object_id", "resource_id")} == {
        "client_id": None,
        "object_id": None,
        "resource_id": None,
        name: "/a",
    }


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


def changed(built: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(built, name, value)
    return built


PYTORCH = {"type": "PyTorch", "process_count_per_instance": 2}
SPELLINGS = {
    "the shorter resources": lambda: changed(
        made(distribution={"type": "PyTorch"}),
        resources=ResourceConfiguration(instance_count=2, instance_type="X", properties={"a": 1}),
    ),
    "the job's resources": lambda: changed(
        made(distribution=PYTORCH), resources=JobResourceConfiguration(instance_count=2, docker_args=["-v", "a b"])
    ),
    "resources as a mapping": lambda: changed(
        made(distribution=PYTORCH), resources={"instance_count": 2, "shm_size": "4g"}
    ),
    "the shorter resources in a job": lambda: CommandJob(
        command="ls", environment="azureml:env:1", resources=ResourceConfiguration(instance_count=1, instance_type="X")
    ),
    "limits": lambda: changed(made(), limits=CommandJobLimits(timeout=60)),
    "a queue": lambda: changed(made(), queue_settings={"job_tier": "spot", "priority": "low"}),
    "a distribution as a mapping": lambda: changed(made(instance_count=2), distribution=PYTORCH),
    "a distribution in capitals": lambda: made(distribution={"type": "MPI", "process_count_per_instance": 4}),
    "a count as a text": lambda: made(distribution={"type": "mpi", "process_count_per_instance": "4"}),
    "TensorFlow as a mapping": lambda: made(distribution={"type": "TensorFlow", "worker_count": 2}, instance_count=2),
    "an identity as a mapping": lambda: made(identity={"type": "managed", "client_id": "c"}),
    "an identity set later": lambda: changed(made(), identity=AmlTokenConfiguration()),
    "an input as a mapping": lambda: made(inputs={"x": {"type": "uri_file", "path": "https://example.com/x"}}),
    "an output as a mapping": lambda: made(outputs={"o": {"type": "uri_folder", "mode": "upload"}}),
    "an output without a word": lambda: made(outputs={"o": None}),
    "an output with a name": lambda: made(outputs={"o": AzureOutput(type="mlflow_model", name="m", version="3")}),
    "services by their types": lambda: made(
        services={
            "a": JobService(type="jupyter_lab", port=1),
            "b": TensorBoardJobService(log_dir="outputs"),
            "c": VsCodeJobService(nodes="all"),
        }
    ),
    "what is set later": lambda: changed(made(), name="n", display_name="d", compute="c", code="src"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_way_to_say_it_is_what_azure_ai_ml_sends(folder: Path, spelling: str) -> None:
    theirs = sent_by_azure(SPELLINGS[spelling]())["properties"]
    theirs = {name: value for name, value in theirs.items() if name != "environmentId"}
    ours = request_body(Job.from_command(SPELLINGS[spelling]()))["properties"]
    generated = {"environmentId", "experimentName"} | ({"displayName"} if "displayName" not in ours else set())

    def but_for_what_is_generated(body: dict[str, Any]) -> dict[str, Any]:
        found = {name: value for name, value in body.items() if name not in generated}
        return known({"properties": found}, folder)

    assert but_for_what_is_generated(ours) == but_for_what_is_generated(theirs)


@pytest.mark.parametrize(
    ("given", "open_input"),
    [
        (Input(type="uri_folder"), Parameter(type="uri_folder")),
        (Input(type="uri_file", path="", mode="download"), Parameter(type="uri_file", mode="download")),
        (Input(type="mltable", optional=True), Parameter(type="mltable", optional=True)),
    ],
)
@pytest.mark.parametrize("build", [command, CommandJob])
def test_an_input_without_a_path_waits_for_one_as_a_components_does(build: Any, given: Any, open_input: Any) -> None:
    job = Job.from_command(build(command="ls $[[${{inputs.x}}]]", environment="azureml:env:1", inputs={"x": given}))

    assert job.inputs["x"] == open_input
    assert job.open_inputs == ([] if given.optional else ["x"])
    if not given.optional:
        with pytest.raises(JobError, match=r"inputs\.x: it has no value yet"):
            Local().submit(job)


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
        (
            lambda: made(services={"a": JobService()}),
            "services.a: a job cannot express a JobService without a known type",
        ),
        (lambda: made(parameters={"a": "b"}), "parameters: a job cannot express `parameters` of a command"),
        (lambda: made(component="azureml:c:1"), "component: its component azureml:c:1 is in Azure ML"),
        (
            lambda: made().sweep(primary_metric="m", goal="minimize", sampling_algorithm="random"),
            "a Sweep is not a single",
        ),
        (lambda: "python t.py", "a str is not a single command"),
        (lambda: made(command=None), "command: it is empty"),
        (
            lambda: changed(made(), distribution="pytorch"),
            "distribution: a job cannot express the distribution 'pytorch'",
        ),
        (
            lambda: changed(made(), identity=IdentityConfiguration(type="user_assigned")),
            "identity: a job cannot express the identity `IdentityConfiguration`",
        ),
    ],
)
def test_what_a_job_has_no_place_for_is_refused_by_name(what: Any, problem: str) -> None:
    built = what()
    with pytest.raises(JobError) as error:
        Job.from_command(built)
    assert str(error.value).startswith(problem)


def test_of_a_component_in_azure_ml_it_is_said_how_to_get_it() -> None:
    with pytest.raises(JobError) as error:
        Job.from_command(made(component="azureml:c:1"))
    assert error.value.hint == "get it with `ml_client.components.get`, and call that"


def test_the_modes_and_the_datastore_of_a_job_reach_the_command() -> None:
    job = Job(
        command="x",
        environment="azureml:e:1",
        inputs={"a": OurInput(path="azureml:c:1", mode="mount", datastore="other"), "b": OurInput(path="azureml:d:1")},
        outputs={"o": Output(mode="mount", name="model", version="4"), "p": Output(mode="upload")},
    )
    made_of_it = job.to_command()
    inputs, outputs = made_of_it.inputs, made_of_it.outputs

    assert (inputs["a"].mode, inputs["a"]._data.datastore, inputs["b"].mode) == ("ro_mount", "other", None)
    assert [(outputs[name].mode, outputs[name].name, outputs[name].version) for name in ("o", "p")] == [
        ("rw_mount", "model", "4"),
        ("upload", None, None),
    ]


def test_a_build_keeps_its_dockerfile(folder: Path) -> None:
    build = Build(path=str(folder), dockerfile_path="docker/Dockerfile.gpu")
    built = Job(command="x", environment=Environment(build=build)).to_command()

    assert (built.environment.build.path, built.environment.build.dockerfile_path) == (
        build.path,
        build.dockerfile_path,
    )


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
