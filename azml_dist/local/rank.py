"""What torchrun or mpirun starts in place of the user's command: brings the process to Azure's contract, then runs it.

It asks the run's supervisor, over a Unix socket, for what the plan says of this process: its environment (nothing of
torchrun's own is left in it; what MPI needs to find its daemon is kept), working directory and command, and a pipe for
its output. It waits for the command, and tells how it ended and whether it was stopped first. It is compiled once for
all ranks, and runs under `-I -S` with modules that start fast alone: sixteen ranks on two cores start a tenth of a
second sooner than with `socket` and `signal`.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys
import time

STOPS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)

PLACE = {
    "torchrun": ("GROUP_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE"),
    # Open MPI does not say which node it is on; `mpirun.py` does.
    "mpirun": (
        "AZML_DIST_NODE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
    ),
}
"""Where a launcher tells a process its place; the supervisor holds it against the plan."""
KEPT = {"torchrun": (), "mpirun": (b"OMPI_", b"OPAL_", b"PMIX_", b"PRTE_", b"LD_LIBRARY_PATH")}
"""How the variables begin without which the command would not find its launcher, or that launcher's library."""

_stopped: list[int] = []


def main(socket_path: str, launcher: str) -> int:
    if launcher == "mpirun" and (pid := os.fork()):
        return _stand_in(pid)
    if launcher == "mpirun":
        os.setsid()
    # torchrun and the supervisor stop a rank through its process group: the command gets the signal itself,
    # and this process only remembers it.
    for signum in STOPS:
        _signal.signal(signum, lambda signum, _: _stopped.append(signum))
    supervisor = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    supervisor.connect(socket_path)
    place = " ".join(os.environ[name] for name in PLACE[launcher])
    supervisor.sendall(f"rank {place} {os.getpid()}\n".encode())
    output, payload = _receive(supervisor)
    if launcher == "mpirun":
        # A daemon does not end while anybody holds the pipes that it made for its process.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nowhere, fd)
    cwd, argv, env = payload.split(b"\0\0")
    os.chdir(cwd)
    args = argv.split(b"\0")
    pid = os.posix_spawn(
        args[0],
        args,
        dict(pair.split(b"=", 1) for pair in env.split(b"\0")) | _kept(KEPT[launcher]),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ],
        setsigmask=[],
        setsigdef=[*STOPS, *IGNORED_BY_PYTHON],
    )
    os.close(output)
    code, signum = _wait(pid)
    supervisor.sendall(f"exit {code} {signum} {len(_stopped)} {time.monotonic()}\n".encode())
    return 128 + signum if code is None and signum else code or 0


def _stand_in(pid: int) -> int:
    """Be the process that mpirun knows, and end as the real one does.

    mpirun, too, stops all ranks when one has failed. Its signals reach this process alone, so that the command is
    stopped by the supervisor and nobody else: that one knows who was stopped, and gives each time to end.
    """
    for signum in STOPS:
        _signal.signal(signum, _signal.SIG_IGN)
    code, ended_by = _wait(pid)
    return code if code is not None else 128 + (ended_by or 0)


def _kept(beginnings: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return {name: value for name, value in os.environb.items() if name.startswith(beginnings)} if beginnings else {}


def _wait(pid: int) -> tuple[int | None, int | None]:
    """Exit code and signal, of which one is None."""
    _, status = os.waitpid(pid, 0)
    return (None, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), None)


def _receive(supervisor: _socket.socket) -> tuple[int, bytes]:
    data, ancillary, _, _ = supervisor.recvmsg(65536, _socket.CMSG_SPACE(4))
    if not data:
        sys.exit("the run's supervisor refused this process: see the run's own messages")
    size = int.from_bytes(data[:4], "little") + 4
    while len(data) < size:
        data += supervisor.recv(size - len(data))
    return int.from_bytes(ancillary[0][2], sys.byteorder), data[4:]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
