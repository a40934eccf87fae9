"""`azml-dist doctor`: what this machine and the workspace have, and what is missing for a submission."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from submitting import workspace_of

from azml_dist import Workspace
from azml_dist.azureml.doctor import of_azure
from azml_dist.emulator import Emulator, answer, odd, reset_before
from azml_dist.emulator.faults import Fault
from azml_dist.health import Line, Report
from azml_dist.local.doctor import of_this_machine
from azml_dist.words import size_text

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]
READER = (("*/read",), ())


def doctor(*options: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of the command, in an environment that has nothing of Azure but what is given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "MSI_", "IDENTITY_"))}
    command = [sys.executable, "-m", "azml_dist.cli", "doctor", "--json", *options]
    done = subprocess.run(command, env={**env, **environment}, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.name: line for line in lines}


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 byte"), (8, "8 bytes"), (33_412, "33.4 kB"), (1_200_000, "1.2 MB"), (76_228_400_000, "76.2 GB")],
)
def test_sizes_are_given_in_the_unit_that_reads_best(count: int, text: str) -> None:
    assert size_text(count) == text


def test_this_machine_is_described_without_azure() -> None:
    code, report = doctor("--local")

    lines = {line["name"]: line for line in report["lines"]}
    assert code == 0
    assert report["ready"] is True
    assert lines["Python"]["found"].startswith(".".join(map(str, sys.version_info[:3])))
    assert lines["azure-ai-ml"]["state"] == "ok"
    assert "login" not in lines
    assert {line["state"] for line in report["lines"]} <= {"ok", "missing", "not checked"}


def test_a_folder_that_cannot_be_written_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, report = doctor("--local", AZML_DIST_ROOT=str(tmp_path / "file" / "runs"))

    (line,) = [line for line in report["lines"] if line["name"] == "folder of runs"]
    assert (line["state"], line["hint"]) == ("missing", "use `--root FOLDER`, or set AZML_DIST_ROOT")


@pytest.mark.slow
def test_an_mpirun_that_is_not_there_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    line = by_name([*of_this_machine()])["mpirun"]
    assert line.state == "missing"
    assert "openmpi-bin" in str(line.hint)


def test_nothing_of_azure_is_asked_where_no_workspace_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, report = doctor()

    states = {line["name"]: line["state"] for line in report["lines"]}
    assert (code, report["ready"], states["workspace"]) == (1, False, "missing")
    assert {states[name] for name in ("login", "storage", "submit", "logs", "download")} == {"not checked"}


def test_a_workspace_that_takes_submissions_is_ready(emulator: Emulator, azure_sdk: None) -> None:
    lines = by_name([*of_azure(workspace_of(emulator))])

    assert {line.state for line in lines.values()} == {"ok"}
    assert list(lines) == [
        *("workspace", "login", "resource manager", "workspace's region", "storage"),
        *("submit", "logs", "download"),
    ]
    assert lines["resource manager"].found == "management.azure.com"
    assert lines["workspace's region"].found == "eastus.api.azureml.ms"
    assert {one.method for one in emulator.requests} == {"GET"}
    assert Report([], list(lines.values())).is_ready


def test_no_token_is_shown(emulator: Emulator, azure_sdk: None) -> None:
    report = Report([], [*of_azure(workspace_of(emulator))])

    assert emulator.workspace.token not in json.dumps(report.to_dict()) + str(report)


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        ({"upn": "ada@example.com", "tid": "t-1"}, "ada@example.com, tenant t-1"),
        ({"appid": "app-1", "tid": "t-1"}, "app-1, tenant t-1"),
        ({}, "somebody"),
        ([], "an unknown account: the token does not say which"),
    ],
)
def test_a_login_says_whose_it_is(emulator: Emulator, azure_sdk: None, claims: Any, who: str) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    emulator.workspace.token = f"head.{payload}.signature"

    line = by_name([*of_azure(workspace_of(emulator))])["login"]
    assert line.found == f"{who}, by StaticToken"


def test_a_role_that_only_reads_may_see_logs_and_not_submit(emulator: Emulator, azure_sdk: None) -> None:
    emulator.workspace.roles = [READER]
    report = Report([], [*of_azure(workspace_of(emulator))])

    lines = by_name([*report.lines])
    assert (lines["submit"].state, lines["logs"].state, lines["download"].state) == ("missing", "ok", "missing")
    assert "workspaces/jobs/write" in lines["submit"].found
    assert "AzureML Data Scientist" in str(lines["submit"].hint)
    assert not report.is_ready


def test_what_one_role_takes_out_another_may_give(emulator: Emulator, azure_sdk: None) -> None:
    without_jobs = (("*",), ("microsoft.machinelearningservices/workspaces/JOBS/*",))
    emulator.workspace.roles = [without_jobs]
    assert by_name([*of_azure(workspace_of(emulator))])["submit"].state == "missing"

    emulator.workspace.roles = [without_jobs, (("Microsoft.MachineLearningServices/workspaces/jobs/*",), ())]
    assert by_name([*of_azure(workspace_of(emulator))])["submit"].state == "ok"


def test_a_role_on_a_later_page_counts(emulator: Emulator, azure_sdk: None) -> None:
    emulator.workspace.roles = [*[READER] * 25, (("*",), ())]
    assert by_name([*of_azure(workspace_of(emulator))])["submit"].state == "ok"

    emulator.workspace.roles = [READER] * 1_000
    endless = by_name([*of_azure(workspace_of(emulator))])["submit"]
    assert (endless.state, "does not end" in endless.found) == ("not checked", True)


def test_roles_that_may_not_be_read_are_not_checked(emulator: Emulator, azure_sdk: None) -> None:
    emulator.workspace.forbidden = {"permissions.list"}
    report = Report([], [*of_azure(workspace_of(emulator))])

    lines = by_name([*report.lines])
    assert {lines[name].state for name in ("submit", "logs", "download")} == {"not checked"}
    assert report.is_ready


@pytest.mark.parametrize("route", ["workspaces.get", "datastores.list"])
def test_a_service_that_refuses_is_missing_with_its_reason(emulator: Emulator, azure_sdk: None, route: str) -> None:
    emulator.workspace.forbidden = {route}
    report = Report([], [*of_azure(workspace_of(emulator))])

    (missing,) = [line for line in report.lines if line.state == "missing"]
    assert missing.name == {"workspaces.get": "resource manager", "datastores.list": "storage"}[route]
    assert "not allowed" in missing.found
    assert not report.is_ready


def test_a_connection_that_breaks_is_missing(emulator: Emulator, azure_sdk: None) -> None:
    emulator.inject(reset_before(), route="runs.details", times=None)
    (missing,) = [line for line in of_azure(workspace_of(emulator)) if line.state == "missing"]
    assert missing.name == "workspace's region"


@pytest.mark.parametrize(
    "fault", [odd(200, b"<html>", heard=False), odd(200, b'{"value": [7]}', heard=False), answer(500)], ids=str
)
def test_odd_answers_are_no_tracebacks(emulator: Emulator, azure_sdk: None, fault: Fault) -> None:
    for route in ("workspaces.get", "datastores.list", "permissions.list"):
        emulator.forget()
        emulator.inject(fault, route=route, times=None)
        assert by_name([*of_azure(workspace_of(emulator))])["login"].state == "ok"


def test_a_login_that_fails_leaves_the_rest_unchecked(emulator: Emulator, azure_sdk: None) -> None:
    here = emulator.workspace

    class Nobody:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            from azure.core.exceptions import ClientAuthenticationError

            raise ClientAuthenticationError("nobody is logged in")

    named = (here.subscription_id, here.resource_group, here.name)
    report = Report([], [*of_azure(Workspace(*named, credential=Nobody()))])
    states = {line.name: line.state for line in report.lines}
    assert (states["login"], states["storage"], states["submit"]) == ("missing", "not checked", "not checked")
    assert not report.is_ready
