"""A job that is read back from its request: it means the same, without what only the service has added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobcases import CASES, make_files, yaml_of

from azml_dist.errors import JobError
from azml_dist.job import Identity, Input, Job, Output, Queue, Ssh, TensorBoard, VsCode
from azml_dist.plan.request import request_body
from azml_dist.plan.requested import asset_reference, duration_seconds, job_requested

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
SAID_OTHERWISE = {
    "one node, said": "resources",
    "resources": "resources",  # one node too
    "empty groups": "resources limits queueSettings services",
    "no tier": "queueSettings",
    "a compute by its id": "computeId",
    "a virtual cluster": "computeId",
    "a code asset": "codeId",  # the service keeps its id
    "an environment by its id": "environmentId",
    "data by its id": "inputs",
    "data": "inputs",
    "outputs": "outputs",
}
"""What these cases send in words that mean the same as others, or as nothing: tests below have each."""
NOT_UPLOADED = ("local data", "data as a file reference")


def requested(**properties: Any) -> Job:
    return job_requested(Job, "run", {"command": "x", **properties})


@pytest.mark.parametrize("case", [case for case in CASES if case not in NOT_UPLOADED])
def test_a_job_read_back_from_its_request_makes_the_same_request(tmp_path: Path, case: str) -> None:
    make_files(tmp_path)
    (tmp_path / "job.yml").write_text(yaml_of(case))
    sent = request_body(Job.load(tmp_path / "job.yml"))["properties"]
    again = request_body(job_requested(Job, "case", sent))["properties"]
    differ = {name for name in {*sent, *again} - {"displayName"} if sent.get(name) != again.get(name)}

    assert differ == set(SAID_OTHERWISE.get(case, "").split())


def test_what_means_the_same_as_nothing_is_left_out() -> None:
    usual = {
        "resources": {"instanceCount": 1, "shmSize": "2g", "properties": {}, "locations": [], "dockerArgs": ""},
        "limits": {"jobLimitsType": "Command", "timeout": None},
        "queueSettings": {"jobTier": "Null"},
        "displayName": "run",
        "distribution": None,
        "identity": None,
        "services": {},
        "inputs": None,
        "tags": {},
        "codeId": "",
        "environmentId": None,
        "computeId": None,
    }
    assert requested(**usual) == Job(command="x")
    assert requested(displayName="another").display_name == "another"
    assert requested(resources={"shmSize": "3g"}) == Job(command="x", shm_size="3g")


def test_what_the_service_and_the_run_add_is_left_out() -> None:
    properties = {
        "_azureml.ComputeTargetType": "amlctrain",
        "azureml.git.branch": "main",
        "azureml.runsource": "azureml.commandjob",
        "mlflow.source.git.commit": "a1",
        "mlflow.user": "me",
        "ProcessInfoFile": "a",
        "ContentSnapshotId": "b",
        "best_child_run_id": "c",
        "attempts": "1",
        "attempts_of_mine": "2",
    }
    kept = {"azureml.git.branch": "main", "mlflow.source.git.commit": "a1", "attempts_of_mine": "2"}
    assert requested(properties=properties).properties == kept

    services = {
        "Studio": {"jobServiceType": "Studio", "endpoint": "https://ml.azure.com/runs/run"},
        "Tracking": {"jobServiceType": None},
        "code": {"jobServiceType": "VSCode", "endpoint": "https://a", "nodes": {"nodesValueType": "All"}},
        "board": {"jobServiceType": "TensorBoard", "port": 6006, "properties": {"logDir": "logs", "a": "b"}},
        "shell": {"jobServiceType": "SSH", "properties": {"sshPublicKeys": "ssh-rsa A"}, "nodes": None},
    }
    assert requested(services=services).services == {
        "code": VsCode(nodes="all"),
        "board": TensorBoard(log_dir="logs", port=6006, properties={"a": "b"}),
        "shell": Ssh(ssh_public_keys="ssh-rsa A"),
    }


@pytest.mark.parametrize(
    ("reference", "short"),
    [
        (f"{WORKSPACE}/environments/e/versions/1", "azureml:e:1"),
        (f"azureml:{WORKSPACE}/data/d/versions/2", "azureml:d:2"),
        (f"{WORKSPACE.upper()}/MODELS/m/VERSIONS/3", "azureml:m:3"),
        (f"{WORKSPACE}/codes/c/versions/1", f"{WORKSPACE}/codes/c/versions/1"),
        (f"{WORKSPACE}/data/d/versions/2/more", f"{WORKSPACE}/data/d/versions/2/more"),
        ("azureml://registries/r/data/d/versions/1", "azureml://registries/r/data/d/versions/1"),
        (None, None),
    ],
)
def test_an_asset_of_a_workspace_is_its_name_and_version(reference: Any, short: Any) -> None:
    assert asset_reference(reference) == short


def test_code_environment_and_compute_are_what_the_job_used() -> None:
    code = f"{WORKSPACE}/codes/c/versions/1"
    job = requested(
        codeId=code,
        environmentId=f"{WORKSPACE}/environments/e/versions/1",
        computeId=f"{WORKSPACE}/computes/gpu-cluster",
    )
    assert (job.code, job.environment, job.compute) == (f"azureml:{code}", "azureml:e:1", "gpu-cluster")
    registered = "azureml://registries/r/codes/c/versions/1"
    assert requested(codeId=registered).code == registered


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("PT1S", 1),
        ("PT2M", 120),
        ("PT3H", 10_800),
        ("P4D", 345_600),
        ("P1DT1H1M1S", 90_061),
        ("PT1.9S", 1),
        ("pt5m", 300),
        ("P1M", None),
        ("5 minutes", None),
        ("", None),
        (None, None),
        (60, None),
    ],
)
def test_a_duration_is_read_in_seconds(duration: Any, seconds: int | None) -> None:
    assert duration_seconds(duration) == seconds


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("True", True),
        ("False", False),
        ("true", "true"),
        ("0", 0),
        ("7", 7),
        ("-12", -12),
        ("007", "007"),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, "9" * 19),
        ("0.5", 0.5),
        ("-1.5", -1.5),
        ("1e-05", 1e-05),
        ("1e-5", "1e-5"),
        ("1.50", "1.50"),
        ("1-2", "1-2"),
        ("1.2.3", "1.2.3"),
        ("", ""),
        ("text", "text"),
        (3, 3),
    ],
)
def test_a_literal_has_the_type_that_writes_the_same_text(sent: Any, value: Any) -> None:
    job = requested(inputs={"a": {"jobInputType": "literal", "value": sent}}, parameters={"b": sent})

    for found in (job.inputs["a"], job.inputs["b"]):
        assert (found, type(found)) == (value, type(value))


def test_an_input_goes_before_what_a_sweep_chose_under_the_same_name() -> None:
    job = requested(inputs={"a": {"jobInputType": "literal", "value": "1"}}, parameters={"a": "2", "b": "0.1"})
    assert job.inputs == {"a": 1, "b": 0.1}


def test_what_a_sweep_chose_is_an_input_of_the_command() -> None:
    job = requested(command="train --lr ${{search_space.lr}}", parameters={"lr": "0.1"})
    assert (job.command, job.inputs) == ("train --lr ${{inputs.lr}}", {"lr": 0.1})


def data(uri: str | None, mode: str | None = None, kind: str = "uri_folder") -> dict[str, Any]:
    return {"jobInputType": kind, "uri": uri, "mode": mode}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (data(f"{WORKSPACE}/data/d/versions/2"), Input(path="azureml:d:2")),
        (data("cifar:1", "ReadOnlyMount"), Input(path="azureml:cifar:1")),
        (data("cifar:1", "ReadWriteMount"), Input(path="azureml:cifar:1", mode="rw_mount")),
        (data("cifar:1", "Direct", "UriFile"), Input(type="uri_file", path="azureml:cifar:1", mode="direct")),
        (data("t:1", "EvalMount", "MLTable"), Input(type="mltable", path="azureml:t:1", mode="eval_mount")),
        (data("m:1", None, "CustomModel"), Input(type="custom_model", path="azureml:m:1")),
        (data("m:1", None, "triton_model"), Input(type="triton_model", path="azureml:m:1")),
        (data("HTTPS://x.y/z"), Input(path="HTTPS://x.y/z")),
        (data("adl://x/y"), Input(path="adl://x/y")),
        (data("azureml://datastores/w/paths/a"), Input(path="azureml://datastores/w/paths/a")),
    ],
)
def test_data_comes_back_with_its_path_and_any_mode_but_the_usual(sent: Any, expected: Input) -> None:
    assert requested(inputs={"a": sent}).inputs == {"a": expected}


def test_an_optional_input_that_was_not_given_is_none() -> None:
    inputs = {"a": {"jobInputType": "literal", "value": None}, "b": {}, "c": {"jobInputType": "literal", "value": "1"}}
    assert requested(inputs=inputs).inputs == {"c": 1}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        (None, None),
        ("azureml://datastores/w/paths/azureml/run/out", None),
        ("azureml://datastores/w/paths/azureml/run/out/", None),
        ("azureml://datastores/w/paths/azureml/${{name}}/${{output_name}}/", None),
        ("azureml://datastores/w/paths/azureml/another/out", "azureml://datastores/w/paths/azureml/another/out"),
        ("azureml://datastores/w/paths/mine/run/out", "azureml://datastores/w/paths/mine/${{name}}/out"),
        ("azureml://datastores/w/paths/runs/out", "azureml://datastores/w/paths/runs/out"),
    ],
)
def test_another_run_never_writes_where_this_one_did(uri: str | None, path: str | None) -> None:
    sent = {"out": {"jobOutputType": "uri_folder", "uri": uri, "mode": "ReadWriteMount"}}
    assert requested(outputs=sent).outputs == {"out": Output(path=path) if path else Output()}


def test_the_outputs_of_the_job_are_those_that_it_named() -> None:
    outputs = {
        "default": {"jobOutputType": "uri_folder", "uri": "azureml://datastores/a/ExperimentRun/dcid.run"},
        "model": {"jobOutputType": "MLFlowModel", "mode": "Upload", "assetName": "m", "assetVersion": "4"},
        "data": {"jobOutputType": "UriFile", "mode": "Direct"},
    }
    assert requested(outputs=outputs).outputs == {
        "model": Output(type="mlflow_model", mode="upload", name="m", version="4"),
        "data": Output(type="uri_file", mode="direct"),
    }


def test_the_words_of_the_api_may_be_spelt_in_any_way() -> None:
    spelt = requested(
        identity={"identityType": "User_Identity"},
        queueSettings={"jobTier": "Spot", "priority": 3},
        distribution={"distributionType": "PyTorch", "processCountPerInstance": 4},
    )
    assert spelt.identity == Identity(type="user_identity")
    assert spelt.queue == Queue(tier="spot", priority="high")
    assert spelt.process_count_per_node == 4
    assert requested(queueSettings={"priority": 1}).queue == Queue(priority="low")
    assert requested(queueSettings={"priority": "odd"}).queue is None


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"command": None}, "the service's answer has no `command`\n\nhint: it is not a command job"),
        ({"inputs": ["a"]}, "the service's answer has something in `inputs` that is not an object"),
        ({"inputs": {"a": "b"}}, "the service's answer has something in `a` that is not an object"),
        ({"distribution": {"distributionType": "Other"}}, "'other'"),
        ({"identity": {"identityType": "Other"}}, "'other'"),
        ({"inputs": {"a": {"jobInputType": "Other", "uri": "d:1"}}}, "'other'"),
        ({"inputs": {"a": {"jobInputType": "uri_folder", "uri": "d:1", "mode": "Other"}}}, "'other'"),
        ({"outputs": {"a": {"jobOutputType": "Other"}}}, "'other'"),
    ],
)
def test_what_is_no_command_job_is_refused(properties: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError) as error:
        requested(**properties)
    assert message in str(error.value)
