"""Jobs that run by themselves in the emulated workspace: queue, knobs, sweeps, pipelines; and the fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import await_

from azml_dist.emulator import Cluster, EmulatedWorkspace, Runtime, emulated_workspace
from azml_dist.emulator.knobs import KnobError

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(one) for one in SDK_WARNINGS)]


@pytest.fixture
def here(tmp_path: Path, azure_sdk: None) -> Any:
    """A workspace as the fixture `azureml` makes it, which must know everything that it is asked."""
    with emulated_workspace(tmp_path) as made:
        yield made
    assert made.emulator.problems == []


def job(text: str = "true", *, name: str, nodes: int = 1, processes: int | None = None, **fields: Any) -> Any:
    """A command job of azure-ai-ml."""
    from azure.ai.ml import PyTorchDistribution, command
    from azure.ai.ml.entities import Environment

    given = {"environment": Environment(image="any"), "compute": "gpu-cluster", **fields}
    torch = processes and PyTorchDistribution(process_count_per_instance=processes)
    return command(name=name, command=text, instance_count=nodes, distribution=torch or None, **given)


def states(submitted: Any) -> list[str]:
    return [status for status, _ in submitted.past]


def test_a_submitted_job_runs_by_itself(here: EmulatedWorkspace) -> None:
    submitted = here.submit(job("echo rank $RANK of $WORLD_SIZE", name="one", nodes=2, processes=2))

    assert submitted.wait() == "Completed"
    assert states(submitted) == ["NotStarted", "Preparing", "Running", "Finalizing", "Completed"]
    assert submitted.log("user_logs/std_log_process_3.txt") == "rank 3 of 4\n"
    assert here.jobs.get("one").status == "Completed"


def test_jobs_wait_for_nodes_and_the_service_says_why(here: EmulatedWorkspace, tmp_path: Path) -> None:
    here.workspace.computes["gpu-cluster"] = Cluster(max_nodes=3)
    go = tmp_path / "go"
    first = here.submit(job(f"until [ -e {go} ]; do sleep 0.02; done", name="first", nodes=2, processes=1))
    first.wait_for("Running")
    second = here.submit(job(name="second", nodes=2, processes=1))
    third = here.submit(job(name="third"))

    assert third.wait() == "Completed"  # it fits beside the first
    assert second.status == "Queued"
    assert second.queueing
    assert second.queueing["code"] == "ComputeTargetBusy"
    assert here.workspace.computes["gpu-cluster"].runs == {"first": 2}
    go.touch()
    assert second.wait() == "Completed"
    assert second.queueing is None


def test_whoever_looks_around_in_the_folder_of_a_job_is_not_ended_with_it(
    here: EmulatedWorkspace, tmp_path: Path
) -> None:
    """What a shell starts there has the folder as its PWD, as the job's own processes have."""
    told, go = tmp_path / "told", tmp_path / "go"
    running = here.submit(job(f"pwd > {told}; until [ -e {go} ]; do sleep 0.02; done", name="one"))
    folder = await_(lambda: told.exists() and told.read_text().strip())
    env = {"PATH": os.environ["PATH"], "PWD": folder, "OLDPWD": folder}
    with subprocess.Popen(["sleep", "300"], cwd=folder, env=env) as guest:
        try:
            go.touch()
            assert running.wait() == "Completed"
            assert guest.poll() is None
        finally:
            guest.kill()


def test_a_job_that_never_fits_waits_until_it_is_cancelled(here: EmulatedWorkspace) -> None:
    here.knobs.set("quota", {"Total Cluster Dedicated Regional vCPUs": 96})
    here.workspace.computes["gpu-cluster"] = Cluster(max_nodes=2, idle=0)
    large, costly = (here.submit(job(name=f"of{n}", nodes=n, processes=1)) for n in (3, 2))

    assert large.queueing
    assert large.queueing["code"] == "ClusterTooSmall"
    assert costly.queueing
    assert "Total Cluster Dedicated Regional vCPUs has 96 vCPUs left, and 2 nodes more need 192" in str(costly.queueing)
    here.jobs.begin_cancel("of3").result(timeout=30)
    assert large.status == "Canceled"


def test_knobs_of_a_job_are_those_at_its_submission(here: EmulatedWorkspace) -> None:
    here.knobs.queue_seconds, here.knobs.queue_reason = 0.3, "3 runs are ahead."
    began = time.monotonic()
    queued = here.submit(job(name="queued"))
    assert queued.queueing
    assert queued.queueing["message"] == "3 runs are ahead."
    here.knobs.queue_seconds, here.knobs.image_failure = 0, "no such package"
    built = here.submit(job(name="built"))

    assert queued.wait() == "Completed"
    assert time.monotonic() - began > 0.3
    assert states(queued)[:2] == ["NotStarted", "Queued"]
    assert built.wait() == "Failed"
    assert "Image build failed" in str(built.error)
    assert built.log("azureml-logs/20_image_build_log.txt") == "no such package\n"


def test_a_rank_can_be_made_to_fail_and_nodes_be_taken_away(here: EmulatedWorkspace) -> None:
    here.knobs.fail_rank = 1
    failing = here.submit(job("sleep 600", name="failing", processes=2))
    assert failing.wait() == "Failed"
    assert "std_log_process_1.txt" in str(failing.error)

    here.knobs.fail_rank, here.knobs.preempt_after = None, 0.2
    here.knobs.job_env = {"MINE": "yes"}
    waits = 'echo $MINE; [ -e "$AZURE_ML_OUTPUT_model/seen" ] || { touch "$AZURE_ML_OUTPUT_model/seen"; sleep 600; }'
    from azure.ai.ml import Output

    preempted = here.submit(job(waits, name="preempted", outputs={"model": Output(type="uri_folder")}))
    assert preempted.wait() == "Completed"
    assert states(preempted).count("Running") == 2
    assert preempted.log("user_logs/retry_001/std_log.txt") == "yes\n"


def test_tokens_expire_and_clocks_differ(here: EmulatedWorkspace) -> None:
    import requests
    from azure.identity import EnvironmentCredential

    here.knobs.token_seconds, here.knobs.clock_skew, here.knobs.sas_seconds = 1.0, 3600.0, -1.0
    url = f"https://management.azure.com{here.workspace.arm_id}/jobs"
    with EnvironmentCredential() as credential:
        token = credential.get_token("https://management.azure.com/.default").token

    def status() -> requests.Response:
        return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    first = status()
    assert first.status_code == 200
    assert time.mktime(time.strptime(first.headers["Date"], "%a, %d %b %Y %H:%M:%S %Z")) - time.time() > 3000
    await_(lambda: status().status_code != 200)
    assert status().json()["error"]["code"] == "ExpiredAuthenticationToken"
    here.workspace.account.put("azureml", "x", b"x")
    sas = here.workspace.account.sas("azureml", "x")
    assert requests.get(here.workspace.account.url("azureml", "x", sas=sas), timeout=30).status_code == 403


@needs("mlflow")
def test_a_sweep_runs_its_trials_and_names_the_best(here: EmulatedWorkspace) -> None:
    from azure.ai.ml.sweep import Choice

    log = """python -c 'import mlflow; mlflow.log_metric("loss", ${{inputs.rate}})'"""
    trial = job(log, name="trial", inputs={"rate": 0.5})(rate=Choice([0.2, 0.1]))
    sweep = trial.sweep(sampling_algorithm="grid", primary_metric="loss", goal="minimize")
    sweep.name = "sweep"
    sweep.set_limits(max_total_trials=4, max_concurrent_trials=2)

    submitted = here.submit(sweep)

    assert submitted.wait() == "Completed", submitted.error
    assert [child.name for child in here.jobs.list(parent_job_name="sweep")] == ["sweep_0", "sweep_1"]
    assert here.jobs.get("sweep").properties["best_child_run_id"] == "sweep_1"
    assert [one.name for one in here.jobs.list()] == ["sweep"]


def test_a_pipeline_hands_on_what_its_steps_made(here: EmulatedWorkspace, tmp_path: Path) -> None:
    from azure.ai.ml import Input, Output, dsl

    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("from outside\n")
    folder = Input(type="uri_folder")
    made = job(
        "cat ${{inputs.data}}/a.txt > ${{outputs.made}}/b.txt; echo ${{inputs.text}} >> ${{outputs.made}}/b.txt",
        name="first",
        inputs={"data": folder, "text": "a default"},
        outputs={"made": Output(type="uri_folder")},
    )
    shown = job("cat ${{inputs.made}}/b.txt; exit ${{inputs.code}}", name="second", inputs={"made": folder, "code": 0})

    @dsl.pipeline(compute="gpu-cluster")
    def both(data, code=0):  # type: ignore[no-untyped-def] # azure-ai-ml reads annotations
        first = made(data=data)
        shown(made=first.outputs.made, code=code)
        return {"result": first.outputs.made}

    good, bad = both(data=Input(path=str(tmp_path / "data"))), both(data=Input(path=str(tmp_path / "data")), code=3)
    good.name, bad.name = "good", "bad"

    submitted, failing = here.submit(good), here.submit(bad)

    assert submitted.wait() == "Completed", submitted.error
    children = {child.name: child.status for child in here.jobs.list(parent_job_name="good")}
    assert children == {"good_first": "Completed", "good_second": "Completed"}
    assert here.emulator.job("good_second").log("user_logs/std_log.txt") == "from outside\na default\n"
    store = here.workspace.datastores["workspaceblobstore"].container
    assert here.workspace.account.exists(store, "azureml/good/result/b.txt")
    assert failing.wait() == "Failed"
    assert "Step second has failed." in str(failing.error)


TESTS = """
import pytest
from azure.ai.ml import command
from azure.ai.ml.entities import Environment

def hello(name):
    return command(name=name, command="echo hello", environment=Environment(image="any"), compute="gpu-cluster")

@pytest.mark.parametrize("number", range(2))
def test_one(azureml, number):
    job = azureml.submit(hello("one"))
    assert job.wait() == "Completed"
    assert [one.name for one in azureml.jobs.list()] == ["one"]

def test_shared(azureml_session):
    assert azureml_session.submit(hello("two")).wait() == "Completed"

def test_both(azureml, azureml_session):
    raise AssertionError

def test_unknown(azureml):
    import requests
    requests.get("https://management.azure.com/what/is/this")
"""


@needs("xdist")
def test_the_fixtures_work_in_parallel_and_say_what_the_emulator_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    plugin = ["-p", "azml_dist.emulator.pytest_plugin", "-p", "no:azml_dist", "-p", "no:cacheprovider"]

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", *plugin, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert "4 passed" in ran.stdout, ran.stdout
    assert "a test uses `azureml` or `azureml_session`" in ran.stdout
    assert "GET management.azure.com/what/is/this [no such route]" in ran.stdout


def test_the_plugin_imports_nothing_before_a_test_asks() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import azml_dist.emulator.pytest_plugin\n"
        "heavy = {'azure', 'trustme', 'requests', 'http.server', 'ssl', 'click', 'yaml', 'pydantic'}\n"
        "print(heavy & (set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_what_jobs_find_can_be_otherwise(here: EmulatedWorkspace) -> None:
    told = here.knobs.told()
    for name, value in told.items():  # as a folder with the state keeps them
        here.knobs.set(name, value)
    assert here.knobs.told() == told

    here.knobs.set("runtime", '{"batch_port": 7, "unset": ["X"], "rank_digits": 3}')

    assert here.workspace.runtime == Runtime(batch_port=7, unset=frozenset(["X"]), rank_digits=3)
    assert here.knobs.told()["runtime"]["unset"] == ["X"]
    for wrong in ('{"nothing": 1}', '{"batch_port": "x"}', '{"empty_ps": 1}', '{"batch_port": true}', "7"):
        with pytest.raises(KnobError, match="runtime cannot be"):
            here.knobs.set("runtime", wrong)
