"""Models from the outputs of runs: registered by the job, or afterwards, from Azure ML or from this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import call, pytorch
from submitting import job, logged_in

from azml_dist import AzureML, DistError, JobError, Local, NotFound, Output, SubmitError
from azml_dist.azureml.models import register_folder
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator.service import Emulator

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture
def run(emulator: Emulator, azure: AzureML) -> AzureRun:
    """A run with a model, that has completed."""
    run = azure.submit(job(outputs={"model": Output(type="mlflow_model"), "data": Output()}))
    emulator.job(run.name).advance("Completed")
    return run


def test_an_output_with_the_name_of_a_model_is_one_when_the_job_completes(emulator: Emulator, azure: AzureML) -> None:
    output = Output(type="mlflow_model", name="digits", version="7")
    run = azure.submit(job(outputs={"model": output, "next": Output(type="custom_model", name="digits")}))
    assert ("models", "digits") not in emulator.assets.assets

    emulator.job(run.name).advance("Completed")

    made = emulator.assets.assets["models", "digits"]
    assert {version: one["properties"]["modelType"] for version, one in made.items()} == {
        "7": "mlflow_model",
        "8": "custom_model",
    }
    assert made["7"]["properties"]["modelUri"] == run.outputs["model"]


def test_an_output_of_a_run_is_registered_where_it_is_as_the_next_version(
    emulator: Emulator, run: AzureRun, ml_client: Any
) -> None:
    first = run.register("digits", output="model")
    second = run.register("digits", output="artifacts", inside="outputs/best/")

    assert (first.reference, second.reference) == ("azureml:digits:1", "azureml:digits:2")
    assert first.path == f"azureml://jobs/{run.name}/outputs/model"
    assert second.path == f"azureml://jobs/{run.name}/outputs/artifacts/paths/outputs/best"
    assert (first.type, second.type) == ("mlflow_model", "custom_model")
    found = ml_client.models.get("digits", version="1")
    assert (found.path, found.type) == (first.path, "mlflow_model")


def test_the_request_is_what_azure_ai_ml_sends(emulator: Emulator, run: AzureRun, ml_client: Any) -> None:
    from azure.ai.ml.entities import Model

    path = f"azureml://jobs/{run.name}/outputs/model"

    run.register("ours", output="model", version="3")
    ml_client.models.create_or_update(Model(name="theirs", version="3", path=path, type="mlflow_model"))

    puts = [request for request in emulator.requests if request.route == "models.put"]
    ours, theirs = ({k: v for k, v in put.json()["properties"].items() if v} for put in puts)
    assert ours == theirs


@pytest.mark.parametrize("name", ["my model", "", "a/b", "grüße", "m" * 256])
def test_what_cannot_be_the_name_of_a_model_is_refused_before_any_request(
    emulator: Emulator, run: AzureRun, azure: AzureML, tmp_path: Path, name: str
) -> None:
    before = len(emulator.requests)
    with pytest.raises(JobError, match="cannot be the name of a model"):
        run.register(name, output="model")
    with pytest.raises(JobError, match="cannot be the name of a model"):
        register_folder(azure.workspace, tmp_path, name)
    assert len(emulator.requests) == before


def test_a_version_stays_what_it_is(run: AzureRun) -> None:
    made = run.register("digits", output="model", version="1")

    assert run.register("digits", output="model", version="1") == made
    with pytest.raises(SubmitError, match="model digits already has a version 1, from "):
        run.register("digits", output="data", version="1")


def test_only_outputs_that_there_are_of_runs_that_completed_are_registered(
    emulator: Emulator, azure: AzureML, run: AzureRun
) -> None:
    with pytest.raises(NotFound, match="has no output 'modle'") as wrong:
        run.register("digits", output="modle")
    running = azure.submit(job(outputs={"model": Output()}))
    with pytest.raises(SubmitError, match="is NotStarted: only a run that completed has a model"):
        running.register("digits", output="model")

    assert wrong.value.problems[0].hint == "did you mean `model`?"
    assert ("models", "digits") not in emulator.assets.assets


@pytest.mark.slow
def test_the_command_registers_a_run_on_azure_ml_and_uploads_one_from_here(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    command = "echo flavors > ${{outputs.model}}/MLmodel"
    here = Local(root=tmp_path / "runs", launcher="direct").submit(
        pytorch(command, code=None, outputs={"model": Output(), "other": Output()})
    )
    with pytest.raises(DistError, match="ran on this machine") as refused:
        here.register("digits", output="model")
    here.wait()

    there = call("register", run.name, "model", "--as", "digits", "--json")
    uploaded = call("register", here.name, "model", "--as", "digits", "--root", tmp_path / "runs")
    wrong = call("register", here.name, "model", "--as", "digits", "--path", "../other", "--root", tmp_path / "runs")

    assert json.loads(there.stdout)["reference"] == "azureml:digits:1"
    assert uploaded.stdout == "azureml:digits:2\n", uploaded.stderr
    made = emulator.assets.version("models", "digits", "2")["properties"]
    assert made["modelType"] == "mlflow_model"
    assert made["modelUri"].startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")
    assert (wrong.returncode, "has no '../other'" in wrong.stderr) == (2, True)
    assert f"azml-dist register {here.name} model --as digits" in str(refused.value.problems[0].hint)
