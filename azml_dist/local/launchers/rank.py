"""What torchrun or mpirun starts instead of the user's command: sets the process up as Azure ML would, then runs it.

Over a Unix socket, it gets this process's part of the plan from the run's supervisor: its environment (without
torchrun's own variables, but with those that MPI needs to find its daemon), working directory and command, and a pipe
for its output. It waits for the command, and reports how it ended and whether it was stopped first, or why it could not
be started. If the supervisor ends a command on purpose, it may say beforehand which exit code to report. It is compiled
once for all ranks, and runs under `-I -S` with only modules that import fast: sixteen ranks on two cores start a tenth
of a second sooner than with `socket` and `signal`.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
import resource
import select
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
"""The variables in which a launcher tells a process its place; the supervisor compares it with the plan."""
KEPT = {"torchrun": (), "mpirun": (b"OMPI_", b"OPAL_", b"PMIX_", b"PRTE_", b"LD_LIBRARY_PATH")}
"""Prefixes of variables without which the command would not find its launcher, or the launcher's library."""

_stopped: list[int] = []


def main(socket_path: str, launcher: str) -> int:
    if launcher == "mpirun" and (pid := os.fork()):
        return _stand_in(pid)
    if launcher == "mpirun":
        os.setsid()
    # torchrun and the supervisor stop a rank through its process group: the command itself gets the signal,
    # and this process only records it.
    for signum in STOPS:
        _signal.signal(signum, lambda signum, _: _stopped.append(signum))
    supervisor = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    supervisor.connect(socket_path)
    place = " ".join(os.environ[name] for name in PLACE[launcher])
    supervisor.sendall(f"rank {place} {os.getpid()}\n".encode())
    output, payload = _receive(supervisor)
    if launcher == "mpirun":
        # A daemon does not end while a process holds the pipes that it created for its process.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nowhere, fd)
    cwd, argv, env, file_limit = payload.split(b"\0\0")
    args = argv.split(b"\0")
    wake = _wake_at_signals()
    try:
        os.chdir(cwd)
        soft, hard = map(int, file_limit.split())
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        pid = os.posix_spawn(
            args[0],
            args,
            dict(pair.split(b"=", 1) for pair in env.split(b"\0")) | _kept(KEPT[launcher]),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                (os.POSIX_SPAWN_CLOSE, output),
            ],
            setsigmask=[],
            setsigdef=[*STOPS, *IGNORED_BY_PYTHON],
        )
    except OSError as error:
        supervisor.sendall(f"unstartable {error.errno}\n".encode())
        return 1
    os.close(output)
    if _stopped:
        os.kill(pid, _stopped[0])  # the signal may have arrived before there was a command
    code, signum = _end_of(pid, supervisor, wake)
    supervisor.sendall(f"exit {code} {signum} {len(_stopped)} {time.monotonic()}\n".encode())
    return 128 + signum if code is None and signum else code or 0


def _wake_at_signals() -> int:
    """The end of a pipe that becomes readable after each signal, including the end of a child."""
    wake, end = os.pipe()
    os.set_blocking(end, False)
    _signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    return wake


def _end_of(pid: int, supervisor: _socket.socket, wake: int) -> tuple[int | None, int | None]:
    """How the command ended, or the exit code that the supervisor wants to be reported.

    If the supervisor is gone, stops the command, as nothing else would.
    """
    told = b""
    while True:
        ready, _, _ = select.select([supervisor.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 64)
        ended, status = os.waitpid(pid, os.WNOHANG)
        # Said before the command is killed, it is there by now.
        told += said if (said := _said(supervisor)) else b""
        if ended:
            return (int(told), None) if told else _ending(status)
        if said == b"":
            os.killpg(0, _signal.SIGKILL)


def _said(supervisor: _socket.socket) -> bytes | None:
    """What the supervisor has sent; empty if it is gone, None if it has sent nothing."""
    try:
        return supervisor.recv(64, _socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def _stand_in(pid: int) -> int:
    """Act as the process that mpirun knows, and end like the real one.

    mpirun, too, stops all ranks when one has failed. Its signals reach only this process, so that only the supervisor
    stops the command: it knows which ranks were stopped, and gives each time to end.
    """
    for signum in STOPS:
        _signal.signal(signum, _signal.SIG_IGN)
    code, ended_by = _ending(os.waitpid(pid, 0)[1])
    return code if code is not None else 128 + (ended_by or 0)


def _kept(beginnings: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return {name: value for name, value in os.environb.items() if name.startswith(beginnings)} if beginnings else {}


def _ending(status: int) -> tuple[int | None, int | None]:
    """Exit code and signal; one of them is None."""
    return (None, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), None)


def _receive(supervisor: _socket.socket) -> tuple[int, bytes]:
    data, ancillary, _, _ = supervisor.recvmsg(65536, _socket.CMSG_SPACE(4))
    if not data:
        sys.exit("the run's supervisor refused this process: see the messages of the run")
    size = int.from_bytes(data[:4], "little") + 4
    while len(data) < size:
        data += supervisor.recv(size - len(data))
    return int.from_bytes(ancillary[0][2], sys.byteorder), data[4:]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
