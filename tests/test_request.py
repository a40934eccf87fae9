"""The request of a plan against azure-ai-ml's own, field by field, for the same YAML."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobcases import BASE, CASES, REFUSED, make_files, yaml_of

from azml_dist.errors import JobError
from azml_dist.files.dump import yaml_of as dump_yaml
from azml_dist.job import Environment, Identity, Input, Job, Mpi, PyTorch
from azml_dist.plan.request import request_body

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import load_job
    from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object

    try:
        from azure.ai.ml.operations._job_operations import SdkJSONEncoder
    except ImportError:  # azure-ai-ml before 1.35, whose models write themselves
        SdkJSONEncoder = None

pytestmark = pytest.mark.filterwarnings("ignore")


def on_the_wire(body: Any) -> Any:
    """A body as azure-ai-ml sends it."""
    if SdkJSONEncoder is None:
        return json.loads(json.dumps(body.serialize()))
    return json.loads(json.dumps(body, cls=SdkJSONEncoder, exclude_readonly=True))


def sent_by_azure(job: Any) -> dict[str, Any]:
    """What the client would put on the wire before it asks the service for ids."""
    logging.disable(logging.CRITICAL)
    try:
        job = load_job(job) if isinstance(job, Path) else job
        if not isinstance(job.environment, str):
            job.environment = "an id"  # which the service gives it before the body is made
        body = to_rest_job_object(job)
    finally:
        logging.disable(logging.NOTSET)
    return {"properties": on_the_wire(body)["properties"]}


def both(tmp_path: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    make_files(tmp_path)
    path = tmp_path / "job.yml"
    path.write_text(text)
    return request_body(Job.load(path)), sent_by_azure(path)


@pytest.mark.parametrize("case", CASES)
def test_the_request_is_azure_ai_mls_own(tmp_path: Path, case: str) -> None:
    ours, theirs = both(tmp_path, yaml_of(case))

    assert known(ours, tmp_path) == known(theirs, tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_job_that_is_written_and_read_again_is_the_same_job_and_request(tmp_path: Path, case: str) -> None:
    make_files(tmp_path)
    (tmp_path / "job.yml").write_text(yaml_of(case))
    job = Job.load(tmp_path / "job.yml")
    (tmp_path / "written").mkdir()
    for written in (tmp_path / "written" / "job.yml", tmp_path / "job.yml"):
        job.dump(written)

        assert Job.load(written) == job
        assert request_body(Job.load(written)) == request_body(job)
        assert known(sent_by_azure(written), written.parent) == known(request_body(job), tmp_path)


@pytest.mark.parametrize("case", REFUSED)
def test_what_azure_ai_ml_refuses_is_refused_with_what_to_write(tmp_path: Path, case: str) -> None:
    make_files(tmp_path)
    (tmp_path / "job.yml").write_text(yaml_of(case))

    with pytest.raises(Exception):  # noqa: B017, PT011  # azure-ai-ml raises many kinds
        sent_by_azure(tmp_path / "job.yml")
    with pytest.raises(JobError) as error:
        Job.load(tmp_path / "job.yml")
    assert REFUSED[case][1] in str(error.value)
    key = REFUSED[case][0].partition(":")[0]
    field = (error.value.problems[0].where or "").removeprefix(f"{tmp_path / 'job.yml'}:").partition(": ")[2]
    assert field.split(".")[0] in (key, "command")


@pytest.mark.parametrize(
    ("job", "where"),
    [
        (Job(command="x", identity=Identity(type="managed", resource_id="/a")), "identity.resource_id"),
        (Job(command="x", inputs={"a": Input(path="azureml:c:1", mode="rw_mount")}), "inputs.a.mode"),
        (Job(command="x", environment=Environment(image="i", properties={"a": "b"})), "environment.properties"),
    ],
)
def test_what_azure_ai_ml_does_not_read_in_yaml_is_not_written(tmp_path: Path, job: Job, where: str) -> None:
    with pytest.raises(JobError) as error:
        job.dump(tmp_path / "job.yml")
    assert error.value.problems[0].where == where
    assert not (tmp_path / "job.yml").exists()


def test_paths_are_written_as_seen_from_the_file_and_whole_when_they_are_printed(tmp_path: Path) -> None:
    make_files(tmp_path)
    job = Job(
        command="x", code=str(tmp_path / "src"), inputs={"a": Input(type="uri_file", path=str(tmp_path / "data.csv"))}
    )
    (tmp_path / "jobs").mkdir()
    job.dump(tmp_path / "jobs" / "job.yml")
    written = yaml.safe_load((tmp_path / "jobs" / "job.yml").read_text())

    assert (written["code"], written["inputs"]["a"]["path"]) == ("../src", "../data.csv")
    assert yaml.safe_load(dump_yaml(job))["code"] == str(tmp_path / "src")


def known(body: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A request without ids that only the service knows, and with local paths as they are from anywhere."""
    properties = dict(body["properties"])
    properties["inputs"] = {name: dict(value) for name, value in properties["inputs"].items()}
    for value in properties["inputs"].values():
        path = value.get("uri", "").removeprefix("<uploaded from ").removesuffix(">").removeprefix("file:")
        if path and (folder / path).exists():
            value["uri"] = f"from {(folder / path).resolve()}"
    code, environment = properties.get("codeId"), properties.get("environmentId")
    if code is None or Path(str(code)).is_absolute() or (folder / str(code)).exists():
        properties["codeId"] = None
    properties["environmentId"] = None if environment == "an id" else environment
    return {"properties": properties}


def test_ids_that_only_the_service_knows_are_none_or_marked(tmp_path: Path) -> None:
    ours, theirs = both(
        tmp_path,
        BASE.replace("environment: azureml:env:1", "environment: {image: python:3.11}")
        + "code: src\ninputs: {d: {type: uri_file, path: data.csv}}\n",
    )
    ours, theirs = ours["properties"], theirs["properties"]

    assert ours["codeId"] is None
    assert ours["environmentId"] is None
    assert ours["inputs"]["d"]["uri"] == f"<uploaded from {tmp_path / 'data.csv'}>"
    for body in (ours, theirs):
        del body["codeId"], body["environmentId"], body["inputs"]["d"]["uri"]
    assert ours == theirs


def test_what_azure_ai_ml_makes_up_is_left_out(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, "command: x\nenvironment: azureml:env:1\n")

    assert theirs["properties"].keys() - ours["properties"].keys() == {"displayName", "experimentName"}


def test_a_variable_from_my_environment_is_named_but_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    body = request_body(Job(command="env", environment_variables={"TOKEN": None, "A": "b"}))

    assert body["properties"]["environmentVariables"] == {"TOKEN": "<from your environment>", "A": "b"}


def test_variables_are_texts_where_azure_ai_ml_sends_what_yaml_made_of_them(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, BASE + "environment_variables: {A: true, B: 1.50}\n")

    assert ours["properties"]["environmentVariables"] == {"A": "true", "B": "1.50"}
    assert theirs["properties"]["environmentVariables"] == {"A": True, "B": 1.5}


def test_a_count_that_is_not_given_is_not_sent() -> None:
    def sent(job: Job) -> object:
        return request_body(job)["properties"]["distribution"]

    assert sent(Job(command="x", distribution=PyTorch())) == {"distributionType": "PyTorch"}
    assert sent(Job(command="x", distribution=Mpi(process_count_per_node=1))) == {
        "distributionType": "Mpi",
        "processCountPerInstance": 1,
    }


def test_a_job_made_in_python_is_sent_as_its_yaml(tmp_path: Path) -> None:
    from_yaml, _ = both(
        tmp_path,
        BASE
        + "resources: {instance_count: 2}\ndistribution: {type: pytorch, process_count_per_instance: 4}\n"
        + "inputs: {epochs: 3, data: {path: 'azureml:cifar10:1'}}\n",
    )
    in_python = Job(
        name="case",
        experiment_name="cases",
        command="python train.py",
        environment="azureml:env:1",
        node_count=2,
        distribution=PyTorch(process_count_per_node=4),
        inputs={"epochs": 3, "data": Input(path="azureml:cifar10:1")},
    )

    assert request_body(in_python) == from_yaml


def test_an_inline_environment_has_no_id() -> None:
    job = Job(command="x", environment=Environment(image="python:3.11"))
    assert request_body(job)["properties"]["environmentId"] is None


def test_an_argv_is_sent_as_one_text() -> None:
    job = Job(command=["python", "t.py", "a b"])
    assert request_body(job)["properties"]["command"] == "python t.py 'a b'"
