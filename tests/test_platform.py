"""What the platform gives a process beside its place in the world: other nodes, folders, the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import lines_of, log_of, run_here

from azml_dist import Input, Job, Mpi, Output, PyTorch, TensorFlow
from azml_dist.plan import Service

WORKSPACE = {"subscription_id": "sub-1", "resource_group": "group-1", "workspace_name": "ws-1"}
WHICH_WORKSPACE = "echo $AZUREML_ARM_SUBSCRIPTION $AZUREML_ARM_RESOURCEGROUP $AZUREML_ARM_WORKSPACE_NAME"


def environment(job: Job, rank: int = 0) -> Mapping[str, str]:
    return job.plan().processes[rank].env


# Which variables there are


@pytest.mark.parametrize("distribution", [PyTorch(), Mpi(), TensorFlow()])
def test_several_nodes_know_the_first_of_them_and_all(distribution: PyTorch | Mpi | TensorFlow) -> None:
    env = environment(Job(command="x", node_count=2, distribution=distribution), rank=1)

    assert env["AZ_BATCH_MASTER_NODE"] == "<address of node 0>:6000"
    assert env["AZ_BATCHAI_JOB_MASTER_NODE_IP"] == env["AZ_BATCHAI_MPI_MASTER_NODE"] == "<address of node 0>"
    assert env["AZ_BATCH_HOST_LIST"] == "<address of node 0>,<address of node 1>"
    assert env["AZ_BATCH_NODE_LIST"].split(";").index(env["AZ_BATCHAI_NODE_IP"]) == 1
    assert env["AZ_BATCH_IS_CURRENT_NODE_MASTER"] == env["AZ_BATCHAI_IS_CURRENT_NODE_MASTER"] == "false"
    assert json.loads(env["AZUREML_CR_DISTRIBUTED_CONFIG"])["host_list"][0] == "<address of node 0>"
    assert env["AZ_BATCHAI_TASK_INDEX"] == "1"


def test_one_node_has_no_list_of_nodes_and_is_its_own_master() -> None:
    alone, of_mpi = environment(Job(command="x")), environment(Job(command="x", distribution=Mpi()))

    assert not {*alone, *of_mpi} & {"AZ_BATCH_MASTER_NODE", "AZ_BATCH_HOST_LIST", "AZ_BATCH_NODE_LIST"}
    assert alone["AZ_BATCHAI_MPI_MASTER_NODE"] == "localhost"
    assert of_mpi["AZ_BATCHAI_MPI_MASTER_NODE"] == alone["AZ_BATCHAI_JOB_MASTER_NODE_IP"] == "<address of node 0>"


def test_the_index_of_a_task_counts_the_processes_of_the_run() -> None:
    ranks = Job(command="x", node_count=2, distribution=PyTorch(process_count_per_node=2)).plan().processes
    tasks = Job(command="x", node_count=2, distribution=TensorFlow(parameter_server_count=1)).plan().processes

    assert [process.env["AZ_BATCHAI_TASK_INDEX"] for process in ranks] == ["0", "1", "2", "3"]
    assert [(task.role, task.env["AZ_BATCHAI_TASK_INDEX"]) for task in tasks] == [
        ("worker", "0"),
        ("worker", "1"),
        ("ps", "0"),
    ]


def test_the_compute_is_described_as_far_as_it_is_known() -> None:
    def compute(job: Job) -> dict[str, object]:
        found: dict[str, object] = json.loads(environment(job)["AZUREML_CR_COMPUTE_CONTEXT"])
        return found

    sized, named = (
        compute(Job(command="x", instance_type="Standard_NC80adis_H100_v5")),
        compute(Job(command="x", compute="azureml:c")),
    )

    assert (sized["vm_size"], sized["gpu_count"], sized["cluster_name"]) == ("Standard_NC80adis_H100_v5", 2, None)
    assert (named["vm_size"], named["gpu_count"], named["cluster_name"]) == (None, "<GPUs of a node>", "c")


def test_a_thousand_nodes_do_not_list_a_thousand_unknown_addresses() -> None:
    env = environment(Job(command="x", node_count=1000, distribution=PyTorch()))

    assert env["AZ_BATCH_HOST_LIST"] == "<address of node 0>,<addresses of nodes 1 to 998>,<address of node 999>"


def test_the_port_of_batch_is_an_assumption_that_can_be_changed() -> None:
    plan = replace(Job(command="x", node_count=2, distribution=PyTorch()).plan(), service=Service(batch_master_port=7))

    assert plan.processes[0].env["AZ_BATCH_MASTER_NODE"] == "<address of node 0>:7"


def test_what_a_probe_did_not_find_is_not_set_unless_the_job_sets_it() -> None:
    unset = ("PyTorch/several/AZ_BATCH_NODE_LIST", "PyTorch/one/AZ_BATCH_MASTER_NODE", "Mpi/several/NODE_RANK")

    def names(**fields: Any) -> set[str]:
        plan = Job(command="x", distribution=PyTorch(), **fields).plan()
        before, after = (set(each.processes[0].env) for each in (plan, replace(plan, service=Service(unset=unset))))
        assert after <= before
        return before - after

    assert names(node_count=2) == {"AZ_BATCH_NODE_LIST"}
    assert names(node_count=1) <= {"AZ_BATCH_MASTER_NODE"}
    assert names(node_count=2, environment_variables={"AZ_BATCH_NODE_LIST": "mine"}) == set()


# What they are here


def test_a_node_finds_itself_in_the_list_of_all() -> None:
    find = "import os; e = os.environ; print(e['AZ_BATCH_NODE_LIST'].split(';').index(e['AZ_BATCHAI_NODE_IP']))"
    run = run_here(Job(command=["python", "-c", find], node_count=3, distribution=PyTorch()), launcher="direct")

    assert [log_of(run, rank).strip() for rank in range(3)] == ["0", "1", "2"]


def test_what_is_written_to_user_logs_is_kept_like_outputs() -> None:
    """Public scripts leave marks of the node there: without the folder, `touch` fails."""
    mark = "touch user_logs/installed_$NODE_RANK && touch azureml-logs/same && ls $AZUREML_CR_HT_CAP_user_logs_PATH"
    run = run_here(Job(command=mark, node_count=2, distribution=PyTorch()), launcher="direct")

    kept = sorted(str(path.relative_to(run.folder)) for path in (run.folder / "artifacts").rglob("*") if path.is_file())
    assert (run.status, log_of(run, 1).strip()) == ("Completed", "installed_1")
    assert kept == [
        "artifacts/azureml-logs/same",
        "artifacts/node_1/azureml-logs/same",
        "artifacts/user_logs/installed_0",
        "artifacts/user_logs/installed_1",
    ]


def test_code_with_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "user_logs").write_text("a file of the code\n")

    assert lines_of(run_here(Job(command="cat user_logs", code=str(tmp_path)))) == ["[node0 rank0] a file of the code"]


def test_inputs_are_found_by_their_names_on_every_node(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    (data / "a.txt").write_text("text")
    look = "cd $AZUREML_CR_DATA_CAPABILITY_PATH; cat INPUT_in/a.txt; touch out/$NODE_RANK"
    job = Job(
        command=look,
        node_count=2,
        distribution=PyTorch(),
        inputs={"in": Input(path=str(data))},
        outputs={"out": Output()},
    )
    run = run_here(job, launcher="direct")

    assert [log_of(run, rank) for rank in (0, 1)] == ["text", "text"]
    assert sorted(path.name for path in run.outputs["out"].iterdir()) == ["0", "1"]


def test_a_script_gets_the_configured_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(WORKSPACE))

    assert lines_of(run_here(Job(command=WHICH_WORKSPACE))) == ["[node0 rank0] sub-1 group-1 ws-1"]


def test_a_script_gets_the_workspace_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SUBSCRIPTION", "s"), ("RESOURCEGROUP", "g"), ("WORKSPACE_NAME", "w")):
        monkeypatch.setenv(f"AZUREML_ARM_{name}", value)

    assert lines_of(run_here(Job(command=WHICH_WORKSPACE))) == ["[node0 rank0] s g w"]


def test_without_a_workspace_its_ids_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert lines_of(run_here(Job(command=WHICH_WORKSPACE))) == [
        "[node0 rank0] <subscription:no-workspace-is-configured> <resource-group:no-workspace-is-configured>"
        " <workspace:no-workspace-is-configured>"
    ]


def test_a_further_attempt_is_counted(tmp_path: Path) -> None:
    run = run_here(Job(command="[[ $AZUREML_CR_COMPUTE_CONTEXT == *'\"run_attempt_count\":2,'* ]]"), retries=1)

    assert (run.status, [attempt.status for attempt in run.state().earlier]) == ("Completed", ["Failed"])


# Variables that nothing sets, or renders


def codes(job: Job) -> list[tuple[str, str]]:
    return [(one.code, one.message.split("`")[1]) for one in job.plan().findings if "variable" in one.code]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("torchrun --master_addr $AZ_BATCHAI_JOB_MASTER_NODE_IP --node_rank $AZUREML_CR_NODE_RANK t.py", []),
        ("echo $AZ_BATCH_MASTER_ADDR", ["$AZ_BATCH_MASTER_ADDR"]),
        ("echo ${AZUREML_RANK}", ["$AZUREML_RANK"]),
        ("""bash -c 'echo "$AZ_BATCH_RANK"' """, ["$AZ_BATCH_RANK"]),
        ("echo ${AZ_BATCH_RANK:?is needed}", ["$AZ_BATCH_RANK"]),
        ("echo $AZURE_ML_OUTPUT_modle", ["$AZURE_ML_OUTPUT_modle"]),
        ("echo $AZURE_ML_OUTPUT_model $AZUREML_PARAMETER_lr", []),
        ("echo ${AZ_BATCH_RANK:-0} ${AZ_BATCH_OTHER-0}", []),
        ("export AZUREML_MINE=1; echo $AZUREML_MINE", []),
        ("""[ -z "$AZ_BATCH_RANK" ] && AZ=0 || echo $AZ_BATCH_RANK""", []),
        ("echo $AZUREML_OWN", []),
        ("echo $MY_AZ_BATCH $AZURE_CLIENT_ID $AZ", []),
    ],
)
def test_a_variable_of_the_platform_that_no_run_sets_is_pointed_out(command: str, named: list[str]) -> None:
    job = Job(
        command=command,
        node_count=2,
        distribution=PyTorch(),
        inputs={"lr": 1},
        outputs={"model": Output()},
        environment_variables={"AZUREML_OWN": "1"},
    )

    assert codes(job) == [("unset-variable", name) for name in named]


def test_the_nearest_name_is_the_hint() -> None:
    [found] = [one for one in Job(command="echo $AZUREML_NODE_RANK").plan().findings if one.code == "unset-variable"]

    assert (found.level, found.where, found.hint) == ("warning", "command", "did you mean `$AZUREML_CR_NODE_RANK`?")


def test_a_variable_of_several_nodes_is_pointed_out_in_a_job_of_one() -> None:
    job = Job(command="echo $AZ_BATCH_MASTER_NODE", distribution=Mpi())

    assert codes(job) == [("unset-variable", "$AZ_BATCH_MASTER_NODE")]
    assert codes(job.with_(node_count=2)) == []


def test_an_expression_in_a_variable_is_sent_and_rendered_nowhere(tmp_path: Path) -> None:
    job = Job(
        command="echo $A $B $C",
        inputs={"where": "here", "data": Input(path=str(tmp_path))},
        outputs={"model": Output()},
        environment_variables={
            "A": "${{outputs.model}}",
            "B": "${{ inputs.data }}/${{inputs.where}}",
            "C": "${{ name }}",
            "D": "$HOME {plain}",
        },
    )

    found = {one.where: one.hint for one in job.plan().findings if one.code == "unrendered-variable"}
    begin = "in the script, or start the command with"
    data_and_where = "`$AZURE_ML_INPUT_data` and `$AZUREML_PARAMETER_where`"
    assert found == {
        "environment_variables.A": f'read `$AZURE_ML_OUTPUT_model` {begin} `export A="${{AZURE_ML_OUTPUT_model}}" &&`',
        "environment_variables.B": f"read {data_and_where} {begin}"
        ' `export B="${AZURE_ML_INPUT_data}/${AZUREML_PARAMETER_where}" &&`',
        "environment_variables.C": "write the value itself",
    }
    assert job.plan().request["properties"]["environmentVariables"]["A"] == "${{outputs.model}}"
    assert lines_of(run_here(job)) == [
        "[node0 rank0] ${{outputs.model}} ${{ inputs.data }}/${{inputs.where}} ${{ name }}"
    ]
