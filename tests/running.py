"""Runs real jobs for tests, and looks at what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from azml_dist import Job, Local, Output, PyTorch, RunFailed
from azml_dist.local.find import find as find_run
from azml_dist.local.run import LocalRun

CLI = [sys.executable, "-m", "azml_dist.cli"]
MARK = "AZML_DIST_TEST_MARK"
"""A variable by which the processes of one test are told from all others."""

LOG = """\
import json, os, sys, urllib.request
address = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric"
token = {"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"]}
for step, value in enumerate(sys.argv[2:]):
    metric = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": sys.argv[1], "value": value, "step": step, "timestamp": 1}
    request = urllib.request.Request(address, json.dumps(metric).encode(), token)
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()
"""
"""Logs values of a metric as MLflow does, without the second that MLflow takes to be imported."""

launchers = pytest.mark.parametrize("launcher", ["torchrun", "direct"])


def pytorch(command: str | list[str], nodes: int = 1, processes: int = 1, **fields: Any) -> Job:
    fields = {"outputs": {"up": Output()}} | fields
    return Job(command=command, node_count=nodes, distribution=PyTorch(process_count_per_node=processes), **fields)


def together(command: str) -> str:
    """The command, begun when every process of the world has come this far. For a job with an output `up`."""
    up = "${{outputs.up}}"
    return f"touch {up}/$RANK; while [ $(ls {up} | wc -l) -lt $WORLD_SIZE ]; do sleep 0.02; done; {command}"


def run_here(job: Job, timeout: float = 60, **options: Any) -> LocalRun:
    """Run a job to its end, whichever that is."""
    run = Local(**options).submit(job)
    with contextlib.suppress(RunFailed):
        run.wait(timeout=timeout)
    return run


def here(launcher: str) -> Local:
    """The executor with that launcher."""
    return Local(launcher=cast("Any", launcher))


def find(name: str) -> LocalRun:
    """The run of that name, as another process finds it."""
    run = find_run(name)
    assert run
    return run


def log_of(run: LocalRun, rank: int) -> str:
    return (run.folder / run.state().processes[rank].log).read_text()


def lines_of(run: LocalRun) -> list[str]:
    return list(run.logs())


def await_(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What the condition gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return result


def is_gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked how."""
    return _is_zombie(pid)


def living(mark: str) -> list[int]:
    """The processes that have the mark in their environment and have not ended."""
    needle = f"{MARK}={_own(mark)}".encode()
    return [pid for pid in _pids() if needle in _read(f"/proc/{pid}/environ").split(b"\0") and not _is_zombie(pid)]


def children(pid: int, word: str = "") -> list[int]:
    """The children of a process that have a word in their command line."""
    return [
        child
        for child in _pids()
        if _stat(child)[1:2] == [str(pid).encode()] and word.encode() in _read(f"/proc/{child}/cmdline")
    ]


@contextmanager
def cli(*args: str | Path, mark: str = "", **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command line as a process of its own, gone at the end."""
    process = subprocess.Popen(
        [*CLI, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {MARK: _own(mark)},
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def call(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    return subprocess.run(
        [*CLI, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **options
    )


@contextmanager
def without_py_spy(tmp_path: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The command line of a Python that has no py-spy beside it, and an environment that has none either."""
    venv.create(tmp_path / "bare", symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "bare")}))
    links = [sysconfig.get_path("purelib"), str(Path(__file__).parents[1])]
    (packages / "links.pth").write_text("\n".join(links))
    path = [p for p in os.environ["PATH"].split(os.pathsep) if not os.path.exists(os.path.join(p, "py-spy"))]
    yield [str(tmp_path / "bare/bin/python"), *CLI[1:]], {**os.environ, "PATH": os.pathsep.join(path)}


def write_job(folder: Path, command: str, nodes: int = 1, processes: int = 1, **fields: Any) -> Path:
    """A job file; JSON is YAML."""
    file = folder / "job.yml"
    job = {
        "command": command,
        "resources": {"instance_count": nodes},
        "distribution": {"type": "pytorch", "process_count_per_instance": processes},
    }
    file.write_text(json.dumps(job | fields))
    return file


def _own(mark: str) -> str:
    """The mark as no other run of the tests has it on this machine."""
    return f"{mark}-{os.getpid()}"


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] in ([b"Z"], [b"X"], [])


def _stat(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
