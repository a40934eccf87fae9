"""Hangs made on purpose, and runs that are only slow.

The truth of a case is declared: `odd` has the ranks that keep the others waiting, and `# here` marks the line in which
the first of them is. Nothing of it comes from what the watch answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from azml_dist import Mpi, PyTorch, TensorFlow

HERE = "# here"
BOTH = ("torchrun", "direct")


class Case(NamedTuple):
    """A script that hangs or is slow, in one world."""

    name: str
    group: str
    """Its row in the table."""
    body: str
    odd: tuple[int, ...] | None = ()
    """Empty if all ranks wait alike and none can be named; None if nothing hangs."""
    launchers: tuple[str, ...] = BOTH
    nodes: int = 2
    each: int = 2
    before: str = ""
    """A part of `PREPARED`."""
    quick: bool = False
    """It is among those that run with the other tests."""

    @property
    def script(self) -> str:
        return PREPARED[self.before] + self.body.strip("\n") + "\n"

    @property
    def line(self) -> int:
        """The number of the marked line."""
        return next(n for n, line in enumerate(self.script.splitlines(), 1) if line.endswith(HERE))

    @property
    def distribution(self) -> PyTorch | Mpi | TensorFlow:
        if "mpirun" in self.launchers:
            return Mpi(process_count_per_node=self.each)
        if "tensorflow" in self.launchers:
            return TensorFlow()
        return PyTorch(process_count_per_node=self.each)


PREPARED = {
    "": "import os, sys, threading, time\nrank = int(os.environ['RANK'])\n",
    "torch": """\
import os, sys, threading, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, one = dist.get_rank(), torch.ones(4)
dist.all_reduce(one)
""",
    "late": """\
import os, sys, threading, time
import torch, torch.distributed as dist
rank = int(os.environ["RANK"])
""",
    "mpi": """\
import sys, threading, time
from mpi4py import MPI
comm = MPI.COMM_WORLD
rank = comm.rank
comm.Barrier()
""",
    "tensorflow": """\
import json, os, time
config = json.loads(os.environ["TF_CONFIG"])
config["cluster"] = {k: v for k, v in config["cluster"].items() if v}
os.environ["TF_CONFIG"], rank = json.dumps(config), config["task"]["index"]
import tensorflow as tf
""",
}

COLLECTIVES = "torch: collectives that differ"
ELSEWHERE = "torch: a rank that is elsewhere"
MEETING = "torch: ranks that do not meet"
GROUPS = "torch: groups, point to point"
MPI_CASES = "MPI"
TF_CASES = "TensorFlow"
PLAIN = "no collective at all"


def torch(name: str, group: str, body: str, odd: Sequence[int], *, before: str = "torch", quick: bool = False) -> Case:
    return Case(name, group, body, tuple(odd), before=before, quick=quick)


def mpi(name: str, body: str, odd: Sequence[int], *, quick: bool = False) -> Case:
    return Case(name, MPI_CASES, body, tuple(odd), ("mpirun",), 1, 3, "mpi", quick)


def tensorflow(name: str, body: str, odd: Sequence[int]) -> Case:
    return Case(name, TF_CASES, body, tuple(odd), ("tensorflow",), 3, 1, "tensorflow")


def plain(name: str, body: str, odd: Sequence[int], *, each: int = 3, quick: bool = False) -> Case:
    return Case(name, PLAIN, body, tuple(odd), nodes=1, each=each, quick=quick)


HANGS = [
    # --- torch: the ranks call different things
    torch(
        "a skipped collective",
        COLLECTIVES,
        """
for step in range(9):
    if rank != 2 or step < 5:
        dist.all_reduce(one)
    dist.barrier()  # here
""",
        [2],
    ),
    torch(
        "another order",
        COLLECTIVES,
        """
def gather():
    dist.all_gather([torch.zeros(4) for _ in range(4)], one)  # here
if rank == 1:
    gather()
    dist.all_reduce(one)
else:
    dist.all_reduce(one)
    dist.all_gather([torch.zeros(4) for _ in range(4)], one)
""",
        [1],
    ),
    torch(
        "another shape",
        COLLECTIVES,
        """
batch = torch.ones(2, 3) if rank == 3 else torch.ones(4)
dist.all_reduce(batch)  # here
dist.barrier()
time.sleep(3600)
""",
        [3],
    ),
    torch(
        "a barrier on rank 0 only",
        COLLECTIVES,
        """
if rank == 0:
    dist.barrier()  # here
dist.all_reduce(one)
""",
        [0],
        quick=True,
    ),
    torch(
        "an object that only rank 0 broadcasts",
        COLLECTIVES,
        """
if rank == 0:
    dist.broadcast_object_list([{"lr": 0.1}], src=0)  # here
dist.all_reduce(one)
time.sleep(3600)
""",
        [0],
    ),
    torch(
        "fewer batches on one rank",
        COLLECTIVES,
        """
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
for _ in range(3 if rank == 1 else 5):
    model(one).sum().backward()
dist.barrier()  # here
""",
        [1],
    ),
    torch(
        "an asynchronous collective that one rank leaves out",
        COLLECTIVES,
        """
if rank != 2:
    dist.all_reduce(one, async_op=True).wait()
time.sleep(3600)  # here
""",
        [2],
    ),
    torch(
        "an epoch that one rank ends early",
        COLLECTIVES,
        """
for epoch in range(20):
    dist.all_reduce(one)
    if rank == 3 and epoch == 4:
        break
dist.barrier()  # here
""",
        [3],
    ),
    torch(
        "FSDP evaluates on rank 0 only",
        COLLECTIVES,
        """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
def evaluate():
    with torch.no_grad():
        return model(torch.ones(1, 8)).sum()  # here
model(torch.ones(1, 8)).sum().backward()
if rank == 0:
    evaluate()
dist.all_reduce(one)
""",
        [0],
    ),
    torch(
        "a distributed checkpoint on rank 0 only",
        COLLECTIVES,
        """
import torch.distributed.checkpoint as dcp
if rank == 0:
    dcp.save({"one": one}, checkpoint_id="ckpt")  # here
dist.all_reduce(one)
""",
        [0],
    ),
    torch(
        "no_sync on one rank",
        COLLECTIVES,
        """
from contextlib import nullcontext
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
for step in range(4):
    with model.no_sync() if rank == 1 and step == 2 else nullcontext():
        model(one).sum().backward()
dist.barrier()  # here
""",
        [1],
    ),
    # --- torch: one rank is somewhere else
    torch(
        "an early sleep",
        ELSEWHERE,
        """
for step in range(50):
    if rank == 2 and step == 5:
        time.sleep(3600)  # here
    dist.all_reduce(one)
""",
        [2],
    ),
    torch(
        "input()",
        ELSEWHERE,
        """
if rank == 1:
    sys.stdin = os.fdopen(os.pipe()[0])
    input("continue? ")  # here
dist.all_reduce(one)
""",
        [1],
    ),
    torch(
        "a lock that it has",
        ELSEWHERE,
        """
lock = threading.Lock()
def save():
    with lock:  # here
        return 1
if rank == 3:
    with lock:
        save()
dist.barrier()
""",
        [3],
        quick=True,
    ),
    torch(
        "a worker of a DataLoader",
        ELSEWHERE,
        """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, at):
        if rank == 2 and at == 6:
            threading.Event().wait()  # here
        return one
for batch in torch.utils.data.DataLoader(Data(), num_workers=1):
    dist.all_reduce(batch)
""",
        [2],
    ),
    torch(
        "a read that gets nothing",
        ELSEWHERE,
        """
if rank == 0:
    os.mkfifo("mount")
    data = open("mount").read()  # here
dist.broadcast(one, 0)
dist.all_reduce(one)
""",
        [0],
    ),
    torch(
        "SIGSTOP",
        ELSEWHERE,
        """
import signal
if rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)  # here
dist.all_reduce(one)
""",
        [1],
        quick=True,
    ),
    torch(
        "a subprocess that does not end",
        ELSEWHERE,
        """
import subprocess
if rank == 3:
    subprocess.run(["sleep", "3600"])  # here
dist.all_reduce(one)
""",
        [3],
    ),
    torch(
        "a socket that gets nothing",
        ELSEWHERE,
        """
import socket
a, b = socket.socketpair()
if rank == 2:
    a.recv(10)  # here
dist.all_reduce(one)
""",
        [2],
    ),
    torch(
        "a queue that stays empty",
        ELSEWHERE,
        """
import queue
batches = queue.Queue()
if rank == 1:
    batch = batches.get()  # here
dist.all_reduce(one)
""",
        [1],
    ),
    torch(
        "a file lock",
        ELSEWHERE,
        """
import fcntl
with open(f"/tmp/{os.environ['MASTER_PORT']}-{rank}.lock", "w") as file:
    os.unlink(file.name)
    read, write = os.pipe()
    fcntl.flock(file, fcntl.LOCK_EX)
    if rank == 1:
        with open(f"/proc/self/fd/{file.fileno()}", "w") as again:
            fcntl.flock(again, fcntl.LOCK_EX)  # here
dist.all_reduce(one)
""",
        [1],
    ),
    torch(
        "a thread that it joins",
        ELSEWHERE,
        """
if rank == 2:
    saving = threading.Thread(target=threading.Event().wait, daemon=True)
    saving.start()
    saving.join()  # here
dist.all_reduce(one)
""",
        [2],
    ),
    torch(
        "asyncio",
        ELSEWHERE,
        """
import asyncio
async def upload():
    await asyncio.Event().wait()
if rank == 0:
    asyncio.run(upload())  # here
dist.all_reduce(one)
""",
        [0],
    ),
    torch(
        "a file that another job should write",
        ELSEWHERE,
        """
while rank == 3 and not os.path.exists("never"):
    time.sleep(0.1)  # here
dist.all_reduce(one)
""",
        [3],
    ),
    torch(
        "a child that is only a text",
        ELSEWHERE,
        """
import subprocess
if rank == 1:
    wait = "import threading; threading.Event().wait()"
    subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE).communicate()  # here
dist.all_reduce(one)
""",
        [1],
    ),
    torch(
        "most ranks",
        ELSEWHERE,
        """
if rank != 0:
    time.sleep(3600)  # here
dist.all_reduce(one)
""",
        [],
    ),
    torch(
        "a pool in one rank",
        ELSEWHERE,
        """
import multiprocessing
def clean(n):
    with lock:  # here
        return n
lock = multiprocessing.Lock()
if rank == 2:
    lock.acquire()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(clean, range(4))
dist.all_reduce(one)
""",
        [2],
    ),
    torch(
        "a thread that outlives an exception",
        ELSEWHERE,
        """
def heartbeat():
    threading.Event().wait()  # here
if rank == 2:
    threading.Thread(target=heartbeat).start()
    raise ValueError("bad batch")
dist.all_reduce(one)
""",
        [2],
    ),
    torch(
        "an exit handler",
        ELSEWHERE,
        """
import atexit
def finish():
    os.read(os.pipe()[0], 1)  # here
if rank == 2:
    atexit.register(finish)
dist.barrier()
dist.destroy_process_group()
""",
        [2],
    ),
    # --- torch: before there is a group
    torch(
        "exit code 0 before the group",
        MEETING,
        """
if rank == 3:
    sys.exit(0)
dist.init_process_group("gloo")  # here
""",
        [3],
        before="late",
    ),
    torch(
        "late for the group",
        MEETING,
        """
if rank == 1:
    time.sleep(3600)  # here
dist.init_process_group("gloo")
""",
        [1],
        before="late",
    ),
    torch(
        "a world size that is too large",
        MEETING,
        """
dist.init_process_group("gloo", world_size=5, rank=rank)  # here
""",
        [],
        before="late",
    ),
    torch(
        "a port that rank 0 never opens",
        MEETING,
        """
if rank == 0:
    time.sleep(3600)  # here
dist.init_process_group("gloo")
""",
        [0],
        before="late",
    ),
    torch(
        "a key that nobody sets",
        MEETING,
        """
from datetime import timedelta
store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), 4, rank == 0, timedelta(hours=1))
if rank == 0:
    time.sleep(3600)  # here
store.wait(["ready"])
""",
        [0],
        before="late",
    ),
    # --- torch: groups
    torch(
        "a group of two without one of them",
        GROUPS,
        """
rows = [dist.new_group([0, 1]), dist.new_group([2, 3])]
columns = [dist.new_group([0, 2]), dist.new_group([1, 3])]
for step in range(5):
    if rank == 3 and step == 3:
        time.sleep(3600)  # here
    dist.all_reduce(one, group=rows[rank // 2])
    dist.all_reduce(one, group=columns[rank % 2])
""",
        [3],
    ),
    torch(
        "two groups in another order",
        GROUPS,
        """
first, second = dist.new_group([0, 1, 2, 3]), dist.new_group([0, 1, 2, 3])
if rank == 2:
    first, second = second, first
dist.all_reduce(one, group=first)  # here
dist.all_reduce(one, group=second)
""",
        [2],
    ),
    torch(
        "a new group on rank 0 only",
        GROUPS,
        """
if rank == 0:
    dist.new_group([0, 1])  # here
dist.all_reduce(one)
""",
        [0],
    ),
    torch(
        "recv without send",
        GROUPS,
        """
if rank == 2:
    dist.recv(one, src=0)  # here
dist.barrier()
""",
        [2],
    ),
    # --- MPI
    mpi(
        "late",
        """
if rank == 1:
    time.sleep(3600)  # here
comm.Barrier()
""",
        [1],
        quick=True,
    ),
    mpi(
        "recv without send",
        """
if rank == 1:
    comm.recv(source=0)  # here
comm.Barrier()
""",
        [1],
    ),
    mpi(
        "another order",
        """
if rank == 2:
    comm.bcast(1, root=0)  # here
comm.allreduce(1)
comm.bcast(1)
""",
        [2],
    ),
    mpi(
        "a lock",
        """
lock = threading.Lock()
if rank == 0:
    lock.acquire()
    lock.acquire()  # here
comm.gather(1)
comm.Barrier()
""",
        [0],
    ),
    mpi(
        "ended with 0",
        """
if rank == 2:
    sys.exit()
comm.allreduce(1)  # here
""",
        [2],
    ),
    mpi(
        "a read that gets nothing",
        """
import os
if rank == 2:
    os.mkfifo('mount')
    open('mount').read()  # here
comm.Allreduce(MPI.IN_PLACE, bytearray(8))
""",
        [2],
    ),
    mpi(
        "a send that nobody receives",
        """
if rank == 0:
    comm.Send(bytearray(50_000_000), dest=1)  # here
comm.Barrier()
""",
        [0],
    ),
    mpi(
        "another communicator",
        """
own = comm.Split(0, rank)
if rank == 1:
    comm.Barrier()  # here
own.Barrier()
""",
        [1],
    ),
    mpi(
        "most ranks",
        """
if rank != 0:
    time.sleep(3600)  # here
comm.Barrier()
""",
        [],
    ),
    mpi(
        "a window",
        """
window = MPI.Win.Create(bytearray(8), comm=comm)
window.Fence()
if rank == 2:
    time.sleep(3600)  # here
window.Fence()
""",
        [2],
    ),
    # --- TensorFlow
    tensorflow(
        "a worker that is missing",
        """
if rank == 2:
    time.sleep(3600)  # here
tf.distribute.MultiWorkerMirroredStrategy()
""",
        [2],
    ),
    tensorflow(
        "a worker that skips a step",
        """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
@tf.function
def step():
    return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.ones(4)))
step()
if rank == 1:
    time.sleep(3600)  # here
step()
""",
        [1],
    ),
    # --- without collectives
    plain(
        "a lock taken twice",
        """
lock = threading.Lock()
lock.acquire()
lock.acquire()  # here
""",
        [0],
        each=1,
    ),
    plain(
        "two locks in another order",
        """
a, b, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
def work(first, second):
    with first:
        both.wait()
        with second:  # here
            pass
other = threading.Thread(target=work, args=(a, b))
other.start()
work(b, a)
""",
        [0],
        each=1,
    ),
    plain(
        "one rank in a pipe",
        """
if rank == 1:
    os.mkfifo('pipe')
    open('pipe').read()  # here
lock = threading.Lock()
lock.acquire()
lock.acquire()
""",
        [1],
    ),
    plain(
        "a pool whose worker hangs",
        """
import multiprocessing
def work(n):
    threading.Event().wait()  # here
if __name__ == '__main__':
    multiprocessing.get_context('fork').Pool(1).map(work, [1])
""",
        [0],
        each=1,
        quick=True,
    ),
    plain(
        "a port that nobody opens",
        """
import socket
while rank:
    try:
        socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"])))
    except OSError:
        time.sleep(0.2)
threading.Event().wait()  # here
""",
        [0],
    ),
    plain(
        "select",
        """
import select
r, w = os.pipe()
select.select([r], [], [])  # here
""",
        [0],
        each=1,
    ),
]


def alive(name: str, body: str, before: str = "", launchers: tuple[str, ...] = ("direct",), *, each: int = 2) -> Case:
    return Case(name, "slow, but alive", body, None, launchers, 1, each, before)


ALIVE = [
    alive(
        "computes in silence",
        """
end = time.time() + 9
while time.time() < end:
    sum(range(10_000))
""",
    ),
    alive(
        "one rank compiles while the others wait",
        """
end = time.time() + 9
while rank == 0 and time.time() < end:
    sum(range(10_000))
dist.barrier()
""",
        "torch",
    )._replace(quick=True),
    alive(
        "one rank compiles with torch.compile, the others wait",
        """
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.abspath("cache")
if rank == 0:
    for width in (48, 49):
        layers = [torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.GELU()) for _ in range(2)]
        torch.compile(torch.nn.Sequential(*layers), dynamic=False)(torch.ones(2, width)).sum().backward()
dist.barrier()
""",
        "torch",
    ),
    alive(
        "rank 0 evaluates, and all meet in a barrier",
        """
def evaluate():
    for batch in range(20):
        time.sleep(0.4)
evaluate() if rank == 0 else None
dist.barrier()
""",
        "torch",
    ),
    alive(
        "saves a large checkpoint",
        """
if rank == 0:
    with open('model.pt', 'wb') as file:
        for _ in range(90):
            file.write(bytes(300_000))
            time.sleep(0.1)
dist.barrier()
""",
        "torch",
    ),
    alive(
        "a loader that is slow",
        """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, at):
        time.sleep(1.2)
        return one
for batch in torch.utils.data.DataLoader(Data(), num_workers=1):
    dist.all_reduce(batch)
""",
        "torch",
    ),
    alive(
        "a collective every second",
        """
for _ in range(9):
    dist.all_reduce(one)
    time.sleep(1)
""",
        "torch",
    ),
    alive(
        "rank 0 sleeps while another computes",
        """
end = time.time() + 9
time.sleep(9) if rank == 0 else None
while time.time() < end:
    sum(range(10_000))
""",
    ),
    alive(
        "a child computes",
        """
import subprocess
subprocess.run(['timeout', '9', 'yes'], stdout=subprocess.DEVNULL)
""",
    ),
    alive(
        "starts one program after another",
        """
import subprocess
for _ in range(18):
    subprocess.run(['sleep', '0.5'])
""",
    ),
    alive(
        "a download in small pieces",
        """
import socket
a, b = socket.socketpair()
def send():
    for _ in range(90):
        b.send(b'x')
        time.sleep(0.1)
    b.close()
threading.Thread(target=send).start()
got = 0
while piece := a.recv(9):
    got += len(piece)
""",
    ),
    alive(
        "one rank of MPI computes, the others poll",
        """
end = time.time() + 9
while rank == 1 and time.time() < end:
    sum(range(10_000))
comm.Barrier()
""",
        "mpi",
        ("mpirun",),
    ),
    alive(
        "TensorFlow traces",
        """
end = time.time() + 9
strategy = tf.distribute.MultiWorkerMirroredStrategy()
@tf.function
def step():
    while time.time() < end:
        tf.constant(1) + 1
    return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce('sum', tf.ones(4)))
step()
""",
        "tensorflow",
        ("tensorflow",),
    )._replace(nodes=2, each=1),
    alive(
        "waits for a file that comes",
        """
import pathlib
threading.Timer(9, pathlib.Path(f'ready{rank}').touch).start()
tries = 0
while not os.path.exists(f'ready{rank}'):
    time.sleep(0.3)
    tries += 1
""",
    ),
]
"""Nothing may be said of these. They take nine seconds or longer."""
