"""What is not from Azure ML's is one clear line of every command: never a traceback, never taken for an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from emulated import SDK_WARNINGS
from submitting import job, workspace_of

from azml_dist import AzureML, PyTorch, SubmitError
from azml_dist.azureml.answers import Answer, BrokenAnswerError, json_of
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, odd

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

BODIES = {
    "empty": b"",
    "a page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "cut": b'{"properties": {"status": "Comp',
    "null": b"null",
    "a list": b"[]",
    "a text": b'"Completed"',
    "a number": b"1e999",
    "an empty object": b"{}",
    "deep": b'{"a":' * 500 + b"1" + b"}" * 500,
    "deeper than Python reads": b"[" * 100_000,
    "no UTF-8": b'{"a": "\xff"}',
    "wrong types": json.dumps(
        {
            "name": 5,
            "value": {"a": 1},
            "api": [],
            "properties": [1],
            "status": ["Completed"],
            "logFiles": ["a"],
            "run": 7,
            "nextLink": 3,
        }
    ).encode(),
    "nulls": json.dumps(
        {"name": None, "value": None, "properties": {"status": None}, "status": None, "logFiles": None, "run": None}
    ).encode(),
    "wrong within": json.dumps(
        {
            "name": "a",
            "value": [None],
            "properties": {"status": "Completed", "resources": {"instanceCount": "2"}, "outputs": []},
            "status": "Completed",
            "logFiles": {"user_logs/std_log.txt": 5},
            "run": {"data": {"metrics": [{"key": "loss", "value": {}}]}},
        }
    ).encode(),
    "too much": json.dumps(
        {
            "name": "a",
            "value": [{"name": "a", "properties": {"status": "Running", "resources": {"instanceCount": 10**12}}}],
            "properties": {"status": "Completed", "resources": {"instanceCount": 10**12}},
            "status": "Completed",
            "error": {"error": "failed"},
            "run": {"data": {"metrics": [{"key": "loss", "value": "much"}]}},
        }
    ).encode(),
}
COMMANDS: dict[str, tuple[str, Callable[[AzureRun, Path], object]]] = {
    "status": ("jobs.get", lambda run, _: run.status),
    "describe": ("runs.details", lambda run, _: run.describe()),
    "the table": ("runs.details", lambda run, _: str(run)),
    "wait": ("jobs.get", lambda run, _: run.status),
    "logs": ("runs.details", lambda run, _: list(run.logs())),
    "the world": ("jobs.get", lambda run, _: list(run.logs())),
    "list": ("jobs.list", lambda run, _: AzureRun.latest(run._workspace)),
    "cancel": ("jobs.get", lambda run, _: run.cancel()),
    "download": ("jobs.get", lambda run, to: run.download(to)),
    "outputs": ("jobs.get", lambda run, _: run.outputs),
    "metrics": ("metrics.run", lambda run, _: run.metrics()),
    "the workspace": ("workspaces.get", lambda run, _: run.describe()),
    "its services": ("discovery", lambda run, _: run.describe()),
}


@pytest.fixture
def run(emulator: Emulator, azure: AzureML) -> AzureRun:
    """A run that is over, as another process finds it."""
    name = azure.submit(job(node_count=2, distribution=PyTorch(process_count_per_node=2))).name
    emulator.job(name).advance("Completed")
    return AzureRun(workspace_of(emulator), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_answer_is_one_line_and_a_hint(
    emulator: Emulator, run: AzureRun, tmp_path: Path, command: str
) -> None:
    """Of every command that reads it, whatever came."""
    route, call = COMMANDS[command]
    for kind, body in BODIES.items():
        emulator.forget()
        emulator.inject(odd(200, body, heard=False), route=route, times=None)

        with pytest.raises(SubmitError, match="is not from Azure ML") as refused:
            call(AzureRun(workspace_of(emulator), run.name), tmp_path / "got")

        assert "\n" not in refused.value.problems[0].message, kind
        assert refused.value.hint, kind
        assert emulator.counts()[route] == 1, kind
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("status", [302, 307, 404, 418, 500])
@pytest.mark.parametrize(
    "command", ["status", "describe", "list", "cancel", "metrics", "the workspace", "its services"]
)
def test_other_statuses_with_any_body_are_one_line(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, command: str
) -> None:
    route, call = COMMANDS[command]
    monkeypatch.setattr("azml_dist.azureml.arm.ATTEMPTS", 1)
    monkeypatch.setattr("azml_dist.azureml.arm.PATIENCE", 0)
    for body in (b"", b"<html>", b"[]", b'{"error": 5}', b'{"error": {"message": ["a"]}}', BODIES["deep"]):
        emulator.forget()
        emulator.inject(odd(status, body, heard=False, Location="https://elsewhere.example"), route=route, times=None)

        with pytest.raises(SubmitError) as refused:
            call(AzureRun(workspace_of(emulator), run.name), tmp_path)

        assert "\n" not in refused.value.problems[0].message
        assert {request.route for request in emulator.requests} >= {route}


def test_a_cancel_that_a_page_answers_is_not_taken_for_done(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job())
    emulator.inject(odd(200, BODIES["a page"], heard=False), route="jobs.cancel", times=None)

    with pytest.raises(SubmitError, match=f"cannot cancel run {run.name}: .* is HTML"):
        run.cancel()


def test_pages_that_lead_in_a_circle_have_an_end(emulator: Emulator, run: AzureRun) -> None:
    page = json.dumps({"value": [], "nextLink": "https://management.azure.com/jobs?$skip=1"}).encode()
    emulator.inject(odd(200, page, heard=False), route="jobs.list", times=None)
    history = json.dumps({"metrics": [{"value": 1}], "next_page_token": "again"}).encode()
    emulator.inject(odd(200, history, heard=False), route="metrics.history", times=None)
    emulator.job(run.name).log_metric("loss", 1.0)

    assert AzureRun.latest(run._workspace) == []
    with pytest.raises(SubmitError, match="it does not end"):
        run.metric_histories()


def test_a_next_page_elsewhere_is_asked_for_at_the_workspace(emulator: Emulator, run: AzureRun) -> None:
    """Its address carries the login to no other host."""
    page = json.dumps({"value": [], "nextLink": "http://[elsewhere.example/jobs?$skip=10"}).encode()
    emulator.inject(odd(200, page, heard=False), route="jobs.list")

    assert AzureRun.latest(run._workspace) == []
    assert {request.host for request in emulator.requests if request.route == "jobs.list"} == {"management.azure.com"}


@pytest.mark.parametrize("kind", ["a page", "an empty object", "wrong types"])
def test_the_command_line_says_it_in_one_line(emulator: Emulator, run: AzureRun, tmp_path: Path, kind: str) -> None:
    from test_azure_run import at_the_workspace

    emulator.inject(odd(200, BODIES[kind], heard=False), route="jobs.get", times=None)
    emulator.inject(odd(200, BODIES[kind], heard=False), route="jobs.list", times=None)

    status = at_the_workspace(emulator, tmp_path, "status", run.name)
    listed = at_the_workspace(emulator, tmp_path, "list")

    assert (status.returncode, status.stdout) == (2, "")
    assert [line.split()[0] for line in status.stderr.splitlines()] == ["error:", "hint:"]
    assert (listed.returncode, listed.stdout) == (0, "")
    assert listed.stderr.startswith(f"note: the runs of workspace {emulator.workspace.name} are not shown: ")


def test_numbers_as_mlflow_writes_them() -> None:
    found = Answer(json_of(b'{"a": "NaN", "b": "-Infinity", "c": 3, "d": true, "e": ""}', "application/json"))

    assert str(found.number("a")) == "nan"
    assert (found.number("b"), found.number("c")) == (float("-inf"), 3.0)
    for name in "def":
        with pytest.raises(BrokenAnswerError):
            found.number(name)
