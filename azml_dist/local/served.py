"""Pages of other tools on this machine: MLflow's for a root of runs, TensorBoard's for runs. On loopback only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from azml_dist.errors import LaunchError, NotFound
from azml_dist.local.tracking.store import STORE, Refused, gather

HOST = "127.0.0.1"
EVENTS = "events.out.tfevents"
"""How the names of TensorBoard's event files begin."""
_PATIENCE = 300.0
"""Seconds for a page to start: MLflow takes ten of them to be imported on a busy machine."""
_TIED = 'exec 3<&0 </dev/null; (read -r _ <&3; kill -9 0) & exec 3<&-; exec "$@"'
"""Runs a command whose process group ends with us, even after `kill -9`: then nobody writes to its stdin any more."""
_HAS_MLFLOW = "import sys, importlib.metadata as m; m.version('mlflow')"
_HAS_SKINNY = "import sys, importlib.metadata as m; m.version('mlflow-skinny')"
_HAS_TENSORBOARD = "import sys, importlib.util as u; sys.exit(u.find_spec('tensorboard') is None)"


class Served:
    """A program that serves a page until it is closed."""

    def __init__(self, name: str, command: Sequence[str], port: int, env: Mapping[str, str]) -> None:
        self._name, self.url, self._port = name, f"http://{HOST}:{port}/", port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the program)
        self._process = subprocess.Popen(
            command if sys.platform == "win32" else ["sh", "-c", _TIED, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **env},
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Return once the page can be opened; raises `LaunchError` if it cannot be started."""
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self._port), timeout=1):
                return
            time.sleep(0.1)
        raise LaunchError(f"{self._name} did not start{self._last_words()}", hint="check its installation")

    def wait(self) -> None:
        """Wait until the program ends by itself; raises `LaunchError` if it fails."""
        if self._process.wait() > 0:
            raise LaunchError(f"{self._name} ended with exit code {self._process.returncode}{self._last_words()}")

    def close(self) -> None:
        """End the program and what it started."""
        for name in ("SIGTERM", "SIGKILL"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, getattr(signal, name))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.stdin:
            self._process.stdin.close()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1][:300]}" if said else ""


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.create_server((HOST, 0)) as free:
        return int(free.getsockname()[1])


def mlflow_of(root: Path, port: int, python: str | None = None) -> Served:
    """MLflow's own page on the store of a root; raises `LaunchError` if the package with the page is not installed."""
    if not (root / STORE).is_dir():
        raise NotFound(f"{root} has no runs yet", hint="start one with `azml-dist run JOB`, or name another `--root`")
    python = python or sys.executable
    if not _succeeds(python, _HAS_MLFLOW):
        only = "has only mlflow-skinny, which has no page" if _succeeds(python, _HAS_SKINNY) else "has no MLflow"
        hint = (
            "`pip install mlflow`; or, if it does not fit in there, name the Python of another environment: `--python`"
        )
        raise LaunchError(f"{python} {only}", hint=hint)
    with contextlib.suppress(OSError, Refused):  # the others can be shown all the same
        gather(root.resolve())
    store = (root / STORE).resolve().as_uri()
    command = [python, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    env = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Served("MLflow", [*command, "--host", HOST, "--port", str(port)], port, env)


def tensorboard_of(folders: Mapping[str, Path], links: Path, port: int, python: str | None = None) -> Served:
    """TensorBoard on the event files in some folders, each under its name; `links` is a folder for links to them."""
    python = python or sys.executable
    if not has_tensorboard(python):
        raise LaunchError(
            f"{python} has no TensorBoard", hint="`pip install tensorboard`, or name another Python: `--python`"
        )
    for name, folder in folders.items():
        (links / name).symlink_to(folder.resolve())
    return Served("TensorBoard", tensorboard_command(python, str(links), port), port, {})


def has_tensorboard(python: str) -> bool:
    """Whether a Python has TensorBoard, which is not imported."""
    return _succeeds(python, _HAS_TENSORBOARD)


def tensorboard_command(python: str, log_dir: str, port: int) -> list[str]:
    """The command that serves the event files in a folder on the loopback interface."""
    return [python, "-m", "tensorboard.main", "--logdir", log_dir, "--host", HOST, "--port", str(port)]


def event_folder(run: Path) -> Path | None:
    """The folder below which all event files of a run are; None if there are none."""
    folders = {folder for folder, _, names in _walk(run) if any(name.startswith(EVENTS) for name in names)}
    return Path(os.path.commonpath(folders)) if folders else None


def _walk(run: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    for folder, inner, names in os.walk(run):
        inner[:] = [name for name in inner if name not in (STORE, "user_logs", "system_logs", ".git")]
        yield folder, inner, names


def _succeeds(python: str, code: str) -> bool:
    """Whether a piece of code runs in a Python without an error."""
    try:
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError as error:
        raise LaunchError(f"no Python at {python}", hint="give the path of the interpreter itself") from error
