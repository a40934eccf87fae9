"""Waits until a job has ended or the emulator is gone, however that ended; then ends what the job left running.

A program of its own, which uses only the standard library. It knows the processes of a job by the job's folder, which
is in the variables that the job is given. So it also finds those that began a session of their own, like torchrun's
workers. The current folder does not count: somebody may look around there. Linux only.
"""

from __future__ import annotations

import os
import sys

_PATIENCE = 10.0
"""Seconds for the processes to end: one that waits for a broken disk cannot be killed."""


def main(folder: str) -> None:
    """Wait for the end of stdin; then end the processes, and delete the folder."""
    sys.stdin.buffer.read()
    import shutil  # slow to import, and every job has a guard

    end_all(os.fsencode(folder))
    shutil.rmtree(folder, ignore_errors=True)


def end_all(folder: bytes) -> None:
    """End every process whose variables name the folder."""
    import contextlib
    import signal
    import time

    deadline = time.monotonic() + _PATIENCE
    while (found := _processes_of(folder)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(OSError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _processes_of(folder: bytes) -> list[int]:
    names = os.listdir("/proc") if os.path.isdir("/proc/self") else []
    return [int(name) for name in names if name.isdigit() and any(folder in one for one in _variables(name))]


def _variables(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return []
    return [one for one in variables if not one.startswith((b"PWD=", b"OLDPWD="))]


if __name__ == "__main__":
    main(sys.argv[1])
