"""The outputs of the steps of a pipeline, as `download` brings them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from test_azure_groups import pipeline_there
from test_download import files_in, put

from azml_dist import AzureML, Local, NotFound, Pipeline, submit
from azml_dist.azureml.group import AzureGroup, azure_run
from azml_dist.emulator import Emulator, odd
from azml_dist.emulator.testing import EmulatedWorkspace, emulated_workspace

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]
FOLDER = {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}


@pytest.fixture
def run(emulator: Emulator, azure: AzureML, tmp_path: Path) -> AzureGroup:
    """A pipeline whose step `prep`, and step `one` in `train`, wrote to an output with the same name."""
    found = pipeline_there(emulator, azure, tmp_path)
    for name in ("prep-run", "one-run"):
        emulator.job(name).body["outputs"] = {"data": dict(FOLDER)}
        put(emulator, f"azureml/{name}/data/deep/a.txt", f"of {name}")
    return found


def outputs_in(folder: Path) -> dict[str, str]:
    return {path: text for path, text in files_in(folder).items() if "outputs" in path.split("/")}


def test_a_download_has_the_outputs_of_all_steps_however_deep(run: AzureGroup, tmp_path: Path) -> None:
    done = run.fetch(tmp_path / "got")

    assert outputs_in(tmp_path / "got") == {
        "prep/outputs/data/deep/a.txt": "of prep-run",
        "train/one/outputs/data/deep/a.txt": "of one-run",
    }
    parts = ["prep/outputs/data", "prep/user_logs", "train/one/outputs/data", "train/one/user_logs"]
    assert [part.path for part in done.parts] == [*parts, "train/two/user_logs"]
    assert (done.missing, done.left_out) == ([], [])
    assert run.fetch(tmp_path / "got").kept == [file.path for file in done.files]


def test_only_the_wanted_outputs_of_steps_are_looked_up(emulator: Emulator, run: AzureGroup, tmp_path: Path) -> None:
    run.fetch(tmp_path / "got", only=["train/one/outputs/data/deep"])
    before = emulator.counts()["blobs.list"]
    run.fetch(tmp_path / "logs", only=["prep/user_logs"])

    assert list(files_in(tmp_path / "got")) == ["train/one/outputs/data/deep/a.txt"]
    assert outputs_in(tmp_path / "logs") == {}
    assert emulator.counts()["blobs.list"] == before
    with pytest.raises(NotFound, match="has nothing at `prep/outputs/dta`") as missing:
        run.fetch(tmp_path / "none", only=["prep/outputs/dta"])
    assert missing.value.problems[0].hint == "did you mean `prep/outputs/data`?"


def test_an_output_of_the_pipeline_is_not_downloaded_again_for_its_step(
    emulator: Emulator, run: AzureGroup, tmp_path: Path
) -> None:
    address = "azureml://datastores/workspaceblobstore/paths/azureml/one-run/data/"
    for name in (run.name, "train-run", "one-run"):
        emulator.job(name).body["outputs"] = {"data": {**FOLDER, "uri": address}}

    done = run.fetch(tmp_path / "got", only=["outputs", "train"])
    run.fetch(tmp_path / "one", only=["train/one"])
    run.fetch(tmp_path / "both", only=["outputs/data/deep/a.txt", "train/one/outputs"])

    assert outputs_in(tmp_path / "got") == {"outputs/data/deep/a.txt": "of one-run"}
    again = "was not downloaded again: it is the same as outputs/data"
    assert done.left_out == [f"train/outputs/data {again}", f"train/one/outputs/data {again}"]
    assert outputs_in(tmp_path / "one") == {"train/one/outputs/data/deep/a.txt": "of one-run"}
    assert len(outputs_in(tmp_path / "both")) == 2


def test_an_output_that_a_step_left_empty_or_that_cannot_be_read_is_named(
    emulator: Emulator, run: AzureGroup, tmp_path: Path
) -> None:
    emulator.job("prep-run").body["outputs"]["nothing"] = dict(FOLDER)
    emulator.job("one-run").body["outputs"]["../../up"] = dict(FOLDER)
    emulator.job("one-run").body["outputs"]["there"] = {**FOLDER, "uri": "azureml://datastores/none/paths/x/"}

    done = run.fetch(tmp_path / "in" / "got")

    assert [line.rpartition(": ")[0].partition(": cannot")[0].partition(": nothing")[0] for line in done.missing] == [
        "train/one: output ../../up",
        "prep: output nothing",
        "train/one: output there",
    ]
    assert len(outputs_in(tmp_path / "in" / "got")) == 2
    assert not (tmp_path / "up").exists()


def test_a_step_that_was_reused_has_the_outputs_of_the_earlier_run(
    emulator: Emulator, run: AzureGroup, tmp_path: Path
) -> None:
    reused = {"azureml.isreused": "true", "azureml.reusedrunid": "one-run"}
    emulator.job("prep-run").body["properties"] = reused

    done = run.fetch(tmp_path / "got", only=["prep/outputs"])

    assert outputs_in(tmp_path / "got") == {"prep/outputs/data/deep/a.txt": "of one-run"}
    assert done.missing == []


def test_the_address_of_an_output_that_a_step_registered_comes_from_run_history(
    emulator: Emulator, run: AzureGroup, tmp_path: Path
) -> None:
    where = "azureml://datastores/workspaceblobstore/paths/elsewhere/data/"
    put(emulator, "elsewhere/data/a.txt", "from there")
    asset = run._workspace.history.read("runs/prep-run").object("outputs").object("data").needed("assetId")
    said = {"values": {asset: {"uri": where, "type": "UriFolder"}}}
    emulator.inject(odd(200, json.dumps(said).encode(), heard=False), route="data.resolve")

    run.fetch(tmp_path / "got", only=["prep/outputs"])

    assert outputs_in(tmp_path / "got") == {"prep/outputs/data/a.txt": "from there"}


def test_a_step_has_a_folder_that_nothing_else_has(emulator: Emulator, run: AzureGroup, tmp_path: Path) -> None:
    """A pipeline may have an output with the name of a part of a run, and a step the name of the folder of outputs."""
    parent = emulator.job(run.name)
    parent.body["jobs"] = {"outputs": {}, "train": {}}
    parent.body["outputs"] = {"outputs": dict(FOLDER)}
    emulator.job("prep-run").body["displayName"] = "outputs"
    emulator.job("one-run").body["displayName"] = "Two"
    put(emulator, f"azureml/{run.name}/outputs/data/deep/a.txt", "of the pipeline")

    run.fetch(tmp_path / "got")

    assert outputs_in(tmp_path / "got") == {
        "outputs/outputs/data/deep/a.txt": "of the pipeline",
        "outputs_prep-run/outputs/data/deep/a.txt": "of prep-run",
        "train/Two_one-run/outputs/data/deep/a.txt": "of one-run",
    }


def test_a_label_with_slashes_leads_nowhere(emulator: Emulator, run: AzureGroup, tmp_path: Path) -> None:
    emulator.job("prep-run").body["displayName"] = "../../up"

    run.fetch(tmp_path / "in" / "got", only=["*/outputs"])

    assert files_in(tmp_path / "in") == {"got/.._.._up/outputs/data/deep/a.txt": "of prep-run"}
    assert not (tmp_path / "up").exists()


@pytest.fixture
def here(tmp_path: Path, azure_sdk: None) -> Any:
    with emulated_workspace(tmp_path) as made:
        made.emulator.assets.add_environment("env")
        yield made
    assert made.emulator.problems == []


PIPELINE = """
type: pipeline
outputs:
  report:
settings:
  default_compute: azureml:gpu-cluster
jobs:
  prepare:
    command: echo words > ${{outputs.lines}}/words.txt
    environment: azureml:env:1
    outputs:
      lines:
  count:
    command: wc -l < ${{inputs.lines}}/words.txt > ${{outputs.parts}}/count.txt
    environment: azureml:env:1
    inputs:
      lines: ${{parent.jobs.prepare.outputs.lines}}
    outputs:
      parts: ${{parent.outputs.report}}
"""


def test_a_pipeline_that_ran_is_downloaded_with_what_its_steps_wrote(here: EmulatedWorkspace, tmp_path: Path) -> None:
    from azure.ai.ml import load_job

    (tmp_path / "pipeline.yml").write_text(PIPELINE)
    job = here.submit(load_job(tmp_path / "pipeline.yml"))
    assert job.wait() == "Completed", job.error

    run = azure_run(AzureML(check=False).workspace, job.name)
    done = run.fetch(tmp_path / "got")

    assert outputs_in(tmp_path / "got") == {
        "outputs/report/count.txt": "1\n",
        "prepare/outputs/lines/words.txt": "words\n",
    }
    assert done.missing == []
    assert done.left_out == ["count/outputs/parts was not downloaded again: it is the same as outputs/report"]


def test_a_pipeline_that_ran_here_is_downloaded_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yml").write_text(PIPELINE)

    run = submit(Pipeline.load(tmp_path / "pipeline.yml"), on=Local(root=tmp_path / "runs", launcher="direct")).wait()
    run.download(tmp_path / "got")

    assert outputs_in(tmp_path / "got") == {
        "count/outputs/parts/count.txt": "1\n",
        "prepare/outputs/lines/words.txt": "words\n",
    }
