"""Runs in every process of a probe's job, and prints what it sees in lines that `azml-dist probe` collects.

It needs only the standard library of Python 3.8; it uses torch if the image has it. Secrets are never printed: of
variables that it does not know, not even the values.
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from typing import Any

MARK = "azml-dist-probe"
PIECE = 2000
"""Characters of a line: short enough to be written at once, whatever passes it on."""
SENDER = uuid.uuid4().hex[:12]

SHOWN = re.compile(
    r"(RANK|LOCAL_RANK|NODE_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|TF_CONFIG|RAY_ADDRESS|(LOCAL|GROUP|ROLE)_\w+"
    r"|OMPI_COMM_WORLD_\w+|AZ_BATCH(AI)?_\w+|AZUREML_(CR|ARM|PARAMETER|DATAREFERENCE)_\w+|AZURE_ML_\w+"
    r"|AZUREML_(RUN|ROOT_RUN|EXPERIMENT)_ID|AZUREML_(NODE_COUNT|PROCESS_NAME)|MLFLOW_(RUN|EXPERIMENT)_\w+"
    r"|MLFLOW_TRACKING_URI|NCCL_\w+|UCX_\w+|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES"
    r"|TORCHELASTIC_\w+|PYTHONFAULTHANDLER)"
)
"""Variables that are printed with their values."""
NAMED = re.compile(
    r"(AZ_|AZUREML_|AZURE_|AZUREML|MLFLOW_|OMPI_|PMIX_|PMI_|RAY_|CUDA_|NVIDIA_|DATASET_|RSLEX_|MSI_|TORCH|HOROVOD_)"
)
"""Variables of which the names are printed."""
SECRET = re.compile(r"TOKEN|SECRET|PASS|(^|_)(KEY|SAS|PWD|CRED\w*|SIG)(_|$)|CONNECTION", re.IGNORECASE)
LOOKS_SECRET = re.compile(r"eyJ[\w-]{10,}|[?&;](sig|se|AccountKey|SharedAccessSignature)=|AccountKey=", re.IGNORECASE)
WAIT = 60.0
"""Seconds for which a process waits for the others."""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--shell", help="what the shell calls itself")
    options.add_argument("--measure", action="store_true", help="measure what the machine has")
    options.add_argument("--data", help="a file in a mount, to be read")
    options.add_argument("--megabytes", type=int, default=64, help="how much to write to the disk and to reduce")
    options.add_argument("--serve", type=float, default=60.0, help="seconds for which a parameter server stays")
    given = options.parse_args()
    tell("process", process(given.shell))
    if given.measure and local_rank() == 0:
        tell("node", node(given))
    if is_server():
        listener = listens(address_of(task())[1])
        time.sleep(given.serve)
        if listener:
            listener.close()
        tell("served", {"seconds": given.serve, "time": time.time()})
    elif servers := tasks("ps"):
        # The run may end with the workers: not before the servers have reported.
        for server in servers:
            reach(server)
    elif given.measure and "MASTER_ADDR" in os.environ and number("WORLD_SIZE") > 1:
        meet(given.megabytes)


def tell(kind: str, value: dict[str, Any]) -> None:
    """Print a value in as many lines as it takes."""
    text = json.dumps(value)
    pieces = [text[begin : begin + PIECE] for begin in range(0, len(text), PIECE)]
    for index, piece in enumerate(pieces):
        check = zlib.crc32(piece.encode())
        sys.stdout.write(f"{MARK} {SENDER} {kind} {index}/{len(pieces)} {check} {piece}\n")
        sys.stdout.flush()


def number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


def local_rank() -> int:
    return 1 if is_server() else number("LOCAL_RANK") or number("OMPI_COMM_WORLD_LOCAL_RANK")


def is_server() -> bool:
    return bool(tasks("ps")) and cluster().get("task", {}).get("type") == "ps"


def cluster() -> dict[str, Any]:
    """What TensorFlow is told."""
    try:
        found = json.loads(os.environ.get("TF_CONFIG", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def tasks(role: str) -> list[str]:
    """The addresses of the tasks of a role."""
    try:
        return [str(one) for one in cluster()["cluster"].get(role) or ()]
    except (LookupError, AttributeError, TypeError):
        return []


def task() -> str:
    """The address of this parameter server."""
    index = cluster()["task"].get("index")
    servers = tasks("ps")
    return servers[index] if isinstance(index, int) and index < len(servers) else servers[0]


def address_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port) if port.isdigit() else 0


def reach(server: str) -> None:
    """Wait for a parameter server."""
    try:
        connected(address_of(server), WAIT / 2).close()
    except OSError as error:
        tell("trouble", {"what": "a parameter server could not be reached", "error": str(error)})


def listens(port: int) -> socket.socket | None:
    """Shows the workers that this process has reported."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
        listener.listen(128)
    except OSError as error:
        tell("trouble", {"what": f"port {port} cannot be used", "error": str(error)})
        listener.close()
        return None
    return listener


def process(shell: str | None) -> dict[str, Any]:
    """What this process sees."""
    env = os.environ
    shown = {name: value for name, value in env.items() if SHOWN.fullmatch(name) and not is_secret(name, value)}
    named = [name for name in env if name not in shown and (SHOWN.fullmatch(name) or NAMED.match(name))]
    return {
        "env": shown,
        "names": sorted(named),
        "others": len(env) - len(shown) - len(named),
        "host": socket.gethostname(),
        "cwd": os.getcwd(),
        "shell": shell,
        "python": platform.python_version(),
        "root": os.getuid() == 0,
        "time": time.time(),
    }


def is_secret(name: str, value: str) -> bool:
    return bool(SECRET.search(name) or LOOKS_SECRET.search(value))


def node(given: argparse.Namespace) -> dict[str, Any]:
    """What this machine has; None for what cannot be found out."""
    memory = shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else None
    return {
        "cpus": os.cpu_count(),
        "memory": total_memory(),
        "shm": memory,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "locked_memory": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        "gpus": gpus(),
        "infiniband": infiniband(),
        "torch": version_of("torch"),
        "mpirun": first_line("mpirun", "--version"),
        "disk": {place: usage(place) for place in (os.getcwd(), tempfile.gettempdir())},
        "disk_rate": disk_rate(given.megabytes) if given.megabytes else None,
        "mount_rate": mount_rate(given.data) if given.data else None,
    }


def total_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def usage(place: str) -> dict[str, int]:
    found = shutil.disk_usage(place)
    return {"total": found.total, "free": found.free}


def said(*command: str) -> str | None:
    """What a program prints; None if it is not there, fails, or takes long."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def first_line(*command: str) -> str | None:
    text = said(*command)
    return text.split("\n")[0][:200] if text else None


def gpus() -> list[dict[str, Any]] | None:
    """The GPUs by NVIDIA's own tool; None without it."""
    fields = ("name", "memory.total", "driver_version", "ecc.errors.uncorrected.volatile.total")
    text = said("nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits")
    if text is None:
        return None
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines() if line.strip()]
    return [dict(zip(("name", "memory_mib", "driver", "ecc_errors"), row)) for row in rows]  # noqa: B905 (Python 3.8)


def infiniband() -> list[str]:
    """The rate of each port that is up, in the kernel's words."""
    found = []
    for port in sorted(glob.glob("/sys/class/infiniband/*/ports/*")):
        state, rate = (content(f"{port}/{name}") for name in ("state", "rate"))
        if "ACTIVE" in state:
            found.append(rate.strip())
    return found


def content(path: str) -> str:
    """What is in a file; nothing if it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def version_of(module: str) -> str | None:
    """The version of a package, without importing it."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        from importlib.metadata import version

        return version(module)
    except Exception:
        return "unknown"


def disk_rate(megabytes: int) -> dict[str, float] | None:
    """Bytes a second in and out of the working directory's disk."""
    block = os.urandom(1 << 20)
    try:
        with tempfile.NamedTemporaryFile(dir=".", prefix=".probe-") as file:
            begin = time.monotonic()
            for _ in range(megabytes):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written = time.monotonic() - begin
            forget(file.fileno())
            begin = time.monotonic()
            size = read_all(file.name)
            return {"write": (megabytes << 20) / written, "read": size / max(1e-9, time.monotonic() - begin)}
    except OSError:
        return None


def mount_rate(path: str) -> dict[str, float] | None:
    """Bytes a second of the first read of a file."""
    try:
        begin = time.monotonic()
        size = read_all(path)
        return {"bytes": size, "read": size / max(1e-9, time.monotonic() - begin)}
    except OSError:
        return None


def read_all(path: str) -> int:
    size = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            size += len(chunk)
    return size


def forget(fd: int) -> None:
    """Drop a file from the page cache, where the system can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


# All processes meet at rank 0, which answers what time it is, and says who reduces with whom.


def meet(megabytes: int) -> None:
    me = {"rank": number("RANK"), "node": number("NODE_RANK"), "local": local_rank(), "torch": version_of("torch")}
    me["gpus"] = len(gpus() or [])
    host = Host(number("WORLD_SIZE")) if me["rank"] == 0 else None
    try:
        clock, role = visit(me)
    except OSError as error:
        tell("trouble", {"what": "rank 0 could not be reached", "error": str(error)})
        return
    finally:
        if host:
            host.end()
    if me["local"] == 0:
        tell("clock", clock)
    if role.get("missing"):
        tell("trouble", {"what": "some ranks did not come to rank 0", "ranks": role["missing"]})
    if role.get("index") is not None:
        if megabytes:
            reduce(me, role, megabytes)
    elif me["rank"] == 0:
        tell("reduce", {"why": "the image has no torch"})


class Host:
    """Rank 0: answers the time, and, once all are there, who takes part."""

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._there: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", number("MASTER_PORT")))
        self._socket.listen(1024)
        self._until = time.monotonic() + WAIT
        self._port = free_port()
        self._answered = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for line in stream:
                if line == b"time\n":
                    stream.write(struct.pack("!d", time.time()))
                else:
                    stream.write(json.dumps(self._role(json.loads(line))).encode() + b"\n")
                stream.flush()
            with self._changed:
                self._answered += 1
                self._changed.notify_all()

    def _role(self, one: dict[str, Any]) -> dict[str, Any]:
        """What a process does next, once all have come or enough time has passed."""
        with self._changed:
            self._there.append(one)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: len(self._there) >= self._world_size, max(0.0, self._until - time.monotonic())
            )
            there = sorted(self._there, key=lambda other: other["rank"])
        missing = sorted(set(range(self._world_size)) - {other["rank"] for other in there})
        cuda = all(other["gpus"] for other in there)
        most = min(other["gpus"] for other in there) if cuda else 2
        group = [other for other in there if other["torch"] and other["local"] < most]
        ranks = [other["rank"] for other in group]
        nodes = sorted({other["node"] for other in group})
        return {
            "missing": missing,
            "index": ranks.index(one["rank"]) if one["rank"] in ranks and not missing else None,
            "nodes": [[ranks.index(other["rank"]) for other in group if other["node"] == node] for node in nodes],
            "port": self._port,
            "backend": "nccl" if cuda else "gloo",
        }

    def end(self) -> None:
        """Return when all have gone, or after a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._answered >= len(self._there), 10)
        self._socket.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def visit(me: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How far this clock is from that of rank 0, and what to do."""
    address = (os.environ["MASTER_ADDR"], number("MASTER_PORT"))
    connection = connected(address)
    with connection, connection.makefile("rwb") as stream:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = []
        for _ in range(8):
            begin = time.time()
            stream.write(b"time\n")
            stream.flush()
            there = struct.unpack("!d", stream.read(8))[0]
            end = time.time()
            found.append(((end - begin) / 2, (begin + end) / 2 - there))
        stream.write(json.dumps(me).encode() + b"\n")
        stream.flush()
        role: dict[str, Any] = json.loads(stream.readline())
    accuracy, ahead = min(found)
    return {"ahead": ahead, "accuracy": accuracy}, role


def connected(address: tuple[str, int], seconds: float = WAIT) -> socket.socket:
    until = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(address, timeout=WAIT + 10)
        except OSError:  # noqa: PERF203
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def reduce(me: dict[str, Any], role: dict[str, Any], megabytes: int) -> None:
    """Sum a tensor over the processes of a node, and over all, and tell how fast that was."""
    try:
        found = reduced(me, role, megabytes)
    except Exception as error:  # whatever torch, NCCL or the network do, the rest of the report counts
        found = {"why": f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"}
    if me["local"] == 0:
        tell("reduce", {"node": me["node"], "backend": role["backend"], **found})


def reduced(me: dict[str, Any], role: dict[str, Any], megabytes: int) -> dict[str, Any]:
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    is_cuda = role["backend"] == "nccl"
    device = torch.device("cuda", me["local"]) if is_cuda else torch.device("cpu")
    if is_cuda:
        torch.cuda.set_device(device)
    size = sum(len(group) for group in role["nodes"])
    found: dict[str, Any] = {"nccl": nccl_version(torch) if is_cuda else None}
    if size < 2:
        return {**found, "why": "only one process takes part"}
    dist.init_process_group(
        role["backend"],
        init_method=f"tcp://{os.environ['MASTER_ADDR']}:{role['port']}",
        rank=role["index"],
        world_size=size,
        timeout=timedelta(seconds=WAIT),
    )
    tensor = torch.ones((megabytes if is_cuda else max(1, megabytes // 8)) << 18, device=device)
    groups = [dist.new_group(ranks) for ranks in role["nodes"]]
    mine = next(index for index, ranks in enumerate(role["nodes"]) if role["index"] in ranks)
    found["bytes"] = tensor.numel() * 4
    if len(role["nodes"][mine]) > 1:
        found["in_node"] = rate(torch, dist, tensor, groups[mine], len(role["nodes"][mine]), is_cuda)
    dist.barrier()
    if len(role["nodes"]) > 1:
        found["between_nodes"] = rate(torch, dist, tensor, None, size, is_cuda)
    dist.destroy_process_group()
    return found


def rate(torch: Any, dist: Any, tensor: Any, group: Any, size: int, is_cuda: bool) -> dict[str, Any]:
    """The bandwidth of an all-reduce in bytes a second: of the bus, as nccl-tests count it."""
    rounds = 10 if is_cuda else 3
    for _ in range(2):
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)
    if is_cuda:
        torch.cuda.synchronize()
    begin = time.monotonic()
    for _ in range(rounds):
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)
    if is_cuda:
        torch.cuda.synchronize()
    seconds = (time.monotonic() - begin) / rounds
    return {"processes": size, "bus": tensor.numel() * 4 * 2 * (size - 1) / size / seconds}


def nccl_version(torch: Any) -> str | None:
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))
    except Exception:
        return None


if __name__ == "__main__":
    main()
