"""What a check says of each kind of compute, of sweeps and pipelines, of environments and scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checking import NCCL, compute
from checking import job as job
from checking import workspace as workspace
from emulated import SDK_WARNINGS
from submitting import build_in, code_in

from azml_dist import AzureML, Environment, Input, Job, Mpi, PyTorch, Sweep, Workspace
from azml_dist.check.nccl import Nccl, nccl_of
from azml_dist.check.report import Check
from azml_dist.emulator import Cluster, Emulator
from azml_dist.job import Identity, Queue
from azml_dist.model.search_space import Choice
from azml_dist.pipeline import Pipeline
from azml_dist.sweep import GridSampling, Limits, Objective

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


def codes(found: Check) -> list[tuple[str, str]]:
    return [(one.code, one.level) for one in found.findings]


# Computes


TYPES = {
    "defaultinstancetype": {"resources": {"limits": {"cpu": "2", "memory": "8Gi"}}},
    "gpu-type": {"resources": {"limits": {"cpu": "24", "memory": "400Gi", "nvidia.com/gpu": "4"}}},
}


@pytest.mark.parametrize(
    ("instance_type", "processes", "expected"),
    [
        ("gpu-type", 4, []),
        ("gpu-type", 8, [("more-processes-than-gpus", "error")]),
        ("gpu-tpye", 4, [("no-such-instance-type", "error")]),
    ],
)
def test_an_instance_type_of_kubernetes_is_checked_and_its_nodes_are_not(
    emulator: Emulator, workspace: Workspace, job: Job, instance_type: str, processes: int, expected: list[Any]
) -> None:
    compute(emulator, kind="Kubernetes", instance_types=TYPES)

    found = workspace.check(
        job.with_(instance_type=instance_type, distribution=PyTorch(process_count_per_node=processes))
    )

    assert codes(found) == expected
    assert [one.what for one in found.not_checked] == ["nodes, quota and price of `gpu-cluster`"]
    assert found.to_dict()["price"]["ceiling"] is None


def test_a_near_instance_type_is_named(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, kind="Kubernetes", instance_types=TYPES)

    [finding] = workspace.check(job.with_(instance_type="gpu-tpye")).findings

    assert finding.hint == "did you mean `gpu-type`?"


def test_serverless_compute_is_checked_by_its_size(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    there = job.with_(compute=None, instance_type="Standard_ND96amsr_A100_v4")
    assert (codes(workspace.check(there)), workspace.check(there).not_checked) == ([], [])
    assert workspace.check(there).to_dict()["price"]["per_node_hour"] == 32.0
    assert codes(workspace.check(there.with_(instance_type="Standard_ND96isr_H100_v5"))) == [
        ("size-not-offered", "error")
    ]
    unnamed = workspace.check(there.with_(instance_type=None))
    assert [one.what for one in unnamed.not_checked] == ["size, quota and price of serverless compute"]


def test_an_attached_compute_is_not_judged(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, kind="VirtualMachine")

    found = workspace.check(job)

    assert codes(found) == []
    assert [one.what for one in found.not_checked] == ["compute `gpu-cluster`"]


def test_a_compute_instance_is_one_machine(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, kind="ComputeInstance", vm_state="Stopped")

    assert codes(workspace.check(job)) == [("too-many-nodes", "error"), ("compute-stopped", "warning")]


def test_a_cluster_that_is_changed_is_waited_for(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, state="Updating")

    assert codes(workspace.check(job)) == [("compute-changing", "warning")]


def test_a_cluster_in_another_region_has_the_sizes_and_quota_of_that_region(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    compute(emulator, location="westeurope")

    assert workspace.check(job).findings == []
    assert [one.path.split("/")[-2] for one in emulator.requests if one.route == "usages.list"] == ["westeurope"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"queue": Queue(tier="spot")}, "queue"),
        ({"queue": Queue(priority="high")}, "queue"),
        ({"instance_type": "Standard_ND96amsr_A100_v4"}, "instance_type"),
    ],
)
def test_what_a_cluster_ignores_is_said(
    emulator: Emulator, workspace: Workspace, job: Job, fields: dict[str, Any], where: str
) -> None:
    found = workspace.check(job.with_(**fields))

    assert [(one.code, one.where) for one in found.findings] == [("ignored-by-compute", where)]


def test_what_kubernetes_ignores_is_said(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, kind="Kubernetes", instance_types=TYPES)
    one = job.with_(
        instance_type="gpu-type",
        distribution=PyTorch(process_count_per_node=4),
        docker_args="--ipc=host",
        identity=Identity(type="user_identity"),
    )

    assert [finding.where for finding in workspace.check(one).findings] == ["docker_args", "identity"]


def test_another_cluster_that_would_start_at_once_is_advised(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    compute(emulator, runs={"calm_fox": 4})
    emulator.workspace.computes |= {
        "small": Cluster("STANDARD_NC24ADS_A100_V4"),
        "cheap": Cluster(priority="LowPriority"),
        "full": Cluster(idle=1),
        "other-cluster": Cluster(),
    }

    found = workspace.check(job)

    assert codes(found) == [("waits-for-nodes", "warning"), ("starts-at-once-elsewhere", "note")]
    assert found.findings[1].hint == "`--set compute=other-cluster`"


def test_nodes_that_are_there_need_no_quota(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    """Their vCPUs are in the row already, so a limit that has been lowered since does not refuse the job."""
    compute(emulator, idle=2)
    emulator.workspace.quota = dict.fromkeys(emulator.workspace.quota, (0, 96))

    assert workspace.check(job).findings == []


# Sweeps, pipelines


def test_the_ceiling_of_a_sweep_is_that_of_its_trials(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    swept = job.with_(command=f"{job.command} --lr ${{{{inputs.lr}}}}", inputs={**job.inputs, "lr": 0.1})
    sweep = Sweep(
        job=swept,
        search_space={"lr": Choice(values=[0.1, 0.2, 0.3])},
        objective=Objective(primary_metric="loss", goal="minimize"),
        sampling_algorithm=GridSampling(),
        limits=Limits(trial_timeout=3600, max_total_trials=5),
    )

    found = workspace.check(sweep)

    assert found.findings == []
    assert found.to_dict()["price"]["ceiling"] == 3 * 2 * 32.0
    assert "3 trials of 2 nodes x 32.00 $ an hour; at most 1 h each: up to 192.00 $" in str(found)
    bounded = sweep.with_(limits=Limits(trial_timeout=3600, timeout=1800))
    assert workspace.check(bounded).to_dict()["price"]["ceiling"] == 3 * 2 * 16.0


def test_a_timeout_of_the_whole_sweep_limits_its_cost(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    swept = job.with_(command=f"{job.command} --lr ${{{{inputs.lr}}}}", inputs={**job.inputs, "lr": 0.1}, timeout=None)
    sweep = Sweep(
        job=swept,
        search_space={"lr": Choice(values=[0.1, 0.2, 0.3])},
        objective=Objective(primary_metric="loss", goal="minimize"),
        sampling_algorithm=GridSampling(),
        limits=Limits(timeout=1800, max_concurrent_trials=2),
    )

    price = workspace.check(sweep).to_dict()["price"]
    assert (price["ceiling"], price["seconds"]) == (2 * 2 * 16.0, 1800)


PIPELINE = """
type: pipeline
settings: {{default_compute: "azureml:gpu-cluster"}}
jobs:
  prepare:
    command: python train.py
    code: {code}
    environment: azureml:torch:1
    limits: {{timeout: 3600}}
    distribution: {{type: pytorch}}
  train:
    command: python train.py
    code: {code}
    environment: azureml:torch:2
    compute: azureml:nowhere
    distribution: {{type: pytorch}}
  score:
    type: command
    component: azureml:score:3
"""


def test_each_step_of_a_pipeline_is_checked(emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yml").write_text(PIPELINE.format(code=job.code))

    found = workspace.check(Pipeline.load(tmp_path / "pipeline.yml"))

    errors = [(one.code, (one.where or "").rpartition("/")[2]) for one in found.findings if one.level == "error"]
    assert errors == [
        ("no-such-compute", "pipeline.yml:15: jobs.train.compute"),
        ("no-such-environment", "pipeline.yml:14: jobs.train.environment"),
        ("no-such-component", "pipeline.yml:19: jobs.score.component"),
    ]
    assert [one.step for one in found.findings if one.level == "error"] == ["train", "train", "score"]
    steps = {step["name"]: step for step in found.to_dict()["steps"]}
    assert steps["prepare"]["price"]["ceiling"] == 32.0
    assert found.to_dict()["price"]["ceiling"] is None


def test_a_finding_that_steps_share_is_that_of_each_of_them_and_is_shown_once(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    code_in(tmp_path / "src", {"train.py": 'import os\n\nprint(os.environ["OMPI_COMM_WORLD_RANK"])\n'})
    (tmp_path / "pipeline.yml").write_text(PIPELINE.format(code=tmp_path / "src"))

    found = workspace.check(Pipeline.load(tmp_path / "pipeline.yml"))

    shared = [one for one in found.to_dict()["findings"] if one["code"] == "variable-not-set"]
    assert [(one["where"], one["step"]) for one in shared] == [("train.py:3", "prepare"), ("train.py:3", "train")]
    assert str(found).count("OMPI_COMM_WORLD_RANK` is not set") == 1
    assert "error  steps `prepare`, `train`: train.py:3: " in str(found)
    assert str(found).splitlines()[0].startswith("4 errors")


# What a job refers to


def test_an_environment_that_this_submission_registers_is_built_first(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    conda = {"name": "e", "dependencies": ["python=3.11", {"pip": ["torch"]}]}
    new = [build_in(tmp_path / "context"), Environment(image="mcr.microsoft.com/base", conda_file=conda)]
    for environment in new:
        changed = job.with_(environment=environment)
        assert codes(workspace.check(changed)) == [("builds-image", "warning")]
        AzureML(workspace, check=False).submit(changed)

        assert codes(workspace.check(changed)) == []
    assert codes(workspace.check(job.with_(environment=Environment(image="mcr.microsoft.com/base")))) == []


def test_inputs_that_are_downloaded_fit_the_disk(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    compute(emulator, vm_size="STANDARD_NC24ADS_A100_V4")
    code_in(tmp_path / "large", {"a.bin": ""})
    with (tmp_path / "large/a.bin").open("wb") as file:
        file.truncate(70 << 30)  # of zeros that take no room here
    one = job.with_(node_count=1, distribution=PyTorch(), inputs={"data": Input(path=str(tmp_path / "large"))})
    assert codes(workspace.check(one)) == []
    download = {"data": Input(path=str(tmp_path / "large"), mode="download")}

    found = workspace.check(one.with_(inputs=download))

    assert codes(found) == [("small-disk", "warning")]
    assert found.findings[0].where == "inputs.data"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Input(type="custom_model", path="azureml:net:1"), None),
        (Input(type="custom_model", path="azureml:net:2"), "no-such-model"),
        (Input(path="azureml:digits@latest"), None),
        (Input(path="azureml:digit@latest"), "no-such-data"),
        (Input(path="azureml://datastores/workspaceblobstore/paths/a/"), None),
        (Input(path="azureml://datastores/nowhere/paths/a/"), "no-such-datastore"),
        (Input(path="https://host/file", type="uri_file"), None),
    ],
)
def test_data_under_any_kind_of_reference_is_looked_up(
    emulator: Emulator, workspace: Workspace, job: Job, data: Input, code: str | None
) -> None:
    emulator.assets.add_model("net")

    found = workspace.check(job.with_(inputs={"data": data}))

    assert [one.code for one in found.findings] == ([code] if code else [])
    assert found.not_checked == []


def test_what_is_in_a_registry_is_not_checked(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    reference = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"

    found = workspace.check(job.with_(environment=reference))

    assert found.findings == []
    assert [tuple(one) for one in found.not_checked] == [(f"`{reference}`", "it is not in this workspace")]


def test_the_ids_of_what_is_in_the_workspace_are_names_too(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    environment = f"azureml:{workspace.arm_id}/environments/torch/versions/9"

    assert codes(workspace.check(job.with_(environment=environment))) == [("no-such-environment", "error")]


# NCCL


MAIN = 'if __name__ == "__main__":\n    main()\n'


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('dist.init_process_group("nccl")', Nccl.ALWAYS),
        ('torch.distributed.init_process_group(backend="nccl")', Nccl.ALWAYS),
        ('if __name__ == "__main__":\n    dist.init_process_group("nccl")', Nccl.ALWAYS),
        (f'def main():\n    dist.init_process_group("nccl")\n\n{MAIN}', Nccl.ALWAYS),
        ('deepspeed.init_distributed(dist_backend="nccl")', Nccl.ALWAYS),
        ('if torch.cuda.is_available():\n    dist.init_process_group("nccl")', Nccl.ON_GPUS),
        ('dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")', Nccl.ON_GPUS),
        ('if not torch.cuda.is_available():\n    f()\nelse:\n    dist.init_process_group("nccl")', Nccl.NO),
        ('if torch.cuda.is_available():\n    f()\nelse:\n    dist.init_process_group("nccl")', Nccl.NO),
        ('if args.fast:\n    dist.init_process_group("nccl")', Nccl.NO),
        ('try:\n    dist.init_process_group("nccl")\nexcept RuntimeError:\n    start("gloo")', Nccl.NO),
        ('dist.init_process_group(args.backend)  # "nccl"', Nccl.NO),
        ('dist.init_process_group("gloo")', Nccl.NO),
        ('print("nccl")', Nccl.NO),
        ("import nccl; (", Nccl.NO),
    ],
)
def test_how_certain_it_is_that_a_script_takes_nccl(job: Job, script: str, expected: Nccl) -> None:
    assert job.code
    imports = "import deepspeed\nimport torch\nimport torch.distributed as dist\n\n"
    Path(job.code, "train.py").write_text(f"{imports}{script}\n")

    assert nccl_of(job.plan()) is expected


MPI = """\
import os

os.environ |= {name: os.environ[f"OMPI_COMM_WORLD_{name}"] for name in ("RANK", "SIZE")}
"""


@pytest.mark.parametrize(
    ("command", "level"),
    [
        ("python train.py", "error"),
        ("python train.py --backend gloo", "warning"),
        ("python other.py --backend nccl", "error"),
        ("python other.py", "warning"),
    ],
)
def test_two_processes_on_a_gpu_fail_only_over_nccl(
    emulator: Emulator, workspace: Workspace, job: Job, command: str, level: str
) -> None:
    assert job.code
    Path(job.code, "train.py").write_text(f"{MPI}{NCCL}")

    found = workspace.check(job.with_(command=command, inputs={}, distribution=Mpi(process_count_per_node=16)))

    assert codes(found) == [("more-processes-than-gpus", level)]


def test_a_script_that_takes_gloo_without_gpus_runs_without_them(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    compute(emulator, vm_size="STANDARD_DS3_V2")
    script = "import torch\nimport torch.distributed as dist\n\n"
    script += 'dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")\n'
    code = str(code_in(tmp_path / "other", {"train.py": script}))

    assert workspace.check(job.with_(code=code)).findings == []


def test_the_compute_local_is_not_in_the_workspace(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    found = workspace.check(job.with_(compute="local"))

    assert found.findings == []
    assert [one.what for one in found.not_checked] == ["the compute"]


# Advice


@pytest.mark.parametrize(
    ("price", "advice"),
    [
        (32.0, "it would start at once on `other`, which has 4 idle nodes of STANDARD_ND40RS_V2"),
        (
            40.0,
            "it would start at once on `other`, which has 4 idle nodes of STANDARD_ND40RS_V2"
            " (a node costs 40.00 $ an hour, not 32.00 $)",
        ),
        (65.0, None),
        (None, "it would start at once on `other`, which has 4 idle nodes of STANDARD_ND40RS_V2"),
    ],
)
def test_a_cluster_that_costs_much_more_is_no_advice(
    emulator: Emulator, workspace: Workspace, job: Job, price: float | None, advice: str | None
) -> None:
    compute(emulator, runs={"calm_fox": 4})
    emulator.workspace.computes["other"] = Cluster(vm_size="STANDARD_ND40RS_V2")
    emulator.knobs.set("prices", {"STANDARD_ND40RS_V2": price})
    emulator.workspace.vm_sizes = tuple(
        replace(size, memory_gb=1900.0) if size.name == "STANDARD_ND40RS_V2" else size
        for size in emulator.workspace.vm_sizes
    )

    said = [one.message for one in workspace.check(job).findings if one.code == "starts-at-once-elsewhere"]

    assert said == ([advice] if advice else [])


def test_a_cluster_with_gpus_is_no_advice_for_a_job_without(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    emulator.workspace.computes["small"] = Cluster(vm_size="STANDARD_DS3_V2", idle=0)
    plain = job.with_(command="python other.py", inputs={}, compute="small", distribution=None, node_count=1)

    assert codes(workspace.check(plain)) == [("starts-nodes", "warning")]
