"""Who submits: what is shown on the way and said at the end, what Ctrl-C leaves behind, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from emulated import SDK_WARNINGS
from running import await_
from submitting import build_in, code_in, job, routes

from azml_dist import AzureML, Environment, Job, SubmitError, submit
from azml_dist.emulator import Emulator, delay, odd

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


# On a terminal


def test_an_upload_shows_its_progress_on_a_terminal_alone(
    emulator: Emulator,
    azure: AzureML,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = code_in(tmp_path / "code")
    azure.submit(job(code=code))
    assert capfd.readouterr().err == ""
    (code / "more.txt").write_text("more\n")

    with terminal(monkeypatch) as shown:
        azure.submit(job(code=code, environment=build_in(code / "context")))
        lines = shown().split("\r\n")

    assert lines[0].endswith("uploading code: 6 of 6 files, 0.0 of 0.0 MB\x1b[K")
    assert lines[1].endswith("uploading Docker build: 2 of 2 files, 0.0 of 0.0 MB\x1b[K")


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """A terminal in place of stderr; what is yielded reads it."""
    ours, theirs = os.openpty()
    with open(theirs, "w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        yield lambda: os.read(ours, 1 << 16).decode()
    os.close(ours)


def test_who_submits_at_a_terminal_is_told_what_to_type_next(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the workspace, which these commands would not find."""
    here = emulator.workspace
    with terminal(monkeypatch) as shown:
        run = submit(job(), on=azure)
        lines = shown().splitlines()

    assert lines == [
        f"run {run.name} is in workspace {here.name}",
        f"  studio   {run.url}",
        f"  first    export AZUREML_ARM_SUBSCRIPTION={here.subscription_id} "
        f"AZUREML_ARM_RESOURCEGROUP={here.resource_group} AZUREML_ARM_WORKSPACE_NAME={here.name}",
        f"  status   azml-dist status {run.name}",
        f"  logs     azml-dist logs {run.name} --follow",
        f"  cancel   azml-dist cancel {run.name}",
        f"  download azml-dist download {run.name}",
        f'  Python   run = azml_dist.run("{run.name}"); run.wait()',
    ]


def test_what_one_is_told_to_type_works(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch, job_file: str
) -> None:
    with terminal(monkeypatch) as shown:
        submit(job(), on=azure)
        said = {what: command for what, _, command in (line.strip().partition(" ") for line in shown().splitlines())}
    here = emulator.workspace
    principal = {"AZURE_TENANT_ID": here.tenant_id, "AZURE_CLIENT_ID": "someone", "AZURE_CLIENT_SECRET": "secret"}
    python = f"python -c 'import azml_dist; {said['Python'].strip().replace('wait()', 'cancel()')}'"

    script = f"{said['first'].strip()} && {said['status'].strip()} && {python}"
    done = subprocess.run(["bash", "-c", script], env=os.environ | principal, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert [one.status for one in emulator.jobs.jobs.values()] == ["CancelRequested"]


def test_a_workspace_that_is_found_anyway_is_not_said(
    emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = emulator.workspace
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", here.subscription_id)
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", here.resource_group)
    monkeypatch.setenv("AZURE_ML_WORKSPACE_NAME", here.name)

    with terminal(monkeypatch) as shown:
        submit(job(), on=azure)

        assert "export" not in shown()


def test_of_a_list_the_first_is_named(emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        _, second, _ = submit([job(compute="nope"), job(), job()], on=azure)
        said = shown()

    assert not isinstance(second, SubmitError)
    assert said.startswith(f"2 of 3 jobs are in workspace {emulator.workspace.name}. For {second.name}:")
    assert f"azml-dist logs {second.name} --follow" in said


def test_a_script_that_nobody_watches_prints_nothing(
    emulator: Emulator, azure: AzureML, capfd: pytest.CaptureFixture[str]
) -> None:
    submit(job(), on=azure)

    assert capfd.readouterr() == ("", "")


# Ctrl-C


@pytest.mark.parametrize("route", ["codes.list", "blobs.put", "environments.put"])
def test_ctrl_c_waits_for_no_answer_and_leaves_no_job(
    emulator: Emulator, azure: AzureML, tmp_path: Path, route: str
) -> None:
    code = code_in(tmp_path / "code")
    interrupt(emulator, azure, route, job(code=code, environment=Environment(image="python:3.11")))

    assert emulator.jobs.jobs == {}
    assert "jobs.put" not in routes(emulator)


def test_ctrl_c_stops_the_upload_of_a_docker_build(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    environment = build_in(tmp_path / "context")
    code_in(tmp_path / "context", {f"{i}.txt": str(i) for i in range(200)})

    interrupt(emulator, azure, "blobs.put", job(environment=environment))

    assert emulator.counts()["blobs.put"] < 100


def test_ctrl_c_names_the_job_whose_answer_it_did_not_wait_for(
    emulator: Emulator, azure: AzureML, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(emulator, azure, "jobs.put", job(name="one"))

    assert "job one may have been created: cancel it with `azml-dist cancel one`" in capsys.readouterr().err
    assert emulator.job("one").status == "CancelRequested"  # the answer came all the same


def test_ctrl_c_while_a_job_is_looked_for_names_it(
    emulator: Emulator, azure: AzureML, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.inject(odd(302, heard=True, unseen=100), route="jobs.put")
    interrupt_at(emulator, "jobs.get")

    with pytest.raises(KeyboardInterrupt):
        azure.submit(job())

    nothing_goes_on()
    (name,) = emulator.jobs.jobs
    assert f"job {name} may have been created: cancel it with `azml-dist cancel {name}`" in capsys.readouterr().err


def interrupt(emulator: Emulator, azure: AzureML, route: str, one: Job) -> None:
    """Submit a job, with Ctrl-C at a request that Azure does not answer for a minute."""
    azure.workspace.client  # noqa: B018 (importing azure-ai-ml takes a while)
    emulator.inject(delay(60), route=route, times=None)
    interrupt_at(emulator, route)

    with pytest.raises(KeyboardInterrupt):
        azure.submit(one)

    assert {request.status for request in emulator.requests if request.route == route} == {None}
    emulator.end_delays()
    nothing_goes_on()


def nothing_goes_on() -> None:
    """All threads of a submission end by themselves, once what they have sent is answered."""
    await_(lambda: not [thread for thread in threading.enumerate() if thread.name == "azml_dist"])


def interrupt_at(emulator: Emulator, route: str) -> None:
    """Send this process the signal of Ctrl-C once a request of that route has come in."""

    def watch() -> None:
        await_(lambda: route in routes(emulator))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_ctrl_c_takes_back_the_jobs_of_a_list(
    emulator: Emulator, azure: AzureML, capsys: pytest.CaptureFixture[str]
) -> None:
    azure.workspace.client  # noqa: B018
    emulator.inject(delay(0.05), route="jobs.put", times=None)
    interrupt_at(emulator, "jobs.put")

    with pytest.raises(KeyboardInterrupt):
        azure.submit_all([job() for _ in range(60)])

    nothing_goes_on()
    assert 0 < len(emulator.jobs.jobs) < 60
    assert {one.status for one in emulator.jobs.jobs.values()} == {"CancelRequested"}
    assert "was created, and has been cancelled" in capsys.readouterr().err


# The command line


def cli(emulator: Emulator, *arguments: str, login: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """`azml-dist` in a process of its own, to its end."""
    with start_cli(emulator, *arguments, login=login, **env) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start_cli(emulator: Emulator, *arguments: str, login: bool = True, **env: str) -> subprocess.Popen[str]:
    """`azml-dist` in a process of its own, logged in as a service principal."""
    here = emulator.workspace
    principal = {"AZURE_TENANT_ID": here.tenant_id, "AZURE_CLIENT_ID": "someone", "AZURE_CLIENT_SECRET": "secret"}
    place = {
        "AZUREML_ARM_SUBSCRIPTION": here.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": here.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": here.name,
    }
    command = [sys.executable, "-m", "azml_dist.cli", *arguments]
    environ = {**os.environ, **(principal if login else {}), **place, **env}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def job_file(tmp_path: Path, azure_sdk: None) -> str:
    code_in(tmp_path / "src")
    path = tmp_path / "job.yml"
    path.write_text(
        "command: bash train.sh ${{inputs.lr}}\ncode: src\nenvironment: azureml:torch:1\ncompute: gpu-cluster\n"
        "inputs: {lr: 1}\n"
    )
    return str(path)


def test_submit_prints_name_and_address(emulator: Emulator, job_file: str) -> None:
    emulator.assets.add_environment("torch")

    done = cli(emulator, "submit", job_file, "--set", "inputs.lr=2")

    assert done.returncode == 0, done.stderr
    name, url = done.stdout.splitlines()
    assert emulator.job(name).body["inputs"]["lr"]["value"] == "2"
    assert url.startswith(f"https://ml.azure.com/runs/{name}?")
    assert f"  logs     azml-dist logs {name} --follow\n" in done.stderr
    assert f'  Python   run = azml_dist.run("{name}"); run.wait()\n' in done.stderr
    assert "experimental" not in done.stderr


def test_submit_prints_one_json_object(emulator: Emulator, job_file: str) -> None:
    emulator.assets.add_environment("torch")

    done = cli(emulator, "submit", job_file, "--json", "--workspace", emulator.workspace.name)

    found = json.loads(done.stdout)
    assert found["workspace"] == emulator.workspace.name
    assert list(emulator.jobs.jobs) == [found["name"]]


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 1)])
def test_submit_waits_and_ends_as_the_run(emulator: Emulator, job_file: str, command: str, code: int) -> None:
    emulator.assets.add_environment("torch")
    emulator.run_what_is_submitted()

    done = cli(emulator, "submit", job_file, "--set", f"command={command}", "--wait", "--json")

    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["status"] == ("Failed" if code else "Completed")


def test_ctrl_c_on_the_command_line(emulator: Emulator, job_file: str) -> None:
    emulator.assets.add_environment("torch")
    emulator.inject(delay(60), route="blobs.put", times=None)

    with start_cli(emulator, "submit", job_file, "--no-check") as process:
        await_(lambda: "blobs.put" in routes(emulator), 60)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)

    assert process.returncode == 130
    assert shown.strip() == "interrupted"
    assert {request.status for request in emulator.requests if request.route == "blobs.put"} == {None}
    assert emulator.jobs.jobs == {}


def test_nobody_is_logged_in(emulator: Emulator, job_file: str) -> None:
    done = cli(emulator, "submit", job_file, "--set", "name=one", login=False, PATH="/usr/bin:/bin")

    assert done.returncode == 2
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error == "error: cannot submit job one: you are not logged in to Azure"
    assert hint.startswith("hint: `az login`, or set AZURE_TENANT_ID")


def test_the_name_of_a_submitted_run_is_told_where_nobody_reads_the_output(emulator: Emulator, job_file: str) -> None:
    emulator.assets.add_environment("torch")
    with start_cli(emulator, "submit", job_file, "--set", "name=told") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()

    assert "run told is in workspace" in said
    assert "azml-dist cancel told" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("options", [("--wait",), ("--wait", "--json")])
def test_a_run_that_fails_is_waited_for_where_nobody_reads_the_output(
    emulator: Emulator, job_file: str, options: tuple[str, ...]
) -> None:
    emulator.assets.add_environment("torch")
    emulator.run_what_is_submitted()

    with start_cli(emulator, "submit", job_file, "--set", "name=told", "--set", "command=exit 3", *options) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()

    assert process.returncode == 1
    assert "run told: Failed" in said
