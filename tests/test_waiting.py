"""Waiting for a run on Azure ML: why it has not started, what is shown meanwhile, and when it is given up."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from checking import compute
from emulated import SDK_WARNINGS
from submitting import job, logged_in
from terminals import at_terminal
from test_who_submits import cli

from azml_dist import AzureML, JobError, PyTorch, RunFailed, submit
from azml_dist.azureml import waiting
from azml_dist.azureml.described import Details
from azml_dist.azureml.group import azure_run
from azml_dist.azureml.phases import Phases
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Cluster, Emulator, answer, odd
from azml_dist.emulator.state import TOTAL_DEDICATED
from azml_dist.status import RunStatus

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture
def run(azure: AzureML) -> AzureRun:
    """A run that wants two nodes, and waits for the test."""
    return azure.submit(job(node_count=2, distribution=PyTorch()))


def queued(emulator: Emulator, run: AzureRun, **cluster: Any) -> dict[str, Any] | None:
    """Why the run waits, on such a cluster."""
    compute(emulator, **cluster)
    emulator.job(run.name).advance("Queued")
    found: dict[str, Any] | None = run.describe()["wait"]
    return found


# Why


def test_the_services_own_words_come_first(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).queueing = {
        "code": "ComputeTargetBusy",
        "message": "Waiting for  resources:\n 3 runs are ahead in the queue of the compute target.",
        "lastRefreshTimestamp": "2026-11-28T10:00:00.1234567+00:00",
    }

    found = queued(emulator, run, runs={"calm_fox": 4})

    text = "Waiting for resources: 3 runs are ahead in the queue of the compute target."
    assert found == {"reason": text, "source": "service"}
    assert f"why it waits  {text}" in str(run)
    assert "computes.listNodes" not in emulator.counts()


def test_else_what_can_be_seen_of_the_cluster(emulator: Emulator, azure: AzureML, run: AzureRun) -> None:
    other = azure.submit(job(name="calm_fox"))
    emulator.job(other.name).past = [("NotStarted", "2026-01-01T00:00:00.0000001+00:00"), ("Running", past(11_400))]

    found = queued(emulator, run, runs={other.name: 3}, leaving=1)

    assert found == {
        "reason": "wants 2 nodes; gpu-cluster has 4, 0 idle: 3 used by run calm_fox (3 h 10 min), 1 leaving",
        "source": "seen",
    }


def past(seconds: int) -> str:
    """A stamp of so long ago."""
    then = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%S.0000000+00:00")


WANTS = "wants 2 nodes; gpu-cluster has"
SHOWS: list[tuple[dict[str, Any], str | None]] = [
    ({"idle": 0}, f"{WANTS} 0 of at most 4, 0 idle; 2 nodes must start first"),
    ({"idle": 1, "preparing": 1}, f"{WANTS} 2 of at most 4, 1 idle: 1 preparing; 1 node must start first"),
    (
        {"runs": {"a": 2, "b": 1}, "unusable": 1},
        f"{WANTS} 4, 0 idle: 2 used by run a, 1 used by run b, 1 unusable",
    ),
    ({"max_nodes": 1}, f"{WANTS} 1, 1 idle; it can never have more than 1"),
    ({"state": "Failed", "errors": ("no quota",)}, "compute gpu-cluster is Failed: no quota"),
    ({"kind": "Kubernetes"}, None),
]


@pytest.mark.parametrize(("cluster", "reason"), SHOWS)
def test_a_wait_is_explained_by_what_the_cluster_shows(
    emulator: Emulator, run: AzureRun, cluster: dict[str, Any], reason: str | None
) -> None:
    found = queued(emulator, run, **cluster)

    assert found == (reason and {"reason": reason, "source": "seen"})


def test_quota_that_is_used_up(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.quota[TOTAL_DEDICATED] = (1900, 2000)

    found = queued(emulator, run, idle=0)

    assert found
    assert found["reason"].endswith(
        f"0 idle; the quota `{TOTAL_DEDICATED}` has 100 of 2,000 vCPUs left, new nodes need 192"
    )


def test_a_run_that_has_its_nodes_does_not_wait_for_any(emulator: Emulator, run: AzureRun) -> None:
    assert queued(emulator, run, runs={run.name: 2}) is None


def test_a_compute_that_was_deleted_meanwhile(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).advance("Queued")
    del emulator.workspace.computes["gpu-cluster"]

    assert run.describe()["wait"]["reason"] == "the workspace has no compute gpu-cluster any more"


def test_the_log_of_an_image_build_explains_a_long_preparation(
    emulator: Emulator, run: AzureRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LONG", 0.0)
    here = emulator.job(run.name)
    here.advance("Preparing")
    here.write_log("azureml-logs/20_image_build_log.txt", "Step 3/15\n")

    building = run.describe()["wait"]
    here.write_log("system_logs/lifecycler/lifecycler.log", "on a node\n")
    started = azure_run(run._workspace, run.name).describe()["wait"]

    assert building == {
        "reason": "Azure ML is building the image of its environment, which takes minutes; see"
        " azureml-logs/20_image_build_log.txt",
        "source": "seen",
    }
    assert started is None or "image" not in started["reason"]


def test_who_may_read_none_of_it_waits_as_before(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.forbidden = {"runs.get", "computes.get", "computes.listNodes", "vmSizes.list", "usages.list"}

    assert queued(emulator, run, runs={"a": 4}) is None
    emulator.job(run.name).script = ["Queued", "Running", "Completed"]
    assert run.wait(timeout=60) is run


@pytest.mark.parametrize(
    "answer", [b"[]", b"<html>", b'{"queueingInfo": [1]}', b'{"queueingInfo": {"message": 7}}', b'{"queueingInfo": {}}']
)
def test_an_odd_answer_is_no_reason(emulator: Emulator, run: AzureRun, answer: bytes) -> None:
    emulator.inject(odd(200, answer, heard=False), route="runs.get", times=None)

    found = queued(emulator, run, idle=0)

    assert found
    assert found["source"] == "seen"


def test_it_is_asked_seldom_and_only_while_the_run_waits(emulator: Emulator, azure: AzureML) -> None:
    emulator.play("Queued", "Queued", "Queued", "Queued", "Running", "Running", "Completed")

    azure.submit(job(node_count=2, distribution=PyTorch())).wait(timeout=60)

    assert {emulator.counts()[route] for route in ("computes.get", "computes.listNodes")} == {1}


# What is shown


def test_a_pipe_gets_a_line_for_each_change(emulator: Emulator, run: AzureRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "EVERY", 0.0)
    compute(emulator, runs={"a": 3}, leaving=1)
    emulator.job(run.name).script = ["Queued"] * 6 + ["Preparing"] * 2 + ["Running"] * 2 + ["Completed"]
    told: list[str] = []

    run.wait(timeout=60, tell=told.append)

    assert [re.sub(r" \(.*\)$", "", line) for line in told] == [
        f"run {run.name}: queued: wants 2 nodes; gpu-cluster has 4, 0 idle: 3 used by run a, 1 leaving",
        f"run {run.name}: preparing",
        f"run {run.name}: running",
        f"run {run.name}: completed",
    ]


def test_a_script_without_a_terminal_gets_nothing(
    emulator: Emulator, run: AzureRun, capfd: pytest.CaptureFixture[str]
) -> None:
    emulator.job(run.name).script = ["Queued", "Running", "Completed"]

    run.wait(timeout=60)

    assert capfd.readouterr() == ("", "")


def test_phases_have_their_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    phases = Phases(now[0])
    for status, seconds in ((RunStatus.NOT_STARTED, 0), (RunStatus.QUEUED, 720), (RunStatus.PREPARING, 180)):
        phases.saw(status)
        now[0] += seconds
    phases.saw(RunStatus.NOT_RESPONDING)
    now[0] += 11_400

    assert phases.line() == "not responding 3 h 10 min (queued 12 min, preparing 3 min)"
    assert phases.change() == "not responding (queued 12 min, preparing 3 min)"


def test_phases_begin_and_end_when_the_service_says_so(
    emulator: Emulator, run: AzureRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late they are noticed: here 22 s after the run began, which took 5 s."""
    late, real = [0.0], time.time
    monkeypatch.setattr("time.time", lambda: real() + late[0])
    here = emulator.job(run.name)
    began = datetime.now(timezone.utc)

    def changed() -> None:
        took = timedelta(seconds=5 if here.status == "Completed" else 0)
        here.past[-1] = here.status, (began + took).isoformat()
        late[0] = 22.0 if took else 0.0

    emulator.workspace.on_change = changed
    here.script = ["Running", "Running", "Completed"]
    told: list[str] = []

    run.wait(timeout=60, tell=told.append)

    assert told[-1] == f"run {run.name}: completed (running 5 s)"


def test_a_login_without_the_run_history_waits_too(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).script = ["Queued", "Running", "Completed"]
    emulator.inject(answer(403), route="runs.details", times=None)
    told: list[str] = []

    run.wait(timeout=60, tell=told.append)

    assert told[-1].startswith(f"run {run.name}: completed")


def test_a_run_that_began_and_ended_unseen_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    phases = Phases(now - 60)
    phases.saw(RunStatus.QUEUED)

    phases.saw(RunStatus.COMPLETED, recorded(now - 40, now - 10))

    assert phases.line() == "completed (queued 20 s, running 30 s)"


def test_a_clock_that_is_wrong_makes_no_phase_longer_than_it_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    ahead, behind = Phases(now[0]), Phases(now[0])
    for phases in (ahead, behind):
        phases.saw(RunStatus.QUEUED)
    now[0] += 60
    ahead.saw(RunStatus.RUNNING, recorded(now[0] + 3600))
    behind.saw(RunStatus.RUNNING, recorded(now[0] - 3600))

    assert (ahead.line(), behind.line()) == ("running 0 s (queued 60 s)", "running 60 s")


def recorded(started: float, ended: float | None = None) -> Details:
    """What the service says about a run that began and ended then."""
    begun, over = (datetime.fromtimestamp(at or 0, timezone.utc).isoformat() for at in (started, ended))
    return Details(RunStatus.COMPLETED if ended else RunStatus.RUNNING, None, {}, None, begun, over if ended else None)


def test_status_knows_the_phases_of_a_run_that_somebody_else_submitted(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).past = [
        ("NotStarted", "2026-01-01T00:00:00.0000001+00:00"),
        ("Running", "2026-01-01T00:15:00.0000002+00:00"),
        ("Completed", "2026-01-01T03:25:00.0000003+00:00"),
    ]
    emulator.job(run.name).status = "Completed"

    found = azure_run(run._workspace, run.name)

    assert found.describe()["phases"] == [{"name": "waiting", "seconds": 900}, {"name": "running", "seconds": 11_400}]
    assert re.search(r"\nwaiting +15 min\nrunning +3 h 10 min\n", str(found))


@pytest.fixture
def file(emulator: Emulator, azure_sdk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file of a job of two nodes, and the variables of whoever is logged in."""
    emulator.assets.add_environment("torch")
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    job(node_count=2, distribution=PyTorch()).dump(tmp_path / "job.yml")
    return str(tmp_path / "job.yml")


def test_a_terminal_has_a_foot_with_the_phase_why_it_waits_and_the_last_lines(emulator: Emulator, file: str) -> None:
    compute(emulator, runs={"a_run_with_a_long_name_of_its_own": 3}, leaving=1)
    with at_terminal("submit", file, "--no-check", "--wait", "--set", "name=one") as terminal:
        terminal.wait_for(lambda _: "one" in emulator.jobs.jobs)
        emulator.job("one").advance("Queued")
        # Its age grows while nothing is asked.
        for least in (1, 2):
            terminal.wait_for(
                lambda text, least=least: (  # type: ignore[misc]
                    (found := re.search(r"\nqueued (\d+) s  one\nwants 2 nodes; ", text)) and int(found[1]) >= least
                )
            )
        emulator.job("one").advance("Running")
        terminal.wait_for(lambda text: re.search(r"\nrunning \d+ s \(.*queued \d+ s\)  one\b", text))
        emulator.job("one").write_log("user_logs/std_log_process_0.txt", "begun\n10%\r20%")
        terminal.wait_for(lambda text: re.search(r"\n\[node0 rank0\] 20% +\d s", text))
        emulator.job("one").advance("Completed")

        assert terminal.end() == 0
        assert terminal.is_as_it_was()
        assert sum(re.match(r"run one: completed \(.*queued", line) is not None for line in terminal.everything) == 1
        assert not [line for line in terminal.everything if line.startswith(("queued", "running", "[node"))]


def test_who_follows_a_run_at_a_terminal_sees_its_bars(emulator: Emulator, file: str, run: AzureRun) -> None:
    emulator.job(run.name).advance("Running")
    with at_terminal("logs", run.name, "--follow") as terminal:
        terminal.wait_for(lambda text: re.search(rf"^running \d+ s  {run.name}$", text, re.MULTILINE))
        emulator.job(run.name).write_log("user_logs/std_log_process_1.txt", "begun\n10%\r20%")
        terminal.wait_for(lambda text: re.search(r"\n\[node0 rank0\] no line yet\n\[node1 rank1\] 20% +\d s", text))
        emulator.job(run.name).write_log("user_logs/std_log_process_1.txt", "\r30%\n")
        emulator.job(run.name).advance("Completed")

        assert terminal.end() == 0
        assert terminal.is_as_it_was()
        assert [line for line in terminal.everything if line.startswith("[")] == [
            "[node1 rank1] begun",
            "[node1 rank1] 30%",
        ]


def test_a_dumb_terminal_gets_plain_lines(emulator: Emulator, file: str) -> None:
    emulator.play("Running", "Completed")
    argv = ("submit", file, "--no-check", "--wait", "--set", "name=one")

    with at_terminal(*argv, env={"TERM": "dumb"}) as terminal:
        assert terminal.end() == 0

    assert b"\x1b" not in terminal.raw
    assert b"run one: completed" in terminal.raw


# Giving up


def test_a_run_that_does_not_start_in_time_is_cancelled(
    emulator: Emulator, run: AzureRun, capfd: pytest.CaptureFixture[str]
) -> None:
    compute(emulator, runs={"a": 4})
    emulator.job(run.name).advance("Queued")

    with pytest.raises(RunFailed, match="was cancelled because it had not started after 1 s: wants 2 nodes") as failed:
        run.wait(timeout=60, max_wait=1)

    assert emulator.job(run.name).status == "Canceled"
    assert failed.value.reason == "capacity"
    assert f"note: run {run.name} is cancelled: it had not started after 1 s: wants 2 nodes" in capfd.readouterr().err


def test_a_run_that_only_prepares_did_not_lack_nodes(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).advance("Preparing")

    with pytest.raises(RunFailed, match=r"it had not started after 1 s \(preparing until then\)") as failed:
        run.wait(timeout=60, max_wait=1)

    assert failed.value.reason == "canceled"


def test_a_run_that_has_started_is_left_alone(emulator: Emulator, run: AzureRun) -> None:
    """Also one that waits again, because its nodes were evicted."""
    for status in ("Running", "Queued"):
        emulator.job(run.name).advance(status)

        with pytest.raises(TimeoutError):
            run.wait(timeout=2, max_wait=0.5)

    assert emulator.counts()["jobs.cancel"] == 0


def test_the_limit_of_a_submission_counts_from_there(emulator: Emulator, azure: AzureML) -> None:
    run = submit(job(), on=azure, max_wait=1)
    emulator.job(run.name).advance("Provisioning")

    with pytest.raises(RunFailed, match=r"had not started after 1 s \(provisioning until then\)"):
        run.wait(timeout=60)

    with pytest.raises(JobError, match="must be greater than 0"):
        submit(job(), on=azure, max_wait=0)


def test_the_command_line_gives_up_too(emulator: Emulator, file: str) -> None:
    compute(emulator, runs={"a": 4})
    emulator.play(*["Queued"] * 3)

    given_up = cli(emulator, "submit", file, "--no-check", "--wait", "--max-wait", "2", "--json", "--set", "name=one")
    told = cli(emulator, "status", "one", "--json")

    assert given_up.returncode == 1
    found = json.loads(given_up.stdout)
    assert (found["status"], found["reason"]) == ("Canceled", "capacity")
    lines = given_up.stderr.splitlines()
    assert "run one: queued: wants 2 nodes; gpu-cluster has 4, 0 idle: 4 used by run a" in lines
    assert any("was cancelled because it had not started after 2 s: wants 2 nodes" in line for line in lines)
    assert json.loads(told.stdout)["phases"][0]["name"] == "waiting"
    why = "cancelled because it had not started after 2 s: wants 2 nodes; gpu-cluster has 4, 0 idle: 4 used by run a"
    assert [json.loads(told.stdout)[name] for name in ("error", "reason")] == [why, "capacity"]
    assert f"error  {why}\n" in cli(emulator, "status", "one").stdout
    explained, waited = cli(emulator, "why", "one"), cli(emulator, "wait", "one")
    assert f"why {why}" in " ".join(explained.stdout.split())
    assert "hint" not in explained.stderr
    assert f"error: run one was {why}" in waited.stderr


def test_why_a_run_was_cancelled_is_known_only_where_and_if_that_ended_it(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [submit(job(name=name), on=azure) for name in ("here", "there", "ended", "again")]
    for run in runs:
        emulator.job(run.name).advance("Running")
    azure.workspace.client.jobs.begin_cancel("there").result()  # another client
    for run in (runs[0], runs[3]):
        run.cancel(reason="cancelled for the test")
    emulator.play("CancelRequested", "Completed")
    runs[2].cancel()
    emulator.job("ended").status = "Completed"

    def errors() -> list[str | None]:
        return [azure_run(azure.workspace, run.name).describe()["error"] for run in runs]

    assert errors() == ["cancelled for the test", None, None, "cancelled for the test"]
    emulator.jobs.jobs["again"].system_data["createdAt"] = "2026-01-01T00:00:00+00:00"  # another run of that name
    assert errors() == ["cancelled for the test", None, None, None]
    for name in ("here", "there"):
        emulator.job(name).error = {"error": {"code": "UserError", "message": "The run was stopped."}}
    assert errors()[:2] == ["cancelled for the test: The run was stopped.", "The run was stopped."]
    monkeypatch.setenv("AZML_DIST_CACHE", str(tmp_path / "another machine"))
    assert errors() == ["The run was stopped.", "The run was stopped.", None, None]


def test_the_command_line_waits_for_the_start_alone(emulator: Emulator, file: str) -> None:
    emulator.play("Queued", "Running")
    started = cli(emulator, "submit", file, "--no-check", "--max-wait", "60", "--json", "--set", "name=one")
    compute(emulator, runs={"a": 4})
    emulator.play(*["Queued"] * 3)
    given_up = cli(emulator, "submit", file, "--no-check", "--max-wait", "1", "--set", "name=two")

    assert (started.returncode, json.loads(started.stdout)["status"]) == (0, "Running")
    assert "run one: running" in started.stderr
    assert given_up.returncode == 1
    assert "was cancelled because it had not started after 1 s" in given_up.stderr
    assert emulator.job("two").status == "Canceled"


def test_a_notebook_shows_phases_and_the_reason_in_a_table(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.computes["gpu-cluster"] = Cluster(runs={"a": 4})
    emulator.job(run.name).advance("Queued")

    shown = run._repr_html_()

    assert re.search(r"<tr><td[^>]*>queued</td><td[^>]*>\d+ s</td></tr>", shown)
    assert re.search(r"<tr><td[^>]*>why it waits</td><td[^>]*>wants 2 nodes; gpu-cluster has 4, 0 idle: 4 used", shown)
