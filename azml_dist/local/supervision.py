"""Starts the process that owns a run, and hands the run over to it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from azml_dist.errors import LaunchError
from azml_dist.local.environment import handed_on
from azml_dist.local.handover import GUARD_LOG, remove_temp, send
from azml_dist.local.launchers.starting import hint_of, last_error

if TYPE_CHECKING:
    from azml_dist.local.spec import WholeSpec


class Supervision:
    """A supervisor that waits for its run. If started early, it imports torch while the job is still being read."""

    def __init__(self, torchrun_python: str | None = None, *, keep_pythonpath: bool = False) -> None:
        """Start a supervisor; `python` has the torchrun that the run will need, if that is already known.

        Raises `LaunchError` if the process cannot be started.
        """
        self.temp = _make_temp()
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).resolve().parent.parent.parent)
        main = "from azml_dist.local.supervisor.guard import guard_supervisor; guard_supervisor()"
        code = f"import gc, sys; gc.disable(); sys.path.insert(0, {package!r}); {main}"
        self._log = os.path.join(self.temp, GUARD_LOG)
        try:
            with open(self._log, "wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", code, self.temp, torchrun_python or ""],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    cwd="/",
                    env=handed_on(keep_pythonpath=keep_pythonpath),
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            remove_temp(self.temp)
            raise LaunchError(
                f"the supervisor of the run could not be started: {error.strerror}",
                hint=hint_of(error.errno, [], dict(os.environ)),
            ) from error
        finally:
            theirs.close()
        self._socket = ours

    def hand_over(self, spec: WholeSpec, fds: list[int]) -> None:
        """Start the run. The descriptors stay open until it ends."""
        try:
            send(self._socket, json.dumps(spec).encode(), fds)
        except ConnectionError as error:
            raise LaunchError(
                f"the supervisor of the run ended before it started{last_error(self._log)}",
                hint="check `ulimit -a`, and the pids limit of a container" if last_error(self._log) else None,
            ) from error

    def end(self) -> None:
        """Wait until the supervisor ends: after its run, or immediately if it has none."""
        self._socket.close()
        self.process.wait()
        remove_temp(self.temp)

    def leave(self) -> None:
        """Let a run that outlives this process go, without Python's warnings about what is still open."""
        self._socket.close()
        self.process.returncode = self.process.poll() or 0


def needs_no_quotes(path: str) -> bool:
    """Whether the shell reads the path as one word, like the paths of Azure ML."""
    return shlex.quote(path) == path


_OTHER_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


def _make_temp() -> str:
    """A folder with a short and simple path, for sockets, links and scripts; in the usual place if possible."""
    usual = []
    with contextlib.suppress(FileNotFoundError):  # Python found no writable temporary folder
        usual.append(tempfile.gettempdir())
    for place in (*usual, *_OTHER_PLACES):
        if _is_fitting(place):
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="azml-", dir=place)
    with contextlib.suppress(OSError):
        return tempfile.mkdtemp(prefix="azml-", dir="/tmp")
    raise LaunchError(
        f"no space for temporary files in {', '.join(dict.fromkeys((*usual, *_OTHER_PLACES)))}",
        hint="free some space, or set TMPDIR to a writable folder with a short path",
    )


def _is_fitting(folder: str) -> bool:
    plain = needs_no_quotes(folder) and len(folder) < 80  # a socket's path may have only about 100 characters
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    full = disk.f_bavail * disk.f_frsize < _ROOM or (disk.f_files and not disk.f_favail)
    return plain and not full and not disk.f_flag & getattr(os, "ST_NOEXEC", 0) and os.access(folder, os.W_OK)


_ROOM = 1 << 20
"""More bytes than the folder needs for any run."""
