"""The request of a plan against what azure-ai-ml puts on the wire, for every distribution and option."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from emulated import SDK_WARNINGS
from submitting import code_in, job

from azml_dist import AzureML, Environment, Input, Job, Mpi, Output, PyTorch, Ray, TensorFlow, Workspace
from azml_dist.emulator import Emulator, StaticToken
from azml_dist.job import Build, Identity, JupyterLab, Queue, Ssh, TensorBoard, VsCode

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

DISTRIBUTIONS: dict[str, Any] = {
    "none": {},
    "pytorch": {"node_count": 2, "distribution": PyTorch(process_count_per_node=4)},
    "pytorch, no count": {"node_count": 2, "distribution": PyTorch()},
    "mpi": {"node_count": 2, "distribution": Mpi(process_count_per_node=4)},
    "mpi, no count": {"node_count": 2, "distribution": Mpi()},
    "tensorflow": {"node_count": 3, "distribution": TensorFlow()},
    "tensorflow, tasks": {
        "node_count": 3,
        "distribution": TensorFlow(worker_count=3, parameter_server_count=1),
    },
    "ray": {"node_count": 2, "distribution": Ray()},
    "ray, all": {
        "node_count": 2,
        "distribution": Ray(
            port=6379,
            address="10.0.0.1",
            include_dashboard=True,
            dashboard_port=8265,
            head_node_additional_args="--a",
            worker_node_additional_args="--b",
        ),
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "shared memory": {"shm_size": "16g"},
    "docker arguments": {"docker_args": "--ipc=host --cap-add=SYS_PTRACE"},
    "docker arguments in a list": {"docker_args": ["--ipc=host", "-v /a:/b"]},
    "elastic": {"max_node_count": 8, "locations": ("westus", "eastus")},
    "resource properties": {"resource_properties": {"Singularity": {"a": {"b": 1}}, "other": [1, "x"]}},
    "serverless": {"compute": None, "instance_type": "Standard_NC24s_v3"},
    "timeout": {"timeout": 90061},
    "queue": {"queue": Queue(tier="spot", priority="high")},
    "managed identity": {"identity": Identity(type="managed", client_id="abc")},
    "my identity": {"identity": Identity(type="user_identity")},
    "workspace identity": {"identity": Identity(type="aml_token")},
    "services": {
        "services": {
            "lab": JupyterLab(),
            "code": VsCode(nodes="all"),
            "board": TensorBoard(log_dir="outputs/tb", port=6006),
            "shell": Ssh(ssh_public_keys="ssh-rsa AAA", properties={"z": "y"}),
        }
    },
    "texts": {"display_name": "a name", "description": "two\nlines", "parent_job_name": "parent"},
    "tags": {"tags": {"a": "1", "b": None}, "properties": {"c": "d"}},
    "variables": {"environment_variables": {"A": "text", "B": "", "C": "1.50", "D": "true"}},
    "literals": {
        "command": "x ${{inputs.a}} ${{inputs.b}} ${{ inputs.c }}",
        "inputs": {"a": True, "b": 1e-5, "c": "007", "d": "", "e": -3, "f": "a 'b' \"c\""},
    },
    "data": {
        "inputs": {
            "a": Input(path="azureml:cifar:1"),
            "b": Input(path="azureml:cifar:1", mode="download"),
            "c": Input(path="azureml://datastores/w/paths/a/", type="mltable", mode="eval_mount"),
            "d": Input(type="uri_file", path="https://x.y/z.csv", mode="mount"),
            "e": Input(path="wasbs://c@a.blob.core.windows.net/z", mode="direct"),
        }
    },
    "outputs": {
        "outputs": {
            "a": Output(),
            "b": Output(type="uri_file", mode="rw_mount"),
            "c": Output(type="custom_model", mode="upload", name="model"),
            "d": Output(type="mlflow_model", name="model", version="4"),
            "e": Output(path="azureml://datastores/w/paths/o/${{name}}", mode="mount"),
        }
    },
    "an argv": {"command": ["python", "t.py", "a b", "${{inputs.x}}"], "inputs": {"x": 3}},
    "registry environment": {
        "environment": "azureml://registries/azureml/environments/sklearn-1.5/versions/3",
    },
    "registry label": {"environment": "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"},
    "environment label": {"environment": "azureml:torch@latest"},
    "inline image": {"environment": Environment(image="python:3.11")},
    "inline conda": {
        "environment": Environment(image="mcr.microsoft.com/base", conda_file={"dependencies": ["pip", {"pip": ["x"]}]})
    },
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_every_option_goes_out_as_planned(
    emulator: Emulator, azure_sdk: None, distribution: dict[str, Any], outside_git: Path
) -> None:
    emulator.assets.add_environment("torch")
    emulator.assets.add_data("cifar", "1", {"a": b"a"})
    jobs = [
        job(name=f"job-{number}", experiment_name="wire", **{**distribution, **option})
        for number, option in enumerate(OPTIONS.values())
    ]

    results = AzureML(by_scope(emulator), check=False).submit_all(jobs)

    assert [result for result in results if isinstance(result, Exception)] == []
    for (name, _), one in zip(OPTIONS.items(), jobs, strict=True):
        assert (name, sent(emulator, one)) == (name, planned(one))


def test_code_and_local_data_are_all_that_differs(emulator: Emulator, azure_sdk: None, outside_git: Path) -> None:
    emulator.assets.add_environment("torch")
    code = code_in(outside_git / "code")
    one = job(name="one", experiment_name="wire", code=code, inputs={"d": Input(path=str(code / "lib"))})

    AzureML(by_scope(emulator), check=False).submit(one)

    ours, theirs = one.plan().request["properties"], emulator.job("one").body
    assert ours["codeId"] is None
    assert emulator.assets.by_id(theirs["codeId"])["properties"]["isAnonymous"] is True
    assert ours["inputs"]["d"]["uri"] == f"<uploaded from {code / 'lib'}>"
    assert theirs["inputs"]["d"]["uri"].startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")


def test_a_docker_build_is_uploaded(emulator: Emulator, azure_sdk: None, outside_git: Path) -> None:
    context = code_in(outside_git / "context", {"Dockerfile": "FROM scratch\n"})
    one = job(name="one", experiment_name="wire", environment=Environment(build=Build(path=str(context))))

    AzureML(by_scope(emulator), check=False).submit(one)

    environment = emulator.assets.by_id(emulator.job("one").body["environmentId"])["properties"]
    assert environment["build"]["contextUri"].endswith("/context/")
    assert sent(emulator, one) == planned(one)


def test_a_command_of_ours_is_azure_ai_mls_own(emulator: Emulator, ml_client: Any, outside_git: Path) -> None:
    """`to_command` is enough: the client takes it as it is."""
    emulator.assets.add_environment("torch")
    one = job(name="one", experiment_name="wire", **DISTRIBUTIONS["pytorch"], inputs={"lr": 0.1})

    ml_client.jobs.create_or_update(one.to_command())

    assert sent(emulator, one) == planned(one)


def by_scope(emulator: Emulator) -> Workspace:
    """The workspace with a credential that gives each service a token of its own.

    For a job under my identity the client asks for one more, and reads in it whom it is for.
    """
    here = emulator.workspace
    claims = base64.urlsafe_b64encode(json.dumps({"aud": "https://ml.azure.com"}).encode()).decode().rstrip("=")

    class ByScope(StaticToken):
        def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            token = super().get_token(*scopes, **options)
            return token._replace(token=f"e30.{claims}.c2ln") if "ml.azure.com" in scopes[0] else token

    return Workspace(here.subscription_id, here.resource_group, here.name, credential=ByScope(here))


@pytest.fixture
def outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that azure-ai-ml finds no git repository in, whose commit it would note in the job."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(one: Job) -> dict[str, Any]:
    """The plan's request, without what only the service knows."""
    return comparable(one.plan().request["properties"])


def sent(emulator: Emulator, one: Job) -> dict[str, Any]:
    """What the emulator received, without ids that only the service knows."""
    body = dict(emulator.job(str(one.name)).body)
    if not isinstance(one.environment, str) or "@" in one.environment:
        assert emulator.assets.by_id(body["environmentId"])
    return comparable(body)


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """A body in which an id of a named thing is its name, as it stands in a job."""
    body = {**body, "computeId": named(body.get("computeId")), "environmentId": named(body.get("environmentId"))}
    body["inputs"] = {name: {**one, "uri": named(one.get("uri"))} for name, one in body["inputs"].items()}
    return body


def named(reference: str | None) -> str | None:
    """`…/data/cifar/versions/1` is `cifar:1`; of what a label or a definition stands for, no more than that."""
    if reference and (found := re.search(r"/workspaces/[^/]+/(\w+)/([^/]+)(?:/versions/([^/]+))?$", reference)):
        kind, name, version = found.groups()
        reference = f"{name}:{version}" if version else name
        if kind == "environments" and name == "CliV2AnonymousEnvironment":
            return None
    return "torch:1" if reference == "torch@latest" else reference
