"""Pairs of processes that train, and hold their model until after the group has ended. Prints how each ended."""

import gc
import os
import signal
import socket
import sys
from collections import Counter

import torch
import torch._dynamo
from runtime import process_group
from torch.nn.parallel import DistributedDataParallel

SECONDS = 10


def train(rank: int, port: int) -> None:
    signal.alarm(SECONDS)  # ends what hangs
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    with process_group():
        model = DistributedDataParallel(torch.nn.Linear(8, 8))
        model(torch.ones(4, 8)).sum().backward()
    del model


def fork(rank: int, port: int) -> int:
    if pid := os.fork():
        return pid
    train(rank, port)
    sys.exit()  # as a script ends, destructors and all


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


gc.freeze()
endings: Counter[int] = Counter()
for _ in range(int(sys.argv[1])):
    port = free_port()
    for pid in [fork(rank, port) for rank in range(2)]:
        endings[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
print(dict(endings))
