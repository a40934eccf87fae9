"""What Azure Monitor says about a run: shown where it names the run, and nothing where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from emulated import SDK_WARNINGS
from running import call
from submitting import job, logged_in

from azml_dist import AzureML
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator.service import Emulator
from azml_dist.plan import Service

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

FIGURES = {
    "0": {"CpuUtilizationPercentage": 40.0, "CpuMemoryUtilizationMegabytes": 12000.0},
    "0/0": {"GpuUtilizationPercentage": 95.0, "GpuMemoryUtilizationPercentage": 38.0},
    "0/1": {"GpuUtilizationPercentage": 90.0, "GpuMemoryUtilizationPercentage": 20.0},
}


@pytest.fixture
def run(emulator: Emulator, azure: AzureML) -> AzureRun:
    run = azure.submit(job())
    emulator.job(run.name).advance("Running")
    return run


def test_figures_of_nodes_and_gpus_are_shown_with_what_is_odd(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.figures[run.name] = FIGURES

    system = run.system()

    assert system
    assert system.summary() == "cpu 40 % of a node, memory up to 12.0 GB, gpu 90 to 95 % busy, gpu memory up to 38 %"
    assert [one.who for one in system.used] == ["node 0", "node 0 GPU 0", "node 0 GPU 1"]
    assert system.findings == ["GPU memory at 38 %: a larger batch may fit"]
    asked = next(request for request in emulator.requests if request.route == "monitor.metrics").query
    assert asked["$filter"] == f"RunId eq '{run.name}' and InstanceId eq '*'"
    assert (asked["interval"], asked["aggregation"], asked["api-version"]) == ("PT1M", "Average", "2023-10-01")


def test_an_idle_gpu_is_named(emulator: Emulator, run: AzureRun) -> None:
    idle = {"GpuUtilizationPercentage": 0.0, "GpuMemoryUtilizationPercentage": 1.0}
    emulator.workspace.figures[run.name] = {**FIGURES, "0/1": idle}
    system = run.system()
    emulator.workspace.figures[run.name] = {"0/0": idle, "0/1": idle}
    unused = run.system()

    assert system
    assert system.findings == ["node 0 GPU 1 was idle: 0 % busy"]
    assert unused
    assert unused.findings == ["no GPU of the run was used"]


@pytest.mark.parametrize("why", ["no figures", "no permission", "another run", "not begun", "other dimensions"])
def test_what_the_workspace_does_not_say_is_not_known(
    emulator: Emulator, azure: AzureML, run: AzureRun, why: str
) -> None:
    emulator.workspace.figures["another"] = FIGURES
    if why == "no permission":
        emulator.workspace.figures[run.name] = FIGURES
        emulator.workspace.forbidden = {"monitor.metrics"}
    if why == "not begun":
        run = azure.submit(job())
        emulator.workspace.figures[run.name] = FIGURES
    if why == "other dimensions":  # answers as if the filter had not been there
        emulator.workspace.figures[""] = FIGURES
        run = AzureRun(azure.workspace, run.name, Service(run_dimension="JobId"))

    assert run.system() is None


@pytest.mark.slow
def test_status_and_metrics_show_them(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.workspace.figures[run.name] = FIGURES
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)

    status = call("status", run.name).stdout
    figures = json.loads(call("metrics", run.name, "--system", "--json").stdout)

    assert "used  cpu 40 % of a node" in status
    assert "note  GPU memory at 38 %" in status
    [one] = figures["runs"]
    assert one["system"]["source"] == "from Azure Monitor, for each node"
    assert [len(used["cpu"]["values"]) for used in one["system"]["used"] if "cpu" in used] == [10]
