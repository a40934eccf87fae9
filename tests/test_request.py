"""The request of a plan against azure-ai-ml's own, field by field, for the same YAML."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from azml_dist.job import Environment, Input, Job, Mpi, PyTorch
from azml_dist.request import request_body

with warnings.catch_warnings():  # what azure-ai-ml's own dependencies warn about when they are imported
    warnings.simplefilter("ignore")
    from azure.ai.ml import load_job
    from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object
    from azure.ai.ml.operations._job_operations import SdkJSONEncoder

pytestmark = pytest.mark.filterwarnings("ignore")
BASE = """
name: case
experiment_name: cases
command: python train.py
environment: azureml:env:1
"""


def sent_by_azure(path: Path) -> dict[str, Any]:
    """What the client would put on the wire before it asks the service for ids."""
    logging.disable(logging.CRITICAL)
    try:
        job = load_job(path)
        if not isinstance(job.environment, str):
            job.environment = "an id"  # which the service gives it before the body is made
        body = to_rest_job_object(job)
    finally:
        logging.disable(logging.NOTSET)
    sent: dict[str, Any] = json.loads(json.dumps(body, cls=SdkJSONEncoder, exclude_readonly=True))
    return {"properties": sent["properties"]}


def both(tmp_path: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (tmp_path / "src").mkdir(exist_ok=True)
    (tmp_path / "src" / "train.py").write_text("print(1)\n")
    (tmp_path / "data.csv").write_text("1,2\n")
    path = tmp_path / "job.yml"
    path.write_text(text)
    return request_body(Job.load(path)), sent_by_azure(path)


CASES = {
    "the least": "",
    "pytorch": "distribution: {type: pytorch}",
    "pytorch with its count": "distribution: {type: PyTorch, process_count_per_instance: 8}",
    "pytorch with a count of one": "distribution: {type: pytorch, process_count_per_instance: 1}",
    "mpi": "distribution: {type: mpi}",
    "mpi with its count": "distribution: {type: MPI, process_count_per_instance: 4}",
    "tensorflow": "distribution: {type: tensorflow}",
    "tensorflow with tasks": "resources: {instance_count: 3}\n"
    "distribution: {type: TensorFlow, worker_count: 3, parameter_server_count: 1}",
    "ray": "distribution: {type: ray}",
    "ray with everything": "distribution: {type: ray, port: 6379, address: '10.0.0.1', include_dashboard: true,"
    " dashboard_port: 8265, head_node_additional_args: --a, worker_node_additional_args: --b}",
    "ray without its dashboard": "distribution: {type: ray, include_dashboard: false}",
    "one node, said": "resources: {instance_count: 1}",
    "resources": "resources: {instance_count: 1, instance_type: Standard_ND96, shm_size: 16g, docker_args: --ipc=host,"
    " max_instance_count: 4, locations: [westus, eastus]}",
    "docker arguments in a list": "resources: {docker_args: [--ipc=host, '-v /a:/b'], max_instance_count: 4,"
    " locations: [westus], instance_type: x}",
    "resource properties": "resources: {properties: {Singularity: {a: {b: 1}}, ITP: {c: d}, other: [1]}}",
    "local compute": "compute: local",
    "local compute with resources": "compute: local\nresources: {instance_type: x}",
    "a compute": "compute: azureml:gpu-cluster",
    "a compute without its prefix": "compute: gpu-cluster",
    "a compute by its id": "compute: azureml:/subscriptions/s/resourceGroups/g/providers/p/workspaces/w/computes/c",
    "a second": "limits: {timeout: 1}",
    "a minute": "limits: {timeout: 60}",
    "an hour": "limits: {timeout: 3600}",
    "a day": "limits: {timeout: 86400}",
    "a day and a bit": "limits: {timeout: 90061}",
    "a week": "limits: {timeout: 604800}",
    "a month": "limits: {timeout: 2592000}",
    "a queue's tier": "queue_settings: {job_tier: Spot}",
    "no tier": "queue_settings: {job_tier: 'null'}",
    "a queue's priority": "queue_settings: {priority: low}",
    "a queue": "queue_settings: {job_tier: premium, priority: High}",
    "a managed identity": "identity: {type: managed, client_id: abc}",
    "a managed identity by object": "identity: {type: managed_identity, object_id: abc}",
    "my identity": "identity: {type: user_identity}",
    "my identity in capitals": "identity: {type: UserIdentity}",
    "the workspace's token": "identity: {type: AMLToken}",
    "services": """
services:
  lab: {type: jupyter_lab}
  code: {type: vs_code, nodes: all}
  board: {type: tensor_board, log_dir: outputs/tb, port: 6006}
  shell: {type: ssh, ssh_public_keys: ssh-rsa AAA, properties: {z: y}}
""",
    "texts": "display_name: a name\ndescription: |\n  two\n  lines\nparent_job_name: parent",
    "tags": "tags: {a: '1', b: null}\nproperties: {c: d}",
    "variables": "environment_variables: {A: text, B: '', C: '1.50', D: 'true'}",
    "literals": """
inputs:
  a: yes
  b: 0.00001
  c: '007'
  d: 0x10
  e: -3
  f: '.inf'
  g: 1_000
  h: '1e-5'
  i: 'True'
  j: 1e5
  k: ''
  l: 1.0
  m: 010
  n: {value: 3}
  o: "a 'b' \\"c\\""
""",
    "data": """
inputs:
  a: {path: azureml:cifar:1}
  b: {path: azureml:cifar@latest, mode: download}
  c: {path: azureml://datastores/w/paths/a/, type: mltable, mode: eval_mount}
  d: {type: mltable, path: azureml:t:1, mode: eval_download}
  e: {type: custom_model, path: azureml:m:3, mode: direct}
  f: {type: mlflow_model, path: azureml:m:3}
  g: {type: triton_model, path: azureml:m:3, mode: ro_mount}
  h: {type: uri_file, path: https://x.y/z.csv}
  i: {type: uri_folder, path: wasbs://c@a.blob.core.windows.net/z}
  j: {type: uri_folder, path: abfss://c@a.dfs.core.windows.net/z, mode: ro_mount}
  k: {type: URI_FILE, path: azureml:cifar:1, mode: RO_MOUNT}
  l: {type: uri_file, path: azureml://registries/r/data/d/versions/1}
""",
    "outputs": """
outputs:
  a:
  b: {}
  c: {type: uri_file, mode: rw_mount}
  d: {type: mltable, mode: direct}
  e: {type: custom_model, mode: upload, name: model}
  f: {type: mlflow_model, name: model, version: 4}
  g: {type: triton_model}
  h: {path: 'azureml://datastores/w/paths/o/${{name}}', mode: mount}
""",
    "an environment's label": "environment: azureml:env@latest",
    "an environment of a registry": "environment: azureml://registries/azureml/environments/e/labels/latest",
    "a version of a registry": "environment: azureml://registries/azureml/environments/e/versions/3",
    "an environment by name": "environment: azureml:env",
    "a folded command": "command: >-\n  python train.py\n  --a ${{inputs.a}}\n  --o ${{outputs.o}}\n"
    "inputs: {a: 3}\noutputs: {o: }",
    "spaces in an expression": "command: python t.py ${{ inputs.a }}\ninputs: {a: 3}",
    "a code asset": "code: azureml:code:1",
}


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
def test_the_request_is_azure_ai_mls_own(tmp_path: Path, fields: str) -> None:
    first_words = {line.split(":")[0] for line in fields.splitlines()}
    base = "\n".join(line for line in BASE.splitlines() if line.split(":")[0] not in first_words)

    ours, theirs = both(tmp_path, f"{base}\n{fields}\n")

    assert ours == theirs


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
