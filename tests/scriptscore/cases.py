"""Training scripts with one thing wrong in their job, and the same done right: three or more of both for each."""

from __future__ import annotations

from typing import Any, NamedTuple

from azml_dist import Environment, Input, Job, Mpi, Output, PyTorch, TensorFlow
from azml_dist.plan.dumps import WATCH_HANGS


class Case(NamedTuple):
    """A script, the job that starts it, and what is to be found in it."""

    code: str
    """The finding that the case is about."""
    level: str | None
    """The level it must have; None where the script is right, and nothing at all may be found."""
    script: str
    job: dict[str, Any]
    others: dict[str, str]
    """Further files of the code."""


def job_of(case: Case, code: str) -> Job:
    """The job of a case, with its code in that folder."""
    return Job(**{"command": "python train.py", "code": code, **case.job})


ONE: dict[str, Any] = {}
TORCH: dict[str, Any] = {"node_count": 2, "distribution": PyTorch(process_count_per_node=4)}
ONE_NODE: dict[str, Any] = {"distribution": PyTorch(process_count_per_node=4)}
LAUNCHED: dict[str, Any] = {"node_count": 2, "distribution": PyTorch(process_count_per_node=1)}
MPI: dict[str, Any] = {"node_count": 2, "distribution": Mpi(process_count_per_node=4)}
WATCHED: dict[str, Any] = {**TORCH, "environment_variables": WATCH_HANGS}
TF: dict[str, Any] = {"node_count": 2, "distribution": TensorFlow(worker_count=2)}
SERVERS: dict[str, Any] = {"node_count": 2, "distribution": TensorFlow(worker_count=2, parameter_server_count=1)}


def _with(job: dict[str, Any], command: str, **fields: Any) -> dict[str, Any]:
    return {**job, "command": command, **fields}


_GROUP = "import os\nimport torch\nimport torch.distributed as dist\n"
_DDP = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
dist.init_process_group("gloo")
rank = dist.get_rank()
model = DDP(torch.nn.Linear(1, 1))
"""
_ARGS = """
import argparse
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--data", required=True)
    parser.add_argument("--mode", choices=["fast", "slow"], default="fast")
    parser.add_argument("--amp", action="store_true")
    args = parser.parse_args()
    print(args.epochs)
if __name__ == "__main__":
    main()
"""
_LIGHTNING = "import lightning as L\n"

_CASES: list[tuple[str, str | None, str, dict[str, Any]]] = [
    # --- arguments
    ("arguments", "error", _ARGS, _with(ONE, "python train.py --data x --epoch-count 4")),
    ("arguments", "error", _ARGS, _with(ONE, "python train.py --epochs 4")),
    ("arguments", "error", _ARGS, _with(ONE, "python train.py --data x --epochs many")),
    ("arguments", "error", _ARGS, _with(ONE, "python train.py --data ${{inputs.d}} --mode quick", inputs={"d": "x"})),
    ("arguments", "error", _ARGS, _with(LAUNCHED, "torchrun --nproc-per-node 4 train.py --data x --lr 1")),
    (
        "arguments",
        "error",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--local_rank', type=int, required=True)\n"
        "args = p.parse_args()\n",
        TORCH,
    ),
    ("arguments", "warning", _ARGS, _with(ONE, "if true; then python train.py; fi")),
    ("arguments", None, _ARGS, _with(ONE, "python train.py --data x --epochs 4 --amp")),
    ("arguments", None, _ARGS, _with(ONE, "python train.py --dat x")),
    ("arguments", None, _ARGS, _with(ONE, "python train.py $EXTRA")),
    (
        "arguments",
        None,
        _ARGS,
        _with(
            ONE,
            'python train.py --data ${{inputs.d}} --epochs "$EPOCHS" --mode=${{inputs.m}}',
            inputs={"d": Input(path="azureml:data:1"), "m": "slow"},
        ),
    ),
    (
        "arguments",
        None,
        _ARGS.replace("parse_args()", "parse_known_args()[0]"),
        _with(ONE, "python train.py --data d --x 1"),
    ),
    ("arguments", None, "from lib import add\n" + _ARGS.replace("args =", "add(parser)\n    args ="), ONE),
    ("arguments", None, "import sys\nsys.argv = ['x', '--data', 'y']\n" + _ARGS, ONE),
    # --- variable-not-set
    ("variable-not-set", "error", 'import os\nn = int(os.environ["LOCAL_WORLD_SIZE"])\n', TORCH),
    ("variable-not-set", "error", 'import os\nrank = int(os.environ["RANK"])\n', MPI),
    ("variable-not-set", "error", 'from os import environ\nrank = environ["OMPI_COMM_WORLD_RANK"]\n', TORCH),
    ("variable-not-set", "error", 'import os\nrank = int(os.getenv("RANK"))\n', ONE),
    ("variable-not-set", "error", 'import os, json\njson.loads(os.environ["TF_CONFIG"])\n', TORCH),
    (
        "variable-not-set",
        "error",
        'import os\ndef setup():\n    return int(os.environ["RANK"])\ndef main():\n    rank = setup()\n'
        'if __name__ == "__main__":\n    main()\n',
        MPI,
    ),
    (
        "variable-not-set",
        "error",
        'import os\nprint(os.environ["AZURE_ML_INPUT_dta"])\n',
        {"inputs": {"data": Input(path="azureml:data:1")}},
    ),
    ("variable-not-set", "error", 'import os\nprint(os.environ["AZURE_ML_INPUT_lr"])\n', {"inputs": {"lr": 0.1}}),
    ("variable-not-set", "error", 'import os\nprint(os.environ["AZURE_ML_OUTPUT_model"])\n', ONE),
    ("variable-not-set", None, 'import os\nn = int(os.environ["LOCAL_WORLD_SIZE"])\n', _with(ONE, "torchrun train.py")),
    ("variable-not-set", None, 'import os\nrank = int(os.environ["RANK"])\nn = os.environ["NODE_RANK"]\n', TORCH),
    ("variable-not-set", None, 'import os\nrank = os.environ["OMPI_COMM_WORLD_RANK"]\n', MPI),
    ("variable-not-set", None, 'import os\nif "RANK" in os.environ:\n    rank = os.environ["RANK"]\n', MPI),
    ("variable-not-set", None, 'import os\ntry:\n    rank = os.environ["RANK"]\nexcept KeyError:\n    rank = 0\n', MPI),
    (
        "variable-not-set",
        None,
        'import os\nos.environ.setdefault("RANK", os.environ["OMPI_COMM_WORLD_RANK"])\nrank = os.environ["RANK"]\n',
        MPI,
    ),
    (
        "variable-not-set",
        None,
        'import os\nn = os.environ["LOCAL_WORLD_SIZE"]\n',
        {**TORCH, "environment_variables": {"LOCAL_WORLD_SIZE": "4"}},
    ),
    (
        "variable-not-set",
        None,
        'import os\nrank = os.environ["RANK"]\n',
        _with(MPI, "export RANK=$OMPI_COMM_WORLD_RANK && python train.py"),
    ),
    (
        "variable-not-set",
        None,
        'import os\nprint(os.environ["AZURE_ML_INPUT_data"], os.environ["AZURE_ML_OUTPUT_model"])\n',
        {"inputs": {"data": Input(path="azureml:data:1")}, "outputs": {"model": Output()}},
    ),
    ("variable-not-set", None, 'import os\nprint(os.environ["AZUREML_PARAMETER_lr"])\n', {"inputs": {"lr": 0.1}}),
    (
        "variable-not-set",
        None,
        'import os\ndef mpi():\n    return os.environ["OMPI_COMM_WORLD_RANK"]\n'
        'rank = mpi() if "OMPI_COMM_WORLD_RANK" in os.environ else os.environ["RANK"]\n',
        TORCH,
    ),
    # --- rank-by-default
    ("rank-by-default", "warning", 'import os\nrank = int(os.environ.get("RANK", 0))\n', MPI),
    ("rank-by-default", "warning", 'import os\nsize = int(os.getenv("WORLD_SIZE", "1"))\n', MPI),
    ("rank-by-default", "warning", 'import os\nlocal = int(os.environ.get("LOCAL_RANK", "0"))\n', TF),
    ("rank-by-default", None, 'import os\nrank = int(os.environ.get("RANK", 0))\n', TORCH),
    ("rank-by-default", None, 'import os\nrank = int(os.environ.get("RANK", 0))\n', ONE),
    (
        "rank-by-default",
        None,
        'import os\nrank = int(os.environ.get("RANK", os.environ.get("OMPI_COMM_WORLD_RANK", 0)))\n',
        MPI,
    ),
    # --- master-on-every-node
    ("master-on-every-node", "error", _GROUP + 'os.environ["MASTER_ADDR"] = "localhost"\n', TORCH),
    (
        "master-on-every-node",
        "error",
        _GROUP + 'def main():\n    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:23456")\nmain()\n',
        TORCH,
    ),
    (
        "master-on-every-node",
        "warning",
        _GROUP + 'def setup(rank):\n    os.environ["MASTER_ADDR"] = "127.0.0.1"\ntorch.multiprocessing.spawn(setup)\n',
        TORCH,
    ),
    ("master-on-every-node", None, _GROUP + 'os.environ["MASTER_ADDR"] = "localhost"\n', ONE_NODE),
    ("master-on-every-node", None, _GROUP + 'os.environ.setdefault("MASTER_ADDR", "localhost")\n', TORCH),
    (
        "master-on-every-node",
        None,
        _GROUP + 'if "MASTER_ADDR" not in os.environ:\n    os.environ["MASTER_ADDR"] = "localhost"\n',
        TORCH,
    ),
    # --- fixed-master-port
    ("fixed-master-port", "warning", 'import os\nos.environ["MASTER_PORT"] = "29500"\n', TORCH),
    (
        "fixed-master-port",
        "warning",
        'import os\ndef setup():\n    os.environ["MASTER_PORT"] = "12355"\nsetup()\n',
        TORCH,
    ),
    ("fixed-master-port", "warning", 'from os import environ\nenviron["MASTER_PORT"] = "1"\n', TORCH),
    ("fixed-master-port", None, 'import os\nos.environ["MASTER_PORT"] = "29500"\n', ONE_NODE),
    ("fixed-master-port", None, 'import os\nos.environ.setdefault("MASTER_PORT", "29500")\n', TORCH),
    ("fixed-master-port", None, 'import os, sys\nos.environ["MASTER_PORT"] = sys.platform\n', TORCH),
    # --- rank-taken-for-node
    (
        "rank-taken-for-node",
        "warning",
        'import os\nos.environ["NODE_RANK"] = os.environ["OMPI_COMM_WORLD_RANK"]\n',
        MPI,
    ),
    ("rank-taken-for-node", "warning", 'import os\nnode_rank = int(os.environ["OMPI_COMM_WORLD_RANK"])\n', MPI),
    (
        "rank-taken-for-node",
        "warning",
        'import os\ndef setup():\n    os.environ["NODE_RANK"] = str(os.environ["OMPI_COMM_WORLD_RANK"])\nsetup()\n',
        MPI,
    ),
    (
        "rank-taken-for-node",
        None,
        'import os\nos.environ["NODE_RANK"] = os.environ["OMPI_COMM_WORLD_RANK"]\n',
        {"node_count": 2, "distribution": Mpi(process_count_per_node=1)},
    ),
    ("rank-taken-for-node", None, 'import os\nrank = os.environ["OMPI_COMM_WORLD_RANK"]\n', MPI),
    (
        "rank-taken-for-node",
        None,
        "import os\n"
        'node_rank = int(os.environ["OMPI_COMM_WORLD_RANK"]) // int(os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"])\n',
        MPI,
    ),
    # --- trainer-counts
    ("trainer-counts", "error", _LIGHTNING + "trainer = L.Trainer(devices=4)\n", TORCH),
    ("trainer-counts", "error", _LIGHTNING + "trainer = L.Trainer(num_nodes=2, devices=8)\n", TORCH),
    (
        "trainer-counts",
        "error",
        "from pytorch_lightning import Trainer\ndef main():\n    Trainer(num_nodes=4, devices='auto')\nmain()\n",
        TORCH,
    ),
    (
        "trainer-counts",
        "error",
        "import argparse\nimport lightning as L\np = argparse.ArgumentParser()\np.add_argument('--nodes', type=int)\n"
        "args = p.parse_args()\nL.Trainer(num_nodes=args.nodes)\n",
        _with(TORCH, "python train.py --nodes 1", instance_type="Standard_ND96asr_v4"),
    ),
    ("trainer-counts", "error", _LIGHTNING + "L.Trainer(num_nodes=2)\n", ONE),
    ("trainer-counts", None, _LIGHTNING + "L.Trainer(num_nodes=2, devices=4)\n", TORCH),
    ("trainer-counts", None, _LIGHTNING + "L.Trainer(devices=2)\n", ONE),
    (
        "trainer-counts",
        None,
        "import os\nimport lightning as L\nL.Trainer(num_nodes=int(os.environ['AZUREML_NODE_COUNT']))\n",
        TORCH,
    ),
    (
        "trainer-counts",
        None,
        "import argparse\nimport lightning as L\np = argparse.ArgumentParser()\np.add_argument('--nodes', type=int)\n"
        "args = p.parse_args()\nL.Trainer(num_nodes=args.nodes)\n",
        _with(TORCH, "python train.py --nodes 2"),
    ),
    # --- launcher-counts
    ("launcher-counts", "error", "pass\n", _with(ONE, "torchrun --nnodes 2 --nproc-per-node 4 train.py")),
    ("launcher-counts", "error", "pass\n", _with(ONE, "accelerate launch --multi_gpu --num_machines=2 train.py")),
    (
        "launcher-counts",
        "warning",
        "pass\n",
        _with({"node_count": 2, "distribution": PyTorch()}, "torchrun --nnodes=1 --nproc-per-node 4 train.py"),
    ),
    ("launcher-counts", None, "pass\n", _with(ONE, "torchrun --nnodes 1 --nproc-per-node 4 train.py")),
    ("launcher-counts", None, "pass\n", _with(ONE, "torchrun --nnodes $AZUREML_NODE_COUNT train.py")),
    ("launcher-counts", None, "pass\n", _with(ONE, "torchrun --nproc-per-node 4 train.py")),
    # --- no-process-group
    (
        "no-process-group",
        "error",
        "import torch\nfrom torch.nn.parallel import DistributedDataParallel as DDP\nm = DDP(torch.nn.Linear(1, 1))\n",
        TORCH,
    ),
    (
        "no-process-group",
        "error",
        "import torch\ndef main():\n    m = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))\nmain()\n",
        ONE_NODE,
    ),
    (
        "no-process-group",
        "warning",
        "import os, torch\nfrom torch.nn.parallel import DistributedDataParallel\nm = torch.nn.Linear(1, 1)\n"
        "if int(os.environ['WORLD_SIZE']) > 1:\n    m = DistributedDataParallel(m)\n",
        TORCH,
    ),
    ("no-process-group", None, _DDP, TORCH),
    (
        "no-process-group",
        None,
        "import torch, accelerate\nfrom torch.nn.parallel import DistributedDataParallel as DDP\n"
        "m = DDP(torch.nn.Linear(1, 1))\n",
        TORCH,
    ),
    (
        "no-process-group",
        None,
        "import torch, somebody\nfrom torch.nn.parallel import DistributedDataParallel as DDP\nsomebody.starts()\n"
        "m = DDP(torch.nn.Linear(1, 1))\n",
        TORCH,
    ),
    # --- nccl-without-gpu
    (
        "nccl-without-gpu",
        "error",
        _GROUP + 'dist.init_process_group("nccl", device_id=0)\n',
        {**TORCH, "instance_type": "Standard_D4s_v3"},
    ),
    (
        "nccl-without-gpu",
        "error",
        _GROUP + 'def main():\n    dist.init_process_group(backend="nccl", device_id=0)\nmain()\n',
        {**TORCH, "instance_type": "Standard_F16s_v2"},
    ),
    (
        "nccl-without-gpu",
        "warning",
        _GROUP + 'if torch.cuda.is_available():\n    dist.init_process_group("nccl", device_id=0)\n',
        {**TORCH, "instance_type": "STANDARD_E8S_V3"},
    ),
    (
        "nccl-without-gpu",
        None,
        _GROUP + 'dist.init_process_group("gloo")\n',
        {**TORCH, "instance_type": "Standard_D4s_v3"},
    ),
    (
        "nccl-without-gpu",
        None,
        _GROUP + 'dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")\n',
        {**TORCH, "instance_type": "Standard_D4s_v3"},
    ),
    ("nccl-without-gpu", None, _GROUP + 'dist.init_process_group("nccl", device_id=0)\n', {**TORCH, "compute": "gpus"}),
    # --- no-dump-of-a-hang
    ("no-dump-of-a-hang", "note", _GROUP + 'dist.init_process_group("gloo")\n', WATCHED),
    (
        "no-dump-of-a-hang",
        "note",
        _GROUP + 'def main():\n    dist.init_process_group(backend="gloo")\nmain()\n',
        {**TORCH, "environment_variables": {"TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "logs/trace_rank_"}},
    ),
    (
        "no-dump-of-a-hang",
        "note",
        "import tensorflow as tf\ntf.distribute.MultiWorkerMirroredStrategy()\n",
        {"node_count": 2, "distribution": TensorFlow(worker_count=2), "environment_variables": WATCH_HANGS},
    ),
    ("no-dump-of-a-hang", None, _GROUP + 'dist.init_process_group("gloo")\n', TORCH),
    ("no-dump-of-a-hang", None, _GROUP + 'dist.init_process_group("nccl", device_id=0)\n', WATCHED),
    ("no-dump-of-a-hang", None, _GROUP + "dist.init_process_group()\n", WATCHED),
    # --- no-chief
    (
        "no-chief",
        "warning",
        "import tensorflow as tf\ns = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.X())\n",
        SERVERS,
    ),
    (
        "no-chief",
        "warning",
        "import tensorflow as tf\ns = tf.distribute.experimental.ParameterServerStrategy(None)\n",
        SERVERS,
    ),
    (
        "no-chief",
        "warning",
        "from tensorflow.distribute import ParameterServerStrategy\ns = ParameterServerStrategy(None)\n",
        SERVERS,
    ),
    ("no-chief", None, "import tensorflow as tf\ns = tf.distribute.MirroredStrategy()\n", TF),
    ("no-chief", None, "import tensorflow as tf\ns = tf.distribute.ParameterServerStrategy(None)  # chief\n", SERVERS),
    (
        "no-chief",
        None,
        "import tensorflow as tf\ns = tf.compat.v1.distribute.experimental.ParameterServerStrategy()\n",
        SERVERS,
    ),
    # --- empty-ps
    ("empty-ps", "warning", "import tensorflow as tf\ns = tf.distribute.MultiWorkerMirroredStrategy()\n", TF),
    (
        "empty-ps",
        "warning",
        "from tensorflow import distribute as d\ns = d.experimental.MultiWorkerMirroredStrategy()\n",
        TF,
    ),
    (
        "empty-ps",
        "warning",
        "import os, json, tensorflow as tf\nprint(json.loads(os.environ['TF_CONFIG'])['task'])\n"
        "with tf.distribute.MultiWorkerMirroredStrategy().scope(): pass\n",
        TF,
    ),
    (
        "empty-ps",
        None,
        "import json, os\nimport tensorflow as tf\nconfig = json.loads(os.environ['TF_CONFIG'])\n"
        "config['cluster'].pop('ps')\nos.environ['TF_CONFIG'] = json.dumps(config)\n"
        "s = tf.distribute.MultiWorkerMirroredStrategy()\n",
        TF,
    ),
    ("empty-ps", None, "import tensorflow as tf\ns = tf.distribute.MultiWorkerMirroredStrategy(None, RESOLVER)\n", TF),
    ("empty-ps", None, "import tensorflow as tf\ns = tf.distribute.MultiWorkerMirroredStrategy()\n", SERVERS),
    # --- no-distributed-sampler
    (
        "no-distributed-sampler",
        "warning",
        _DDP.replace(", DistributedSampler", "") + "loader = DataLoader([1], shuffle=True)\n",
        TORCH,
    ),
    (
        "no-distributed-sampler",
        "warning",
        _DDP.replace(", DistributedSampler", "") + "train_loader = DataLoader([1], batch_size=4)\n",
        ONE_NODE,
    ),
    (
        "no-distributed-sampler",
        "warning",
        _DDP.replace("import DataLoader, DistributedSampler", "import DataLoader as Loader")
        + "def load(data):\n    return Loader(data, batch_size=2, shuffle=True)\nload([1])\n",
        TORCH,
    ),
    (
        "no-distributed-sampler",
        None,
        _DDP + "d = [1]\nDataLoader(d, sampler=DistributedSampler(d, shuffle=False))\n",
        TORCH,
    ),
    ("no-distributed-sampler", None, _DDP.replace(", DistributedSampler", "") + "DataLoader([1])\n", TORCH),
    (
        "no-distributed-sampler",
        None,
        _DDP.replace(", DistributedSampler", ", IterableDataset") + "DataLoader([1], shuffle=True)\n",
        TORCH,
    ),
    (
        "no-distributed-sampler",
        None,
        "from torch.utils.data import DataLoader\ntrain = DataLoader([1], shuffle=True)\n",
        ONE,
    ),
    # --- no-set-epoch
    (
        "no-set-epoch",
        "warning",
        _DDP + "train_sampler = DistributedSampler([1])\nfor epoch in range(3):\n    pass\n",
        TORCH,
    ),
    (
        "no-set-epoch",
        "warning",
        _DDP
        + "train = DataLoader([1], sampler=DistributedSampler([1], shuffle=True))\nfor epoch in range(3):\n    pass\n",
        TORCH,
    ),
    (
        "no-set-epoch",
        "warning",
        _DDP
        + "s_train = torch.utils.data.distributed.DistributedSampler([1])\nfor e in range(3):  # epochs\n    pass\n"
        "for epoch in range(2):\n    pass\n",
        ONE_NODE,
    ),
    (
        "no-set-epoch",
        None,
        _DDP + "train_s = DistributedSampler([1])\nfor epoch in range(3):\n    train_s.set_epoch(epoch)\n",
        TORCH,
    ),
    (
        "no-set-epoch",
        None,
        _DDP + "train_s = DistributedSampler([1], shuffle=False)\nfor epoch in range(3):\n    pass\n",
        TORCH,
    ),
    ("no-set-epoch", None, _DDP + "test_sampler = DistributedSampler([1])\nfor epoch in range(3):\n    pass\n", TORCH),
    # --- no-device-of-its-own
    (
        "no-device-of-its-own",
        "warning",
        _GROUP + 'dist.init_process_group("nccl")\nmodel = torch.nn.Linear(1, 1).cuda()\n',
        TORCH,
    ),
    (
        "no-device-of-its-own",
        "warning",
        _GROUP + 'dist.init_process_group(backend="nccl")\nmodel = torch.nn.Linear(1, 1).to("cuda")\n',
        ONE_NODE,
    ),
    (
        "no-device-of-its-own",
        "warning",
        _GROUP + 'def main():\n    dist.init_process_group("nccl")\n    x = torch.ones(1, device="cuda")\nmain()\n',
        TORCH,
    ),
    (
        "no-device-of-its-own",
        None,
        _GROUP + 'torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))\ndist.init_process_group("nccl")\n'
        "torch.ones(1).cuda()\n",
        TORCH,
    ),
    (
        "no-device-of-its-own",
        None,
        _GROUP + 'dist.init_process_group("nccl")\nx = torch.ones(1).cuda()\n',
        {"node_count": 2, "distribution": PyTorch(process_count_per_node=1)},
    ),
    (
        "no-device-of-its-own",
        None,
        _GROUP
        + 'd = torch.device("cuda", 1)\ndist.init_process_group("nccl", device_id=d)\nx = torch.ones(1).to("cuda")\n',
        TORCH,
    ),
    # --- saved-by-every-rank
    ("saved-by-every-rank", "warning", _DDP + 'torch.save(model.state_dict(), "outputs/model.pt")\n', TORCH),
    ("saved-by-every-rank", "warning", _DDP + 'def save(path):\n    torch.save({}, path)\nsave("outputs/m")\n', TORCH),
    (
        "saved-by-every-rank",
        "warning",
        _DDP + 'for epoch in range(2):\n    if epoch % 2 == 0:\n        torch.save({}, f"outputs/{epoch}.pt")\n',
        ONE_NODE,
    ),
    ("saved-by-every-rank", None, _DDP + 'if rank == 0:\n    torch.save({}, "outputs/model.pt")\n', TORCH),
    ("saved-by-every-rank", None, _DDP + 'torch.save({}, f"outputs/model-{rank}.pt")\n', TORCH),
    (
        "saved-by-every-rank",
        None,
        _DDP + 'def save(path):\n    torch.save({}, path)\nif dist.get_rank() == 0:\n    save("outputs/m")\n',
        TORCH,
    ),
    (
        "saved-by-every-rank",
        None,
        _DDP + 'def save(path):\n    if rank != 0:\n        return\n    torch.save({}, path)\nsave("outputs/m")\n',
        TORCH,
    ),
    ("saved-by-every-rank", None, _DDP + "import io\nbuffer = io.BytesIO()\ntorch.save({}, buffer)\n", TORCH),
    # --- downloaded-by-every-rank
    (
        "downloaded-by-every-rank",
        "warning",
        _DDP + 'from torchvision import datasets\ndatasets.CIFAR10("data", download=True)\n',
        TORCH,
    ),
    (
        "downloaded-by-every-rank",
        "warning",
        _DDP + 'import urllib.request\nurllib.request.urlretrieve("https://a/b.zip", "b.zip")\n',
        ONE_NODE,
    ),
    (
        "downloaded-by-every-rank",
        "warning",
        _DDP + 'import torchvision\ndef data():\n    return torchvision.datasets.MNIST("d", download=True)\ndata()\n',
        TORCH,
    ),
    (
        "downloaded-by-every-rank",
        None,
        _DDP + 'from torchvision import datasets\nif rank == 0:\n    datasets.CIFAR10("data", download=True)\n',
        TORCH,
    ),
    (
        "downloaded-by-every-rank",
        None,
        _DDP + 'from torchvision import datasets\ndatasets.CIFAR10("data", download=rank == 0)\n',
        TORCH,
    ),
    (
        "downloaded-by-every-rank",
        None,
        _DDP + 'from torchvision import datasets\ndatasets.CIFAR10(f"data/{rank}", download=True)\n',
        TORCH,
    ),
    (
        "downloaded-by-every-rank",
        None,
        'from torchvision import datasets\ndatasets.CIFAR10("data", download=True)\n',
        ONE,
    ),
    # --- not-kept
    ("not-kept", "warning", _DDP + 'if rank == 0:\n    torch.save({}, "model.pt")\n', TORCH),
    ("not-kept", "warning", _DDP + 'if rank == 0:\n    torch.save({}, "/tmp/model.pt")\n', ONE_NODE),
    (
        "not-kept",
        "warning",
        _DDP + 'def main():\n    if rank == 0:\n        torch.save({}, "ckpt/a.pt")\nmain()\n',
        TORCH,
    ),
    ("not-kept", None, _DDP + 'if rank == 0:\n    torch.save({}, "outputs/model.pt")\n', TORCH),
    ("not-kept", None, _DDP + 'if rank == 0:\n    torch.save({}, "./logs/model.pt")\n', TORCH),
    ("not-kept", None, _DDP + 'import sys\nif rank == 0:\n    torch.save({}, sys.argv[1] + "/m.pt")\n', TORCH),
    # --- logged-by-every-rank
    ("logged-by-every-rank", "warning", 'import mlflow\nmlflow.log_metric("loss", 1)\n', TORCH),
    (
        "logged-by-every-rank",
        "warning",
        'import mlflow\ndef main():\n    mlflow.log_params({"lr": 1})\nmain()\n',
        TORCH,
    ),
    (
        "logged-by-every-rank",
        "warning",
        'import mlflow\nfor e in range(3):\n    mlflow.log_metrics({"loss": e})\n',
        ONE_NODE,
    ),
    ("logged-by-every-rank", None, 'import mlflow\nmlflow.log_metric("loss", 1)\n', ONE),
    (
        "logged-by-every-rank",
        None,
        'import mlflow, os\nif os.environ["RANK"] == "0":\n    mlflow.log_metric("l", 1)\n',
        TORCH,
    ),
    ("logged-by-every-rank", None, 'import mlflow\nrank = 1\nmlflow.log_metric(f"loss-{rank}", 1)\n', TORCH),
    # --- collective-on-one-rank
    ("collective-on-one-rank", "warning", _DDP + "if rank == 0:\n    dist.barrier()\n", TORCH),
    (
        "collective-on-one-rank",
        "warning",
        _DDP + "if dist.get_rank() == 0:\n    dist.all_reduce(torch.ones(1))\n",
        TORCH,
    ),
    (
        "collective-on-one-rank",
        "warning",
        _DDP + "def test():\n    if rank == 0:\n        print(1)\n        dist.broadcast(torch.ones(1), 0)\ntest()\n",
        TORCH,
    ),
    ("collective-on-one-rank", None, _DDP + "if rank == 0:\n    print(1)\ndist.barrier()\n", TORCH),
    (
        "collective-on-one-rank",
        None,
        _DDP + "if rank != 0:\n    dist.barrier()\nprint(1)\nif rank == 0:\n    dist.barrier()\n",
        TORCH,
    ),
    (
        "collective-on-one-rank",
        None,
        _DDP + "g = dist.new_group([0])\nif rank == 0:\n    dist.barrier(group=g)\n",
        TORCH,
    ),
    # --- too-many-workers
    (
        "too-many-workers",
        "warning",
        _DDP + "d = [1]\nDataLoader(d, sampler=DistributedSampler(d, shuffle=False), num_workers=16)\n",
        {**TORCH, "instance_type": "Standard_NC24s_v3"},
    ),
    (
        "too-many-workers",
        "warning",
        "from torch.utils.data import DataLoader\nDataLoader([1], num_workers=64)\n",
        {**ONE_NODE, "instance_type": "Standard_NC24s_v3"},
    ),
    (
        "too-many-workers",
        "warning",
        "import argparse\nfrom torch.utils.data import DataLoader\np = argparse.ArgumentParser()\n"
        "p.add_argument('--w', type=int, default=12)\nargs = p.parse_args()\nDataLoader([1], num_workers=args.w)\n",
        {**ONE_NODE, "instance_type": "Standard_NC24s_v3"},
    ),
    (
        "too-many-workers",
        None,
        "from torch.utils.data import DataLoader\nDataLoader([1], num_workers=4)\n",
        {**ONE_NODE, "instance_type": "Standard_NC24s_v3", "shm_size": "8g"},
    ),
    ("too-many-workers", None, "from torch.utils.data import DataLoader\nDataLoader([1], num_workers=64)\n", ONE_NODE),
    (
        "too-many-workers",
        None,
        "import os\nfrom torch.utils.data import DataLoader\nDataLoader([1], num_workers=os.cpu_count())\n",
        {**ONE_NODE, "instance_type": "Standard_NC24s_v3", "shm_size": "8g"},
    ),
    # --- same-seed
    (
        "same-seed",
        "warning",
        _DDP + "from torchvision import transforms\ntorch.manual_seed(0)\ntransforms.RandomCrop(3)\n",
        TORCH,
    ),
    ("same-seed", "warning", _DDP + "import random\nimport albumentations as A\nrandom.seed(42)\n", ONE_NODE),
    (
        "same-seed",
        "warning",
        _DDP + "import numpy as np\nfrom torchvision.transforms import RandomRotation\nnp.random.seed(1)\n",
        TORCH,
    ),
    (
        "same-seed",
        None,
        _DDP + "from torchvision import transforms\ntorch.manual_seed(7 + rank)\ntransforms.RandomCrop(3)\n",
        TORCH,
    ),
    ("same-seed", None, _DDP + "torch.manual_seed(7)\n", TORCH),
    (
        "same-seed",
        None,
        "import torch\nfrom torchvision import transforms\ntorch.manual_seed(7)\ntransforms.RandomCrop(3)\n",
        ONE,
    ),
    # --- missing-script
    ("missing-script", "error", "pass\n", _with(ONE, "python trian.py")),
    ("missing-script", "error", "pass\n", _with(TORCH, "python src/train.py --epochs 3")),
    ("missing-script", "warning", "pass\n", _with(ONE, "pip list && python trian.py")),
    ("missing-script", "error", "pass\n", _with(ONE, "bash trian.sh")),
    ("missing-script", "error", "pass\n", _with(ONE, "./run.sh --epochs 3")),
    ("missing-script", "error", "pass\n", _with(ONE, "python train --epochs 3")),
    ("missing-script", "warning", "pass\n", _with(ONE, "python trian.py | tee log.txt")),
    ("missing-script", "warning", "pass\n", _with(ONE, "python trian.py > log.txt; echo over")),
    ("missing-script", None, "pass\n", _with(ONE, "curl -O https://example.com/run.sh && bash run.sh")),
    ("missing-script", None, "pass\n", _with(ONE, "bash /opt/run.sh")),
    ("missing-script", None, "pass\n", _with(ONE, "bash $1")),
    ("missing-script", None, "pass\n", _with(ONE, "python -m torch.utils.collect_env")),
    ("missing-script", None, "pass\n", _with(ONE, "python ./train.py")),
    ("missing-script", None, "pass\n", _with(ONE, "python /opt/train.py")),
    ("missing-script", None, "pass\n", _with(ONE, "git clone https://example.com/a.git && python a/train.py")),
    ("missing-script", None, "pass\n", _with(ONE, "python $SCRIPT")),
]

CASES = [Case(code, level, script, job, {}) for code, level, script, job in _CASES]
_CONDA = {"dependencies": ["python=3.11", "pip", {"pip": ["torch==2.13.0", "scikit-learn"]}]}
_LISTED: dict[str, Any] = {"environment": Environment(image="mcr.microsoft.com/azureml/openmpi", conda_file=_CONDA)}
_CURATED: dict[str, Any] = {"environment": "azureml://registries/azureml/environments/acpt/labels/latest"}
CASES += [
    Case("package-not-listed", "warning", "import timm\n", _LISTED, {}),
    Case("package-not-listed", "warning", "import torch\nfrom transformers import AutoModel\n", _LISTED, {}),
    Case("package-not-listed", "warning", "from mpi4py import MPI\n", {**MPI, **_LISTED}, {}),
    Case("package-not-listed", None, "import os, torch, numpy\nfrom sklearn import svm\n", _LISTED, {}),
    Case("package-not-listed", None, "try:\n    import timm\nexcept ImportError:\n    timm = None\n", _LISTED, {}),
    Case("package-not-listed", None, "import timm\n", _CURATED, {}),
    Case("package-not-listed", None, "import lib, pkg.part\n", _LISTED, {"lib.py": "", "pkg/part.py": ""}),
    Case("module-left-out", "error", "import lib\n", ONE, {"lib.py": "", ".amlignore": "lib.py\n"}),
    Case("module-left-out", "error", "from pkg import a\n", ONE, {"pkg/a.py": "", ".amlignore": "pkg/\n"}),
    Case("module-left-out", "error", "import pkg.b.c\n", TORCH, {"pkg/b/c.py": "", ".gitignore": "pkg\n"}),
    Case("module-left-out", None, "import lib\n", ONE, {"lib.py": "", ".amlignore": "*.pyc\n"}),
    Case("module-left-out", None, "import json\n", ONE, {"json.py": "", ".amlignore": "json.py\n"}),
    Case(
        "module-left-out",
        None,
        "try:\n    import lib\nexcept ImportError:\n    lib = None\n",
        ONE,
        {"lib.py": "", ".amlignore": "lib.py\n"},
    ),
    Case(
        "variable-not-set",
        "error",
        "from utils.env import setup\nsetup()\n",
        MPI,
        {"utils/__init__.py": "", "utils/env.py": 'import os\ndef setup():\n    return os.environ["RANK"]\n'},
    ),
    Case(
        "variable-not-set",
        "error",
        'import os\nos.environ["RANK"]\n',
        _with(MPI, "bash run.sh"),
        {"run.sh": "set -e\npython train.py\n"},
    ),
    Case(
        "arguments", "error", _ARGS, _with(ONE, "sh run.sh --epochs x"), {"run.sh": 'python train.py --data d "$@"\n'}
    ),
    Case("arguments", None, _ARGS, _with(ONE, "bash run.sh 5"), {"run.sh": "python train.py --data d --epochs $1\n"}),
    Case("missing-script", None, "pass\n", _with(ONE, "cd sub && python other.py"), {"sub/other.py": "pass\n"}),
    Case("missing-script", None, "pass\n", _with(ONE, "python -m pkg.main"), {"pkg/main.py": "pass\n"}),
    Case(
        "missing-script",
        "warning",
        "pass\n",
        _with(ONE, "python -m pkg.mian"),
        {"pkg/__init__.py": "", "pkg/main.py": ""},
    ),
    Case("missing-script", None, "pass\n", _with(ONE, "python pkg"), {"pkg/__main__.py": "pass\n"}),
    Case("missing-script", None, "pass\n", _with(ONE, "bash run"), {"run": "echo\n"}),
]
