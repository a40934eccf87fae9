"""A job held against the workspace: one defect gives one finding, a healthy workspace none; all of it only reads."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from checking import compute
from checking import job as job
from checking import workspace as workspace
from emulated import SDK_WARNINGS
from running import await_
from submitting import routes
from test_who_submits import cli, start_cli

from azml_dist import AzureML, Input, Job, NotFound, PyTorch, SubmitError, Workspace, submit
from azml_dist.emulator import Cluster, Emulator, answer, delay, odd, reset_before
from azml_dist.emulator.state import TOTAL_DEDICATED, TOTAL_LOW, family_row
from azml_dist.job import Queue
from azml_dist.plan import Service

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

FAMILY = family_row("standardNDAMSA100v4Family")


def test_a_healthy_workspace_has_no_finding(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    found = workspace.check(job)

    assert found.findings == []
    assert found.not_checked == []
    assert found.to_dict()["compute"] == {
        "name": "gpu-cluster",
        "size": "STANDARD_ND96AMSR_A100_V4",
        "nodes_max": 4,
        "idle": 4,
        "busy": 0,
        "state": "Succeeded",
    }
    assert found.to_dict()["quota"][0] == {"row": FAMILY, "used": 384, "limit": 960, "needs": 0}


def test_it_asks_little_and_changes_nothing(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    workspace.check(job)

    assert len(emulator.requests) <= 6 + 2  # two assets
    assert {one.method for one in emulator.requests if one.route != "computes.listNodes"} == {"GET"}


class Defect(NamedTuple):
    """What is wrong with a workspace, and the one finding that it gives."""

    code: str
    level: str
    message: str
    spoil: Callable[[Emulator], Any]
    change: Callable[[Job], Job] = lambda job: job


def cluster(**fields: Any) -> Callable[[Emulator], None]:
    return lambda emulator: compute(emulator, **fields)


def quota(idle: int, **rows: tuple[int, int]) -> Callable[[Emulator], None]:
    names = {"family": FAMILY, "total": TOTAL_DEDICATED, "low": TOTAL_LOW}

    def spoil(emulator: Emulator) -> None:
        emulator.workspace.computes["gpu-cluster"].idle = idle
        emulator.workspace.quota |= {names[row]: value for row, value in rows.items()}

    return spoil


def low_priority(emulator: Emulator) -> None:
    emulator.workspace.computes["gpu-cluster"] = Cluster(priority="LowPriority", idle=0)
    emulator.workspace.quota[TOTAL_LOW] = (0, 0)


def held(emulator: Emulator) -> None:
    emulator.workspace.computes["gpu-cluster"] = Cluster(runs={"calm_fox": 3}, leaving=1)


def retired(emulator: Emulator) -> None:
    emulator.workspace.computes["gpu-cluster"] = Cluster(idle=0)
    emulator.workspace.vm_sizes = emulator.workspace.vm_sizes[:-1]


def nothing(emulator: Emulator) -> None: ...


def own_limit(emulator: Emulator) -> None:
    """Nodes have to be started, and somebody has limited this workspace."""
    compute(emulator, idle=0)
    emulator.workspace.own_limits[FAMILY] = 96


DEFECTS = {
    "no such cluster": Defect(
        "no-such-compute",
        "error",
        "the workspace has no compute `gpu-clutser`",
        nothing,
        lambda job: job.with_(compute="gpu-clutser"),
    ),
    "a cluster that could not be made": Defect(
        "compute-failed",
        "error",
        "compute `gpu-cluster` is Failed: The subnet has no free address.",
        cluster(state="Failed", idle=0, errors=("The subnet has no free address.",)),
    ),
    "more nodes than the cluster has": Defect(
        "too-many-nodes",
        "error",
        "the job needs 2 nodes, but `gpu-cluster` has at most 1",
        cluster(max_nodes=1),
    ),
    "more processes than GPUs, over NCCL": Defect(
        "more-processes-than-gpus",
        "error",
        "2 nodes x 16 processes do not fit on `gpu-cluster`: Standard_ND96amsr_A100_v4 has 8 GPUs, and NCCL needs",
        nothing,
        lambda job: job.with_(distribution=PyTorch(process_count_per_node=16)),
    ),
    "NCCL without GPUs": Defect(
        "nccl-without-gpu",
        "error",
        "the job uses NCCL, but STANDARD_DS3_V2 has no GPU",
        cluster(vm_size="STANDARD_DS3_V2"),
    ),
    "a family without quota": Defect(
        "no-quota",
        "error",
        f"the quota `{FAMILY}` is 0 vCPUs, but 2 nodes of Standard_ND96amsr_A100_v4 need 192",
        quota(0, family=(0, 0)),
    ),
    "a region with too small a quota": Defect(
        "no-quota",
        "error",
        f"the quota `{TOTAL_DEDICATED}` is 96 vCPUs, but 2 nodes",
        quota(0, total=(0, 96)),
    ),
    "a quota that is used up": Defect(
        "short-quota",
        "warning",
        f"`{FAMILY}`: 900 of 960 vCPUs are in use, 60 are free, but the new nodes need 192",
        quota(0, family=(900, 960)),
    ),
    "a workspace that may use less than the region": Defect(
        "workspace-quota",
        "warning",
        f"the limit of this workspace for `{FAMILY}` is 96 vCPUs, but 2 nodes of Standard_ND96amsr_A100_v4 need 192",
        own_limit,
    ),
    "spot nodes whose family has no limit, in a region that has none of them": Defect(
        "no-quota",
        "error",
        f"the quota `{TOTAL_LOW}` is 0 vCPUs",
        low_priority,
    ),
    "no such environment": Defect(
        "no-such-environment",
        "error",
        "the workspace has no environment `torch:7`",
        nothing,
        lambda job: job.with_(environment="azureml:torch:7"),
    ),
    "no such data": Defect(
        "no-such-data",
        "error",
        "the workspace has no data `digist:1`",
        nothing,
        lambda job: job.with_(inputs={"data": Input(path="azureml:digist:1")}),
    ),
    "no such datastore": Defect(
        "no-such-datastore",
        "error",
        "the workspace has no datastore `workspaceblob`",
        nothing,
        lambda job: job.with_(inputs={"data": Input(path="azureml://datastores/workspaceblob/paths/a/")}),
    ),
    "a size that the region has not": Defect(
        "size-not-offered",
        "error",
        "eastus does not offer the size STANDARD_ND96AMSR_A100_V4",
        retired,
    ),
    "a busy cluster": Defect(
        "waits-for-nodes",
        "warning",
        "the run must wait: 2 nodes wanted, 0 idle of at most 4: 3 used by run calm_fox, 1 leaving",
        held,
    ),
    "a cluster that starts from zero": Defect(
        "starts-nodes",
        "warning",
        "`gpu-cluster` must start 2 nodes first, which takes minutes: 2 nodes wanted, 0 idle",
        cluster(idle=0),
    ),
    "spot nodes, and nothing that resumes": Defect(
        "spot-without-resume",
        "warning",
        "`gpu-cluster` has spot nodes, which Azure may evict",
        cluster(priority="LowPriority"),
        lambda job: job.with_(command="python other.py"),
    ),
    "nodes without InfiniBand": Defect(
        "no-infiniband",
        "warning",
        "Standard_NC24ads_A100_v4 has no InfiniBand",
        cluster(vm_size="STANDARD_NC24ADS_A100_V4"),
        lambda job: job.with_(distribution=PyTorch(process_count_per_node=1)),
    ),
    "little shared memory": Defect(
        "little-shared-memory",
        "warning",
        "the processes of a node share 2 GB",
        nothing,
        lambda job: job.with_(shm_size=None),
    ),
}


@pytest.mark.parametrize("case", DEFECTS)
def test_one_defect_gives_exactly_one_finding(emulator: Emulator, workspace: Workspace, job: Job, case: str) -> None:
    defect = DEFECTS[case]
    defect.spoil(emulator)

    found = workspace.check(defect.change(job))

    assert [(one.code, one.level) for one in found.findings] == [(defect.code, defect.level)]
    assert found.findings[0].message.startswith(defect.message)
    assert len(emulator.requests) <= 6 + 2 + 1


# What may not be read, and what fails


REQUESTS = {
    "computes.get": [],
    "computes.list": [],
    "computes.listNodes": [],
    "vmSizes.list": ["the VM sizes of eastus", "the quota in eastus"],
    "usages.list": ["the quota in eastus"],
    "environments.get": ["environment `torch:1`"],
    "data.get": ["data `digits:1`"],
}
"""Each request of a check of the job above, and what is not checked where it fails."""
FAULTS = {
    "403": answer(403, message="Forbidden."),
    "404": answer(404),
    "429": answer(429, retry_after=30),
    "500": answer(500),
    "reset": reset_before(),
    "a page": odd(200, b"<html>", heard=False),
    "half of it": odd(200, b'{"value": [{"na', heard=False),
    "another shape": odd(200, b'{"value": [7], "properties": 3, "nodes": {}}', heard=False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_request_may_fail_without_harm(emulator: Emulator, workspace: Workspace, job: Job, fault: str) -> None:
    for route, what in REQUESTS.items():
        emulator.forget()
        emulator.inject(FAULTS[fault], route=route)

        found = workspace.check(job)

        assert not found.is_refused, route
        # Without its size, the fit of the processes cannot be judged, and so no finding comes of it.
        assert [one.what for one in found.not_checked] == what, route


def test_a_cluster_that_may_not_be_read(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    emulator.workspace.forbidden = {"computes.get", "computes.list"}

    found = workspace.check(job)

    assert found.findings == []
    assert [one.what for one in found.not_checked] == ["compute `gpu-cluster`"]


def test_without_the_vm_sizes_the_quota_is_not_checked(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    there = job.with_(compute=None, instance_type="Standard_ND96amsr_A100_v4")
    emulator.workspace.forbidden = {"vmSizes.list"}
    unread = [dict(workspace.check(one).not_checked) for one in (job, there)]
    emulator.workspace.forbidden = {"vmSizes.list", "usages.list"}
    neither = dict(workspace.check(job).not_checked)

    why = "quota counts vCPUs, and without the VM sizes it is unknown how many a node has"
    assert [one["the quota in eastus"] for one in unread] == [why, why]
    assert neither["the quota in eastus"].startswith("not allowed: this requires the role")


def test_without_the_region_nothing_of_serverless_compute_is_checked(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    emulator.workspace.forbidden = {"workspaces.get"}

    found = workspace.check(job.with_(compute=None, instance_type="Standard_ND96amsr_A100_v4"))

    assert [one.what for one in found.not_checked] == [
        "the region of the workspace",
        "size, quota and price of serverless compute",
    ]


def test_a_busy_cluster_whose_nodes_may_not_be_listed(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    held(emulator)
    emulator.workspace.forbidden = {"computes.listNodes"}

    found = workspace.check(job)

    assert found.findings[0].message.endswith("0 idle of at most 4: 3 used by other runs, 1 leaving")
    assert found.not_checked == [
        (
            "which runs use the nodes of `gpu-cluster`",
            "not allowed: this requires the role AzureML Data Scientist on the workspace "
            "(workspaces/computes/listNodes/action)",
        )
    ]


@pytest.mark.parametrize(
    ("route", "role"),
    [
        ("usages.list", "the role Reader on the subscription"),
        ("vmSizes.list", "the role Reader on the subscription"),
        ("environments.get", "the role Reader on the workspace"),
    ],
)
def test_a_refusal_names_the_role_that_is_missing(
    emulator: Emulator, workspace: Workspace, job: Job, route: str, role: str
) -> None:
    emulator.workspace.forbidden = {route}

    assert role in workspace.check(job).not_checked[0].why


def test_a_check_that_can_ask_nothing_is_an_error(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    here = emulator.workspace
    nowhere = Workspace(here.subscription_id, here.resource_group, "nowhere", credential=workspace.credential)
    with pytest.raises(SubmitError, match="there is no workspace `nowhere`"):
        nowhere.check(job)


def test_a_cause_of_the_wait_says_since_when(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    held(emulator)
    holder = AzureML(workspace, check=False).submit(job.with_(name="calm_fox"))
    emulator.job(holder.name).system_data["createdAt"] = "2026-01-01T00:00:00.1234567+00:00"

    assert re.search(
        r"3 used by run calm_fox \(submitted \d+ h ago\), 1 leaving", workspace.check(job).findings[0].message
    )


# Before a submission


def test_what_is_certain_to_fail_is_refused_before_anything_is_uploaded(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    emulator.workspace.computes["gpu-cluster"].max_nodes = 1

    with pytest.raises(SubmitError, match="the job needs 2 nodes, but `gpu-cluster` has at most 1") as refused:
        AzureML(workspace).submit(job)

    assert refused.value.hint
    assert not [one for one in emulator.requests if one.method in ("PUT", "POST") and one.route != "computes.listNodes"]


def test_without_the_script_its_findings_are_left_out(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    (Path(str(job.code)) / "train.py").write_text("import os\n\nnode = os.environ['LOCAL_WORLD_SIZE']\n")
    with pytest.raises(SubmitError, match="`LOCAL_WORLD_SIZE` is not set"):
        AzureML(workspace).submit(job)
    job.dump(Path(str(job.code)).parent / "job.yml")
    file = str(Path(str(job.code)).parent / "job.yml")

    assert not workspace.check(job, script=False).is_refused
    assert AzureML(workspace, script=False).submit(job).status == "NotStarted"
    assert [cli(emulator, "check", file, *how).returncode for how in ((), ("--no-script",))] == [2, 0]
    assert cli(emulator, "submit", file, "--no-script").returncode == 0


def test_what_is_missing_is_not_found_whoever_notices(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    job = job.with_(environment="azureml:torch:7", compute="gpu-clutser")
    with pytest.raises(NotFound) as refused:
        AzureML(workspace).submit(job)

    assert [(one.where, one.hint) for one in refused.value.problems] == [
        ("compute", "did you mean `gpu-cluster`? There is room for 2 nodes on gpu-cluster"),
        ("environment", "its latest version is 1"),
    ]


@pytest.mark.parametrize("busy", [False, True])
def test_many_missing_things_take_no_more_requests_than_are_allowed(
    emulator: Emulator, workspace: Workspace, job: Job, busy: bool
) -> None:
    compute(emulator, **({"runs": {"calm_fox": 4}} if busy else {}))
    missing = {f"d{index}": Input(path=f"azureml:nothing{index}:1") for index in range(3)}
    job = job.with_(
        environment="azureml:trch:1",
        inputs={**job.inputs, **missing, "m": Input(path="azureml:m:1", type="custom_model")},
    )

    found = workspace.check(job)

    hints = {one.message: one.hint for one in found.findings if one.code.startswith("no-such-")}
    assert len(hints) == 5
    assert hints["the workspace has no environment `trch:1`"] == "did you mean `torch`?"
    assert hints["the workspace has no model `m:1`"] == "`az ml model list` shows what exists"
    assert len(emulator.requests) <= 6 + 6  # six assets


def test_what_computes_ignore_can_be_said_otherwise(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    job = job.with_(queue=Queue(priority="high"))
    told: list[str] = []
    for service in (None, Service(ignored_by_compute=("AmlCompute/resources.shm_size",))):
        AzureML(workspace, service=service).submit(job, tell=lambda check: told.extend(map(str, check.findings)))

    assert [one.partition(" (inferred)")[0] for one in told] == [
        "queue: a compute cluster ignores `queue_settings.priority`",
        "shm_size: a compute cluster ignores `resources.shm_size`",
    ]


def test_a_bare_submission_asks_nothing_more(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    submit(job, on=AzureML(workspace), check=False)

    assert not {"computes.get", "usages.list", "data.get", "vmSizes.list"} & {*routes(emulator)}


def test_who_may_read_nothing_submits_as_before(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    emulator.workspace.forbidden = {*REQUESTS}

    run = submit(job, on=AzureML(workspace))

    assert emulator.job(run.name).body["computeId"].endswith("/gpu-cluster")


def test_of_a_list_only_the_jobs_without_an_error_are_submitted(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    many = [job, job.with_(node_count=5), job]

    first, refused, last = submit(many, on=AzureML(workspace))

    assert isinstance(refused, SubmitError)
    assert len(emulator.jobs.jobs) == 2
    assert not isinstance(first, SubmitError)
    assert not isinstance(last, SubmitError)
    counts = emulator.counts()
    assert [counts[route] for route in REQUESTS] == [1] * len(REQUESTS)


def test_warnings_do_not_stop_a_submission(
    emulator: Emulator,
    workspace: Workspace,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held(emulator)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    AzureML(workspace).submit(job)

    assert "warning: compute: the run must wait: 2 nodes wanted, 0 idle" in capsys.readouterr().err


def test_ctrl_c_ends_a_check_before_anything_is_submitted(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    emulator.inject(delay(60), route="usages.list", times=None)
    job.dump(tmp_path / "job.yml")

    with start_cli(emulator, "submit", str(tmp_path / "job.yml")) as process:
        await_(lambda: "usages.list" in routes(emulator), 60)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)

    assert process.returncode == 130
    assert shown.strip() == "interrupted"
    assert not {"codes.list", "codes.put", "jobs.put"} & {*routes(emulator)}


def test_json_of_a_submission_has_what_the_check_found(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    held(emulator)
    job.dump(tmp_path / "job.yml")

    done = cli(emulator, "submit", str(tmp_path / "job.yml"), "--json")

    assert [one["code"] for one in json.loads(done.stdout)["findings"]] == ["waits-for-nodes"]
    assert "warning: compute: the run must wait" in done.stderr
