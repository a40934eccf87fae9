"""Failures made on purpose, each with what it is: a class of failure, in a rank, under a launcher.

The truth of a case is what was injected, and is written here; nothing of it comes from what the verdict answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

HERE = "# here"
"""Marks the line of the script to which a verdict must lead."""


class Truth(NamedTuple):
    """What was injected."""

    kinds: tuple[str, ...]
    """Names of the cause; more than one where several are right."""
    ranks: tuple[int | None, ...]
    exception: str | None = None
    has_place: bool = False
    """The line marked with `# here` is where it failed."""
    may_be_certain: bool = True
    only_order_tells: bool = False
    """Without the order in which processes wrote and ended, nobody can know."""


class Injection(NamedTuple):
    """A failure, and how the ranks that do not fail notice it."""

    name: str
    body: str
    """What the culprit does at its third step."""
    kinds: str
    """Names of the cause, with `|` between them."""
    exception: str | None = None
    peers: str = "wait"
    """What the others do meanwhile: a part of `PEERS`."""
    before: str = ""
    """What every rank does first."""
    culprits: str = "one"
    """`one`, `all` ranks, `none`, or `two` of them whose bodies a line of `---` separates; `second` of these."""
    command: str = "python train.py"
    options: Mapping[str, float] = {}
    """Of the executor: `timeout`."""
    files: Mapping[str, str] = {}
    """What is in the code folder beside the script."""
    memory: int | None = None
    """Bytes that the control group of the run may use."""
    may_be_certain: bool = True
    only_order_tells: bool = False


class Case(NamedTuple):
    """An injection under a launcher."""

    group: str
    """What kind of failures it belongs to, in the words of a reader."""
    injection: Injection
    launcher: str
    """`torchrun`, `direct`, `mpirun` or `tensorflow`."""
    nodes: int
    each: int
    """Processes on a node."""
    culprit: int
    quick: bool = False
    """It is among those that run with the other tests."""

    @property
    def id(self) -> str:
        return f"{self.injection.name}-{self.launcher}-{self.culprit}"

    @property
    def size(self) -> int:
        return self.nodes * self.each

    @property
    def truth(self) -> Truth:
        how = self.injection
        ranks: tuple[int | None, ...] = (self.culprit,)
        if how.culprits == "all":
            ranks = (*range(self.size), None)
        if how.culprits == "two":
            ranks = (self.culprit, (self.culprit + 1) % self.size)
        if how.culprits == "second":
            ranks = ((self.culprit + 1) % self.size,)
        if how.culprits == "none":
            ranks = (None,)
        return Truth(
            tuple(how.kinds.split("|")),
            ranks,
            how.exception,
            HERE in "".join([how.body, how.before, *how.files.values()]),
            how.may_be_certain,
            how.only_order_tells,
        )

    @property
    def script(self) -> str:
        """The training script."""
        how = self.injection
        bodies = [part.strip("\n") for part in how.body.split("---\n")]
        failing = [self.culprit, (self.culprit + 1) % self.size][: len(bodies)]
        whose = "True" if how.culprits == "all" else f"RANK in {failing}"
        inject = "\n".join(
            f"    if {'True' if len(bodies) == 1 else f'RANK == {rank}'}:\n{_indented(body, 8)}"
            for rank, body in zip(failing, bodies, strict=True)
        )
        return _SCRIPT.format(
            place=_PLACE[self.launcher],
            peers=PEERS[how.peers],
            before=how.before.strip("\n"),
            inject=inject,
            whose=whose,
        )


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else line for line in text.splitlines())


_SCRIPT = """\
import atexit, json, os, signal, sys, threading, time

{place}

{peers}

{before}


def inject(step):
{inject}


for step in range(8):
    exchange(step)
    print(f"step {{step}} loss {{1 / (step + 1):.3f}}", flush=True)
    if step == 3 and {whose}:
        inject(step)
end()
print("training finished", flush=True)
"""

_PLACE = {
    "torchrun": 'RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])',
    "direct": 'RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])',
    "mpirun": 'RANK, SIZE = int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"])',
    "tensorflow": """\
config = json.loads(os.environ["TF_CONFIG"])
RANK, SIZE = config["task"]["index"], len(config["cluster"]["worker"])""",
}

PEERS = {
    # Nothing is exchanged but files: the others wait for a rank that does not come, until they are stopped.
    "wait": """\
def exchange(step):
    mark(step)
    while not all(os.path.exists(f"{UP}/{step}.{rank}") for rank in range(SIZE)):
        time.sleep(0.01)


def mark(step):
    open(f"{UP}/{step}.{RANK}", "w").close()


def end():
    pass


UP = sys.argv[1]""",
    # As scripts with sockets of their own do it: whoever loses a peer says so in words that no table knows.
    "sockets": """\
import socket


def reaches(peer, act):
    try:
        return act(peer) != b""
    except OSError:
        return False


def exchange(step):
    if RANK == 0:
        ring = [reaches(peer, lambda peer: peer.sendall(b"x")) for peer in peers]
        if not all(ring) or not all(reaches(peer, lambda peer: peer.recv(1)) for peer in peers):
            raise RuntimeError("a worker has left the ring")
        return
    if not reaches(peers[0], lambda peer: peer.recv(1)) or not reaches(peers[0], lambda peer: peer.sendall(b"x")):
        raise RuntimeError("the ring is broken")


def end():
    pass


UP = sys.argv[1]
if RANK == 0:
    server = socket.create_server(("127.0.0.1", 0))
    with open(f"{UP}/port.new", "w") as file:
        file.write(str(server.getsockname()[1]))
    os.rename(f"{UP}/port.new", f"{UP}/port")
    peers = [server.accept()[0] for _ in range(SIZE - 1)]
else:
    while not os.path.exists(f"{UP}/port"):
        time.sleep(0.01)
    peers = [socket.create_connection(("127.0.0.1", int(open(f"{UP}/port").read())))]""",
    "torch": """\
from datetime import timedelta

import torch
import torch.distributed as dist

dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT))


def exchange(step):
    dist.all_reduce(torch.ones(4))


def end():
    dist.destroy_process_group()
""".replace("TIMEOUT", "60"),
    "impatient": """\
from datetime import timedelta

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
quick = dist.new_group(timeout=timedelta(seconds=4))


def exchange(step):
    dist.all_reduce(torch.ones(4), group=quick)


def end():
    dist.destroy_process_group()
""",
    "mpi": """\
from mpi4py import MPI


def exchange(step):
    MPI.COMM_WORLD.allreduce(RANK)


def end():
    pass
""",
    "tensorflow": """\
import tensorflow as tf

config["cluster"].pop("ps", None)
os.environ["TF_CONFIG"] = json.dumps(config)
strategy = tf.distribute.MultiWorkerMirroredStrategy()


@tf.function
def reduced():
    return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)


def exchange(step):
    reduced()


def end():
    pass
""",
}

RAISED = [
    Injection("key-error", '{"image": 1}["labels"]  # here', "user-code", "KeyError"),
    Injection("assertion", 'assert step < 3, "too many steps"  # here', "user-code", "AssertionError"),
    Injection("value-error", 'raise ValueError("labels must be below 10")  # here', "user-code", "ValueError"),
    Injection("division", "1 / 0  # here", "user-code", "ZeroDivisionError"),
    Injection("own-class", 'class BadBatch(Exception): ...\nraise BadBatch(f"batch {step}")  # here', "user-code"),
    Injection("missing-module", "import a_module_that_nobody_has  # here", "missing-module", "ModuleNotFoundError"),
    Injection("missing-file", 'open("data/part-0007.csv")  # here', "missing-file", "FileNotFoundError"),
    Injection("permission", 'open("/sys/kernel/notes", "w")  # here', "permission", "PermissionError"),
    Injection("disk-full", 'with open("/dev/full", "wb", 0) as file:\n    file.write(b"x")  # here', "disk-full"),
    Injection(
        "no-server",
        'import urllib.request\nurllib.request.urlopen("http://127.0.0.1:9/data")  # here',
        "data-access",
        "ConnectionRefusedError",
    ),
    Injection("memory-error", 'raise MemoryError("batch")  # here', "host-out-of-memory", "MemoryError"),
    Injection(
        "not-a-number",
        'loss = float("nan")\nif loss != loss:\n    raise ValueError("loss is nan")  # here',
        "not-a-number",
        "ValueError",
    ),
    Injection(
        "chained",
        'try:\n    {}["labels"]  # here\nexcept KeyError as error:\n    raise RuntimeError("no batch") from error',
        "user-code",
        "KeyError",
    ),
    Injection(
        "during-another",
        'try:\n    {}["labels"]  # here\nexcept KeyError:\n    open("not-there")',
        "user-code",
        "KeyError",
    ),
]  # fmt: skip
"""What Python says before a process ends."""

ENDED = [
    Injection("os-exit", "os._exit(9)", "exit-code"),
    Injection("sys-exit", "sys.exit(5)", "exit-code"),
    Injection("negative", "sys.exit(-9)", "exit-code"),
    Injection("exit-text", 'sys.exit("no labels in this batch")', "exit-code|user-code"),
    Injection("lost-output", 'print("KeyError: labels")\nos._exit(4)', "exit-code"),
    Injection("segfault", "import ctypes\nctypes.string_at(0)", "crash"),
    Injection("faulthandler", "import ctypes, faulthandler as f\nf.enable()\nctypes.string_at(0)  # here", "crash"),
    Injection("abort", "os.abort()", "crash"),
    Injection("kill", "os.kill(os.getpid(), signal.SIGKILL)", "killed"),
    Injection("terminate", "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)", "killed"),
    Injection(
        "killed-from-outside",
        'import subprocess\nsubprocess.Popen(["sh", "-c", f"kill -9 {os.getpid()}"])\ntime.sleep(60)',
        "killed",
    ),
    Injection(
        "cpu-limit",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 60))\nwhile True:\n    pass",
        "killed",
    ),
]  # fmt: skip
"""What ends a process without a word of why."""

HARD = [
    Injection(
        "slow-exit",
        """\
atexit.register(lambda: time.sleep(20))
atexit.register(lambda: os.closerange(3, 200))
{}["labels"]  # here""",
        "user-code",
        "KeyError",
        peers="torch",
    ),
    Injection(
        "slow-exit-of-a-ring",
        """\
atexit.register(lambda: time.sleep(20))
atexit.register(lambda: [peer.close() for peer in peers])
{}["labels"]  # here""",
        "user-code",
        "KeyError",
        peers="sockets",
        may_be_certain=False,
        only_order_tells=True,
    ),
    Injection(
        "two-at-once",
        """\
open(f"{UP}/a", "w").close()
while not os.path.exists(f"{UP}/b"):
    pass
{}["labels"]
---
open(f"{UP}/b", "w").close()
while not os.path.exists(f"{UP}/a"):
    pass
raise ValueError("bad batch")
""",
        "user-code",
        culprits="two",
        only_order_tells=True,
    ),
    Injection(
        "one-raises-one-exits",
        """\
open(f"{UP}/a", "w").close()
while not os.path.exists(f"{UP}/b"):
    pass
{}["labels"]
---
open(f"{UP}/b", "w").close()
while not os.path.exists(f"{UP}/a"):
    pass
os._exit(6)
""",
        "user-code|exit-code",
        culprits="two",
        only_order_tells=True,
    ),
    Injection(
        "loader-raises",
        """\
from torch.utils.data import DataLoader, Dataset

class Images(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, at):
        raise IndexError(f"image {at} is broken")  # here

next(iter(DataLoader(Images(), num_workers=1)))""",
        "user-code",
        "IndexError",
        peers="torch",
    ),
    Injection(
        "loader-killed",
        """\
from torch.utils.data import DataLoader, Dataset

class Images(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, at):
        os.kill(os.getpid(), signal.SIGKILL)

next(iter(DataLoader(Images(), num_workers=1)))""",
        "killed|host-out-of-memory",
        peers="torch",
        may_be_certain=False,
    ),
    Injection(
        "spawned-raises",
        """\
import torch.multiprocessing
import child
torch.multiprocessing.start_processes(child.work, nprocs=2, start_method="fork")""",
        "user-code",
        "KeyError",
        peers="torch",
        files={"child.py": 'def work(index):\n    {}["labels"]  # here\n'},
    ),
    Injection(
        "spawned-killed",
        """\
import torch.multiprocessing
import child
torch.multiprocessing.start_processes(child.die, nprocs=2, start_method="fork")""",
        "killed",
        peers="torch",
        files={"child.py": "import os\n\n\ndef die(index):\n    os.kill(os.getpid(), 9)\n"},
        may_be_certain=False,
    ),
    Injection(
        "thread",
        """\
def load():
    {}["labels"]  # here

thread = threading.Thread(target=load)
thread.start()
thread.join()
os._exit(3)""",
        "user-code|exit-code",
        may_be_certain=False,
    ),
    Injection(
        "pool",
        """\
from concurrent.futures import ThreadPoolExecutor

def load(at):
    return {}["labels"]  # here

list(ThreadPoolExecutor(2).map(load, range(4)))""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "in-finally",
        """\
try:
    {}["labels"]  # here
finally:
    dist.destroy_process_group()
    time.sleep(0.3)""",
        "user-code",
        "KeyError",
        peers="torch",
    ),
    Injection(
        "finally-fails",
        """\
try:
    {}["labels"]  # here
finally:
    open("not-there")""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "caught-then-code",
        """\
import logging
try:
    {}["labels"]  # here
except KeyError:
    logging.exception("a batch without labels")
    sys.exit(3)""",
        "user-code|exit-code",
        may_be_certain=False,
    ),
    Injection(
        "many-errors",
        """\
for at in range(60):
    print(f"Error: the server is busy, try {at}", file=sys.stderr)
    print("ERROR retry: Connection refused", file=sys.stderr)
raise KeyError("labels")  # here""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "handled-before",
        """\
import logging
for at in range(4):
    try:
        open(f"cache-{at}")
    except FileNotFoundError:
        logging.exception("no cache, going on")
for at in range(20):
    print(f"step {at} loss 0.1", flush=True)
{}["labels"]  # here""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "handled-elsewhere",
        """\
import logging
try:
    {}["labels"]
except KeyError:
    logging.exception("going on without labels")
mark("handled")
time.sleep(60)
---
while not os.path.exists(f"{UP}/handled.{(RANK - 1) % SIZE}"):
    time.sleep(0.01)
os._exit(6)
""",
        "exit-code",
        culprits="second",
        may_be_certain=False,
        only_order_tells=True,
    ),
    Injection(
        "flake-at-exit",
        """\
def flake():
    os.write(2, b"terminate called without an active exception\\n")
    os.abort()
atexit.register(flake)
os.environ["FLAKE"] = "1\"""",
        "exit-flake",
        may_be_certain=False,
    ),
    Injection("leaves-early", "os._exit(0)", "collective-mismatch", peers="torch", may_be_certain=False),
    Injection(
        "hangs",
        "time.sleep(60)",
        "collective-timeout",
        peers="impatient",
        may_be_certain=False,
    ),
]
"""The kinds that mislead most."""

OF_TORCH = [
    Injection("key-error-of-torch", '{"image": 1}["labels"]  # here', "user-code", "KeyError", peers="torch"),
    Injection("os-exit-of-torch", "os._exit(9)", "exit-code", peers="torch"),
    Injection("kill-of-torch", "os.kill(os.getpid(), signal.SIGKILL)", "killed", peers="torch"),
    Injection("segfault-of-torch", "import ctypes\nctypes.string_at(0)", "crash", peers="torch"),
    Injection("shape", "torch.ones(2, 3) @ torch.ones(4, 5)  # here", "shape-mismatch", "RuntimeError", peers="torch"),
    Injection(
        "checkpoint",
        'torch.nn.Linear(4, 2).load_state_dict({"weight": torch.ones(3, 4), "bias": torch.ones(2)})  # here',
        "checkpoint-mismatch",
        "RuntimeError",
        peers="torch",
    ),
    Injection(
        "nan-of-torch", 'torch.multinomial(torch.tensor([float("nan")]), 1)  # here', "not-a-number", peers="torch"
    ),
    Injection("no-gpu", "torch.ones(2).cuda()  # here", "launcher", peers="torch"),
    Injection(
        "cut-checkpoint",
        'torch.save(torch.ones(1000), "model.pt")\nos.truncate("model.pt", 1500)\ntorch.load("model.pt")  # here',
        "checkpoint-mismatch",
        peers="torch",
    ),
]
"""What torch says, while its other ranks lose a peer."""

WHOLE = [
    Injection("wrong-argument", "pass", "bad-arguments", before="""\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("up")
parser.add_argument("--lr", type=float)
parser.parse_args()""", culprits="all", command="python train.py --learning-rate 1"),
    Injection("no-script", "pass", "missing-file", culprits="all", command="python trian.py"),
    Injection("no-program", "pass", "missing-file", culprits="all", command="pyhton3.99 train.py"),
    Injection("module-of-all", "pass", "missing-module", "ModuleNotFoundError",
              before="import not_there_at_all  # here", culprits="all"),
    Injection("time-limit", "time.sleep(60)", "timeout", culprits="none", options={"timeout": 2},
              only_order_tells=True),
    Injection("virtual-memory", "pass", "host-out-of-memory", "MemoryError",
              before='data = bytearray(1 << 33)  # here', culprits="all",
              command="ulimit -v 4000000; python train.py"),
    Injection("memory-limit", "data = [bytearray(b'x' * (1 << 24)) for _ in range(64)]", "host-out-of-memory",
              memory=300 << 20),
]  # fmt: skip
"""What fails on every rank, or on none."""


LATER = [
    Injection(
        "task-group",
        """\
import asyncio
async def load():
    {}["labels"]  # here
async def both():
    async with asyncio.TaskGroup() as group:
        group.create_task(load())
asyncio.run(both())""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "process-pool",
        """\
import multiprocessing, child
multiprocessing.get_context("fork").Pool(1).map(child.load, [1])""",
        "user-code",
        "KeyError",
        files={
            "child.py": """\
def load(at):
    return {}["labels"]  # here
"""
        },
    ),
    Injection(
        "pool-killed",
        """\
import child
from concurrent.futures import ProcessPoolExecutor
ProcessPoolExecutor(1).submit(child.die).result()""",
        "killed",
        may_be_certain=False,
        files={
            "child.py": """\
import os


def die():
    os.kill(os.getpid(), 9)
"""
        },
    ),
    Injection(
        "tool-fails",
        """\
import subprocess
subprocess.run([sys.executable, "tool.py"], check=True)""",
        "user-code",
        "KeyError",
        files={
            "tool.py": """\
{}["labels"]  # here
"""
        },
    ),
    Injection(
        "illegal-instruction",
        "os.kill(os.getpid(), signal.SIGILL)",
        "crash",
    ),
    Injection(
        "printed-then-exit",
        """\
import traceback
try:
    {}["labels"]  # here
except KeyError:
    traceback.print_exc()
    os._exit(7)""",
        "user-code|exit-code",
        may_be_certain=False,
    ),
    Injection(
        "in-del",
        """\
class Loader:
    def __del__(self):
        1 / 0
Loader()
{}["labels"]  # here""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "noisy-end",
        """\
atexit.register(lambda: [print(f"INFO closing shard {at}", flush=True) for at in range(80)])
{}["labels"]  # here""",
        "user-code",
        "KeyError",
        peers="sockets",
        only_order_tells=True,
    ),
    Injection(
        "colours",
        """\
import traceback

def red(kind, error, trace):
    for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
        print(f"\\x1b[31m{line}\\x1b[0m", file=sys.stderr)

sys.excepthook = red
{}["labels"]  # here""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "bytes",
        """\
os.write(1, b"\\xff\\xfe\\x00 broken \\x80 bytes\\n" * 50)
{}["labels"]  # here""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "recursion",
        """\
def deep(at):
    return deep(at + 1)  # here
deep(0)""",
        "user-code",
        "RecursionError",
    ),
    Injection(
        "syntax",
        "import broken",
        "user-code",
        "SyntaxError",
        files={
            "broken.py": """\
x = 1
if x
"""
        },
    ),
    Injection(
        "circular",
        "import one",
        "user-code|missing-module",
        "ImportError",
        files={
            "one.py": """\
import two
value = 1
""",
            "two.py": """\
from one import value  # here
""",
        },
    ),
    Injection(
        "embedding",
        "torch.nn.Embedding(4, 2)(torch.tensor([9]))  # here",
        "user-code",
        "IndexError",
        peers="torch",
    ),
    Injection(
        "other-size",
        """\
dist.all_reduce(torch.ones(9000))
time.sleep(60)""",
        "collective-mismatch|collective-timeout",
        peers="impatient",
        may_be_certain=False,
    ),
    Injection(
        "stopped",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "collective-timeout|hang",
        peers="impatient",
        may_be_certain=False,
    ),
    Injection(
        "busy-loop",
        """\
while True:
    pass""",
        "collective-timeout|hang",
        peers="impatient",
        may_be_certain=False,
    ),
    Injection(
        "numpy-memory",
        """\
import numpy
numpy.ones((1 << 22, 1 << 22))  # here""",
        "host-out-of-memory",
    ),
    Injection(
        "open-files",
        """\
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
kept = [open("/dev/null") for _ in range(40)]  # here""",
        "user-code",
        "OSError",
        may_be_certain=False,
    ),
    Injection(
        "file-size",
        """\
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
open("x.bin", "wb", 0).write(b"x" * 5000)
open("x.bin", "ab", 0).write(b"x" * 5000)  # here""",
        "disk-full|permission|user-code",
        "OSError",
        may_be_certain=False,
    ),
    Injection(
        "system-exit-of-torch",
        'raise SystemExit("no such configuration")',
        "exit-code|user-code",
        peers="torch",
    ),
    Injection(
        "abort-of-mpi",
        "MPI.COMM_WORLD.Abort(7)",
        "exit-code",
        peers="mpi",
        command="python -m mpi4py train.py",
    ),
    Injection(
        "json",
        """\
import json
json.loads("{broken")  # here""",
        "user-code",
        "JSONDecodeError",
    ),
    Injection(
        "assert-in-lambda",
        "list(map(lambda at: 1 // at, [0]))  # here",
        "user-code",
        "ZeroDivisionError",
    ),
    Injection(
        "thread-kills",
        """\
def load():
    {}["labels"]  # here

threading.excepthook = lambda args: (sys.excepthook(*args[:3]), os._exit(1))
threading.Thread(target=load).start()
time.sleep(60)""",
        "user-code",
        "KeyError",
    ),
    Injection(
        "before-the-start",
        "pass",
        "user-code",
        "KeyError",
        before="""\
if os.environ.get("RANK", "1") == "1":
    {}["labels"]  # here""",
    ),
]
"""Failures that were made once the others came out right, to see how the verdict does with what it has not met."""

_CATCHES = """\
def caught(step):
    try:
        open(f"/data/shard-{step}")
    except OSError as error:
        note(error)


if CULPRIT:
    caught = id
for number in range(3):
    caught(number)
was = exchange


def exchange(step):
    caught(step)
    was(step)
"""
"""All ranks but the culprit write an exception that they have caught, before each step, and continue."""
_NOT_RANK_1 = _CATCHES.replace("CULPRIT", "RANK == 1")
_PRINTS = """\
import traceback


def note(error):
    traceback.print_exc()


"""
_AS_JSON = """\
import traceback


def note(error):
    trace = "".join(traceback.format_exception(error))
    print(json.dumps({"level": "error", "message": "the next one", "exc_info": trace}), flush=True)


"""
_HOOK = """\
import traceback


def hook(*raised):
    lines = "".join(traceback.format_exception(*raised))
    %s


sys.excepthook = hook
"""
_KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
_FAILS = '{}["labels"]  # here'

LAST = [
    Injection(
        "record",
        _FAILS,
        "user-code",
        "KeyError",
        peers="torch",
        before=_HOOK % 'print(json.dumps({"level": "critical", "message": "uncaught", "exc_info": lines}), flush=True)',
    ),
    Injection(
        "records-of-a-collector",
        _FAILS,
        "user-code",
        "KeyError",
        before=_HOOK
        % 'for one in lines.splitlines():\n        print(json.dumps({"log": one, "stream": "stderr"}), flush=True)',
    ),
    Injection(
        "frames-in-a-record",
        _FAILS,
        "user-code",
        "KeyError",
        before="""\
import traceback


def hook(kind, error, trace):
    frames = [{"filename": one.filename, "lineno": one.lineno, "name": one.name} for one in traceback.extract_tb(trace)]
    chain = [{"exc_type": kind.__name__, "exc_value": str(error), "frames": frames}]
    print(json.dumps({"level": "error", "event": "failed", "exception": chain}), flush=True)


sys.excepthook = hook
""",
    ),
    Injection("box", _FAILS, "user-code", "KeyError", before="import rich.traceback\nrich.traceback.install(width=60)"),
    Injection(
        "column",
        f"try:\n    {_FAILS}\nexcept KeyError:\n    logging.exception('failed')\n    sys.exit(1)",
        "user-code",
        "KeyError",
        before="""\
import logging
from rich.logging import RichHandler
logging.basicConfig(handlers=[RichHandler()], format="%(message)s")
""",
    ),
    Injection(
        "notes",
        f"try:\n    {_FAILS}\nexcept KeyError as error:\n"
        "    error.add_note('RuntimeError: Connection closed by peer')\n    raise",
        "user-code",
        "KeyError",
    ),
    Injection(
        "progress-bar",
        f'sys.stderr.write("\\rEpoch 3:  10%|#    | 3/30 [00:01<00:09,  2.9it/s]")\n{_FAILS}',
        "user-code",
        "KeyError",
    ),
    Injection("long-message", 'raise ValueError("x" * 2_000_000)  # here', "user-code", "ValueError"),
    Injection(
        "many-lines",
        'raise ValueError("\\n".join(f"weight {n} = [0.1, 0.2]" for n in range(20_000)))  # here',
        "user-code",
        "ValueError",
        peers="torch",
    ),
    Injection("caught-before-the-loss", _KILLED, "killed", peers="torch", before=_PRINTS + _NOT_RANK_1),
    Injection("recorded-before-the-loss", _KILLED, "killed", peers="torch", before=_AS_JSON + _NOT_RANK_1),
    Injection("caught-before-an-exit", "os._exit(3)", "exit-code", peers="torch", before=_PRINTS + _NOT_RANK_1),
    Injection(
        "recorded-before-one-leaves",
        "os._exit(0)",
        "collective-mismatch|exit-code",
        peers="torch",
        may_be_certain=False,
        before=_AS_JSON + _NOT_RANK_1,
    ),
    Injection(
        "recorded-while-one-hangs",
        "time.sleep(60)",
        "collective-timeout|hang",
        peers="impatient",
        may_be_certain=False,
        before=_AS_JSON + _NOT_RANK_1,
    ),
    Injection("caught-again", _KILLED, "killed", before=_PRINTS + _NOT_RANK_1),
    Injection(
        "caught-elsewhere-of-mpi",
        _FAILS,
        "user-code",
        "KeyError",
        peers="mpi",
        command="python -m mpi4py train.py",
        before=_PRINTS + _NOT_RANK_1,
    ),
    Injection(
        "caught-then-killed",
        "import traceback\ntry:\n    open('/data/shard')\nexcept OSError:\n    traceback.print_exc()\n" + _KILLED,
        "killed",
        may_be_certain=False,
    ),
    Injection(
        "sample-then-killed",
        "frame = '  File \"solution.py\", line 4, in f'\n"
        'print("Traceback (most recent call last):", frame, "    g()", "IndexError: 4", sep="\\n", flush=True)\n'
        + _KILLED,
        "killed",
        may_be_certain=False,
    ),
    Injection(
        "command-before",
        _FAILS,
        "user-code",
        "KeyError",
        command="bash run.sh",
        files={"run.sh": 'cat /data/labels.txt\npython train.py "$@"\n'},
    ),
    Injection(
        "command-before-a-kill",
        _KILLED,
        "killed",
        command="bash run.sh",
        files={"run.sh": 'cat /data/labels.txt\npython train.py "$@"\n'},
    ),
    Injection(
        "folder-before",
        "pass",
        "missing-file",
        culprits="all",
        command="bash run.sh",
        files={"run.sh": 'cd /mnt/nope && python train.py "$@"\n'},
    ),
    Injection(
        "another-code",
        _FAILS,
        "user-code",
        "KeyError",
        may_be_certain=False,
        command="bash run.sh",
        files={"run.sh": 'python train.py "$@" || exit 7\n'},
    ),
]
"""How exceptions are written and survived, and what fails before the script: made once the others came out right."""


def cases() -> Iterator[Case]:
    """All of them."""
    launchers = [("torchrun", 2, 2), ("direct", 2, 2), ("mpirun", 1, 3), ("tensorflow", 3, 1)]
    for group, injections in (("an exception", RAISED), ("an end without words", ENDED)):
        for number, one in enumerate(injections):
            # Each under two launchers, in another rank under each.
            for turn in (0, 1):
                launcher, nodes, each = launchers[(number + 2 * turn + number // 4) % 4]
                quick = one.name in _QUICK and not turn
                yield Case(group, one, launcher, nodes, each, (number + turn) % (nodes * each), quick)
    for number, one in enumerate(HARD):
        quick = one.name in _QUICK
        if one.peers in ("torch", "impatient"):
            yield Case("what misleads", one, "torchrun", 1, 3, 1 + number % 2)
            yield Case("what misleads", one, "direct", 1, 3, 1, quick)
            continue
        for launcher, nodes, each in launchers[number % 2 :: 2] + launchers[1 - number % 2 :: 2][:1]:
            yield Case("what misleads", one, launcher, nodes, each, 1, quick and launcher == "direct")
    for number, one in enumerate(OF_TORCH):
        launcher = ("torchrun", "direct")[number % 2]
        yield Case("what frameworks say", one, launcher, 1, 3, number % 3, one.name in _QUICK)
    for one in (RAISED[0], ENDED[0], ENDED[5], ENDED[8]):
        # Without `-m mpi4py`, a rank that raises waits in MPI_Finalize for those that wait for it.
        with_mpi = one._replace(name=f"{one.name}-of-mpi", peers="mpi", command="python -m mpi4py train.py")
        yield Case("what frameworks say", with_mpi, "mpirun", 1, 3, 1)
    for one in (RAISED[0], ENDED[8]):
        with_tensorflow = one._replace(name=f"{one.name}-of-tensorflow", peers="tensorflow")
        yield Case("what frameworks say", with_tensorflow, "tensorflow", 2, 1, 1)
    for number, one in enumerate(LATER):
        launcher, nodes, each = launchers[number % 2] if one.peers in ("wait", "sockets") else ("direct", 1, 3)
        launcher, nodes, each = ("mpirun", 1, 3) if one.peers == "mpi" else (launcher, nodes, each)
        yield Case("made later", one, launcher, nodes, each, 1)
    for number, one in enumerate(LAST):
        launcher, nodes, each = launchers[number % 2] if one.peers == "wait" else launchers[0]
        launcher, nodes, each = ("mpirun", 1, 3) if one.peers == "mpi" else (launcher, nodes, each)
        yield Case("made last", one, launcher, nodes, each, 1, one.name in _QUICK)
    for number, one in enumerate(WHOLE):
        launcher, nodes, each = ("direct", 1, 2) if one.memory else launchers[number % 4]
        yield Case("all ranks, or none", one, launcher, nodes, each, 0, one.name in _QUICK)


_QUICK = {
    "assertion",
    "missing-module",
    "disk-full",
    "negative",
    "segfault",
    "kill",
    "slow-exit",
    "slow-exit-of-a-ring",
    "two-at-once",
    "thread",
    "caught-then-code",
    "many-errors",
    "flake-at-exit",
    "wrong-argument",
    "record",
    "caught-again",
    "caught-then-killed",
}
