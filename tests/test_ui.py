"""Pages of MLflow and TensorBoard on this machine: `azml-dist ui`, and the services of jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import await_, call, children, cli, pytorch
from submitting import job, logged_in

from azml_dist import AzureML, Local, RunFailed
from azml_dist.emulator.service import Emulator
from azml_dist.local.served import event_folder
from azml_dist.runs.services import RunService

pytestmark = [
    *(pytest.mark.filterwarnings(one) for one in SDK_WARNINGS),
    pytest.mark.slow,
]

PAGE = """
import http.server, os, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
print("MLflow stands in", flush=True)
if os.environ.get("FAILS"):
    sys.exit("no page today")
if os.fork() == 0:  # a worker, as MLflow has them
    place = given["--host"], int(given["--port"])
    http.server.HTTPServer(place, http.server.SimpleHTTPRequestHandler).serve_forever()
os.wait()
"""
"""Stands for the package `mlflow`, which is larger than all others together: a page in a process of its own."""


@pytest.fixture
def with_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that has `mlflow`, not only `mlflow-skinny`."""
    packages = tmp_path / "packages"
    (packages / "mlflow").mkdir(parents=True)
    (packages / "mlflow-9.dist-info").mkdir()
    (packages / "mlflow-9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 9\n")
    (packages / "mlflow" / "__init__.py").touch()
    (packages / "mlflow" / "__main__.py").write_text(PAGE)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    (tmp_path / "runs" / "mlruns").mkdir(parents=True)
    return tmp_path / "runs"


@contextmanager
def page(*args: str | Path) -> Iterator[tuple[str, Any]]:
    """The address of a page, and its command, which is ended like by Ctrl-C."""
    with cli("ui", *args, "--json") as command:
        yield address(command), command
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=30) == 0


def address(command: Any) -> str:
    """What the command says once its page can be opened."""
    text = ""
    while not text.endswith("}\n"):
        text += (line := command.stdout.readline())
        assert line, command.stderr.read()
    return str(json.loads(text)["url"])


def test_mlflows_page_is_served_on_loopback_and_gone_at_the_end(with_mlflow: Path) -> None:
    with page("--root", with_mlflow) as (url, command):
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(url, timeout=30).status == 200
        [server] = children(command.pid)

    await_(lambda: not is_any_left(server))


def test_a_command_that_is_killed_takes_its_page_along(with_mlflow: Path) -> None:
    with cli("ui", "--root", with_mlflow, "--json") as command:
        url = address(command)
        [server] = children(command.pid)
        command.kill()
        command.wait(timeout=30)

        await_(lambda: not is_any_left(server))
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=30)


def is_any_left(server: int) -> bool:
    """Whether anything is left of a page's process and its workers."""
    try:
        os.killpg(server, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_page_that_was_started_with_nohup_outlives_its_terminal(with_mlflow: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with page("--root", with_mlflow) as (url, command):
            command.send_signal(signal.SIGHUP)
            assert urllib.request.urlopen(url, timeout=30).status == 200
            assert int(ignored_by(command.pid), 16) >> (signal.SIGHUP - 1) & 1
    finally:
        signal.signal(signal.SIGHUP, before)


def ignored_by(pid: int) -> str:
    """The signals that a process ignores, as bits."""
    return Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")[2].split()[0]


def test_a_browser_is_opened_on_the_page(with_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default only at a terminal, where somebody sees it."""
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    (tmp_path / "browser").chmod(0o755)
    monkeypatch.setenv("BROWSER", str(tmp_path / "browser"))

    with page("--root", with_mlflow) as (_, command):
        pass
    assert not (tmp_path / "opened").exists()
    with page("--root", with_mlflow, "--browser") as (url, command):
        await_((tmp_path / "opened").exists)
        assert command.poll() is None

    assert (tmp_path / "opened").read_text().strip() == url


def test_a_page_that_does_not_start_says_why(with_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "1")

    ended = call("ui", "--root", with_mlflow)

    assert ended.returncode == 2
    assert "error: MLflow did not start: no page today" in ended.stderr


@needs("mlflow")
def test_with_mlflow_skinny_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()

    ended = call("ui", "--root", tmp_path)

    assert ended.returncode == 2
    assert "has only mlflow-skinny, which has no page" in ended.stderr
    assert "hint: `pip install mlflow`" in ended.stderr


def test_a_folder_without_runs_and_names_without_tensorboard_are_refused(tmp_path: Path) -> None:
    assert "has no runs yet" in call("ui", "--root", tmp_path).stderr
    assert "add `--tensorboard`" in call("ui", "one").stderr
    assert "needs the names of runs" in call("ui", "--tensorboard").stderr


EVENTS = """
import sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

writer = EventFileWriter(sys.argv[1])
for step in range(3):
    value = Summary.Value(tag="loss", simple_value=1 / (step + 1))
    writer.add_event(Event(step=step, wall_time=1.7e9 + step, summary=Summary(value=[value])))
writer.close()
"""
"""Writes an event file with TensorBoard's own writer."""


def loss_of(url: str, run: str) -> list[float]:
    query = f"{url}data/plugin/scalars/scalars?tag=loss&run={run}"
    try:
        with urllib.request.urlopen(query, timeout=30) as answer:
            return [round(value, 3) for _, _, value in json.loads(answer.read())]
    except OSError:  # it has not read the file yet
        return []


@needs("tensorboard")
def test_tensorboard_shows_runs_from_here_and_from_azure_ml_by_their_names(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", EVENTS, tmp_path / "events"], check=True, capture_output=True)
    [file] = (tmp_path / "events").iterdir()
    for name, value in logged_in(emulator, tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    there = azure.submit(job(command=f"mkdir -p outputs/board/deep; cp {file} outputs/board/deep; echo > outputs/big"))
    emulator.run(there.name)
    run = tmp_path / "runs" / "here"
    (run / "artifacts" / "outputs" / "board").mkdir(parents=True)
    (run / "artifacts" / "outputs" / "board" / file.name).write_bytes(file.read_bytes())
    (run / "run.json").write_text('{"name": "here", "folder": "", "processes": [], "status": "Completed"}')

    monkeypatch.setenv("AZML_DIST_ROOT", str(tmp_path / "runs"))

    with page("--tensorboard", "here", there.name) as (url, _):
        losses = await_(lambda: all(found := [loss_of(url, name) for name in ("here", there.name)]) and found, 60)

    assert losses == [[1.0, 0.5, 0.333]] * 2
    assert event_folder(run) == run / "artifacts" / "outputs" / "board"
    assert event_folder(tmp_path / "bin") is None


BOARD = {"board": {"type": "tensor_board", "log_dir": "outputs/board"}, "lab": {"type": "jupyter_lab"}}


@needs("tensorboard")
def test_tensorboard_of_a_job_is_started_with_its_run_and_ends_with_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", EVENTS, tmp_path / "events"], check=True, capture_output=True)
    command = f"mkdir -p outputs/board && cp {tmp_path}/events/* outputs/board && sleep 600"
    run = Local(root=tmp_path / "runs", launcher="direct", services=True).submit(pytorch(command, services=BOARD))

    [url] = [one.url for one in run.services.values()]
    assert url
    losses = await_(lambda: loss_of(url, "."), 120)
    shown, status = str(run), run.describe()["services"]
    run.cancel()
    with pytest.raises(RunFailed):
        run.wait(timeout=30)

    assert losses == [1.0, 0.5, 0.333]
    assert f"service board  {url}" in shown
    assert status == [{"name": "board", "type": "tensor_board", "url": url}]
    assert run.services == {"board": RunService("tensor_board", None, "Stopped")}
    assert "service `lab` (jupyter_lab) exists only on Azure ML" in run.state().findings
    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(url, timeout=5)


def test_services_that_cannot_be_started_are_named(tmp_path: Path) -> None:
    python = bare_python(tmp_path)
    run = Local(root=tmp_path / "runs", launcher="direct", services=True, python=str(python)).submit(
        pytorch("true", services=BOARD)
    )

    run.wait(timeout=60)

    assert run.state().findings[:2] == [
        f"service `board` was not started: {python} has no TensorBoard",
        "service `lab` (jupyter_lab) exists only on Azure ML",
    ]
    assert not run.services


def bare_python(tmp_path: Path) -> Path:
    venv.create(tmp_path / "bare", symlinks=True)
    return tmp_path / "bare" / "bin" / "python"


def test_the_services_of_a_run_on_azure_ml_have_their_addresses_while_it_runs(
    emulator: Emulator, azure: AzureML
) -> None:
    run = azure.submit(job(services=BOARD))
    emulator.job(run.name).advance("Running")

    services, shown = run.services, str(run)
    emulator.job(run.name).advance("Completed")

    assert {name: (one.type, one.status) for name, one in services.items()} == {
        "board": ("tensor_board", "Running"),
        "lab": ("jupyter_lab", "Running"),
    }
    assert str(services["board"].url).startswith(f"https://{run.name}-board-0.")
    assert f"service board  {services['board'].url}" in shown
    assert run.services == {}
