"""Idioms of newer scripts and of longer ones: parsers in functions, names for values, mesh and FSDP2, uv and `src`."""

from __future__ import annotations

from typing import Any

from azml_dist import Input, Output
from scriptscore.cases import LAUNCHED, MPI, ONE, ONE_NODE, TF, TORCH, Case
from scriptscore.idioms import RANKS

_PARSED = """
import argparse
def parse_args(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)
"""
_IN_MAIN = 'if __name__ == "__main__":\n    args = parse_args()\n'
_BUILDER = """
import argparse
def get_parser():
    parser = argparse.ArgumentParser("train", add_help=False)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--opt", default="adam"),
    parser.set_defaults(opt="sgd")
    return parser
"""
_COMMANDS = """
import argparse
parser = argparse.ArgumentParser()
sub = parser.add_subparsers(dest="command", required=True)
p = sub.add_parser("train", help="train")
p.add_argument("--epochs", type=int)
p.set_defaults(run=print)
p = sub.add_parser("test")
p.add_argument("--checkpoint", required=True)
args = parser.parse_args()
"""
_ADDED = """
import argparse
def add_model(parser):
    group = parser.add_argument_group("model")
    group.add_argument("--width", type=int)
    group = parser.add_argument_group("optimizer")
    group.add_argument("--lr", type=float)
    return parser
def main():
    parser = argparse.ArgumentParser()
    parser = add_model(parser)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
main()
"""
_X = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--x')\nargs = p.parse_args()\n"
_GROUP = "import os\nimport torch\nimport torch.distributed as dist\n"
_MESH = """
import os
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
import torch.distributed.checkpoint as dcp
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
mesh = init_device_mesh("cuda", (int(os.environ["WORLD_SIZE"]),), mesh_dim_names=("dp",))
model = torch.nn.Linear(1, 1)
fully_shard(model, mesh=mesh)
dcp.save({"model": model.state_dict()}, checkpoint_id="outputs/last")
"""


def _case(code: str, level: str | None, script: str, job: dict[str, Any], command: str = "", **others: str) -> Case:
    files = {name.replace("__", "/") + ".py": text for name, text in others.items()}
    return Case(code, level, script, {**job, "command": command} if command else job, files)


_ARGUMENTS = [
    _case("arguments", None, _PARSED + _IN_MAIN, ONE, "python train.py --data x --no-compile"),
    _case("arguments", "error", _PARSED + _IN_MAIN, ONE, "python train.py --data x --epcohs 3"),
    _case("arguments", "error", _PARSED + "import sys\nargs = parse_args(sys.argv[1:])\n", ONE),
    _case("arguments", None, _PARSED + "args = parse_args(['--data', 'x'])\n", ONE),
    _case("arguments", None, _PARSED + "import shlex, os\nargs = parse_args(shlex.split(os.environ['ARGS']))\n", ONE),
    _case("arguments", "error", _BUILDER + "args = get_parser().parse_args()\n", ONE, "python train.py --lr 1"),
    _case("arguments", None, _BUILDER + "args = get_parser().parse_args()\n", ONE, "python train.py --opt lamb"),
    _case(
        "arguments",
        "error",
        _BUILDER
        + "p = argparse.ArgumentParser(parents=[get_parser()])\np.add_argument('--lr')\nargs = p.parse_args()\n",
        ONE,
        "python train.py --lr 1 --epochs x",
    ),
    _case(
        "arguments",
        None,
        _BUILDER
        + "p = argparse.ArgumentParser(parents=[get_parser()])\np.add_argument('--lr')\nargs = p.parse_args()\n",
        ONE,
        "python train.py --lr 1 --epochs 2",
    ),
    _case("arguments", "error", _COMMANDS, ONE, "python train.py trian --epochs 3"),
    _case("arguments", "error", _COMMANDS, ONE, "python train.py test --epochs 3"),
    _case("arguments", "error", _COMMANDS, ONE),
    _case("arguments", None, _COMMANDS, ONE, "python train.py train --epochs 3"),
    _case("arguments", "error", _ADDED, ONE, "python train.py --lr fast"),
    _case("arguments", None, _ADDED, ONE, "python train.py --lr 0.1 --width 3 --epochs 2"),
    _case(
        "arguments",
        None,
        "import argparse, lib\np = argparse.ArgumentParser()\np = lib.add(p)\nargs = p.parse_args()\n",
        ONE,
        "python train.py --unknown",
        lib="import sys\ndef add(p):\n    if sys.platform == 'x':\n        p.add_argument('--unknown')\n    return p\n",
    ),
    _case(
        "arguments",
        "error",
        _X,
        {"inputs": {"d": Input(path="azureml:d:1")}},
        "python train.py --y ${{inputs.d}}",
    ),
    _case("arguments", "error", _X, {"outputs": {"o": Output()}}, "python train.py --x 1 --out=${{outputs.o}}"),
    _case("arguments", "error", _X, ONE, 'python train.py --epochs "$EPOCHS"'),
    _case("arguments", None, _X, ONE, 'python train.py "$OPTION" 3'),
    _case("arguments", "error", _X, LAUNCHED, "deepspeed --num_gpus 4 train.py --x 1"),
    _case("arguments", None, _X, LAUNCHED, "deepspeed --no_local_rank --num_gpus 4 train.py --x 1"),
    _case("arguments", "error", _X, ONE, "uv run --with torch train.py --y 1"),
    _case("arguments", None, _X, ONE, "uv run pytest tests/run.py --y 1", tests__run=_X),
    _case("arguments", "error", "", ONE, "PYTHONPATH=src python -m pkg.main --y 1", src__pkg__main=_X),
    _case("arguments", None, "", ONE, 'export PYTHONPATH="$PWD/src" && python -m pkg.main --x 1', src__pkg__main=_X),
]

_VARIABLES = [
    _case("variable-not-set", "error", "import os\nenv = os.environ\nrank = int(env['RANK'])\n", MPI),
    _case("variable-not-set", "error", "import os\nKEY = 'RANK'\nrank = int(os.environ[KEY])\n", MPI),
    _case("variable-not-set", "warning", "import os\nd = {k: os.environ[k] for k in ('RANK', 'WORLD_SIZE')}\n", MPI),
    _case("variable-not-set", None, "import os\nenv = os.environ\nenv['RANK'] = '1'\nrank = env['RANK']\n", MPI),
    _case("variable-not-set", None, "import os\nd = {k: os.environ[k] for k in ('RANK', 'WORLD_SIZE')}\n", TORCH),
    _case("variable-not-set", "error", _GROUP + "dist.init_process_group('gloo')\n", MPI),
    _case("variable-not-set", "error", _GROUP + "dist.init_process_group()\n", ONE),
    _case("variable-not-set", "error", _GROUP + "dist.init_process_group('nccl', rank=0, world_size=1)\n", ONE),
    _case("variable-not-set", None, _GROUP + "dist.init_process_group('mpi')\n", MPI),
    _case("variable-not-set", None, _GROUP + "dist.init_process_group(backend='gloo')\n", ONE, "torchrun train.py"),
    _case("variable-not-set", None, _GROUP + "dist.init_process_group('gloo', store=S, rank=0, world_size=1)\n", ONE),
    _case("variable-not-set", None, _GROUP + "dist.init_process_group('gloo', 'file:///tmp/x', None, 1, 0)\n", ONE),
    _case(
        "variable-not-set",
        None,
        _GROUP + "if int(os.environ.get('WORLD_SIZE', 1)) > 1:\n    dist.init_process_group('nccl', device_id=0)\n",
        ONE,
    ),
    _case(
        "variable-not-set",
        None,
        _GROUP + "def work(rank):\n    dist.init_process_group('gloo', rank=rank, world_size=4)\n"
        "torch.multiprocessing.spawn(work, nprocs=4)\n",
        ONE,
    ),
    _case("variable-not-set", None, _MESH, TORCH),
    _case("variable-not-set", "error", _MESH, MPI),
]

_COUNTS = [
    _case(
        "trainer-counts", "error", "import lightning as L\nNODES = 1\nL.Trainer(num_nodes=NODES, devices=4)\n", TORCH
    ),
    _case(
        "trainer-counts",
        "error",
        "import pytorch_lightning as pl\npl.Trainer(gpus=2, num_nodes=2, strategy='ddp')\n",
        TORCH,
    ),
    _case("trainer-counts", None, "import pytorch_lightning as pl\npl.Trainer(gpus=4, num_nodes=2)\n", TORCH),
    _case(
        "trainer-counts",
        None,
        "import lightning as L\nNODES = 1\nexec(open('options.py').read())\nL.Trainer(num_nodes=NODES, devices=4)\n",
        TORCH,
    ),
    _case(
        "nccl-without-gpu",
        "error",
        _GROUP + "def setup(backend):\n    dist.init_process_group(backend, device_id=0)\nsetup('nccl')\n",
        {**TORCH, "instance_type": "Standard_D4s_v3"},
    ),
    _case(
        "empty-ps",
        None,
        "import os, tensorflow as tf\ndel os.environ['TF_CONFIG']\ntf.distribute.MultiWorkerMirroredStrategy()\n",
        TF,
    ),
]

_TRAINING = [
    _case("saved-by-every-rank", None, RANKS + "if rank != 0:\n    sys.exit()\ntorch.save({}, 'outputs/a')\n", TORCH),
    _case(
        "no-device-of-its-own",
        None,
        _GROUP
        + "dist.init_process_group('nccl')\nwith torch.cuda.device(dist.get_rank()):\n    torch.ones(1).cuda()\n",
        ONE_NODE,
    ),
    _case("not-kept", "warning", RANKS + "if rank == 0:\n    torch.save({}, f'checkpoints/{world}.pt')\n", TORCH),
    _case(
        "not-kept", "warning", RANKS + "d = 'ckpt'\nif rank == 0:\n    torch.save({}, os.path.join(d, 'm'))\n", TORCH
    ),
    _case(
        "not-kept",
        "warning",
        RANKS + "from pathlib import Path\nif rank == 0:\n    torch.save({}, Path('ckpt') / f'{world}.pt')\n",
        TORCH,
    ),
    _case("not-kept", None, RANKS + "if rank == 0:\n    torch.save({}, f'{sys.argv[1]}/m.pt')\n", TORCH),
    _case("not-kept", None, RANKS + "if rank == 0:\n    torch.save({}, f'outputs/{world}.pt')\n", TORCH),
    _case(
        "not-kept",
        "warning",
        _X.replace("'--x'", "'--to', default='ckpt'")
        + RANKS
        + "if rank == 0:\n    torch.save({}, args.to + '/m.pt')\n",
        TORCH,
    ),
    _case(
        "not-kept",
        None,
        _X.replace("'--x'", "'--to', default='ckpt'")
        + RANKS
        + "if rank == 0:\n    torch.save({}, args.to + '/m.pt')\n",
        {**TORCH, "outputs": {"model": Output()}},
        "python train.py --to ${{outputs.model}}",
    ),
    _case(
        "collective-on-one-rank",
        "warning",
        RANKS + "def is_main():\n    return dist.get_rank() == 0\nif is_main():\n    dist.barrier()\n",
        TORCH,
    ),
    _case("collective-on-one-rank", "warning", RANKS + "if not rank:\n    dist.barrier()\n", TORCH),
    _case(
        "collective-on-one-rank",
        "warning",
        RANKS
        + "def test():\n    dist.all_reduce(torch.ones(1))\nfor e in range(2):\n    if rank == 0:\n        test()\n",
        TORCH,
    ),
    _case(
        "collective-on-one-rank",
        None,
        RANKS + "def test():\n    dist.all_reduce(torch.ones(1))\nif rank == 0:\n    test()\nelse:\n    test()\n",
        TORCH,
    ),
    _case(
        "collective-on-one-rank",
        None,
        RANKS + "def test(all):\n    if all:\n        dist.all_reduce(torch.ones(1))\nif rank == 0:\n    test(False)\n",
        TORCH,
    ),
    _case("logged-by-every-rank", "warning", "import mlflow\nmlflow.pytorch.log_model(None, 'model')\n", TORCH),
    _case(
        "same-seed",
        "warning",
        RANKS + "from torchvision.transforms import v2\nv2.RandomCrop(3)\ndef seed_all(seed):\n"
        "    torch.manual_seed(seed)\nseed_all(42)\n",
        TORCH,
    ),
    _case("saved-by-every-rank", None, _MESH, TORCH),
    _case(
        "saved-by-every-rank", "warning", RANKS + "with open('outputs/a', 'wb') as f:\n    torch.save({}, f)\n", TORCH
    ),
    _case(
        "saved-by-every-rank", None, RANKS + "with open(f'outputs/{rank}', 'wb') as f:\n    torch.save({}, f)\n", TORCH
    ),
    _case(
        "not-kept",
        None,
        RANKS + "if rank == 0:\n    torch.save({}, '/tmp/m')\ndist.barrier()\ntorch.load('/tmp/m')\n",
        TORCH,
    ),
    _case(
        "downloaded-by-every-rank",
        None,
        RANKS + "import contextlib, torchvision\n@contextlib.contextmanager\ndef local_first():\n    if rank:\n"
        "        dist.barrier()\n    yield\n    if not rank:\n        dist.barrier()\nwith local_first():\n"
        "    torchvision.datasets.MNIST('d', download=True)\n",
        TORCH,
    ),
    _case("variable-not-set", None, "import os\nenv = os.environ\nenv.update(RANK='1')\nrank = env['RANK']\n", MPI),
]

_P = "print(1)\n"
_COMMANDS_OF_SHELLS = [
    _case("missing-script", None, _P, ONE, "(cd src && pip install .) && python train.py", src__setup=_P),
    _case("missing-script", "warning", _P, ONE, "(cd src && ls) && python setup.py", src__setup=_P),
    _case("missing-script", None, _P, ONE, "(cd a && (cd b && python c.py) && ls b); python train.py", a__b__c=_P),
    _case("missing-script", None, _P, ONE, "pushd a && cd b && python c.py && popd && python train.py", a__b__c=_P),
    _case("missing-script", None, _P, ONE, "cd a && python b.py && cd - && python train.py", a__b=_P),
    _case("missing-script", None, _P, ONE, "env -C a python b.py", a__b=_P),
    _case("missing-script", None, _P, ONE, "uv run --directory a python b.py", a__b=_P),
    _case("missing-script", "error", _P, ONE, "./trian.py"),
    _case("arguments", "error", _X, ONE, "pixi run python train.py --y 1"),
]

_URL = _X.replace("'--x'", "'--url', default='tcp://127.0.0.1:2'")
_MEET = "dist.init_process_group('gloo', init_method=args.url, rank=int(os.environ['RANK']), world_size=8)\n"
_RENDEZVOUS = "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint"
_MASTERS = [
    _case("master-on-every-node", "error", _GROUP + "os.environ.update(MASTER_ADDR='localhost')\n", TORCH),
    _case("master-on-every-node", "error", _GROUP + "os.environ.update({'MASTER_ADDR': '127.0.0.1'})\n", TORCH),
    _case("master-on-every-node", "error", _GROUP + "HOST = 'localhost'\nos.environ['MASTER_ADDR'] = HOST\n", TORCH),
    _case(
        "master-on-every-node",
        "error",
        _GROUP + "dist.init_process_group('gloo', f'tcp://localhost:{os.getpid()}', rank=0, world_size=8)\n",
        TORCH,
    ),
    _case("master-on-every-node", "error", _URL + _GROUP + _MEET, TORCH),
    _case("master-on-every-node", None, _URL + _GROUP + "args.url = 'env://'\n" + _MEET, TORCH),
    _case("master-on-every-node", None, _URL + _GROUP + _MEET, TORCH, "python train.py --url env://"),
    _case("master-on-every-node", "warning", "", TORCH, "export MASTER_ADDR=localhost && python train.py"),
    _case("master-on-every-node", "warning", "", LAUNCHED, f"{_RENDEZVOUS} localhost:29500 train.py"),
    _case("master-on-every-node", None, "", LAUNCHED, f"{_RENDEZVOUS} $MASTER_ADDR:29500 train.py"),
    _case("launcher-counts", "warning", "", LAUNCHED, "torchrun --nproc-per-node 4 train.py"),
    _case("launcher-counts", None, "", LAUNCHED, "export PET_NNODES=2 && torchrun --nproc-per-node 4 train.py"),
    _case(
        "rank-taken-for-node",
        "warning",
        "import os\nr = os.environ['OMPI_COMM_WORLD_RANK']\nos.environ['NODE_RANK'] = r\n",
        MPI,
    ),
    _case(
        "arguments",
        "error",
        _X.replace("'--x'", "'--x', choices=KNOWN").replace("p =", "KNOWN = ['a']\np =", 1),
        ONE,
        "python train.py --x b",
    ),
    _case("arguments", "error", _X.replace("'--x'", "'--x', type=int, choices=range(3)"), ONE, "python train.py --x 3"),
    _case("arguments", None, _X.replace("'--x'", "'--x', type=int, choices=range(3)"), ONE, "python train.py --x 2"),
]

MODERN = [*_ARGUMENTS, *_VARIABLES, *_COUNTS, *_TRAINING, *_COMMANDS_OF_SHELLS, *_MASTERS]
