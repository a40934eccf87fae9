"""How people write what the findings are about: each as it is often seen, the right ones and the wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azml_dist import Environment, Input
from scriptscore.cases import LAUNCHED, MPI, ONE, ONE_NODE, TORCH, Case


def _idiom(
    name: str,
    code: str,
    level: str | None,
    before: str,
    script: str,
    job: dict[str, Any],
    others: Mapping[str, str] | None = None,
) -> Case:
    """A case, and in one line what is special about it, which only a reader needs."""
    return Case(code, level, before + script.lstrip("\n"), job, {n: t.lstrip("\n") for n, t in (others or {}).items()})


def _listing(*packages: str) -> dict[str, Any]:
    """A job whose environment lists these packages."""
    conda = {"dependencies": ["python=3.11", "pip", {"pip": [*packages]}]}
    return {"environment": Environment(image="mcr.microsoft.com/azureml/openmpi", conda_file=conda)}


RANKS = """\
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
rank = dist.get_rank()
world = dist.get_world_size()
model = DDP(torch.nn.Linear(1, 1).cuda())
"""
ANY_DEVICE = """\
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("nccl")
rank = dist.get_rank()
world = dist.get_world_size()
model = DDP(torch.nn.Linear(1, 1).cuda())
"""
ARGUMENTS = """\
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
args = p.parse_args()
"""

IDIOMS = [
    _idiom(
        "defaults that the script adds",
        "arguments",
        None,
        "import sys\nif len(sys.argv) == 1:\n    sys.argv += ['--data', 'x']\n" + ARGUMENTS,
        "",
        ONE,
    ),
    _idiom(
        "devices as text",
        "trainer-counts",
        "error",
        "import lightning as L\n",
        "L.Trainer(num_nodes=2, devices='2')\n",
        TORCH,
    ),
    _idiom(
        "devices as a list in text",
        "trainer-counts",
        None,
        "import lightning as L\n",
        "L.Trainer(num_nodes=2, devices='0,1,2,3')\n",
        TORCH,
    ),
    _idiom(
        "a name that is almost right",
        "variable-not-set",
        "error",
        "import os\n",
        "data = os.environ['AZUREML_INPUT_data']\n",
        {"inputs": {"data": Input(path="azureml:data:1")}},
    ),
    _idiom(
        "an argument of launch, spelt as before torch 2",
        "arguments",
        "warning",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--local_rank", type=int)
args = p.parse_args()
""",
        {**LAUNCHED, "command": "python -m torch.distributed.launch --nproc_per_node 4 train.py"},
    ),
    _idiom(
        "what a match chooses",
        "variable-not-set",
        None,
        "import os, sys\n",
        """
match sys.argv[1]:
    case "mpi":
        rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    case _:
        rank = int(os.environ["RANK"])
""",
        TORCH,
    ),
    _idiom(
        "functions of launchers, none of which is called",
        "variable-not-set",
        None,
        "import os\n",
        """
def mpi():
    return int(os.environ["OMPI_COMM_WORLD_RANK"])
def torchrun():
    return int(os.environ["RANK"])
rank = {"mpi": mpi, "torchrun": torchrun}[os.environ.get("HOW", "torchrun")]()
""",
        TORCH,
    ),
    _idiom(
        "in the main block",
        "variable-not-set",
        "error",
        "import os\n",
        """
if __name__ == "__main__":
    rank = int(os.environ["RANK"])
""",
        MPI,
    ),
    _idiom(
        "horovod does not set it",
        "variable-not-set",
        "error",
        "import os\n",
        """
import horovod.torch as hvd
hvd.init()
rank = int(os.environ["RANK"])
""",
        MPI,
    ),
    _idiom(
        "variable of a rank",
        "saved-by-every-rank",
        None,
        RANKS,
        """
first = dist.get_rank() == 0
if first:
    torch.save(model, 'outputs/a.pt')
""",
        TORCH,
    ),
    _idiom(
        "logger only on zero",
        "saved-by-every-rank",
        None,
        RANKS,
        """
log = open('outputs/log', 'w') if rank == 0 else None
if log is not None:
    torch.save(model, 'outputs/a.pt')
""",
        TORCH,
    ),
    _idiom(
        "attribute of a rank",
        "saved-by-every-rank",
        None,
        RANKS,
        """
class T:
    def __init__(self):
        self.saves = dist.get_rank() == 0
    def save(self, p):
        if self.saves:
            torch.save(model, p)
T().save('outputs/x.pt')
""",
        TORCH,
    ),
    _idiom(
        "name with gpu",
        "saved-by-every-rank",
        None,
        RANKS,
        """
gpu = int(os.environ['LOCAL_RANK'])
torch.save(model, f'outputs/{gpu}-{os.environ["NODE_RANK"]}.pt')
""",
        TORCH,
    ),
    _idiom(
        "hostname and pid",
        "saved-by-every-rank",
        None,
        RANKS,
        """
import socket
torch.save(model, f'outputs/{socket.gethostname()}_{os.getpid()}.pt')
""",
        TORCH,
    ),
    _idiom(
        "tempfile",
        "saved-by-every-rank",
        None,
        RANKS,
        """
import tempfile
path = os.path.join(tempfile.mkdtemp(), 'm.pt')
torch.save(model, path)
""",
        TORCH,
    ),
    _idiom(
        "buffer param",
        "saved-by-every-rank",
        None,
        RANKS,
        """
def dump(obj, buffer):
    torch.save(obj, buffer)
import io
b = io.BytesIO()
dump(model, b)
""",
        TORCH,
    ),
    _idiom(
        "proc_id",
        "saved-by-every-rank",
        None,
        RANKS,
        """
proc_id = int(os.environ.get('SLURM_PROCID', dist.get_rank()))
if proc_id == 0:
    torch.save(model, 'outputs/m.pt')
""",
        TORCH,
    ),
    _idiom(
        "unused helper",
        "saved-by-every-rank",
        None,
        RANKS,
        """
def save(m, path):
    torch.save(m, path)
""",
        TORCH,
    ),
    _idiom(
        "best by loss, all",
        "saved-by-every-rank",
        "warning",
        RANKS,
        """
best = 9
for e in range(3):
    loss = 1
    if loss < best:
        torch.save(model.state_dict(), 'outputs/best.pt')
""",
        TORCH,
    ),
    _idiom(
        "not kept but logged artifact",
        "not-kept",
        None,
        RANKS,
        """
import mlflow
if rank == 0:
    torch.save(model.state_dict(), 'model.pt')
    mlflow.log_artifact('model.pt')
""",
        TORCH,
    ),
    _idiom(
        "not kept but copied in the command",
        "not-kept",
        None,
        RANKS,
        """
if rank == 0:
    torch.save(model.state_dict(), 'model.pt')
""",
        {**TORCH, "command": "python train.py && cp model.pt outputs/"},
    ),
    _idiom(
        "not kept but chdir",
        "not-kept",
        None,
        RANKS,
        """
os.chdir(sys.argv[1])
if rank == 0:
    torch.save(model.state_dict(), 'model.pt')
""",
        TORCH,
    ),
    _idiom(
        "not kept hydra",
        "not-kept",
        None,
        "",
        """
import hydra

import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
rank = dist.get_rank()
world = dist.get_world_size()
model = DDP(torch.nn.Linear(1, 1).cuda())
@hydra.main(config_path='c', config_name='x')
def main(cfg):
    if rank == 0:
        torch.save(model.state_dict(), 'model.pt')
main()
""",
        TORCH,
    ),
    _idiom(
        "not kept cd outputs",
        "not-kept",
        None,
        RANKS,
        """
if rank == 0:
    torch.save(model.state_dict(), 'model.pt')
""",
        {**TORCH, "command": "mkdir -p outputs/a && cd outputs && python ../train.py"},
    ),
    _idiom(
        "download barrier idiom",
        "downloaded-by-every-rank",
        None,
        RANKS,
        """
import torchvision
if int(os.environ['LOCAL_RANK']) not in [-1, 0]:
    dist.barrier()
ds = torchvision.datasets.MNIST('d', download=True)
if int(os.environ['LOCAL_RANK']) == 0:
    dist.barrier()
""",
        TORCH,
    ),
    _idiom(
        "download first guarded then again",
        "downloaded-by-every-rank",
        None,
        RANKS,
        """
import torchvision
if int(os.environ['LOCAL_RANK']) == 0:
    torchvision.datasets.MNIST('d', download=True)
dist.barrier()
ds = torchvision.datasets.MNIST('d', download=True)
""",
        TORCH,
    ),
    _idiom(
        "download sorted by local rank",
        "downloaded-by-every-rank",
        None,
        RANKS,
        """
import torchvision
for turn in range(4):
    if turn == int(os.environ['LOCAL_RANK']):
        ds = torchvision.datasets.MNIST('d', download=True)
    dist.barrier()
""",
        TORCH,
    ),
    _idiom(
        "subset by rank",
        "no-distributed-sampler",
        None,
        RANKS,
        """
ds = torch.utils.data.Subset(range(100), range(rank, 100, world))
train_loader = DataLoader(ds, batch_size=4, shuffle=True)
""",
        TORCH,
    ),
    _idiom(
        "partition[rank]",
        "no-distributed-sampler",
        None,
        RANKS,
        """
parts = torch.utils.data.random_split(range(100), [25] * 4)
train_loader = DataLoader(parts[rank], shuffle=True)
""",
        TORCH,
    ),
    _idiom(
        "tensor parallel",
        "no-distributed-sampler",
        None,
        RANKS,
        """
from torch.distributed.tensor.parallel import parallelize_module, ColwiseParallel
train_loader = DataLoader(range(9), shuffle=True)
""",
        TORCH,
    ),
    _idiom(
        "sampler imported but unused",
        "no-distributed-sampler",
        "warning",
        RANKS,
        """
train_loader = DataLoader(range(9), shuffle=True)
""",
        TORCH,
    ),
    _idiom(
        "set_epoch missing",
        "no-set-epoch",
        "warning",
        RANKS,
        """
s = DistributedSampler(range(9))
loader = DataLoader(range(9), sampler=s)
for epoch in range(9):
    pass
""",
        TORCH,
    ),
    _idiom(
        "set_epoch val only",
        "no-set-epoch",
        None,
        RANKS,
        """
val_sampler = DistributedSampler(range(9), shuffle=False)
val = DataLoader(range(9), sampler=val_sampler)
for epoch in range(9):
    pass
""",
        TORCH,
    ),
    _idiom(
        "rank modulo",
        "no-device-of-its-own",
        None,
        "",
        """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("nccl")
rank = dist.get_rank()
world = dist.get_world_size()
model = DDP(torch.nn.Linear(1, 1).to(torch.device('cuda', rank % torch.cuda.device_count())))
""",
        TORCH,
    ),
    _idiom(
        "cuda(rank)",
        "no-device-of-its-own",
        None,
        "",
        """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("nccl")
rank = dist.get_rank()
world = dist.get_world_size()
model = DDP(torch.nn.Linear(1, 1).cuda(rank))
""",
        ONE_NODE,
    ),
    _idiom(
        "command",
        "no-device-of-its-own",
        None,
        ANY_DEVICE,
        "",
        {**TORCH, "command": "CUDA_VISIBLE_DEVICES=$LOCAL_RANK python train.py"},
    ),
    _idiom(
        "seed for the model, then by rank",
        "same-seed",
        None,
        "",
        """
from torchvision import transforms
aug = transforms.RandomCrop(4)

import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
torch.manual_seed(0)
rank = dist.get_rank()
world = dist.get_world_size()
model = DDP(torch.nn.Linear(1, 1).cuda())
torch.manual_seed(1 + rank)
""",
        TORCH,
    ),
    _idiom(
        "barrier(group)",
        "collective-on-one-rank",
        None,
        RANKS,
        """
g = dist.new_group([0])
if rank == 0:
    dist.barrier(g)
""",
        TORCH,
    ),
    _idiom(
        "else in helper",
        "collective-on-one-rank",
        None,
        RANKS,
        """
def wait():
    dist.barrier()
if rank == 0:
    dist.barrier()
else:
    wait()
""",
        TORCH,
    ),
    _idiom(
        "broadcast both branches",
        "collective-on-one-rank",
        None,
        RANKS,
        """
o=[1]
if rank == 0:
    dist.broadcast_object_list(o, src=0)
else:
    dist.broadcast_object_list(o, src=0)
""",
        TORCH,
    ),
    _idiom(
        "on zero, in method",
        "collective-on-one-rank",
        "warning",
        RANKS,
        """
class T:
    def save(self):
        if rank == 0:
            torch.save(model, 'outputs/x.pt')
            dist.barrier()
T().save()
""",
        TORCH,
    ),
    _idiom(
        "early return",
        "collective-on-one-rank",
        "warning",
        RANKS,
        """
def save():
    if rank != 0:
        return
    torch.save(model, 'outputs/x.pt')
    dist.barrier()
save()
""",
        TORCH,
    ),
    _idiom(
        "local main",
        "collective-on-one-rank",
        "warning",
        RANKS,
        """
is_main = rank == 0
if is_main:
    dist.barrier()
""",
        TORCH,
    ),
    _idiom(
        "early return",
        "variable-not-set",
        None,
        "",
        """
import os
def setup():
    if 'RANK' not in os.environ:
        return 0
    return int(os.environ['RANK'])
rank = setup()
""",
        MPI,
    ),
    _idiom(
        "loop sets them",
        "variable-not-set",
        None,
        "",
        """
import os
for a, b in {'RANK': 'OMPI_COMM_WORLD_RANK', 'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE'}.items():
    os.environ[a] = os.environ[b]
rank = int(os.environ['RANK'])
""",
        MPI,
    ),
    _idiom(
        "suppress",
        "variable-not-set",
        None,
        "",
        """
import os, contextlib
rank = 0
with contextlib.suppress(KeyError):
    rank = int(os.environ['RANK'])
""",
        MPI,
    ),
    _idiom(
        "helper with f-string",
        "variable-not-set",
        None,
        "",
        """
import os
def copy(n):
    os.environ[n] = os.environ[f'OMPI_COMM_WORLD_{n}']
copy('RANK')
copy('LOCAL_RANK')
rank = int(os.environ['RANK'])
""",
        MPI,
    ),
    _idiom(
        "dict get",
        "variable-not-set",
        None,
        "",
        """
import os
env = dict(os.environ)
rank = int(env.get('RANK', env.get('OMPI_COMM_WORLD_RANK', 0)))
""",
        MPI,
    ),
    _idiom(
        "decorated main",
        "variable-not-set",
        "error",
        "",
        """
import os
from torch.distributed.elastic.multiprocessing.errors import record
@record
def main():
    print(os.environ['RANK'])
if __name__ == '__main__':
    main()
""",
        MPI,
    ),
    _idiom(
        "argparse default",
        "variable-not-set",
        "error",
        "",
        """
import os, argparse
p = argparse.ArgumentParser()
p.add_argument('--local_rank', type=int, default=int(os.environ['LOCAL_RANK']))
a = p.parse_args()
""",
        MPI,
    ),
    _idiom(
        "dataclass default",
        "variable-not-set",
        "error",
        "",
        """
import os
from dataclasses import dataclass
@dataclass
class C:
    rank: int = int(os.environ['RANK'])
C()
""",
        MPI,
    ),
    _idiom(
        "NODE_RANK in mpi",
        "variable-not-set",
        "error",
        "",
        """
import os
node = os.environ['NODE_RANK']
""",
        MPI,
    ),
    _idiom(
        "LOCAL_WORLD_SIZE with transformers",
        "variable-not-set",
        "error",
        "",
        """
import os
import transformers
n = os.environ['LOCAL_WORLD_SIZE']
""",
        TORCH,
    ),
    _idiom(
        "GROUP_RANK",
        "variable-not-set",
        "error",
        "",
        """
import os
n = os.environ['GROUP_RANK']
""",
        TORCH,
    ),
    _idiom(
        "assert",
        "variable-not-set",
        None,
        "",
        """
import os
assert 'RANK' in os.environ or True
rank = os.environ['RANK'] if 'RANK' in os.environ else '0'
""",
        MPI,
    ),
    _idiom(
        "in other module's main",
        "variable-not-set",
        None,
        "",
        """
import lib
""",
        TORCH,
        {
            "lib.py": """
import os
if __name__ == '__main__':
    print(os.environ['OMPI_COMM_WORLD_RANK'])
"""
        },
    ),
    _idiom(
        "test keyed",
        "variable-not-set",
        None,
        "",
        """
import os
def is_dist():
    return 'RANK' in os.environ
def main():
    if is_dist():
        run(int(os.environ['RANK']))
def run(r):
    print(r, os.environ['WORLD_SIZE'])
main()
""",
        MPI,
    ),
    _idiom(
        "bash array",
        "arguments",
        None,
        ARGUMENTS,
        "",
        {**ONE, "command": 'ARGS=(--data x)\npython train.py "${ARGS[@]}"'},
    ),
    _idiom(
        "$@ in function",
        "arguments",
        None,
        ARGUMENTS,
        "",
        {**ONE, "command": 'go() { python train.py "$@"; }\ngo --data x'},
    ),
    _idiom(
        "CLI of another module",
        "arguments",
        None,
        "",
        """
import fire, lib
fire.Fire(lambda lr: 0)
""",
        {**ONE, "command": "python train.py --lr 1"},
        {
            "lib.py": """
import argparse
def f(): pass
if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--x', required=True)
    a = p.parse_args()
"""
        },
    ),
    _idiom(
        "unused parser function",
        "arguments",
        None,
        "",
        """
import click, lib
@click.command()
@click.option('--lr')
def main(lr): pass
main()
""",
        {**ONE, "command": "python train.py --lr 1"},
        {
            "lib.py": """
import argparse
def get_args():
    p = argparse.ArgumentParser()
    p.add_argument('--x', required=True)
    return p.parse_args()
"""
        },
    ),
    _idiom(
        "used from another module",
        "arguments",
        "error",
        "",
        """
from lib import get_args
args = get_args()
""",
        {**ONE, "command": "python train.py --lr 1"},
        {
            "lib.py": """
import argparse
def get_args():
    p = argparse.ArgumentParser()
    p.add_argument('--x', required=True)
    return p.parse_args()
"""
        },
    ),
    _idiom(
        "launch adds local-rank",
        "arguments",
        "error",
        ARGUMENTS,
        "",
        {
            **LAUNCHED,
            "command": "python -m torch.distributed.launch --nproc_per_node 4 train.py --data x",
        },
    ),
    _idiom(
        "launch --use_env",
        "arguments",
        None,
        ARGUMENTS,
        "",
        {
            **LAUNCHED,
            "command": "python -m torch.distributed.launch --use_env --nproc_per_node 4 train.py --data x",
        },
    ),
    _idiom(
        "known args bad choice",
        "arguments",
        "error",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
args, unknown = p.parse_known_args()
""",
        {**ONE, "command": "python train.py --data x --epochs many"},
    ),
    _idiom(
        "known args missing",
        "arguments",
        "error",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
args, unknown = p.parse_known_args()
""",
        {**ONE, "command": "python train.py --epochs 1"},
    ),
    _idiom(
        "known args extra",
        "arguments",
        None,
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
args, unknown = p.parse_known_args()
""",
        {**ONE, "command": "python train.py --data x --other 1"},
    ),
    _idiom(
        "known args, abbreviation",
        "arguments",
        None,
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
args = p.parse_known_args()[0]
""",
        {**ONE, "command": "python train.py --dat x --other 1"},
    ),
    _idiom(
        "True for store_true",
        "arguments",
        "error",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
p.add_argument('--amp', action='store_true')
args = p.parse_args()
""",
        {**ONE, "command": "python train.py --data x --amp True"},
    ),
    _idiom(
        "underscores/dashes",
        "arguments",
        "error",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--num_epochs', type=int)
args = p.parse_args()
""",
        {**ONE, "command": "python train.py --data x --num-epochs 3"},
    ),
    _idiom(
        "bash -c",
        "arguments",
        "error",
        ARGUMENTS,
        "",
        {**ONE, "command": "bash -c 'set -e; python train.py --dta x'"},
    ),
    _idiom(
        "nbconvert",
        "missing-script",
        None,
        ARGUMENTS,
        "",
        {**ONE, "command": "jupyter nbconvert --to script work.ipynb && python work.py"},
    ),
    _idiom(
        "interpolated input",
        "arguments",
        None,
        ARGUMENTS,
        "",
        {
            **ONE,
            "command": "python train.py --data ${{inputs.d}} --epochs ${{inputs.e}}",
            "inputs": {"d": Input(path="azureml:x:1"), "e": 3},
        },
    ),
    _idiom(
        "env var with default",
        "arguments",
        None,
        ARGUMENTS,
        "",
        {**ONE, "command": "python train.py --data ${DATA:-x} --epochs ${E:-3}"},
    ),
    _idiom(
        "numeric choices",
        "arguments",
        "error",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
p.add_argument('--bits', type=int, choices=[4, 8])
args = p.parse_args()
""",
        {**ONE, "command": "python train.py --data x --bits 3"},
    ),
    _idiom(
        "exclusive group",
        "arguments",
        "error",
        "",
        """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--data', required=True)
p.add_argument('--epochs', type=int)
g = p.add_mutually_exclusive_group()
g.add_argument('--a', action='store_true')
g.add_argument('--b', action='store_true')
args = p.parse_args()
""",
        {**ONE, "command": "python train.py --data x --a --b"},
    ),
    _idiom(
        "mlflow callback",
        "logged-by-every-rank",
        None,
        "",
        """
import mlflow
from transformers import TrainerCallback
class C(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kw):
        if state.is_world_process_zero:
            mlflow.log_metrics(logs)
""",
        TORCH,
    ),
    _idiom(
        "mlflow logger class",
        "logged-by-every-rank",
        None,
        RANKS,
        """
import mlflow
class L:
    def __init__(self, rank):
        self.enabled = rank == 0
    def log(self, **kw):
        if self.enabled:
            mlflow.log_metrics(kw)
L(rank).log(a=1)
""",
        TORCH,
    ),
    _idiom(
        "PL devices=1 in a job of 8",
        "trainer-counts",
        "warning",
        "",
        """
import lightning as L
t = L.Trainer(devices=1, max_epochs=1)
t.fit(None)
""",
        TORCH,
    ),
    _idiom(
        "PL test on one device by rank zero",
        "trainer-counts",
        None,
        "",
        """
import lightning as L
t = L.Trainer(devices=4, num_nodes=2, max_epochs=1)
t.fit(None)
if t.is_global_zero:
    L.Trainer(devices=1, num_nodes=1).test(None)
""",
        TORCH,
    ),
    _idiom(
        "PL test on one device, all",
        "trainer-counts",
        None,
        "",
        """
import lightning as L
t = L.Trainer(devices=4, num_nodes=2, max_epochs=1)
t.fit(None)
test = L.Trainer(devices=1, num_nodes=1)
""",
        TORCH,
    ),
    _idiom(
        "Fabric devices args",
        "trainer-counts",
        "error",
        "",
        """
import argparse
from lightning.fabric import Fabric
p = argparse.ArgumentParser()
p.add_argument('--devices', type=int)
args = p.parse_args()
f = Fabric(devices=args.devices, num_nodes=2, strategy='fsdp')
""",
        {**TORCH, "command": "python train.py --devices 2"},
    ),
    _idiom(
        "torch comes with ultralytics",
        "package-not-listed",
        None,
        "",
        """
import torch
from ultralytics import YOLO
""",
        _listing("ultralytics"),
    ),
    _idiom(
        "torch comes with sentence-transformers",
        "package-not-listed",
        None,
        "",
        """
import torch, numpy, pandas
""",
        _listing("sentence-transformers", "pandas"),
    ),
    _idiom(
        "torch is missing",
        "package-not-listed",
        "warning",
        "",
        """
import torch
""",
        _listing("numpy", "pandas", "scikit-learn"),
    ),
    _idiom(
        "mpi4py is missing",
        "package-not-listed",
        "warning",
        "",
        """
import torch
from mpi4py import MPI
""",
        _listing("torch", "numpy"),
    ),
    _idiom(
        "packages with modules of other names",
        "package-not-listed",
        None,
        "",
        """
import sklearn, yaml, cv2, PIL, bs4, dateutil, mlflow
from google.protobuf import message
""",
        _listing(
            "scikit-learn",
            "pyyaml",
            "opencv-python-headless",
            "pillow",
            "beautifulsoup4",
            "python-dateutil",
            "mlflow",
            "protobuf",
        ),
    ),
    _idiom(
        "extras, versions and addresses",
        "package-not-listed",
        None,
        "",
        """
import torch, ray, lightning, apex, pytorch_lightning
""",
        _listing("torch==2.4.0", "ray[train]>=2.9", "git+https://github.com/NVIDIA/apex.git", "lightning~=2.1"),
    ),
]
