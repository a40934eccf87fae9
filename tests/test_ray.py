"""Ray jobs here: a cluster over the emulated nodes by real `ray start`, the command on its head, nothing left after."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from owners import the_command_line, the_supervisor
from running import MARK, await_, call, cli, find, living, log_of, run_here

from azml_dist import Job, LaunchError, Local, Ray

SCRIPTS = Path(__file__).parent / "scripts" / "ray"
ASKS = "python -c 'import ray; ray.init(logging_level=40); print({})'"


def ray(command: str, nodes: int = 1, **fields: Any) -> Job:
    variables = {"CUDA_VISIBLE_DEVICES": "", "MINE": "a b"}
    distribution = Ray(**{"include_dashboard": False} | fields)
    return Job(command=command, node_count=nodes, distribution=distribution, environment_variables=variables)


@needs("ray")
def test_actors_on_two_nodes_train_together() -> None:
    run = run_here(ray("python data_parallel.py", 2).with_(code=SCRIPTS), timeout=180)

    printed = log_of(run, 0).splitlines()
    assert run.status == "Completed", printed
    assert "nodes 2 of 2" in printed
    assert "places [('127.0.0.2', '0', 'a b'), ('127.0.0.3', '1', 'a b')]" in printed
    assert "y = 3.00 x + 2.00" in printed


@needs("ray")
def test_two_runs_at_once_have_a_cluster_each() -> None:
    runs = [Local().submit(ray(ASKS.format("len(ray.nodes()), ray.get_runtime_context().gcs_address"))) for _ in "ab"]

    for run in runs:
        run.wait(timeout=180)

    (nodes_a, gcs_a), (nodes_b, gcs_b) = (log_of(run, 0).split() for run in runs)
    assert (nodes_a, nodes_b) == ("1", "1")
    assert gcs_a != gcs_b


@needs("ray", "aiohttp_cors")
def test_ports_and_further_arguments_are_rays() -> None:
    port, dashboard = free_port(), free_port()
    asks = ASKS.format('ray.cluster_resources().get("spare"), ray.cluster_resources().get("left")')
    page = f"python -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:{dashboard}\").status)'"
    job = ray(
        f"echo $RAY_ADDRESS; {asks}; {page}",
        2,
        port=port,
        include_dashboard=True,
        dashboard_port=dashboard,
        head_node_additional_args="""--resources '{"spare": 3}'""",
        worker_node_additional_args="""--resources '{"left": 2}'""",
    )

    run = run_here(job, timeout=180)

    assert log_of(run, 0).splitlines() == [f"127.0.0.2:{port}", "3.0 2.0", "200"]


@needs("ray")
def test_a_command_that_fails_ends_the_run_and_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "ray-fails")

    state = run_here(ray("exit 3"), timeout=120).state()

    assert (state.status, state.failed_rank, state.exit_code) == ("Failed", 0, 3)
    assert [pid for pid in living("ray-fails") if pid != os.getpid()] == []


@needs("ray")
@pytest.mark.parametrize("end", ["cancel", "kill -9 of the supervisor", "kill -9 of the launching process"])
def test_no_process_of_ray_outlives_its_run(end: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo up; sleep 300", name="cluster")

    with cli("run", job, mark="ray") as process:
        assert process.stdout
        assert process.stdout.readline() == "[node0 rank0] up\n"
        if end == "cancel":
            find("cluster").cancel()
        else:
            os.kill((the_supervisor if "supervisor" in end else the_command_line)(process), signal.SIGKILL)
        await_(lambda: [pid for pid in living("ray") if pid != process.pid] == [])
        state = await_(lambda: (s := find("cluster").state()).is_final() and s)

    assert state.status == ("Failed" if "supervisor" in end else "Canceled")


@needs("ray")
def test_a_cluster_that_does_not_start_says_where_its_messages_are() -> None:
    run = run_here(ray("true", head_node_additional_args="--no-such-option"), timeout=120)

    state = run.state()
    log = run.folder / "system_logs" / "ray_node_0.txt"
    assert (state.status, state.error) == ("Failed", "Ray's head node ended with exit code 2")
    assert state.hint == f"Ray's own messages are in {log}"
    assert "--no-such-option" in log.read_text()


def test_with_an_address_no_cluster_is_started() -> None:
    run = run_here(ray("echo $RAY_ADDRESS", 2, address="10.0.0.4:6379"))

    assert log_of(run, 0) == "10.0.0.4:6379\n"
    assert list((run.folder / "system_logs").glob("ray*")) == []


def test_without_ray_the_package_is_named(tmp_path: Path) -> None:
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)

    refused = call("run", write_job(tmp_path, "true"), "--python", python)

    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"error: {python} has no ray, which is needed for Ray jobs",
        "hint: `pip install 'azml-dist[ray]'`, or give the `address` of an existing cluster",
    ]


@needs("ray")
def test_a_port_that_is_in_use_is_one_line_and_a_hint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        refused = call("run", write_job(tmp_path, "true", distribution={"type": "ray", "port": port}))

    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"error: port {port}, which the job sets for Ray's head, is in use on this machine",
        "hint: stop the program that listens there, or leave the port out of the job to use any free one",
    ]


def test_a_launcher_that_does_not_start_ray_jobs_is_refused() -> None:
    with pytest.raises(LaunchError, match="torchrun cannot start Ray jobs"):
        Local(launcher="torchrun").submit(ray("true", address="10.0.0.4:6379").with_(distribution=Ray()))


def write_job(folder: Path, command: str, **fields: Any) -> Path:
    file = folder / "job.yml"
    distribution = {"type": "ray", "include_dashboard": False}
    file.write_text(json.dumps({"command": command, "distribution": distribution} | fields))
    return file


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
