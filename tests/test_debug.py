"""`run --debug-rank N`: one rank waits for an editor; all others run as ever."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from terminals import at_terminal

from azml_dist import Job, JobError, LaunchError, Local, PyTorch

pytestmark = [pytest.mark.slow]


class Editor:
    """As much of an editor as it takes to attach and let the program go on: the Debug Adapter Protocol."""

    def __init__(self, port: int) -> None:
        self._socket = self._connected(port)
        self._file = self._socket.makefile("rb")
        self._number = 0

    @staticmethod
    def _connected(port: int) -> socket.socket:
        end = time.monotonic() + 60
        while True:
            connection = socket.socket()
            connection.settimeout(60)
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return connection
            connection.close()
            assert time.monotonic() < end, "nobody listens"
            threading.Event().wait(0.05)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> None:
        self._number += 1
        body = json.dumps({"seq": self._number, "type": "request", "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def wait_for(self, name: str) -> dict[str, Any]:
        """The next event or answer of that name."""
        while True:
            length = int(self._file.readline().split(b":")[1])
            self._file.readline()
            message: dict[str, Any] = json.loads(self._file.read(length))
            if name in (message.get("event"), message.get("command")):
                return message

    def attach(self) -> None:
        self.ask("initialize", adapterID="test")
        self.wait_for("initialize")
        self.ask("attach", justMyCode=False)
        self.wait_for("initialized")
        self.ask("configurationDone")
        self.wait_for("configurationDone")


@pytest.mark.parametrize("launcher", ["direct", pytest.param("torchrun", marks=needs("torch"))])
def test_a_rank_waits_for_an_editor_and_goes_on_once_it_is_there(tmp_path: Path, launcher: Any) -> None:
    (tmp_path / "train.py").write_text("import os\nprint('up', os.environ['RANK'], 'DEBUG_PORT' in str(os.environ))\n")
    job = Job(command="python train.py", code=str(tmp_path), distribution=PyTorch(process_count_per_node=2))

    run = Local(root=str(tmp_path / "runs"), launcher=launcher, debug_rank=1).submit(job)
    told = run.state().findings[0]
    port = int(re.search(r'"port": (\d+)', told)[1])  # type: ignore[index]
    lines = iter(run.logs(follow=True))
    assert next(lines) == "[node0 rank0] up 0 False"
    assert run.status == "Running"

    with contextlib.closing(Editor(port)) as editor:
        editor.attach()
        assert list(lines) == ["[node0 rank1] up 1 False"]
        run.wait()
    assert f"rank 1 waits for a debugger at 127.0.0.1:{port}" in told
    assert json.loads(told[told.index("{") :])["pathMappings"][0]["localRoot"] == str(tmp_path)


def test_a_rank_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    job = Job(command="true", distribution=PyTorch(process_count_per_node=2))
    for rank in (-1, 2):
        with pytest.raises(JobError, match=f"there is no rank {rank} to debug"):
            Local(root=str(tmp_path), debug_rank=rank).submit(job)
    with pytest.raises(JobError, match="start-up module"):
        Local(root=str(tmp_path), debug_rank=0, watch=False).submit(job)
    assert [one.name for one in tmp_path.iterdir() if not one.name.startswith((".", "mlruns"))] == []


def test_a_python_without_debugpy_is_told_what_to_install(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    fake.chmod(0o755)
    local = Local(root=str(tmp_path / "runs"), python=str(fake), debug_rank=0, launcher="direct")
    with pytest.raises(LaunchError, match="debugpy is not installed") as refused:
        local.submit(Job(command="true"))
    assert "azml-dist[debug]" in str(refused.value.hint)


@pytest.mark.parametrize("launcher", ["direct", pytest.param("torchrun", marks=needs("torch"))])
def test_the_first_rank_that_fails_opens_pdb_at_the_terminal(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "train.py").write_text(
        "import os, time\nrank = int(os.environ['RANK'])\nif rank == 1:\n    batch = {'x': 41 + rank}\n"
        "    batch['labels']\ntime.sleep(600)\n"
    )
    (tmp_path / "job.yml").write_text(
        "command: python train.py\ncode: .\ndistribution: {type: pytorch, process_count_per_instance: 2}\n"
    )
    options = ["--pdb", "--launcher", launcher, "--root", tmp_path / "runs"]
    with at_terminal("run", tmp_path / "job.yml", *options, columns=200) as terminal:
        terminal.wait_for(lambda shown: shown.endswith("(Pdb)"))
        terminal.type("p 'batch', batch\n")
        terminal.wait_for(lambda shown: "('batch', {'x': 42})" in shown)
        terminal.type("q\n")
        code, seen = terminal.end(), "\n".join(terminal.everything)

    assert code == 1
    assert "rank 1 failed first, and the others wait" in seen
    assert "KeyError: 'labels'" in seen
    assert "train.py:5" in seen


def test_pdb_without_a_terminal_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "azml_dist.cli", "run", "job.yml", "--pdb", "--root", str(tmp_path)]
    (tmp_path / "job.yml").write_text("command: 'true'\n")
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "pdb needs a terminal" in done.stderr) == (2, True)
