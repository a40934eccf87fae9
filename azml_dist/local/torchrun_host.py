"""Runs torchrun once for each emulated node, in processes that share one `import torch`.

It runs by path in the Python that holds torch. The agents are forked after the import, while the process has one
thread; each calls torchrun's own `main` with the options a person would write. Importing torch costs a second and
some 100 MB; so it is paid once a run, and not once a node.
"""

import gc
import os
import socket
import sys
from collections.abc import Callable


def main(socket_path: str) -> None:
    """Import torch, start the agents of the world that stdin names, and become a small process that waits for them."""
    missing = None
    gc.disable()  # nothing of torch's modules is garbage: a tenth of the import's time
    try:
        from torch.distributed.run import main as torchrun
    except ImportError as error:
        missing = str(error)
    gc.freeze()
    gc.enable()
    if not (orders := sys.stdin.read()):
        return  # there was no run in the end
    log_folder, node_count, process_count, port, address, hosts, *command = orders.split("\0")
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    supervisor.connect(socket_path)
    if missing:
        supervisor.sendall(f"no-torchrun {missing}\n".encode())
        return
    agents = []
    for node in range(int(node_count)):
        options = {
            "--nnodes": node_count,
            "--node-rank": str(node),
            "--nproc-per-node": process_count,
            # Static rendezvous: with c10d the nodes get their ranks by chance.
            "--master-addr": address,
            "--master-port": port,
            "--log-dir": os.path.join(os.path.dirname(socket_path), f"torchrun-{node}"),
        }
        args = [word for option in options.items() for word in option] + ["--no-python", *command]
        host = hosts.split(",")[node] if hosts else None
        agents.append(str(_fork(torchrun, args, os.path.join(log_folder, f"torchrun_node_{node}.txt"), host)))
    # What the agents change of torch's memory would stay here a second time: some 70 MB.
    os.set_inheritable(supervisor.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, WAIT, str(supervisor.fileno()), *agents])


WAIT = "--wait"


def wait(supervisor: int, agents: list[int]) -> None:
    """Tell the supervisor how each agent ends."""
    for _ in agents:
        pid, status = os.wait()
        os.write(supervisor, f"agent {agents.index(pid)} {os.waitstatus_to_exitcode(status)}\n".encode())


def _enter(host: str) -> None:
    """Go where another process is: into its network, and under its host name."""
    import ctypes

    for kind in ("net", "uts"):
        namespace = os.open(f"/proc/{host}/ns/{kind}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(namespace, 0):
            raise OSError(ctypes.get_errno(), f"cannot enter the {kind} namespace of the node")
        os.close(namespace)


def _fork(torchrun: Callable[[list[str]], None], args: list[str], log: str, host: str | None) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        if host:
            _enter(host)
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
        # Python puts this file's folder first, where neighbours have names of their own.
        sys.path.pop(0)
        main(sys.argv[1])
