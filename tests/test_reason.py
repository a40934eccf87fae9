"""`reason`: in one word, what made a run end badly, here and on Azure ML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from emulated import SDK_WARNINGS
from submitting import code_in, job
from test_who_submits import cli

from azml_dist import AzureML, Local, RunFailed
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator
from azml_dist.status import RunStatus
from azml_dist.verdict.known import Said
from azml_dist.verdict.reason import Reason, reason_of

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

FAILED, CANCELED = RunStatus.FAILED, RunStatus.CANCELED


@pytest.fixture
def run(azure: AzureML) -> AzureRun:
    """A run that waits for the test."""
    return azure.submit(job())


# Here


def local_reason(tmp_path: Path, script: str, **fields: object) -> str | None:
    code = code_in(tmp_path / "code", {"train.py": script})
    run = Local(root=tmp_path / "runs", watch=False).submit(job(command="python train.py", code=str(code), **fields))
    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=60)
    assert run.describe()["reason"] == run.reason() == failed.value.reason
    return run.reason()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("{}['labels']", "user"),
        ("raise SystemExit(3)", "user"),
        ("import module_that_is_not_there", "configuration"),
        (
            "import argparse; p = argparse.ArgumentParser(); p.add_argument('--lr', required=True); p.parse_args()",
            "configuration",
        ),
    ],
)
def test_a_local_run_that_failed_has_a_reason(tmp_path: Path, script: str, reason: Reason) -> None:
    assert local_reason(tmp_path, script) == reason


def test_a_local_run_at_its_timeout(tmp_path: Path) -> None:
    assert local_reason(tmp_path, "import time; time.sleep(600)", timeout=1) == "timeout"


def test_a_local_run_that_was_cancelled_or_completed(tmp_path: Path) -> None:
    cancelled = Local(root=tmp_path).submit(job(command="sleep 600"))
    assert cancelled.reason() is None  # it goes on
    cancelled.cancel()
    with pytest.raises(RunFailed):
        cancelled.wait(timeout=60)
    completed = Local(root=tmp_path).submit(job())
    completed.wait(timeout=60)

    assert cancelled.describe()["reason"] == "canceled"
    assert completed.describe()["reason"] is None


# On Azure ML


STREAM = "ScriptExecution.StreamAccess.Authentication"
SERVICE: list[tuple[str, list[str], Reason | None]] = [
    ("Execution failed. User process 'python' exited with status code 1.", ["UserError"], "user"),
    ("Image build failed. For more details, check log file 20_image_build_log.txt", ["UserError"], "configuration"),
    (f"Error Code: {STREAM}", ["UserError", STREAM], "configuration"),
    ("PreemptionError: Nodes of this job got pre-empted.", ["UserError", "PreemptionError"], "preempted"),
    ("The job requires more cores than there are.", ["UserError", "JobNodeCountExceedsCoreQuota"], "capacity"),
    ("Cannot start nodes: not enough quota available for Standard NC Family", ["UserError"], "capacity"),
    ("We do not have sufficient capacity for the VM size.", ["ServiceError", "AllocationFailed"], "capacity"),
    ("An internal error occurred.", ["ServiceError"], "service"),
    ("Something odd.", ["TransientError"], "service"),
    ("Something odd.", ["ValidationError", "BadArgument"], "configuration"),
    ("Something odd.", ["SomethingNew"], None),
]


@pytest.mark.parametrize(("message", "codes", "reason"), SERVICE)
def test_a_run_that_failed_has_the_services_reason(
    emulator: Emulator, run: AzureRun, message: str, codes: list[str], reason: Reason | None
) -> None:
    emulator.job(run.name).fail(message, *codes)

    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=30)

    assert (failed.value.reason, run.reason(), run.describe()["reason"]) == (reason, reason, reason)


def test_what_a_rank_says_counts_for_more_than_the_services_code(emulator: Emulator, run: AzureRun) -> None:
    lines = ["Traceback (most recent call last):", '  File "train.py", line 3, in <module>', "    fill()"]
    emulator.job(run.name).write_log("user_logs/std_log.txt", "\n".join([*lines, "OSError: out of capacity", ""]))
    emulator.job(run.name).fail("User process exited with status code 1: OSError: out of capacity")

    assert run.reason() == "user"


def test_the_command_line_says_it(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    cancelled = run.name
    emulator.job(cancelled).advance("Canceled")
    job().dump(tmp_path / "job.yml")
    emulator.play("Running", "Completed")

    told = cli(emulator, "status", cancelled, "--json")
    waited = cli(emulator, "submit", str(tmp_path / "job.yml"), "--no-check", "--wait", "--json")

    assert json.loads(told.stdout)["reason"] == "canceled"
    assert json.loads(waited.stdout)["reason"] is None
    assert waited.returncode == 0


def test_a_run_that_goes_on_has_no_reason() -> None:
    said = Said("The quota is exceeded", ["UserError"])

    assert {reason_of(status, None, said) for status in RunStatus if not status.is_final} == {None}
    assert reason_of(RunStatus.COMPLETED, None, said) is None
    assert reason_of(CANCELED, None) == "canceled"
    assert reason_of(FAILED, None) is None
    assert "capacity" in get_args(Reason)
