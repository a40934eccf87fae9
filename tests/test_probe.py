"""`probe`: small jobs find out what the workspace really does; here the emulated one, whose ways can be others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import call, log_of, pytorch, run_here
from submitting import logged_in, routes, workspace_of

from azml_dist import Job, JobError, Mpi, PyTorch, SubmitError
from azml_dist.emulator import Emulator, Runtime
from azml_dist.emulator.jobs import Job as EmulatedJob
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.probed import NOT_PROBED, PROBED, Probed, Seen, keep, read_all, service_file
from azml_dist.probe import run as probe_run
from azml_dist.probe.compare import Rank, differences
from azml_dist.probe.facts import Observed, Settled, settle
from azml_dist.probe.jobs import KINDS, Effort
from azml_dist.probe.reports import Report, read
from azml_dist.probe.result import Hasher, ProbeResult
from azml_dist.probe.run import probe

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

SMALL = Effort(processes=2, data_mb=1, megabytes=2)
LOOK = Path(probe_run.__file__).parent / "there" / "look.py"
OTHERWISE = Runtime(
    process_name="task_{local_rank}",
    rank_digits=2,
    node_digits=3,
    batch_port=6001,
    task_index_variable="VK_TASK_INDEX",
    master_of_one_node="127.0.0.1",
    mpi_interface="ib0",
    first_task="worker",
    empty_ps=False,
    task_port=3333,
    waits_for_ps=True,
    ray_port=10001,
    logs_parameters=False,
    local_world_size=True,
    unset=frozenset(["AZ_BATCH_NODE_LIST", "AZUREML_CR_HT_CAP_logs_PATH"]),
)


def probed(emulator: Emulator, effort: Effort = SMALL, **options: Any) -> ProbeResult:
    """A probe whose jobs run on this machine."""
    emulator.assets.add_environment("torch")
    if emulator.jobs.on_submit is None:
        emulator.run_what_is_submitted()
    options = {"environment": "azureml:torch:1", "workspace": workspace_of(emulator), **options}
    return probe("gpu-cluster", effort=effort, **options)


@needs("torch")
def test_a_probe_confirms_what_is_as_assumed_and_measures_the_nodes(emulator: Emulator, azure_sdk: None) -> None:
    emulator.workspace.runtime = Runtime(task_port=2222)

    found = probed(emulator, distributions=KINDS)

    assert found.is_complete, str(found)
    assert {one.name: one.state for one in found.facts if one.name in PROBED} == dict.fromkeys(PROBED, "confirmed")
    shared = found.to_dict()
    assert [run["differences"] for run in shared["runs"]] == [[]] * 6
    assert [run["seen"]["shell"] for run in shared["runs"]] == [["bash"]] * 6
    assert "system_logs/lifecycler/execution-wrapper.log" in shared["runs"][0]["logs"]
    assert [(one["torch"] is not None, one["mount_rate"]["bytes"]) for one in shared["machines"]] == [
        (True, 1 << 20)
    ] * 2
    both = [
        (one["backend"], one["in_node"]["processes"], one["between_nodes"]["processes"]) for one in shared["all_reduce"]
    ]
    assert both == [("gloo", 2, 4)] * 2
    assert all(one[where]["bus"] > 0 for one in shared["all_reduce"] for where in ("in_node", "between_nodes"))
    assert [one["node"] for one in shared["clock"]] == [0, 1]
    assert all(abs(one["ahead"]) < 1 for one in shared["clock"])
    assert "as assumed" in str(found)
    _shows_no_ids(emulator, shared)
    assert {*read_all(service_file())[_key(emulator)].facts} == {*PROBED}


def _shows_no_ids(emulator: Emulator, shared: Mapping[str, Any]) -> None:
    here, text = emulator.workspace, json.dumps(shared)
    ids = [here.subscription_id, here.resource_group, here.name, here.tenant_id, here.workspace_id, here.token]
    ids += ["gpu-cluster", *emulator.jobs.jobs, os.uname().nodename]
    assert [one for one in ids if one in text] == []


def _key(emulator: Emulator) -> str:
    here = emulator.workspace
    return f"{here.subscription_id}/{here.resource_group}/{here.name}".lower()


def test_a_probe_finds_each_difference_and_plans_and_runs_follow_it(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.workspace.runtime = OTHERWISE

    # Without what takes long: disks and all-reduce.
    found = probed(emulator, SMALL._replace(megabytes=0, serve=8.0), distributions=KINDS)

    unset = [
        f"{job}/{name}"
        for job in ("Mpi/several", "PyTorch/several", "Ray/several", "TensorFlow/several", "none/one")
        for name in sorted(OTHERWISE.unset)
        if name != "AZ_BATCH_NODE_LIST" or job.endswith("several")
    ]
    assert {one.name: one.seen for one in found.facts_that_are("corrected")} == {
        "node_log_width": 3,
        "rank_log_width": 2,
        "process_name": "task_{local_rank}",
        "local_world_size": True,
        "tensorflow_port": 3333,
        "tensorflow_first": "worker",
        "tensorflow_empty_ps": False,
        "serving_roles": [],
        "ray_port": 10001,
        "logs_inputs": False,
        "batch_master_port": 6001,
        "nccl_socket_ifname": "ib0",
        "master_of_one_node": "127.0.0.1",
        "task_index_variable": "VK_TASK_INDEX",
        "unset": sorted(unset),
    }
    differing = {one["variable"] for run in found.to_dict()["runs"] for one in run["differences"]}
    assert differing == {
        *OTHERWISE.unset,
        "AZUREML_PROCESS_NAME",
        "AZ_BATCH_MASTER_NODE",
        "AZUREML_CR_DISTRIBUTED_CONFIG",
        "AZ_BATCHAI_MPI_MASTER_NODE",
        "NCCL_SOCKET_IFNAME",
        "TF_CONFIG",
        "RAY_ADDRESS",
    }

    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    run = run_here(
        pytorch("echo $AZUREML_PROCESS_NAME $LOCAL_WORLD_SIZE $AZ_BATCH_NODE_LIST.", nodes=2), launcher="direct"
    )
    assert [process.log for process in run.state().processes] == [
        f"user_logs/std_log_process_0{rank}.txt" for rank in (0, 1)
    ]
    assert log_of(run, 1) == "task_0 1 .\n"
    changes = [one for one in run.state().findings if "a probe of emulated-workspace" in one]
    assert [one.partition(": ")[0].partition(" found ")[2] or one.partition(" did ")[2] for one in changes] == [
        "`rank_log_width` to be 2, not the digits of the largest rank",
        "`process_name` to be task_{local_rank}, not rank_{rank}",
        "`local_world_size` to be True, not False",
        "`task_index_variable` to be VK_TASK_INDEX, not AZUREML_CR_NODE_RANK",
        "not find `AZ_BATCH_NODE_LIST`, `AZUREML_CR_HT_CAP_logs_PATH`: left out",
    ]


def test_what_cannot_be_probed_is_refused_before_anything_is_sent(emulator: Emulator, azure_sdk: None) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"nodes": 0}, "a probe takes 1 to 64 nodes, not 0"),
        ({"distributions": ["horovod"]}, "a probe knows no distribution horovod"),
        ({"distributions": []}, "a probe knows no distribution nothing"),
    ]
    for options, message in wrong:
        with pytest.raises(JobError, match=message):
            probed(emulator, **options)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"max_cost": 1.0, "distributions": ["pytorch", "none"]}, r"may cost 5\.33 \$, but the limit is 0\.67 \$"),
        ({"nodes": 5}, "the job needs 5 nodes, but `gpu-cluster` has at most 4"),
        ({"environment": "azureml:none:7"}, "has no environment `none:7`"),
    ]
    for options, message in refused:
        with pytest.raises(SubmitError, match=message):
            probed(emulator, **options)
    with pytest.raises(SubmitError, match="the workspace has no compute `gpu-clutser`"):
        probe("gpu-clutser", environment="azureml:torch:1", workspace=workspace_of(emulator), effort=SMALL)

    assert not {"jobs.put", "blobs.put"} & {*routes(emulator)}
    assert not service_file().exists()


def test_if_one_job_is_refused_the_others_are_cancelled(emulator: Emulator, azure_sdk: None) -> None:
    emulator.play("Queued")
    sent: list[str] = []

    def refuse_the_second(job: EmulatedJob) -> None:
        sent.append(job.name)
        job.script.extend(["Queued"])
        emulator.workspace.forbidden.add("jobs.put")

    emulator.jobs.on_submit = refuse_the_second
    with pytest.raises(SubmitError):
        probed(emulator, distributions=["pytorch", "mpi"])

    assert len(sent) == 1
    assert emulator.job(sent[0]).status in ("CancelRequested", "Canceled")


def test_a_job_that_fails_is_told_and_nothing_is_kept(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.assets.add_environment("torch")
    emulator.run_what_is_submitted(env={"PYTHONHOME": str(tmp_path)})
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)

    done = call("probe", "gpu-cluster", "--nodes", "1", "--distribution", "none", "--environment", "azureml:torch:1")

    assert done.returncode == 1, done.stderr
    assert "Execution failed. User process 'bash' exited with status code 1" in done.stdout
    assert "1 rank did not report, the first is 0" in done.stdout
    assert "nothing was found out" in done.stdout
    assert "up to 2.67 $" in done.stderr
    assert not service_file().exists()


def test_what_some_ranks_reported_before_the_job_failed_counts(
    emulator: Emulator, azure_sdk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)

    def half(job: EmulatedJob) -> None:
        env = Job(command="x", node_count=2, distribution=PyTorch(process_count_per_node=2)).plan().processes[1].env
        job.write_log("user_logs/std_log_process_1.txt", seen_by(env | {"AZ_BATCH_MASTER_NODE": "10.0.0.4:7000"}))
        job.advance("Running")
        job.fail("A node was lost.")

    emulator.jobs.on_submit = half
    found = probed(emulator)

    assert not found.is_complete
    assert found.runs[0].observed.missing == [0, 2, 3]
    assert "A node was lost." in str(found)
    states = {one.name: one for one in found.facts}
    assert states["batch_master_port"] == Settled("batch_master_port", "corrected", 7000)
    assert states["unset"].state == "open"  # the others may have it
    kept = read_all(service_file())[_key(emulator)]
    assert kept.corrected == {"batch_master_port": Seen(7000, found.on)}

    service_file().write_text("{")  # neither used nor overwritten
    again = probed(emulator)
    assert "the result is not kept" in str(again)
    assert "service.json is damaged" in str(again)
    assert service_file().read_text() == "{"


def seen_by(env: Mapping[str, str]) -> str:
    """What a process with this environment prints; it meets nobody."""
    command = [sys.executable, str(LOOK), "--shell", "bash"]
    done = subprocess.run(command, env={**env, "SECRET_TOKEN": "hush"}, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_secrets_are_never_printed(tmp_path: Path) -> None:
    env = {
        "AZUREML_RUN_TOKEN": "abc-run",
        "AZ_BATCH_ACCOUNT_KEY": "abc-key",
        "MLFLOW_TRACKING_URI": "https://x/?sig=abc-signature",
        "AZUREML_CR_SOMETHING": "eyJabcdefghijklmnop",
        "MY_PASSWORD": "abc-word",
        "AZUREML_PARAMETER_rate": "3",
    }

    text = seen_by(env)

    assert "abc" not in text
    assert "hush" not in text
    assert '"AZUREML_PARAMETER_rate": "3"' in text
    assert "MY_PASSWORD" not in text
    assert "AZUREML_RUN_TOKEN" in text


def plan_of(nodes: int = 2, processes: int = 2, kind: type = PyTorch) -> LaunchPlan:
    return Job(command="x", node_count=nodes, distribution=kind(process_count_per_node=processes)).plan()


def observed(plan: LaunchPlan, changes: Mapping[int, Mapping[str, str | None]] = {}, log: str = "") -> Observed:
    """A job whose processes see what is planned, but for changes by rank; None for a variable that is not there."""
    ranks = []
    for process in plan.processes:
        env = {**process.env, **changes.get(process.rank, {})}
        said = {"process": {"env": {name: value for name, value in env.items() if value is not None}, "names": []}}
        ranks.append(Rank(process.rank, Report(log.format(process.rank) if log else process.log, said)))
    return Observed("mpi" if plan.world.distribution == "Mpi" else "pytorch", plan, ranks, (), is_completed=True)


def settled(name: str, *jobs: Observed) -> Settled:
    return next(one for one in settle(jobs) if one.name == name)


def test_every_assumption_is_settled_or_says_why_not() -> None:
    found = settle([])

    assert [one.name for one in found] == [*PROBED, *NOT_PROBED]
    assert {one.state for one in found} == {"open"}
    assert all(one.why for one in found)


def test_few_ranks_do_not_tell_rules_for_the_digits_of_ranks_apart() -> None:
    small, large = observed(plan_of()), observed(plan_of(processes=8), log="user_logs/std_log_process_{:02}.txt")
    unpadded = observed(plan_of(processes=8), log="user_logs/std_log_process_{}.txt")
    padded = observed(plan_of(), log="user_logs/std_log_process_{:02}.txt")
    odd = observed(plan_of(), log="user_logs/std_log_process_7{}.txt")

    few = settled("rank_log_width", small)
    assert (few.state, few.why) == (
        "confirmed",
        "it could also be always 1 or more digits: jobs of other sizes would tell",
    )
    assert settled("rank_log_width", small, large) == Settled("rank_log_width", "confirmed")
    assert settled("rank_log_width", unpadded) == Settled("rank_log_width", "corrected", 1)
    assert settled("rank_log_width", padded, large) == Settled("rank_log_width", "corrected", 2)
    assert settled("rank_log_width", odd).state == "open"


def test_names_of_processes_are_told_apart_by_what_they_count() -> None:
    def named(template: str) -> Observed:
        plan = plan_of(3, 2)
        names = {p.rank: template.format(r=p.rank, l=p.local_rank, n=p.node_rank) for p in plan.processes}
        return observed(plan, {rank: {"AZUREML_PROCESS_NAME": name} for rank, name in names.items()})

    assert settled("process_name", named("rank_{l}")).seen == "rank_{local_rank}"
    assert settled("process_name", named("worker-{n}x")).seen == "worker-{node_rank}x"
    assert settled("process_name", named("main")).seen == "main"
    assert settled("process_name", named("{r}{l}{n}")).state == "open"
    assert (
        settled("process_name", observed(plan_of(), {r: {"AZUREML_PROCESS_NAME": None} for r in range(4)})).state
        == "open"
    )


def test_processes_that_do_not_agree_settle_nothing() -> None:
    found = settled("batch_master_port", observed(plan_of(), {3: {"AZ_BATCH_MASTER_NODE": "10.0.0.4:7000"}}))

    assert (found.state, found.why) == ("open", "the processes do not agree: 6000, 7000")


@pytest.mark.parametrize("odd", ["", "10.0.0.4", "10.0.0.4:x", "10.0.0.4:99999"])
def test_a_value_that_is_not_understood_settles_nothing(odd: str) -> None:
    found = settled("batch_master_port", observed(plan_of(), {r: {"AZ_BATCH_MASTER_NODE": odd} for r in range(4)}))

    assert found.state == "open"


def test_a_variable_is_unset_only_if_no_process_has_it() -> None:
    name = "AZ_BATCHAI_NODE_IP"
    nobody, somebody = {rank: {name: None} for rank in range(4)}, {rank: {name: None} for rank in range(3)}

    assert settled("unset", observed(plan_of(), nobody)).seen == [f"PyTorch/several/{name}"]
    assert settled("unset", observed(plan_of(), somebody)).seen == []
    assert settled("unset", observed(plan_of(), {rank: {"RANK": None} for rank in range(4)})).seen == []


def test_one_address_has_to_be_the_same_in_all_variables_and_ranks() -> None:
    plan = plan_of(2, 1)
    changes = {rank: {"MASTER_ADDR": "node-0"} for rank in range(2)}

    (found,) = differences(plan, observed(plan, changes).ranks)

    assert (found.variable, found.ranks, found.seen) == ("MASTER_ADDR", [0, 1], "node-0")


def written(folder: Path, lines: Sequence[str], name: str = "user_logs/std_log_process_0.txt") -> list[Report]:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines))
    return read(folder)[0]


def line(text: str, part: str = "0/1", sender: str = "0123456789ab", kind: str = "process") -> str:
    return f"azml-dist-probe {sender} {kind} {part} {zlib.crc32(text.encode())} {text}"


def test_reports_are_read_out_of_logs_that_are_shared_prefixed_or_damaged(tmp_path: Path) -> None:
    whole, half = line('{"env": {"RANK": "0"}}'), line('{"env": ', "0/2", "aaaaaaaaaaaa")
    other = line('{"env": {"RANK": "1"}}', sender="bbbbbbbbbbbb")
    torn = line('{"env": {"RANK": "2"}}', sender="cccccccccccc")[:-3]
    no_json = line("{]", sender="dddddddddddd")

    found = written(
        tmp_path,
        [
            "noise",
            f"[1,0]<stdout>: {whole}",
            half,
            other,
            torn,
            no_json,
            "\x00\udcff".encode("utf-8", "replace").decode(),
        ],
    )

    assert sorted(one.env["RANK"] for one in found if one.env) == ["0", "1"]


def test_of_a_run_that_was_restarted_the_last_attempt_counts(tmp_path: Path) -> None:
    written(tmp_path, [line('{"env": {"RANK": "0", "X": "old"}}')])
    found = written(
        tmp_path, [line('{"env": {"RANK": "0"}}', sender="bbbbbbbbbbbb")], "user_logs/retry_001/std_log_process_0.txt"
    )

    assert [one.log for one in found] == ["user_logs/retry_001/std_log_process_0.txt"]


def test_hashes_are_the_same_in_one_result_and_differ_in_the_next() -> None:
    shared = {"a": "group-of-mine", "b": ["see GROUP-OF-MINE", "10.1.2.3"], "c": "127.0.0.1", "d": "regroup-of-mines"}

    first, second = (Hasher(["group-of-mine"]).hide(shared) for _ in range(2))

    assert first["b"][0] == f"see {first['a']}"
    assert first["a"].startswith("#")
    assert first["a"] != second["a"]
    assert "10.1.2.3" not in first["b"][1]
    assert (first["c"], first["d"]) == ("127.0.0.1", "regroup-of-mines")


def with_fact(fact: str) -> str:
    return f'{{"version": 1, "workspaces": {{"s/r/w": {{"workspace": "w", "facts": {{{fact}}}}}}}}}'


DAMAGED = {
    "no JSON": "{",
    "no object": "[1]",
    "no workspaces": '{"version": 1}',
    "another version": '{"version": 2, "workspaces": {}}',
    "no facts": '{"version": 1, "workspaces": {"s/r/w": {}}}',
    "no day": with_fact('"ray_port": 7'),
    "an unknown fact": with_fact('"x": {"value": 1, "on": "d"}'),
    "a wrong value": with_fact('"ray_port": {"value": true, "on": "d"}'),
    "a format of Python": with_fact('"process_name": {"value": "{rank.real}", "on": "d"}'),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=[*DAMAGED])
def test_a_file_that_cannot_be_used_changes_no_plan_and_is_left_alone(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME"):
        monkeypatch.setenv(f"AZUREML_ARM_{name}", name[0].lower())
    service_file().parent.mkdir()
    service_file().write_text(text)

    plan = plan_of()

    assert plan.processes[0].env["AZ_BATCH_MASTER_NODE"].endswith(":6000")
    found = {one.code: one.message for one in plan.findings}
    assert "what a probe found out about the workspace is not used" in found["service-not-read"]
    with pytest.raises(Exception, match=r"service\.json"):
        keep("a/b/c", Probed("c", {}))
    assert service_file().read_text() == text


def test_what_is_known_of_another_workspace_changes_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    keep("s/r/other", Probed("other", {"batch_master_port": Seen(1, "2026-11-29")}))
    for name in ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME"):
        monkeypatch.setenv(f"AZUREML_ARM_{name}", name[0])

    assert "probed-service" not in {one.code for one in plan_of().findings}

    keep("s/r/w", Probed("W", {"batch_master_port": Seen(2, "2026-11-29"), "ray_port": Seen(6379, "2026-11-29")}))
    assert {*read_all(service_file())} == {"s/r/other", "s/r/w"}
    plan = plan_of()
    assert plan.processes[0].env["AZ_BATCH_MASTER_NODE"].endswith(":2")
    assert [one.message for one in plan.findings if one.code == "probed-service"] == [
        "a probe of W on 2026-11-29 found `batch_master_port` to be 2, not 6000: this changes `AZ_BATCH_MASTER_NODE`"
    ]
    alone = Job(command="x").plan()
    assert "probed-service" not in {one.code for one in alone.findings}  # it has no such variable
    assert settled("nccl_socket_ifname", observed(plan_of(kind=Mpi))).state == "confirmed"
