"""TensorFlow jobs here: a process for each task, with `TF_CONFIG` in Azure's shape, and real training under it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs
from owners import the_supervisor
from running import await_, call, cli, find, living, log_of, run_here

from azml_dist import Job, JobError, LaunchError, Local, Output, RunFailed, TensorFlow

SCRIPTS = Path(__file__).parent / "scripts" / "tensorflow"
AS_PS = """[[ $TF_CONFIG == *'"type":"ps"'* ]]"""
UP = "${{outputs.up}}"
SERVES = f"{AS_PS} && {{ touch {UP}/ps; sleep 300; }}; until [ -e {UP}/ps ]; do sleep 0.02; done"
"""The parameter server serves, and workers go on once it does: it is stopped when they have ended."""


def tensorflow(command: str, nodes: int = 2, servers: int = 0, **fields: object) -> Job:
    return Job(
        command=command,
        node_count=nodes,
        distribution=TensorFlow(parameter_server_count=servers),
        environment_variables={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        **fields,  # type: ignore[arg-type]
    )


@needs("tensorflow")
@pytest.mark.parametrize("workers", [2, 3])
def test_multi_worker_mirrored_strategy_trains(workers: int) -> None:
    run = run_here(tensorflow("python mirrored.py", workers, code=SCRIPTS), timeout=180)

    assert run.status == "Completed", "\n".join(run.logs())
    for rank in range(workers):
        assert f"worker {rank} of {workers}: y = 3.00 x + 2.00" in log_of(run, rank)


@needs("tensorflow")
def test_a_worker_that_dies_of_the_empty_list_of_servers_is_told_so() -> None:
    strategy = "python -c 'import tensorflow as tf; tf.distribute.MultiWorkerMirroredStrategy()'"

    run = run_here(tensorflow(strategy), timeout=180)

    assert run.state().processes[run.state().failed_rank or 0].signal == signal.SIGSEGV, "\n".join(run.logs())
    assert '`"ps":[]`' in (run.state().hint or "")


def test_a_worker_that_dies_beside_a_parameter_server_is_told_nothing_of_an_empty_list() -> None:
    run = run_here(tensorflow(AS_PS + " && sleep 300; kill -SEGV $$", 1, servers=1))

    assert run.state().processes[0].signal == signal.SIGSEGV
    assert "ps" not in (run.state().hint or "")


@needs("tensorflow")
def test_parameter_server_strategy_trains_with_worker_0_as_its_chief() -> None:
    run = run_here(tensorflow("python parameter_server.py", 3, servers=1, code=SCRIPTS), timeout=180)

    assert run.status == "Completed", "\n".join(run.logs())
    assert "2 workers; /job:ps/replica:0/task:0/device:CPU:0 holds y = 3.00 x + 2.00" in log_of(run, 0)
    assert "parameter server 0 serves" in log_of(run, 3)


def test_tasks_have_free_ports_of_their_own_in_azures_shape() -> None:
    run = run_here(tensorflow(f"echo $TF_CONFIG; {SERVES}", 2, servers=1, outputs={"up": Output()}))

    texts = [log_of(run, rank).strip() for rank in range(3)]
    configs = [json.loads(text) for text in texts]
    cluster = configs[0]["cluster"]
    ports = [address.rpartition(":")[2] for task in cluster.values() for address in task]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
        {"type": "ps", "index": 0},
    ]
    assert all(config == configs[0] | {"task": config["task"]} for config in configs)
    assert (list(cluster), configs[0]["environment"]) == (["ps", "worker"], "cloud")
    assert len({int(port) for port in ports}) == 3
    assert texts[0] == json.dumps(configs[0], separators=(",", ":"))


def test_logs_have_azures_names() -> None:
    run = run_here(tensorflow(AS_PS + " && sleep 300; true", 2, servers=2))

    assert sorted(file.name for file in (run.folder / "user_logs").iterdir()) == [
        "std_log_node_00_ps.txt",
        "std_log_node_00_worker.txt",
        "std_log_node_01_ps.txt",
        "std_log_node_01_worker.txt",
    ]


def test_a_parameter_server_is_stopped_when_the_workers_have_ended_and_is_no_failure() -> None:
    run = run_here(tensorflow(AS_PS + " && sleep 300; exit 0", 2, servers=1))

    server = run.state().processes[2]
    assert (run.status, run.state().exit_code, run.state().failed_rank) == ("Completed", 0, None)
    assert (server.role, server.stopped, server.signal) == ("ps", True, signal.SIGTERM)


def test_tasks_that_wait_for_a_chief_until_the_timeout_are_told_that_there_is_none() -> None:
    state = run_here(tensorflow("sleep 300", 2, servers=1, timeout=1)).state()

    assert (state.status, state.error) == ("Canceled", "it ran for longer than its timeout of 1 s")
    assert "has no `chief`" in (state.hint or "")


def test_tasks_of_which_a_worker_has_ended_are_not() -> None:
    ends = f"{AS_PS} || [ $AZUREML_CR_NODE_RANK = 0 ] || exit 0; sleep 300"

    assert run_here(tensorflow(ends, 2, servers=1, timeout=1)).state().hint is None


def test_a_parameter_server_that_fails_by_itself_ends_the_run() -> None:
    run = run_here(tensorflow(AS_PS + " && exit 7; sleep 300", 2, servers=1))

    assert (run.status, run.state().failed_rank, run.state().exit_code) == ("Failed", 2, 7)


def test_a_worker_that_fails_ends_all_tasks_and_is_named() -> None:
    run = Local().submit(tensorflow("""[[ $TF_CONFIG == *'worker","index":1'* ]] && exit 5; sleep 300""", 2, servers=1))

    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=60)

    assert (failed.value.failed_rank, failed.value.exit_codes) == (1, {0: None, 1: 5, 2: None})


def test_the_label_of_a_parameter_server_says_so() -> None:
    says = f"{AS_PS} && echo serves; {SERVES}; echo works"

    run = run_here(tensorflow(says, 2, servers=1, outputs={"up": Output()}))

    assert sorted(run.logs()) == ["[node0 rank0] works", "[node0 rank2 ps] serves", "[node1 rank1] works"]


def test_status_shows_roles() -> None:
    run = run_here(tensorflow(AS_PS + " && sleep 300; true", 1, servers=1))

    shown = call("status", run.name).stdout.splitlines()

    assert shown[2].split() == ["rank", "node", "role", "ended", "log"]
    assert [line.split()[2] for line in shown[3:5]] == ["worker", "ps"]


def test_nothing_outlives_a_run_whose_supervisor_is_killed(tmp_path: Path) -> None:
    job = tmp_path / "job.yml"
    distribution = {"type": "tensorflow", "parameter_server_count": 1}
    resources = {"instance_count": 2}
    job.write_text(
        json.dumps(
            {"name": "tasks", "command": "echo up; sleep 300", "distribution": distribution, "resources": resources}
        )
    )

    with cli("run", job, mark="tensorflow") as process:
        assert process.stdout
        for _ in range(3):
            assert "up" in process.stdout.readline()
        os.kill(the_supervisor(process), signal.SIGKILL)
        await_(lambda: not living("tensorflow"))
        assert await_(lambda: (s := find("tasks").state()).is_final() and s).status == "Failed"


def test_a_tf_config_in_the_job_is_refused() -> None:
    with pytest.raises(JobError, match=r"environment_variables.TF_CONFIG: Azure ML sets `TF_CONFIG` for each"):
        Job(command="x", distribution=TensorFlow(), environment_variables={"TF_CONFIG": "{}"})


def test_a_tf_config_in_the_callers_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")

    with pytest.raises(LaunchError, match="TF_CONFIG is set in your environment") as refused:
        Local().submit(tensorflow("true"))

    assert "unset TF_CONFIG" in (refused.value.problems[0].hint or "")


def test_a_framework_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)

    run = run_here(tensorflow("python -c 'import tensorflow'", 1), python=str(tmp_path / "bare" / "bin" / "python"))

    assert run.state().error == "rank 0 failed with exit code 1"
    assert run.state().hint == (
        "`pip install 'azml-dist[tensorflow]'`: "
        "local runs use the packages of this machine, not those of the job's environment"
    )


@pytest.mark.parametrize(
    ("distribution", "said"),
    [
        ("worker_count: 3", "3 workers on 2 nodes"),
        ("parameter_server_count: 3", "3 parameter servers on 2 nodes"),
    ],
)
def test_counts_that_do_not_match_the_nodes_are_one_line_and_a_hint(
    distribution: str, said: str, tmp_path: Path
) -> None:
    job = tmp_path / "job.yml"
    job.write_text(
        f"command: x\nresources: {{instance_count: 2}}\ndistribution: {{type: tensorflow, {distribution}}}\n"
    )

    refused = call("run", job)

    error, hint = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in error
    assert hint.startswith("hint: ")
