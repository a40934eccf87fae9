"""The handle of a run on Azure ML, and the logs of all its ranks: the real client, against the emulated service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import imported
from running import CLI, await_, cli
from submitting import code_in, job

from azml_dist import AzureML, Mpi, NotFound, Output, PyTorch, Ray, RunFailed, SubmitError, TensorFlow, submit
from azml_dist.azureml.group import azure_run
from azml_dist.azureml.listing import latest
from azml_dist.azureml.logs import PIECE, LogName, World, parse
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, answer, odd, reset_before
from azml_dist.emulator.credential import TokenOfEachScope
from azml_dist.overview import overview
from azml_dist.plan.world import Service
from azml_dist.runs.logs import Source

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture
def run(azure: AzureML) -> AzureRun:
    """A run of 2 x 2 processes that waits for the test."""
    return azure.submit(job(node_count=2, distribution=PyTorch(process_count_per_node=2)))


def log(rank: int) -> str:
    return f"user_logs/std_log_process_{rank}.txt"


def holds(lines: list[str], count: int) -> bool:
    return len(lines) >= count


# Status, waiting, the end


def test_a_run_that_completes_is_waited_for(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).script = ["Preparing", "Running", "Completed"]

    assert run.wait(timeout=60).status == "Completed"


@pytest.mark.parametrize("status", ["Failed", "Canceled"])
def test_a_run_that_ends_badly_raises_with_the_services_words_and_the_ranks_log(
    emulator: Emulator, run: AzureRun, status: str
) -> None:
    here = emulator.job(run.name)
    here.write_log(log(0), "all well here\n")
    here.write_log(log(3), "Traceback\nValueError: no such thing\n")
    message = "Execution failed. User process 'python' exited with status code 1. Check user_logs/std_log_process_3.txt"
    here.advance(status, error=message if status == "Failed" else None)

    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=30)

    assert failed.value.run is run
    if status == "Failed":
        assert failed.value.failed_rank == 3
        assert failed.value.exit_codes == {3: 1}
        assert "exited with status code 1" in str(failed.value)
        assert failed.value.log_tail == "Traceback\nValueError: no such thing"


def test_that_a_run_failed_is_said_also_where_its_reason_cannot_be_read(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).fail("it failed")
    emulator.inject(odd(200, b"[]", heard=False), route="runs.details", times=None)

    with pytest.raises(
        RunFailed, match=f"run {run.name} failed: the reason cannot be read: .* is a list, not an object"
    ):
        run.wait(timeout=30)


def test_waiting_for_longer_than_allowed_leaves_the_run_going_on(run: AzureRun) -> None:
    with pytest.raises(TimeoutError, match=f"run {run.name} is still NotStarted after 0.1 s"):
        run.wait(timeout=0.1)


def test_who_was_stopped_because_another_rank_failed_is_not_blamed(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.write_log(log(2), "ValueError\n")
    here.fail(
        "Process 'worker 0' exited with code -2. It was terminated by the runtime due to failure in other processes on "
        "the same node. Process 'worker 2' exited with code 1 and error message 'Execution failed.'"
    )

    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=30)

    assert (failed.value.failed_rank, failed.value.log_tail) == (2, "ValueError")


def test_a_status_that_is_new_to_us_is_no_error(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).script = ["Scheduled", "Running", "Completed"]

    assert run.wait(timeout=60).status == "Completed"


def test_waiting_outlives_a_connection_that_is_gone_for_a_while(emulator: Emulator, run: AzureRun) -> None:
    emulator.inject(reset_before(), route="jobs.get", times=7)  # more than one call tries
    emulator.job(run.name).script = ["Completed"]

    assert run.wait(timeout=60) is run


def test_a_service_that_is_out_of_reach_is_waited_for_no_longer_than_allowed(emulator: Emulator, run: AzureRun) -> None:
    emulator.inject(odd(200, b"<html>", heard=False), route="jobs.get", times=None)

    with pytest.raises(TimeoutError, match=f"cannot find run {run.name}: .*HTML.*, until the timeout"):
        run.wait(timeout=0.2)


@pytest.mark.parametrize("status", ["NotResponding", "Paused"])
@pytest.mark.parametrize("how", ["wait", "follow"])
def test_a_run_that_does_not_respond_for_long_is_over(
    emulator: Emulator, azure: AzureML, capfd: pytest.CaptureFixture[str], status: str, how: str
) -> None:
    run = AzureML(azure.workspace, service=Service(final_when_unchanged=1.0)).submit(job())
    emulator.job(run.name).write_log("user_logs/std_log.txt", "said\n")
    emulator.job(run.name).script = ["Running", status]
    if how == "follow":
        emulator.job(run.name).advance(status)
        assert list(run.logs(follow=True)) == ["[node0 rank0] said"]

    with pytest.raises(RunFailed, match=f"run {run.name} has been {status} for 1 s") as over:
        run.wait(timeout=60)

    assert over.value.run.status == status
    assert f"azml-dist cancel {run.name}" in str(over.value.hint)
    assert capfd.readouterr().err.count(f"note: run {run.name} is {status}") == 1


def test_a_run_that_responds_again_goes_on(emulator: Emulator, azure: AzureML) -> None:
    """Ten minutes count from the last change, not from the first."""
    run = AzureML(azure.workspace, service=Service(final_when_unchanged=2.5)).submit(job())
    emulator.job(run.name).script = ["NotResponding", "Running", "Paused", "NotResponding", "Paused", "Completed"]

    assert run.wait(timeout=60).status == "Completed"
    assert Service().final_when_unchanged == 600


def test_a_run_that_does_not_respond_can_be_left_and_cancelled(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.job(run.name).advance("NotResponding")
    for name, value in login_at(emulator, tmp_path).items():
        monkeypatch.setenv(name, value)

    with cli("logs", run.name, "--follow", cwd=tmp_path) as follower:
        assert follower.stderr
        assert follower.stderr.readline().startswith(f"note: run {run.name} is NotResponding")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=30) == 130
    run.cancel()

    assert emulator.counts()["jobs.cancel"] == 1
    assert run.status == "Canceled"


def test_canceling_a_run_that_has_ended_does_nothing(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).advance("Completed")

    run.cancel()

    assert emulator.counts()["jobs.cancel"] == 0


def test_cancel_ends_the_run(emulator: Emulator, run: AzureRun) -> None:
    run.cancel()

    with pytest.raises(RunFailed, match="was cancelled"):
        run.wait(timeout=30)


def test_metrics_and_addresses_of_outputs_are_read_from_the_service(emulator: Emulator, azure: AzureML) -> None:
    here = Output(path="azureml://datastores/workspaceblobstore/paths/mine/${{name}}")
    run = azure.submit(job(outputs={"model": Output(), "mine": here}))
    emulator.job(run.name).log_metric("loss", 0.5, 1)
    emulator.job(run.name).log_metric("loss", 0.25, 2)

    assert run.metrics() == {"loss": 0.25}
    assert run.outputs == {name: emulator.job(run.name).output_uri(name) for name in ("model", "mine")}
    assert run.outputs["mine"].endswith(f"/mine/{run.name}")
    assert run.name in run.url


@pytest.mark.parametrize("secrets", ["key", "sas", "none"])
def test_outputs_artifacts_and_logs_are_downloaded_as_a_local_run_has_them(
    emulator: Emulator, azure: AzureML, tmp_path: Path, secrets: str
) -> None:
    """Whatever the datastores answer: a key, a SAS, or that one's own login must do."""
    for store in emulator.workspace.datastores.values():
        store.secrets = secrets
    command = "echo weights > ${{outputs.model}}/w.txt; echo art > outputs/a.txt; echo said"
    run = azure.submit(job(command=command, outputs={"model": Output()}))
    emulator.run(run.name)

    run.download(tmp_path / "got")

    left_out = {"system_logs", ".azml-dist"}
    found = [path for path in (tmp_path / "got").rglob("*") if path.is_file() and not left_out & {*path.parts}]
    assert {path.relative_to(tmp_path / "got").as_posix(): path.read_text() for path in found} == {
        "artifacts/outputs/a.txt": "art\n",
        "outputs/model/w.txt": "weights\n",
        "user_logs/std_log.txt": "said\n",
    }


def test_a_download_overwrites_nothing(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = azure.submit(job(command="echo theirs > outputs/a.txt; echo more > outputs/b.txt"))
    emulator.run(run.name)
    mine = tmp_path / "artifacts" / "outputs" / "a.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")

    run.download(tmp_path)

    assert mine.read_text() == "mine"
    assert (mine.parent / "b.txt").read_text() == "more\n"


def test_what_a_run_still_writes_is_not_downloaded(run: AzureRun, tmp_path: Path) -> None:
    with pytest.raises(SubmitError, match="is still NotStarted"):
        run.download(tmp_path / "got")

    assert not (tmp_path / "got").exists()


def test_the_latest_runs_are_listed_over_the_pages_of_the_service(emulator: Emulator, azure: AzureML) -> None:
    emulator.jobs.page_size = 20
    names = [f"run-{i}" for i in range(55)]
    for name in names:
        azure.submit(job(name=name))

    assert [run["name"] for run in AzureRun.latest(azure.workspace)] == names[-50:]


def test_sweeps_and_pipelines_of_the_workspace_are_listed_too(emulator: Emulator, azure: AzureML) -> None:
    from azure.ai.ml import MLClient, command, dsl
    from azure.ai.ml.sweep import Choice

    here = emulator.workspace
    ml_client = MLClient(TokenOfEachScope(here), here.subscription_id, here.resource_group, here.name)
    azure.submit(job(name="alone"))
    one = command(command="echo ${{inputs.lr}}", inputs={"lr": 1}, environment="azureml:torch:1", compute="gpu-cluster")
    swept = one(lr=Choice([1, 2])).sweep(primary_metric="loss", goal="minimize", sampling_algorithm="grid")
    swept.name = "swept"
    ml_client.jobs.create_or_update(swept)

    @dsl.pipeline  # type: ignore[untyped-decorator]
    def steps() -> None:
        one()

    made = steps()
    made.name = "steps"
    ml_client.jobs.create_or_update(made)

    listed = AzureRun.latest(azure.workspace)
    table = overview(here=False, there=listed).lines()

    assert [(run["name"], run["kind"]) for run in listed] == [
        ("alone", "command"),
        ("swept", "sweep"),
        ("steps", "pipeline"),
    ]
    assert [row[3].strip() for row in table] == ["world", "1", "sweep", "pipeline"]


def test_a_list_asks_how_long_all_runs_took_at_once(emulator: Emulator, azure: AzureML) -> None:
    past = [("NotStarted", "10:00:00"), ("Running", "10:10:00"), ("Completed", "10:12:30")]
    for name, known in (("waits", 1), ("runs", 2), ("done", 3)):
        azure.submit(job(name=name))
        here = emulator.job(name)
        here.past = [(status, f"2026-11-01T{at}.1234567Z") for status, at in past[:known]]
        here.status = here.past[-1][0]
    emulator.requests.clear()

    found = overview(here=False, there=AzureRun.latest(azure.workspace)).runs

    assert [run.name for run in found] == ["waits", "runs", "done"]
    assert (found[0].took, found[2].took) == (None, 150.0)
    assert (found[1].took or 0) > 1000  # until now
    assert [str(request.route) for request in emulator.requests].count("runs.dataOfMany") == 1


def test_a_list_without_times_is_a_list(emulator: Emulator, azure: AzureML) -> None:
    azure.submit(job(name="done"))
    emulator.job("done").advance("Running")
    emulator.job("done").advance("Completed")
    emulator.inject(answer(404), route="runs.dataOfMany", times=None)

    [run] = overview(here=False, there=AzureRun.latest(azure.workspace)).runs

    assert (run.name, run.status, run.took) == ("done", "Completed", None)


def test_a_run_that_is_not_there_is_not_found(azure: AzureML) -> None:
    with pytest.raises(NotFound):
        azure_run(azure.workspace, "nowhere")


def test_a_notebook_shows_the_phase_its_age_and_the_last_line_of_each_rank(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.write_log(log(3), "first\nepoch 1 <10%>\repoch 1 \x1b[32m<20%>\x1b[0m")

    waiting, text = run._repr_html_(), str(azure_run(run._workspace, run.name))
    submitted = str(run)
    here.advance("Preparing")
    preparing = str(run)
    here.advance("Running")

    assert re.match(rf"{run.name}  NotStarted  submitted \d+ s ago\n", text)
    assert re.match(rf"{run.name}  NotStarted  for \d+ s\n", submitted)
    assert re.search(r"\n   0     0  no output yet *\n", text)
    assert re.search(r"\n   3     1  epoch 1 <20%> +user_logs/std_log_process_3.txt", text)
    assert "<td" in waiting
    assert "epoch 1 &lt;20%&gt;<" in waiting
    assert re.match(rf"{run.name}  Preparing  for \d+ s\n", preparing)
    assert re.match(rf"{run.name}  Running  for \d+ s\n", str(run))


def test_runs_of_a_workspace_are_described_as_those_here(azure: AzureML, tmp_path: Path) -> None:
    """The distribution among them, and a script with a space in its name."""
    code = code_in(tmp_path / "src", {"my train.py": ""})
    fields: dict[str, Any] = {"command": 'python "my train.py"', "code": code}
    worlds: list[dict[str, Any]] = [
        {"node_count": 2, "distribution": PyTorch(process_count_per_node=2)},
        {"node_count": 2, "distribution": Mpi(process_count_per_node=2)},
        {"node_count": 2, "distribution": TensorFlow(parameter_server_count=1)},
        {"node_count": 2, "distribution": Ray()},
        {},
    ]
    for world in worlds:
        asked = job(**fields, **world)
        run, plan = azure.submit(asked), asked.plan()
        told = next(one for one in latest(azure.workspace) if one["name"] == run.name)

        assert told["world"] == run.describe()["world"] == plan.world._asdict()
        assert told["script"] == "my train.py"


def test_of_a_large_world_the_first_the_last_and_the_failed_rank_are_shown(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job(node_count=64, distribution=PyTorch(process_count_per_node=8)))
    emulator.job(run.name).fail("see std_log_process_300.txt")

    shown = re.findall(r"^ *(\d+|\.\.\.)(?:  +\d+  no output)?$", str(run), re.MULTILINE)

    assert shown == [*map(str, range(8)), "300", "..."]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a notebook gets to show, of which this process is the kernel."""
    displaypub: Any = imported("IPython.core.displaypub")
    interactiveshell: Any = imported("IPython.core.interactiveshell")
    shell = interactiveshell.InteractiveShell.instance()
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    publisher = displaypub.CapturingDisplayPublisher()
    monkeypatch.setattr(shell, "display_pub", publisher)
    return publisher


def test_who_submits_in_a_notebook_is_told_what_to_type_next(azure: AzureML, published: Any) -> None:
    run = submit(job(), on=azure)

    (shown,) = [output["data"]["text/html"] for output in published.outputs]
    assert f'<a href="{escape(run.url)}">studio</a>' in shown
    assert f"<code>azml-dist logs {run.name} --follow</code>" in shown
    assert f"<code>run = azml_dist.run(&quot;{run.name}&quot;); run.wait()</code>" in shown


def test_waiting_in_a_notebook_renews_what_it_shows(emulator: Emulator, run: AzureRun, published: Any) -> None:
    emulator.job(run.name).script = ["Queued", "Running", "Completed"]

    run.wait(timeout=60)

    shown = [output["data"]["text/html"] for output in published.outputs]
    assert len(shown) > 1
    assert "Completed" in shown[-1]
    assert {output["transient"]["display_id"] for output in published.outputs[1:]} == {
        published.outputs[0]["transient"]["display_id"]
    }


# Logs


def test_all_ranks_of_a_real_run_are_followed_to_the_last_line(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    code = code_in(
        tmp_path / "code", {"say.sh": "for i in 1 2 3; do echo $RANK-$i; sleep 0.3; done; printf last-$RANK"}
    )
    emulator.run_what_is_submitted()
    run = azure.submit(
        job(code=code, command="bash say.sh", node_count=2, distribution=PyTorch(process_count_per_node=2))
    )

    lines = list(run.logs(follow=True))

    for rank in range(4):
        mine = [line for line in lines if line.startswith(f"[node{rank // 2} rank{rank}] ")]
        assert [line.split()[-1] for line in mine] == [f"{rank}-1", f"{rank}-2", f"{rank}-3", f"last-{rank}"]
    assert len(lines) == 16
    assert list(run.logs(rank=3)) == ["3-1", "3-2", "3-3", "last-3"]
    assert {line.split("] ")[0] for line in run.logs(node=1)} == {"[node1 rank2", "[node1 rank3"}


def test_every_byte_is_downloaded_once(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    text = "".join(f"line {i:07d} of a log\n" for i in range(40_000))
    steps = [text[i : i + len(text) // 14] for i in range(0, len(text), len(text) // 14)]
    followed: list[str] = []
    thread = threading.Thread(target=lambda: followed.extend(run.logs(rank=0, follow=True)))
    emulator.forget()
    thread.start()
    sent = ""
    for step in steps:
        here.write_log(log(0), step)
        sent += step
        await_(partial(holds, followed, sent.count("\n")))
    here.advance("Completed")
    thread.join(timeout=30)

    assert followed == text.splitlines()
    _, downloaded = emulator.bytes_by_host()[emulator.workspace.account.host]
    assert downloaded <= 1.1 * len(text)


def test_a_broken_connection_loses_and_repeats_nothing(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    followed: list[str] = []
    thread = threading.Thread(target=lambda: followed.extend(run.logs(rank=0, follow=True)))
    here.write_log(log(0), "first\n")
    thread.start()
    await_(lambda: followed)
    emulator.inject(reset_before(), host=emulator.workspace.account.host, times=2)
    here.write_log(log(0), "second\nthi")
    await_(lambda: len(followed) == 2)
    here.write_log(log(0), "rd\n")
    here.advance("Completed")
    thread.join(timeout=30)

    assert followed == ["first", "second", "third"]


def test_an_address_that_has_expired_is_asked_for_anew(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.write_log(log(0), "said\n")
    here.advance("Completed")
    emulator.inject(answer(403, code="AuthenticationFailed"), host=emulator.workspace.account.host, times=1)

    assert list(run.logs(rank=0)) == ["said"]


def test_logs_that_cannot_be_read_are_one_clear_line(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.write_log(log(0), "said\n")
    here.advance("Completed")
    emulator.inject(answer(403, code="AuthorizationFailure"), host=emulator.workspace.account.host, times=100)

    with pytest.raises(SubmitError, match=r"not all logs of run .* can be read"):
        list(run.logs(rank=0))


def test_addresses_that_know_identities_alone_are_read_with_the_login(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.signed_logs = False
    here = emulator.job(run.name)
    here.write_log(log(0), "said\n")
    here.advance("Completed")

    assert list(run.logs(rank=0)) == ["said"]


def test_512_ranks_are_followed_with_few_requests_at_a_time(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job(node_count=64, distribution=PyTorch(process_count_per_node=8)))
    here = emulator.job(run.name)
    for rank in range(512):
        here.write_log(f"user_logs/std_log_process_{rank:03d}.txt", f"I am {rank}\n")
    here.advance("Completed")
    emulator.forget()

    lines = list(run.logs())

    assert sorted(lines) == sorted(f"[node{rank // 8} rank{rank}] I am {rank}" for rank in range(512))
    assert len(emulator.requests) <= 512 + 10


def test_further_attempts_are_shown_as_such(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.write_log(log(0), "began\n")
    here.write_log("user_logs/retry_001/std_log_process_0.txt", "began again\n")
    here.advance("Completed")

    assert list(run.logs(rank=0)) == ["began", "-- attempt 2 --", "began again"]


def test_a_run_whose_nodes_were_taken_away_is_followed_over_both_attempts(emulator: Emulator, azure: AzureML) -> None:
    kept = "${{outputs.kept}}/$RANK"
    command = f"[ -e {kept} ] && {{ echo began; exit; }}; touch {kept}; echo began; sleep 600"
    run = azure.submit(job(command=command, outputs={"kept": Output()}, distribution=PyTorch(process_count_per_node=2)))
    there = emulator.start(run.name)
    await_(lambda: {log(0), log(1)} <= set(there.job.log_names()))

    followed: list[str] = []
    for line in run.logs(follow=True):
        followed.append(line)
        if len(followed) == 2:
            there.preempt()

    for rank in (0, 1):
        mine = [line.partition("] ")[2] for line in followed if f"rank{rank}]" in line]
        assert mine == ["began", "-- attempt 2 --", "began"]
    assert run.status == "Completed"


def test_a_log_of_many_pieces_and_its_tail(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    text = "".join(f"{i:09d}\n" for i in range(PIECE // 10 + 1000))
    here.write_log(log(2), text)
    here.advance("Completed")

    assert list(run.logs(rank=2)) == text.splitlines()
    assert list(run.logs(rank=2, tail=2)) == text.splitlines()[-2:]


def test_tensorflow_tasks_have_their_logs(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job(node_count=2, distribution=TensorFlow(parameter_server_count=1)))
    for name in ("00_worker", "01_worker", "00_ps"):
        emulator.job(run.name).write_log(f"user_logs/std_log_node_{name}.txt", f"{name}\n")

    assert sorted(run.logs()) == ["[node0 rank0] 00_worker", "[node0 rank2 ps] 00_ps", "[node1 rank1] 01_worker"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("user_logs/std_log.txt", Source(0, 0)),
        ("user_logs/std_log_process_5.txt", Source(5, 1)),
        ("user_logs/std_log_process_0005.txt", Source(5, 1)),
        ("user_logs/std_log_node_01_worker.txt", Source(1, 1)),
        ("user_logs/std_log_node_00_ps.txt", Source(2, 0, "ps")),
    ],
)
def test_the_name_of_a_log_says_whose_it_is(path: str, source: Source) -> None:
    assert parse(path, World(2, 4)) == LogName(path, source)


def test_other_files_are_no_ranks_logs() -> None:
    assert parse("system_logs/lifecycler/execution-wrapper.log", World(1, 1)) is None
    assert parse("user_logs/mpi_log.txt", World(1, 1)) is None


# The command line


def login_at(emulator: Emulator, folder: Path) -> dict[str, str]:
    """A folder from which the workspace is found, and the variables of a login."""
    here = emulator.workspace
    config = {
        "subscription_id": here.subscription_id,
        "resource_group": here.resource_group,
        "workspace_name": here.name,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return {"AZURE_TENANT_ID": here.tenant_id, "AZURE_CLIENT_ID": "me", "AZURE_CLIENT_SECRET": "s"}


def at_the_workspace(emulator: Emulator, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *args],
        cwd=folder,
        env=os.environ | login_at(emulator, folder),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_line_knows_runs_on_azure_like_those_here(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    here = emulator.job(run.name)
    here.write_log(log(3), "said by 3\n")
    here.advance("Completed")

    status = at_the_workspace(emulator, tmp_path, "status", run.name, "--json")
    assert json.loads(status.stdout)["status"] == "Completed", status.stderr
    logs = at_the_workspace(emulator, tmp_path, "logs", run.name, "--rank", "3", "--follow")
    assert (logs.returncode, logs.stdout) == (0, "[node1 rank3] said by 3\n")
    listed = json.loads(at_the_workspace(emulator, tmp_path, "list", "--json").stdout)
    assert [(r["name"], r["where"]) for r in listed["runs"]] == [(run.name, "azureml")]
    table = at_the_workspace(emulator, tmp_path, "list", "--azure").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["name", run.name]
    assert "  azure " in table[1]
    assert "  2 x 2 = 4  Completed  " in table[1]
    emulator.forget()
    assert json.loads(at_the_workspace(emulator, tmp_path, "list", "--here", "--json").stdout) == {"runs": []}
    assert emulator.requests == []
    last = at_the_workspace(emulator, tmp_path, "status", "--json")  # submitted from here
    assert (json.loads(last.stdout)["name"], last.stderr) == (run.name, f"run {run.name}, which was started last\n")
    missing = at_the_workspace(emulator, tmp_path, "status", "nowhere")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: there is no run 'nowhere' on this machine or in workspace")


def test_the_command_line_cancels_and_downloads_runs_on_azure(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    emulator.job(run.name).write_log(log(0), "said\n")

    early = at_the_workspace(emulator, tmp_path, "download", run.name)
    canceled = at_the_workspace(emulator, tmp_path, "cancel", run.name)
    ended = at_the_workspace(emulator, tmp_path, "download", run.name, "--to", "got")

    assert (early.returncode, early.stderr.splitlines()[0]) == (
        2,
        f"error: run {run.name} is still NotStarted: not everything that it will have is there yet",
    )
    assert (canceled.returncode, canceled.stderr) == (0, f"run {run.name}: Canceled\n")
    assert (ended.returncode, ended.stdout) == (0, "got\n"), ended.stderr
    assert (tmp_path / "got" / log(0)).read_text() == "said\n"


def test_a_pager_that_is_closed_ends_the_follower(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.job(run.name).write_log(log(0), "said\n" * 100_000)
    emulator.job(run.name).advance("Running")
    for name, value in login_at(emulator, tmp_path).items():
        monkeypatch.setenv(name, value)

    with cli("logs", run.name, "--follow", cwd=tmp_path) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "[node0 rank0] said\n"
        follower.stdout.close()
        follower.wait(timeout=30)
        follower.stdout = None


def test_a_list_of_one_root_asks_azure_nothing(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    emulator.forget()

    here = at_the_workspace(emulator, tmp_path, "list", "--json", "--root", str(tmp_path / "runs"))
    unknown = at_the_workspace(emulator, tmp_path, "status", run.name, "--root", str(tmp_path / "runs"))

    assert json.loads(here.stdout) == {"runs": []}
    assert unknown.returncode == 2
    assert emulator.requests == []


def test_a_run_that_failed_there_ends_its_follower_with_1(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    emulator.job(run.name).fail("it failed")

    assert at_the_workspace(emulator, tmp_path, "logs", run.name, "--follow").returncode == 1


def test_local_runs_need_no_azure(tmp_path: Path) -> None:
    script = "import sys\nfrom azml_dist.cli import cli\ncli.main(['list', '--json'], standalone_mode=False)\n"
    script += "print([m for m in sys.modules if m.startswith(('azure', 'msrest'))])"

    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr
