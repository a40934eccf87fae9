"""What stands before a rank under torchrun and mpirun: what it tells its supervisor, and what it does without one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import await_

from azml_dist.local.launchers import rank

PLACE = {"GROUP_RANK": "0", "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}


class Supervisor:
    """The other end of its socket."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._connection = connection
        self._lines = connection.makefile("rb", buffering=0)

    def hear(self) -> list[str]:
        return self._lines.readline().decode().split()

    def tell(self, cwd: Path, *argv: str) -> int:
        """What to run, and where; the end of a pipe from which its output comes."""
        output, theirs = os.pipe()
        parts = [[str(cwd)], list(argv), [f"PATH={os.environ['PATH']}"], ["1000 4000"]]
        payload = b"\0\0".join(b"\0".join(map(os.fsencode, part)) for part in parts)
        socket.send_fds(self._connection, [len(payload).to_bytes(4, "little")], [theirs])
        self._connection.sendall(payload)
        os.close(theirs)
        return output

    def vanish(self) -> None:
        self._lines.close()
        self._connection.close()


@contextmanager
def started(folder: Path) -> Iterator[Supervisor]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(rank.__file__), str(folder / "s"), "torchrun"],
            env=PLACE,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        connection, _ = listener.accept()
    connection.settimeout(30)  # of a test that fails
    supervisor = Supervisor(connection, process)
    try:
        assert supervisor.hear() == ["rank", "0", "0", "0", "1", str(process.pid)]
        yield supervisor
    finally:
        supervisor.vanish()
        process.kill()
        process.wait()


def test_a_command_that_starts_while_its_run_stops_gets_the_signal_that_came_before_it(tmp_path: Path) -> None:
    with started(tmp_path) as supervisor:
        os.killpg(supervisor.process.pid, signal.SIGTERM)
        supervisor.tell(tmp_path, "/bin/sleep", "300")

        kind, code, signum, stopped, _ = supervisor.hear()

    assert (kind, code, signum, stopped) == ("exit", "None", str(int(signal.SIGTERM)), "1")


def test_a_command_ends_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    with started(tmp_path) as supervisor:
        output = supervisor.tell(tmp_path, "/bin/sh", "-c", "echo $$; trap '' TERM; while true; do sleep 0.1; done")
        command = int(os.read(output, 100))
        supervisor.vanish()

        assert supervisor.process.wait(timeout=30) == -signal.SIGKILL
        await_(lambda: os.read(output, 100) == b"")  # nobody holds the other end
        await_(lambda: not Path(f"/proc/{command}/exe").is_file())


def test_a_command_that_cannot_be_started_is_told_with_its_reason(tmp_path: Path) -> None:
    for cwd, program in ((tmp_path, "/no/such/program"), (tmp_path / "gone", "/bin/true")):
        with started(tmp_path) as supervisor:
            supervisor.tell(cwd, program)

            assert supervisor.hear() == ["unstartable", "2"]
            assert supervisor.process.wait(timeout=30) == 1
        (tmp_path / "s").unlink()


def test_a_command_that_is_halted_and_goes_on_has_not_ended(tmp_path: Path) -> None:
    with started(tmp_path) as supervisor:
        os.mkfifo(tmp_path / "fifo")
        output = supervisor.tell(tmp_path, "/bin/sh", "-c", "echo $$; read line < fifo; exit 5")
        command = int(os.read(output, 100))
        os.kill(command, signal.SIGSTOP)
        await_(lambda: " T " in Path(f"/proc/{command}/stat").read_text())
        os.kill(command, signal.SIGCONT)
        (tmp_path / "fifo").write_text("go\n")

        assert supervisor.hear()[:4] == ["exit", "5", "None", "0"]
