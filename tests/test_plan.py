"""The plan computes every world, offline, and shows it."""

from __future__ import annotations

import json
import subprocess
import sys

from azml_dist import Job, Mpi, PyTorch, Ray, TensorFlow

ENVIRONMENT = "azureml:any@latest"


def tf_config(job: Job, rank: int) -> object:
    return json.loads(job.plan().processes[rank].env["TF_CONFIG"])


def test_importing_the_package_loads_neither_pydantic_nor_any_framework() -> None:
    script = "import azml_dist, sys; print(*{name.split('.')[0] for name in sys.modules})"

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()

    assert "azml_dist" in loaded
    assert not {"pydantic", "azure", "torch", "click", "yaml"} & set(loaded)


def test_ranks_are_in_blocks_over_the_nodes() -> None:
    plan = Job(command="x", node_count=3, distribution=PyTorch(process_count_per_node=2)).plan()

    places = [(p.rank, p.node_rank, p.local_rank, p.env["AZUREML_PROCESS_NAME"]) for p in plan.processes]
    assert places == [
        (0, 0, 0, "rank_0"),
        (1, 0, 1, "rank_1"),
        (2, 1, 0, "rank_2"),
        (3, 1, 1, "rank_3"),
        (4, 2, 0, "rank_4"),
        (5, 2, 1, "rank_5"),
    ]


def test_logs_have_as_many_digits_as_the_largest_rank() -> None:
    plan = Job(command="x", node_count=3, distribution=PyTorch(process_count_per_node=4)).plan()

    assert [plan.processes[r].log for r in (0, 11)] == [
        "user_logs/std_log_process_00.txt",
        "user_logs/std_log_process_11.txt",
    ]


def test_mpi_processes_have_open_mpis_variables_and_none_of_torchs() -> None:
    plan = Job(command="x", node_count=2, distribution=Mpi(process_count_per_node=2)).plan()

    env = plan.processes[3].env
    assert {name: env[name] for name in env if name.startswith("OMPI")} == {
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_NODE_RANK": "1",
    }
    assert env["AZ_BATCH_MASTER_NODE"] == "<address of node 0>:6105"
    assert not env.keys() & {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
    alone = Job(command="x", distribution=Mpi(process_count_per_node=2)).plan().processes[0].env
    assert "AZ_BATCHAI_MPI_MASTER_NODE" in alone
    assert "AZ_BATCH_MASTER_NODE" not in alone


def test_tensorflow_workers_are_one_a_node_and_read_tf_config() -> None:
    job = Job(command="x", node_count=2, distribution=TensorFlow())

    assert tf_config(job, 1) == {
        "cluster": {"worker": ["<address of node 0>:2222", "<address of node 1>:2222"]},
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }
    assert job.plan().processes[1].env["TF_CONFIG"].startswith('{"cluster":{"worker":["<address of node 0>:2222","<')
    assert [p.log for p in job.plan().processes] == [
        "user_logs/std_log_node_00_worker.txt",
        "user_logs/std_log_node_01_worker.txt",
    ]


def test_a_parameter_server_shares_the_first_node_with_its_worker() -> None:
    job = Job(command="x", node_count=2, distribution=TensorFlow(parameter_server_count=1))

    plan = job.plan()
    assert [(p.role, p.node_rank, p.local_rank) for p in plan.processes] == [
        ("worker", 0, 1),
        ("worker", 1, 0),
        ("ps", 0, 0),
    ]
    cluster = {"ps": ["<address of node 0>:2222"], "worker": ["<address of node 0>:2223", "<address of node 1>:2222"]}
    assert tf_config(job, 2) == {"cluster": cluster, "task": {"type": "ps", "index": 0}, "environment": "cloud"}
    assert plan.processes[2].log == "user_logs/std_log_node_00_ps.txt"


def test_ray_runs_the_command_on_the_head_alone() -> None:
    plan = Job(command="x", node_count=3, distribution=Ray()).plan()

    assert [(p.rank, p.role) for p in plan.processes] == [(0, "head")]
    assert [p.message for p in plan.findings if "Ray" in p.message]


def test_a_thousand_nodes_are_an_ordinary_plan() -> None:
    plan = Job(command="x", node_count=1000, distribution=PyTorch(process_count_per_node=8)).plan()

    assert len(plan.processes) == 8000
    assert plan.processes[-1].env["RANK"] == "7999"
    assert [p.rank for p in plan.processes[2:5]] == [2, 3, 4]
    text = str(plan)
    assert text.startswith("1,000 nodes x 8 processes = 8,000  PyTorch\n")
    assert len(text.splitlines()) < 50


def test_a_notebook_shows_the_same_as_the_terminal() -> None:
    job = Job(
        command="python train.py <b>",
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        environment=ENVIRONMENT,
    )

    html = job.plan()._repr_html_()

    assert "2 nodes x 2 processes = 4 · PyTorch" in html
    assert "python train.py &lt;b&gt;" in html
    assert html.count("<tr>") == html.count("</tr>")
    assert "user_logs/std_log_process_3.txt" in html


def test_a_console_without_html_shows_a_line() -> None:
    plan = Job(command="x", name="one", node_count=2, distribution=PyTorch(process_count_per_node=2)).plan()

    assert repr(plan) == "<LaunchPlan one: 2 nodes x 2 processes = 4>"


def test_a_second_look_is_offered_where_a_job_is_allowed_but_doubtful() -> None:
    job = Job(command="x", distribution=Mpi(), environment_variables={"RANK": "1"}, environment=ENVIRONMENT)

    messages = " ".join(str(finding) for finding in job.plan().findings)

    assert "process count of MPI" in messages
    assert "`RANK` is set by Azure ML itself" in messages
    assert Job(command="x", environment=ENVIRONMENT).plan().findings == ()
