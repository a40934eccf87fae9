"""The emulator, proven with the real azure-ai-ml client alone: nothing of our package takes part."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS, either_storage
from running import await_, is_gone

from azml_dist.emulator import Cluster, Emulator, StaticToken, answer, delay, reset_after, reset_before

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

FIRST_SUBMIT = ["codes.list", "codes.startPendingUpload", "blobs.head", *["blobs.put"] * 3, "blobs.put.metadata"]
FIRST_SUBMIT += ["codes.put", "jobs.put"]
AGAIN = ["codes.list", "codes.get", "jobs.put"]


storage = either_storage


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Three files, one in a folder."""
    folder = tmp_path / "code"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.sh").write_text("env > outputs/env_$RANK; echo rank $RANK of $WORLD_SIZE\n")
    (folder / "notes.txt").write_text("three files\n")
    (folder / "lib/part.txt").write_text("part\n")
    return folder


@pytest.fixture
def jobs(emulator: Emulator, ml_client: Any) -> Any:
    """The client's job operations, in a workspace that has an environment."""
    emulator.assets.add_environment("torch")
    return ml_client.jobs


def job(
    code: Path | None = None, *, name: str = "one", nodes: int = 1, processes: int | None = None, **fields: Any
) -> Any:
    """A command job of the real client; `processes` on each node, under the pytorch distribution."""
    from azure.ai.ml import PyTorchDistribution, command

    pytorch = None if processes is None else PyTorchDistribution(process_count_per_instance=processes)
    given = {"command": "true", "environment": "torch:1", "compute": "gpu-cluster", **fields}
    return command(name=name, code=code and str(code), instance_count=nodes, distribution=pytorch, **given)


def refused(call: Any, *arguments: Any, **options: Any) -> Any:
    """The error that the client raises of an answer."""
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as caught:
        call(*arguments, **options)
    return caught.value


# Requests


def test_a_first_submit_uploads_each_file_once(emulator: Emulator, jobs: Any, code: Path) -> None:
    jobs.create_or_update(job(code))

    assert sorted(request.route or "" for request in emulator.requests) == sorted(FIRST_SUBMIT)
    sizes = sorted(request.bytes_in for request in emulator.requests if request.route == "blobs.put")
    assert sizes == sorted(path.stat().st_size for path in code.rglob("*") if path.is_file())


def test_the_same_code_is_not_uploaded_again(emulator: Emulator, jobs: Any, code: Path) -> None:
    jobs.create_or_update(job(code))
    emulator.forget()

    jobs.create_or_update(job(code, name="two"))

    assert [request.route for request in emulator.requests] == AGAIN
    assert emulator.account.host not in emulator.bytes_by_host()


def test_the_client_keeps_azures_host_names(emulator: Emulator, jobs: Any, code: Path) -> None:
    jobs.create_or_update(job(code))

    assert {request.host for request in emulator.requests} == {"management.azure.com", emulator.account.host}
    assert all(request.headers["Host"] == request.host for request in emulator.requests)


def test_what_a_job_refers_to_goes_out_as_ids(emulator: Emulator, jobs: Any, code: Path) -> None:
    from azure.ai.ml import Input
    from azure.ai.ml.entities import Environment

    emulator.assets.add_data("cifar", "3", {"a.txt": b"a"})
    inline = Environment(image="mcr.microsoft.com/base", conda_file={"name": "x", "dependencies": ["pip"]})
    inputs = {
        "data": Input(type="uri_folder", path="azureml:cifar:3"),
        "here": Input(type="uri_folder", path=str(code)),
    }

    jobs.create_or_update(job(environment=inline, inputs=inputs, command="ls ${{inputs.data}} ${{inputs.here}}"))

    body = emulator.job("one").body
    assert body["inputs"]["data"]["uri"].endswith("/data/cifar/versions/3")
    assert emulator.assets.by_id(body["environmentId"])["properties"]["image"] == "mcr.microsoft.com/base"
    assert body["inputs"]["here"]["uri"].startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")


@pytest.mark.parametrize(
    "reference", ["torch@latest", "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"]
)
def test_an_environment_may_be_named_by_its_label(emulator: Emulator, jobs: Any, reference: str) -> None:
    assert jobs.create_or_update(job(environment=reference)).name == "one"


def test_the_workspace_and_what_it_has(emulator: Emulator, ml_client: Any) -> None:
    emulator.workspace.computes["small"] = Cluster("STANDARD_D2_V2", max_nodes=2)

    assert ml_client.workspaces.get(emulator.workspace.name).mlflow_tracking_uri.startswith("azureml://eastus.api")
    assert ml_client.datastores.get_default().name == "workspaceblobstore"
    assert ml_client.compute.get("small").size == "STANDARD_D2_V2"
    assert ml_client.compute.get("small").max_instances == 2
    assert {compute.name for compute in ml_client.compute.list()} == {"gpu-cluster", "small"}
    assert {size.name: size.gpus for size in ml_client.compute.list_sizes()}["STANDARD_NC24S_V3"] == 4
    limits = {usage.name["value"]: usage.limit for usage in ml_client.compute.list_usage(location="eastus")}
    assert limits["Standard NDAMSA100v4 Family Cluster Dedicated vCPUs"] == 960
    assert len(list(ml_client.compute.list_nodes("small"))) == 2


def test_environments_and_data_are_registered(emulator: Emulator, ml_client: Any, code: Path) -> None:
    from azure.ai.ml.entities import Data, Environment

    for version in ("1", "2"):
        made = ml_client.environments.create_or_update(Environment(name="mine", image=f"image:{version}"))
        assert made.version == version  # the next number, as no version was asked for
    data = ml_client.data.create_or_update(Data(name="mine", type="uri_folder", path=str(code)))

    assert ml_client.environments.get("mine", label="latest").image == "image:2"
    assert ml_client.data.get("mine", data.version).path.endswith("/code")


def test_jobs_come_in_pages_newest_first(emulator: Emulator, jobs: Any) -> None:
    emulator.jobs.page_size = 2
    for name in ("a", "b", "c", "d", "e"):
        jobs.create_or_update(job(name=name))

    assert [listed.name for listed in jobs.list()] == ["e", "d", "c", "b", "a"]
    assert emulator.counts()["jobs.list"] == 3


def test_an_archived_job_is_not_listed(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job(tags={"kept": "yes"}))

    jobs.archive("one")

    assert list(jobs.list()) == []
    assert jobs.get("one").tags == {"kept": "yes"}


# Running what was received


def test_two_nodes_with_two_processes_see_their_world(emulator: Emulator, jobs: Any, code: Path) -> None:
    command = "bash train.sh && cat lib/part.txt && echo lr ${{inputs.lr}}"
    jobs.create_or_update(
        job(code, nodes=2, processes=2, command=command, inputs={"lr": 0.1}, environment_variables={"MINE": "a b"})
    )

    run = emulator.run("one")

    assert (run.job.status, run.exit_codes) == ("Completed", {0: 0, 1: 0, 2: 0, 3: 0})
    for rank in range(4):
        env = environment_of(emulator, rank)
        placed = {name: env[name] for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "AZUREML_NODE_COUNT")}
        assert placed == {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
            "NODE_RANK": str(rank // 2),
            "WORLD_SIZE": "4",
            "AZUREML_NODE_COUNT": "2",
        }
        assert env["MASTER_ADDR"] == "127.0.0.1"
        assert (env["AZUREML_PARAMETER_lr"], env["MINE"], env["AZUREML_RUN_ID"]) == ("0.1", "a b", "one")
        assert not {"LOCAL_WORLD_SIZE", "GROUP_RANK", "HTTPS_PROXY"} & env.keys()
        assert run.job.log(f"user_logs/std_log_process_{rank}.txt") == f"rank {rank} of 4\npart\nlr 0.1\n"
    assert len({environment_of(emulator, rank)["PWD"] for rank in range(4)}) == 2


def environment_of(emulator: Emulator, rank: int) -> dict[str, str]:
    """What a process of job `one` wrote to its outputs."""
    written = emulator.account.get("azureml", f"ExperimentRun/dcid.one/outputs/env_{rank}").decode()
    return dict(line.split("=", 1) for line in written.splitlines())


def test_a_single_process_has_no_rank(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job(command="echo rank=${RANK-none} $AZUREML_PROCESS_NAME"))

    assert emulator.run("one").job.log("user_logs/std_log.txt") == "rank=none main\n"


def test_inputs_are_downloaded_and_outputs_come_back(emulator: Emulator, jobs: Any, code: Path, tmp_path: Path) -> None:
    from azure.ai.ml import Input, Output

    emulator.assets.add_data("numbers", "1", {"deep/a.txt": b"42\n"})
    emulator.run_what_is_submitted()
    jobs.create_or_update(
        job(
            command="cat ${{inputs.d}}/deep/a.txt ${{inputs.f}} > ${{outputs.model}}/got; echo x > outputs/x",
            inputs={
                "d": Input(type="uri_folder", path="azureml:numbers:1"),
                "f": Input(type="uri_file", path=str(code / "notes.txt")),
            },
            outputs={"model": Output(type="uri_folder")},
        )
    )
    emulator.job("one").wait_for("Completed")

    jobs.download("one", download_path=tmp_path / "got", all=True)

    store = emulator.workspace.datastores["workspaceblobstore"].container
    assert emulator.account.get(store, "azureml/one/model/got") == b"42\nthree files\n"
    assert (tmp_path / "got/artifacts/outputs/x").read_text() == "x\n"


@pytest.mark.parametrize(
    ("sent", "answered"), [("uri_folder", "UriFolder"), ("uri_file", "UriFile"), ("mltable", "MLTable")]
)
def test_run_history_spells_types_of_outputs_its_own_way(
    emulator: Emulator, jobs: Any, sent: str, answered: str
) -> None:
    """By which azure-ai-ml 1.35.1 and 1.35.2 know no output again, and download none."""
    from azure.ai.ml import Output

    jobs.create_or_update(job(command="true", outputs={"model": Output(type=sent)}))
    emulator.job("one").advance("Completed")

    (output,) = jobs._runs_operations.get_run_data("one").run_metadata.outputs.values()

    assert output.type == answered


def test_the_first_failure_takes_the_other_nodes_along(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job(nodes=2, processes=2, command="[ $RANK = 2 ] && { echo broken; exit 3; }; sleep 600"))

    run = emulator.run("one", timeout=30)

    assert (run.job.status, run.failed_rank, run.exit_codes[2]) == ("Failed", 2, 3)
    assert {run.exit_codes[rank] for rank in (0, 1, 3)} == {-9}
    message = (run.job.error or {})["error"]["message"]
    assert "status code 3. Please check log file 'user_logs/std_log_process_2.txt'" in message
    assert message.endswith("Error: broken")


def test_a_log_grows_while_its_process_runs(emulator: Emulator, jobs: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    jobs.create_or_update(job(processes=2, command=f"echo one; until [ -e {go} ]; do sleep 0.02; done; echo two"))
    run = emulator.start("one")
    log = "user_logs/std_log_process_1.txt"

    await_(lambda: log in run.job.log_names() and run.job.log(log))  # a log is made, and then written to
    assert (run.job.status, run.job.log(log)) == ("Running", "one\n")

    go.touch()
    assert run.wait(timeout=30) == "Completed"
    assert run.job.log(log) == "one\ntwo\n"


def test_nothing_that_a_job_started_outlives_it(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job(command="setsid sleep 600 & echo $!"))

    run = emulator.run("one", timeout=30)

    assert run.job.status == "Completed"
    await_(lambda: is_gone(int(run.job.log("user_logs/std_log.txt"))))


def test_a_real_cancel_ends_the_processes(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job(processes=2, command="echo up; sleep 600"))
    run = emulator.start("one")
    run.job.wait_for("Running")

    jobs.begin_cancel("one").result(timeout=30)

    assert run.wait(timeout=30) == "Canceled"
    assert jobs.get("one").status == "Canceled"
    assert all(code < 0 for code in run.exit_codes.values())


def test_a_timeout_cancels(emulator: Emulator, jobs: Any) -> None:
    from azure.ai.ml.entities import CommandJobLimits

    timed = job(command="sleep 600")
    timed.limits = CommandJobLimits(timeout=1)
    jobs.create_or_update(timed)

    assert emulator.run("one", timeout=30).job.status == "Canceled"


def test_mpi_processes_know_their_world_from_open_mpis_variables(emulator: Emulator, jobs: Any) -> None:
    from azure.ai.ml import MpiDistribution

    several = job(
        nodes=2, command='echo "${!OMPI_COMM_WORLD_@}"; echo $OMPI_COMM_WORLD_RANK ${RANK-} $AZ_BATCH_HOST_LIST'
    )
    several.distribution = MpiDistribution(process_count_per_instance=2)
    jobs.create_or_update(several)

    ran = emulator.run("one").job

    names, values = ran.log("user_logs/std_log_process_3.txt").splitlines()
    assert names.split() == [
        f"OMPI_COMM_WORLD_{name}" for name in ("LOCAL_RANK", "LOCAL_SIZE", "NODE_RANK", "RANK", "SIZE")
    ]
    assert values == "3 127.0.0.1,127.0.0.2"


def test_a_job_is_done_with_its_workers_though_parameter_servers_never_end(emulator: Emulator, jobs: Any) -> None:
    from azure.ai.ml import TensorFlowDistribution

    served = "while [ $AZUREML_CR_NODE_RANK = 0 ] && [ ! -e served ]; do sleep 0.05; done"
    script = (
        f"""case $TF_CONFIG in *'"type":"ps"'*) echo serving; touch served; sleep 600;; esac; {served}; echo done"""
    )
    tasks = job(nodes=2, command=script)
    tasks.distribution = TensorFlowDistribution(worker_count=2, parameter_server_count=1)
    jobs.create_or_update(tasks)

    run = emulator.run("one", timeout=30)

    assert (run.job.status, run.failed_rank) == ("Completed", None)
    assert (run.exit_codes[0], run.exit_codes[1], run.exit_codes[2]) == (0, 0, -9)
    names = [f"user_logs/std_log_node_{task}.txt" for task in ("00_ps", "00_worker", "01_worker")]
    assert [name for name in run.job.log_names() if name.startswith("user_logs")] == names
    assert run.job.log(names[2]) == "done\n"


def test_a_parameter_server_that_fails_fails_the_job(emulator: Emulator, jobs: Any) -> None:
    from azure.ai.ml import TensorFlowDistribution

    tasks = job(command="""case $TF_CONFIG in *'"type":"ps"'*) exit 3;; esac; sleep 600""")
    tasks.distribution = TensorFlowDistribution(worker_count=1, parameter_server_count=1)
    jobs.create_or_update(tasks)

    run = emulator.run("one", timeout=30)

    assert (run.job.status, run.failed_rank) == ("Failed", 1)


def test_a_job_whose_nodes_are_taken_away_starts_again(emulator: Emulator, jobs: Any, tmp_path: Path) -> None:
    """Under its name, in fresh working directories, with what is in its outputs, and with logs of their own."""
    from azure.ai.ml import Output

    kept = "${{outputs.kept}}"
    again = f"echo again with $(ls {kept}) and $(ls); exit 0"
    command = f"[ -e {kept}/$RANK ] && {{ {again}; }}; touch {kept}/$RANK lost; echo first; sleep 600"
    jobs.create_or_update(job(processes=2, command=command, outputs={"kept": Output(type="uri_folder")}))
    run = emulator.start("one")
    first = [f"user_logs/std_log_process_{rank}.txt" for rank in (0, 1)]
    await_(lambda: set(first) <= set(run.job.log_names()))

    run.preempt()

    assert run.wait(timeout=30) == "Completed"
    assert (run.attempt, run.exit_codes) == (1, {0: 0, 1: 0})
    assert [run.job.log(log) for log in first] == ["first\n"] * 2
    for rank in (0, 1):
        log = run.job.log(f"user_logs/retry_001/std_log_process_{rank}.txt")
        assert log == "again with 0 1 and azureml-logs logs outputs user_logs\n"
    assert [status for status, _ in run.job.past].count("Running") == 2


def test_what_cannot_be_run_fails_and_says_so(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job(nodes=2))

    job_of_two = emulator.run("one").job

    assert "several nodes without a distribution" in (job_of_two.error or {})["error"]["message"]


# A job's life under the test's control, and its logs


def test_the_client_streams_a_running_job(emulator: Emulator, jobs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.play("Queued", "Running", "Running", "Completed")
    jobs.create_or_update(job(processes=2))
    emulator.job("one").write_log("user_logs/std_log_process_0.txt", "epoch 1\nepoch 2\n")

    jobs.stream("one")

    shown = capsys.readouterr().out
    assert "Streaming user_logs/std_log_process_0.txt" in shown
    assert "epoch 1\nepoch 2\n" in shown


def test_log_addresses_work_by_sas_and_by_range(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())
    one = emulator.job("one")
    one.write_log("user_logs/std_log.txt", "0123456789")
    url = jobs._runs_operations.get_run_details("one").log_files["user_logs/std_log.txt"]

    assert fetch(url) == (200, b"0123456789")
    assert fetch(url, Range="bytes=4-6") == (206, b"456")
    one.write_log("user_logs/std_log.txt", "ab")
    assert fetch(url, Range="bytes=10-") == (206, b"ab")
    assert fetch(url, Range="bytes=12-")[0] == 416
    assert fetch(re.sub("sig=[^&]*", "sig=AAAA", url))[0] == 403


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    """What anyone gets who has the address."""
    import requests

    got = requests.get(url, headers=headers, timeout=10)
    return got.status_code, got.content


@pytest.mark.parametrize("secrets", ["key", "sas", "none"])
def test_datastores_answer_with_key_sas_or_nothing(
    emulator: Emulator, jobs: Any, code: Path, tmp_path: Path, secrets: str
) -> None:
    """Whichever it is, the client uploads and downloads with it."""
    from azure.ai.ml import Input

    for store in emulator.workspace.datastores.values():
        store.secrets = secrets
    emulator.play("Completed")
    jobs.create_or_update(job(command="ls ${{inputs.here}}", inputs={"here": Input(type="uri_folder", path=str(code))}))
    emulator.job("one").write_log("user_logs/std_log.txt", "done\n")

    jobs.download("one", download_path=tmp_path / "got")

    assert (tmp_path / "got/artifacts/user_logs/std_log.txt").read_text() == "done\n"
    assert emulator.counts()["datastores.listSecrets"] == (0 if secrets == "none" else 2)
    schemes = {
        request.headers.get("Authorization", "query").split()[0]
        for request in emulator.requests
        if request.host == emulator.account.host
    }
    assert schemes == {"key": {"SharedKey"}, "sas": {"query"}, "none": {"Bearer"}}[secrets]


def test_the_test_moves_a_job(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())
    one = emulator.job("one")
    for status in ("Queued", "Preparing", "Running", "Finalizing"):
        one.advance(status)
        assert jobs.get("one").status == status

    one.fail("Execution failed.")

    assert jobs._runs_operations.get_run_details("one").error.error.message == "Execution failed."
    one.advance("Running")
    assert one.status == "Failed"  # an end is an end


def test_cancelling_a_job_that_waits(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())

    jobs.begin_cancel("one").result(timeout=30)

    assert [status for status, _ in emulator.job("one").past] == ["NotStarted", "CancelRequested", "Canceled"]


def test_metrics_as_mlflow_asks_for_them(emulator: Emulator, jobs: Any) -> None:
    import requests

    jobs.create_or_update(job())
    for step, loss in enumerate((0.5, 0.25)):
        emulator.job("one").log_metric("loss", loss, step)
    base = f"{emulator.workspace.api_url}/mlflow/v1.0{emulator.workspace.arm_id}/api/2.0/mlflow"
    token = {"Authorization": f"Bearer {emulator.workspace.token}"}

    run = requests.get(f"{base}/runs/get", params={"run_id": "one"}, headers=token, timeout=10).json()
    history = {"run_id": "one", "metric_key": "loss"}
    points = requests.get(f"{base}/metrics/get-history", params=history, headers=token, timeout=10).json()

    assert [metric["value"] for metric in run["run"]["data"]["metrics"]] == [0.25]
    assert [point["value"] for point in points["metrics"]] == [0.5, 0.25]


# Refusals


def test_the_same_job_again_is_one_job(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())

    assert jobs.create_or_update(job()).name == "one"
    assert [request.status for request in emulator.requests] == [201, 200]


def test_a_changed_job_under_its_name_is_refused(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())

    error = refused(jobs.create_or_update, job(command="false"))

    assert (error.status_code, error.error.code) == (400, "UserError")
    assert "A job with this name already exists" in error.message
    assert "existing job's Command cannot be changed" in error.message
    assert error.response.headers["x-ms-request-id"]
    assert emulator.job("one").body["command"] == "true"


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"compute": "nope"}, 400, "Unknown compute target 'nope'."),
        ({"environment": "nope:1"}, 404, "Environment asset nope:1 not found"),
        ({"environment": "azureml://registries/azureml/environments/nope/versions/1"}, 404, "Environment nope not"),
        ({"inputs": {"d": "azureml:nope:1"}, "command": "ls ${{inputs.d}}"}, 404, "Data asset nope:1 not found"),
    ],
)
def test_what_is_not_there_is_refused(
    emulator: Emulator, jobs: Any, fields: dict[str, Any], status: int, said: str
) -> None:
    from azure.ai.ml import Input

    if "inputs" in fields:
        fields = {**fields, "inputs": {"d": Input(type="uri_folder", path=fields["inputs"]["d"])}}

    error = refused(jobs.create_or_update, job(**fields))

    assert error.status_code == status
    assert said in error.message
    assert not emulator.jobs.jobs


def test_unknown_jobs_computes_and_workspaces(emulator: Emulator, jobs: Any, ml_client: Any) -> None:
    from azure.ai.ml import MLClient

    here = emulator.workspace
    other = MLClient(StaticToken(here), here.subscription_id, here.resource_group, "nowhere")

    assert refused(jobs.get, "nope").message.startswith("(UserError) Job nope not found.")
    assert refused(ml_client.compute.get, "nope").error.code == "ResourceNotFound"
    assert "'Microsoft.MachineLearningServices/workspaces/nowhere'" in refused(other.jobs.get, "nope").message


def test_a_missing_or_expired_token_is_refused(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())
    jobs.get("one")
    emulator.workspace.token = "another"

    error = refused(jobs.get, "one")

    assert (error.status_code, error.error.code) == (401, "ExpiredAuthenticationToken")
    url = f"https://management.azure.com{emulator.workspace.arm_id}/jobs/one"
    assert fetch(url)[0] == 401


def test_permission_can_be_taken_away(emulator: Emulator, jobs: Any) -> None:
    emulator.workspace.forbidden = {"jobs.put"}

    error = refused(jobs.create_or_update, job())

    assert (error.status_code, error.error.code) == (403, "AuthorizationFailed")
    assert "to perform action 'Microsoft.MachineLearningServices/workspaces/jobs/write'" in error.message


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"extra": 1}, "properties.extra is no field of CommandJob"),
        ({"resources": {"instances": 2}}, "properties.resources.instances is no field of JobResourceConfiguration"),
        ({"resources": {"instanceCount": "2"}}, "properties.resources.instanceCount is '2'"),
        ({"limits": {"jobLimitsType": "Command", "timeout": "1 h"}}, "properties.limits.timeout is '1 h'"),
        ({"distribution": {"distributionType": "Ray", "ports": 1}}, "properties.distribution.ports is no field of Ray"),
    ],
)
def test_a_body_of_another_shape_is_refused_and_fails_the_test(
    emulator: Emulator, azure_sdk: None, body: dict[str, Any], wrong: str
) -> None:
    import requests

    url = f"https://management.azure.com{emulator.workspace.arm_id}/jobs/one"
    properties = {"jobType": "Command", "command": "true", "environmentId": "x", **body}
    token = {"Authorization": f"Bearer {emulator.workspace.token}"}

    got = requests.put(url, json={"properties": properties}, headers=token, timeout=10)

    assert (got.status_code, got.json()["error"]["code"]) == (400, "InvalidWireBody")
    assert wrong in got.json()["error"]["message"]
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        emulator.assert_clean()
    emulator.problems.clear()


# Faults


@pytest.mark.parametrize("fault", [answer(429, retry_after=0), answer(500), answer(503), reset_before(), reset_after()])
def test_the_client_gets_over_one_fault(emulator: Emulator, jobs: Any, fault: Any) -> None:
    emulator.inject(fault, route="jobs.put")

    jobs.create_or_update(job())

    first, second = emulator.requests
    assert first.fault == str(fault)
    after = "after" in str(fault)  # then the job was there already when the client asked again
    assert second.status == (200 if after else 201)
    assert first.status == (None if "reset" in str(fault) else fault.status)
    assert list(emulator.jobs.jobs) == ["one"]


def test_a_fault_that_stays_reaches_the_caller(emulator: Emulator, jobs: Any) -> None:
    emulator.inject(answer(403, code="Quota"), route="jobs.*", times=None)

    assert refused(jobs.create_or_update, job()).error.code == "Quota"
    assert refused(jobs.get, "one").error.code == "Quota"


def test_a_fault_at_an_index(emulator: Emulator, jobs: Any) -> None:
    emulator.inject(answer(429, retry_after=0), at=1)

    jobs.create_or_update(job(environment="torch@latest"))

    assert [(request.route, request.status) for request in emulator.requests] == [
        ("environments.list", 200),
        ("jobs.put", 429),
        ("jobs.put", 201),
    ]


def test_a_delayed_answer_comes_late_and_is_the_same(emulator: Emulator, jobs: Any) -> None:
    emulator.inject(delay(0.3), host="management.*")
    began = time.monotonic()

    jobs.create_or_update(job())

    assert time.monotonic() - began >= 0.3
    assert [request.status for request in emulator.requests] == [201]


def test_storage_refuses_in_its_own_words(emulator: Emulator, jobs: Any) -> None:
    jobs.create_or_update(job())
    emulator.job("one").write_log("user_logs/std_log.txt", "text")
    url = emulator.job("one").log_urls()["user_logs/std_log.txt"]
    emulator.inject(answer(403), host="*.blob.*")

    status, body = fetch(url)

    assert status == 403
    assert b"<Code>AuthenticationFailed</Code>" in body
    assert fetch(url) == (200, b"text")


# What the emulator does not know


def test_an_unknown_host_is_refused_and_recorded(emulator: Emulator) -> None:
    assert fetch("https://example.com/some/where")[0] == 501

    with pytest.raises(AssertionError, match=r"GET example\.com/some/where"):
        emulator.assert_clean()
    emulator.problems.clear()


@pytest.fixture
def pytest_run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs pytest, in a process of its own, on a test that asks for what the emulator does not know."""
    (tmp_path / "test_it.py").write_text(
        "import requests\n"
        "def test_it(emulator):\n"
        "    assert requests.get('https://management.azure.com/nothing', timeout=10).status_code == 501\n"
    )

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "emulated", "-p", "no:cacheprovider", "-ra"]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "CI": "", **env}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)

    return run


def test_an_unknown_route_fails_the_test_that_asked(azurite: Any, pytest_run: Any) -> None:
    done = pytest_run()

    assert done.returncode == 1
    assert "GET management.azure.com/nothing [no such route]" in done.stdout


def test_without_node_tests_are_skipped_but_not_in_ci(pytest_run: Any, tmp_path: Path) -> None:
    without = {"PATH": str(tmp_path), "AZML_EMULATOR_STORAGE": "azurite"}
    skipped, failed = pytest_run(**without), pytest_run(**without, CI="true")

    assert (skipped.returncode, failed.returncode) == (0, 1)
    for done in (skipped, failed):
        assert "`node` is not on PATH: install Node.js 20 or later" in done.stdout


def test_nothing_is_imported_from_azure_before_a_test_asks(tmp_path: Path) -> None:
    told = "import sys, emulated; print([name for name in sys.modules if name in ('azure', 'trustme')])"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    shown = subprocess.run([sys.executable, "-c", told], env=env, capture_output=True, text=True, timeout=60)

    assert shown.stdout == "[]\n"


def test_an_emulator_leaves_no_thread_behind(storage: Any, authority: Any, tmp_path: Path) -> None:
    import requests

    before = set(threading.enumerate())
    with Emulator(storage, authority) as emulator, requests.Session() as session:
        environ = emulator.environ(tmp_path / "ca.pem")
        session.trust_env = False
        session.proxies, session.verify = {"https": environ["HTTPS_PROXY"]}, environ["SSL_CERT_FILE"]
        assert session.get(f"{emulator.workspace.api_url}/discovery", timeout=10).status_code == 200

    assert set(threading.enumerate()) == before


def test_a_login_by_environment_variables(emulator: Emulator, azure_sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands that run in a process of their own and find their credential themselves."""
    from azure.identity import DefaultAzureCredential

    monkeypatch.setenv("AZURE_TENANT_ID", emulator.workspace.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", "someone")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "secret")

    with DefaultAzureCredential() as credential:
        assert credential.get_token("https://management.azure.com/.default").token == emulator.workspace.token
