"""Runs torchrun once for each emulated node, in processes that share one `import torch`.

It runs by path in the Python that has torch. The agents are forked after the import, while the process has one
thread; each calls torchrun's own `main` with the options that a person would write. Importing torch costs a second and
about 100 MB; this way the run pays once, not once per node.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False  # without `typing`: what waits for the agents stays small
if TYPE_CHECKING:
    from collections.abc import Callable

NEEDED_LATER = ("encodings.idna", "torch.distributed.elastic.rendezvous.static_tcp_rendezvous")
"""Modules that torchrun imports only when it begins: a megabyte for each agent, unless the agents share them."""


def main(socket_path: str) -> None:
    """Import torch, start the agents that stdin describes, and become a small process that waits for them."""
    import socket

    missing = None
    gc.disable()  # torch's modules contain no garbage: saves a tenth of the import's time
    try:
        from torch.distributed.run import main as torchrun

        for name in NEEDED_LATER:
            _load(name)
    except ImportError as error:
        missing = str(error)
    gc.freeze()
    gc.enable()
    if not (orders := sys.stdin.read()):
        return  # no run was started after all
    log_folder, node_count, process_count, port, address, namespaces, *command = orders.split("\0")
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    supervisor.connect(socket_path)
    if missing:
        supervisor.sendall(f"no-torchrun {missing}\n".encode())
        return
    supervisor.sendall(b"imported\n")
    agents = []
    for node in range(int(node_count)):
        options = {
            "--nnodes": node_count,
            "--node-rank": str(node),
            "--nproc-per-node": process_count,
            # Static rendezvous: with c10d, nodes get random ranks.
            "--master-addr": address,
            "--master-port": port,
            "--log-dir": os.path.join(os.path.dirname(socket_path), f"torchrun-{node}"),
        }
        args = [word for option in options.items() for word in option] + ["--no-python", *command]
        host = list(filter(None, namespaces.split(",")[node].split(":")))
        agents.append(str(_fork(torchrun, args, os.path.join(log_folder, f"torchrun_node_{node}.txt"), host)))
    # Memory of torch that the agents change would be kept here a second time: about 70 MB.
    os.set_inheritable(supervisor.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, WAIT, str(supervisor.fileno()), *agents])


def _load(name: str) -> None:
    try:  # noqa: SIM105 (contextlib takes memory)
        __import__(name)
    except ImportError:  # another version of torch
        pass


WAIT = "--wait"


def wait(supervisor: int, agents: list[int]) -> None:
    """Report to the supervisor how each agent ends."""
    for _ in agents:
        pid, status = os.wait()
        os.write(supervisor, f"agent {agents.index(pid)} {os.waitstatus_to_exitcode(status)}\n".encode())


def _enter(namespaces: list[str]) -> None:
    """Join the other processes of the node: its network, its host name, its `/tmp`."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for namespace, file in [(os.open(file, os.O_RDONLY), file) for file in namespaces]:
        if libc.setns(namespace, 0):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace of the node, {file}")
        os.close(namespace)


def _end_with_parent() -> None:
    """Make the system kill this process when its parent ends, for whatever reason (Linux)."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _fork(torchrun: Callable[[list[str]], None], args: list[str], log: str, namespaces: list[str]) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        _end_with_parent()
        _enter(namespaces)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        torchrun(args)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == WAIT:
        wait(int(sys.argv[2]), list(map(int, sys.argv[3:])))
    else:
        # Python puts this file's folder first on the path, where its neighbours would shadow other modules.
        sys.path.pop(0)
        main(sys.argv[1])
