"""Ways to the same mistakes that are less often seen: stores, names for variables, packages as scripts, other files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scriptscore.cases import LAUNCHED, MPI, ONE, TORCH, Case

_GROUP = "import os\nimport torch\nimport torch.distributed as dist\n"
_RANKED = _GROUP + "rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"


def _case(
    code: str,
    level: str | None,
    script: str,
    job: dict[str, Any],
    command: str = "python train.py",
    others: Mapping[str, str] | None = None,
) -> Case:
    return Case(code, level, script, {**job, "command": command}, dict(others or {}))


def _meeting(level: str | None, script: str, job: dict[str, Any] = TORCH) -> Case:
    return _case("master-on-every-node", level, _RANKED + script, job)


_MASTERS = [
    _meeting("error", "store = dist.TCPStore('localhost', 29500, world, rank == 0)\n"),
    _meeting(
        "error",
        "store = dist.TCPStore(host_name='127.0.0.1', port=1234, world_size=world, is_master=(rank == 0))\n"
        "dist.init_process_group('gloo', store=store, rank=rank, world_size=world)\n",
    ),
    _meeting(
        "error",
        "s = dist.FileStore('/tmp/store', world)\ndist.init_process_group('gloo', store=s, rank=rank, world_size=8)\n",
    ),
    _meeting(
        "error",
        "dist.init_process_group('gloo', store=dist.FileStore('/dev/shm/a', world), rank=rank, world_size=world)\n",
    ),
    _meeting("error", "dist.init_process_group('gloo', init_method='file:///tmp/meet', rank=rank, world_size=world)\n"),
    _meeting(
        "error",
        "HOST = 'localhost'\nURL = 'tcp://{}:{}'.format(HOST, 29500)\n"
        "dist.init_process_group('gloo', init_method=f'tcp://{HOST}:29500', rank=rank, world_size=world)\n",
    ),
    _meeting(
        "error",
        "PORT = 29500\n"
        "dist.init_process_group('gloo', 'tcp://{}:{}'.format('127.0.0.1', PORT), rank=rank, world_size=world)\n",
    ),
    _meeting("error", "import deepspeed\ndeepspeed.init_distributed(init_method='tcp://localhost:29500')\n"),
    _meeting(
        "warning",
        "def setup(distributed):\n    if distributed:\n"
        "        dist.init_process_group('nccl', 'tcp://127.0.0.1:1', rank=rank, world_size=world)\nsetup(True)\n",
    ),
    _meeting(
        "warning",
        "def setup():\n    if 'RANK' not in os.environ:\n        return\n"
        "    dist.init_process_group('nccl', 'tcp://127.0.0.1:1', rank=rank, world_size=world)\nsetup()\n",
    ),
    # For the ranks of one node.
    _meeting(
        None,
        "local = int(os.environ['LOCAL_RANK'])\nstore = dist.TCPStore('localhost', 29501, 4, local == 0)\n",
    ),
    _meeting(
        None,
        "local = int(os.environ['LOCAL_RANK'])\nlocal_world = 4\n"
        "store = dist.TCPStore('localhost', 29501, local_world, is_master=local == 0)\n",
    ),
    _meeting(None, "store = dist.TCPStore(os.environ['MASTER_ADDR'], 29501, world, rank == 0)\n"),
    _meeting(None, "store = dist.TCPStore('localhost', 0, is_master=True)\n"),
    _meeting(None, "store = dist.TCPStore('localhost', 29500, world, rank == 0)\n", {**TORCH, "node_count": 1}),
    _meeting(None, "cache = dist.FileStore('/tmp/cache', 4)\ncache.set('a', 'b')\n"),
    _meeting(
        None,
        "import sys\nshared = sys.argv[1]\n"
        "dist.init_process_group('gloo', init_method=f'file://{shared}/meet', rank=rank, world_size=world)\n",
    ),
    # For a single process, without a launcher.
    _meeting(
        None,
        "if 'RANK' in os.environ:\n    dist.init_process_group('nccl')\nelse:\n"
        "    dist.init_process_group('nccl', init_method='tcp://localhost:1234', rank=0, world_size=1)\n",
    ),
    _meeting(
        None,
        "def setup():\n    if int(os.environ.get('WORLD_SIZE', 1)) > 1:\n        dist.init_process_group('nccl')\n"
        "        return\n    dist.init_process_group('gloo', 'file:///tmp/one', rank=0, world_size=world)\nsetup()\n",
    ),
    _meeting(
        None,
        "try:\n    dist.init_process_group('nccl')\nexcept ValueError:\n"
        "    dist.init_process_group('gloo', 'tcp://localhost:1', rank=rank, world_size=world)\n",
    ),
    _meeting(
        None,
        "import sys\ndebug = '--debug' in sys.argv\nurl = 'env://'\nif debug:\n"
        "    dist.init_process_group('gloo', 'tcp://localhost:1', rank=rank, world_size=world)\n"
        "else:\n    dist.init_process_group('nccl')\n",
    ),
]

_READS = "import os\nrank = int(os.environ['RANK'])\n"
_MPIS = "import os\nrank = int(os.environ['OMPI_COMM_WORLD_RANK'])\n"
_X = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--x')\nargs = p.parse_args()\n"
_OURS = "from setup import *\n"
_ENTRIES = [
    _case("variable-not-set", "error", "", MPI, "python trainer --epochs 3", {"trainer/__main__.py": _READS}),
    _case("variable-not-set", "error", "", MPI, "python ./trainer/", {"trainer/__main__.py": _READS}),
    _case("variable-not-set", "error", "", MPI, "python .", {"__main__.py": _READS}),
    _case("variable-not-set", "error", "", MPI, "cd src && python .", {"src/__main__.py": _READS}),
    _case(
        "variable-not-set",
        "warning",
        "",
        MPI,
        "python -m trainer",
        {"trainer/__init__.py": "", "trainer/__main__.py": "from trainer import run\n", "trainer/run.py": _READS},
    ),
    _case(
        "variable-not-set",
        "warning",
        "",
        MPI,
        "python trainer",
        {"trainer/__main__.py": _OURS, "trainer/setup.py": _READS},
    ),
    _case(
        "variable-not-set", "error", "", LAUNCHED, "torchrun --nproc-per-node 4 trainer", {"trainer/__main__.py": _MPIS}
    ),
    _case("arguments", "error", "", ONE, "python trainer --y 1", {"trainer/__main__.py": _X}),
    _case("arguments", "error", "", ONE, "python -m trainer.fit --y 1", {"trainer/fit/__main__.py": _X}),
    _case("missing-script", "error", "", ONE, "python trainer", {"trainer/main.py": ""}),
    _case("missing-script", "warning", "", ONE, "python -m trainer", {"trainer/__init__.py": ""}),
    _case("arguments", None, "", ONE, "python trainer --x 1", {"trainer/__main__.py": _X}),
    _case("arguments", None, "", ONE, "python -m trainer --x 1", {"trainer/__main__.py": _X}),
    _case("missing-script", None, "", ONE, "python app.pyz", {"app.pyz": ""}),
    _case("missing-script", None, "", ONE, "python -m pytest tests", {"tests/test_a.py": ""}),
    _case("missing-script", None, "", ONE, "make trainer && python trainer", {"trainer/main.py": ""}),
]


def _reading(level: str | None, script: str, job: dict[str, Any] = MPI, **others: str) -> Case:
    files = {f"{name}.py": text for name, text in others.items()}
    return _case("variable-not-set", level, script, job, others=files)


_LOCAL_SIZE = "import os\nn = os.environ.get('LOCAL_WORLD_SIZE')\n"
_VARIABLES = [
    # The value is used later, or by another name.
    _reading("error", "from os import environ\nr = environ.get('RANK')\nrank = int(r)\n"),
    _reading("error", "from os import getenv\nr = getenv('RANK')\nprint(r)\nrank = int(r)\n"),
    _reading("error", "import os\ndef main():\n    r = os.getenv('RANK', None)\n    print(int(r) == 0)\nmain()\n"),
    _reading(
        "error", "import os, json\nconfig = os.environ.get('TF_CONFIG')\ntask = json.loads(config)['task']\n", TORCH
    ),
    _reading("error", _LOCAL_SIZE + "per_node = int(n)\n", TORCH),
    _reading("error", "import os\nprint(int(r := os.environ['RANK']))\n"),
    _reading("error", "import os\nprint(r := os.environ.get('RANK'))\nrank = int(r)\n"),
    _reading("error", "from os import environ as e, getenv as g\nrank, size = int(e['RANK']), int(g('WORLD_SIZE'))\n"),
    _reading("error", "import os\nenv = dict(os.environ)\nrank = int(env['RANK'])\n"),
    _reading("error", "import os\nenv = os.environ.copy()\nrank = int(env.get('RANK'))\n"),
    _reading("error", "import os\nrank = int(os.environ.pop('RANK'))\n"),
    _reading(
        "error",
        "import os\ndef env_int(name):\n    return int(os.environ[name])\n"
        "def main():\n    rank = env_int('RANK')\nmain()\n",
    ),
    _reading(
        "error",
        "from lib import env\nrank = int(env(name='RANK'))\n",
        lib="import os\ndef env(name):\n    return os.environ[name]\n",
    ),
    # Defaults.
    _reading("error", "import os\ndef main(rank=int(os.environ['RANK'])):\n    print(rank)\nmain()\n"),
    _reading("error", "import os\nclass Config:\n    rank = int(os.environ['RANK'])\n"),
    _reading(
        "warning",
        "import os\nfrom dataclasses import dataclass, field\n@dataclass\nclass Config:\n"
        "    rank: int = field(default_factory=lambda: int(os.environ['RANK']))\nconfig = Config()\n",
    ),
    # Loops.
    _reading("warning", "import os\nfor key in ('RANK', 'WORLD_SIZE'):\n    print(key, os.environ[key])\n"),
    _reading("warning", "import os\nKEYS = ['RANK', 'WORLD_SIZE']\nfound = {k: os.environ[k] for k in KEYS}\n"),
    # Tests of the value, and what sets it.
    _reading(None, "from os import environ\nr = environ.get('RANK')\nrank = int(r) if r else 0\n"),
    _reading(None, "from os import environ\nr = environ.get('RANK')\nif r is not None:\n    rank = int(r)\n"),
    _reading(None, "from os import environ\nr = environ.get('RANK')\nif r is None:\n    r = '0'\nrank = int(r)\n"),
    _reading(None, "import os\nr = os.environ.get('RANK')\nrank = int(r or 0)\n"),
    _reading(
        None, "import os\nr = os.environ.get('RANK')\nr = r or os.environ['OMPI_COMM_WORLD_RANK']\nrank = int(r)\n"
    ),
    _reading(
        None,
        "import os, sys\ndef main():\n    r = os.environ.get('RANK')\n    if not r:\n        sys.exit('no rank')\n"
        "    print(int(r))\nmain()\n",
    ),
    _reading(
        None,
        "import os\ndef check(value):\n    if value is None:\n        raise SystemExit('start it with torchrun')\n"
        "r = os.environ.get('RANK')\ncheck(value=r)\nrank = int(r)\n",
    ),
    _reading(None, "import os\nif (r := os.environ.get('RANK')) is not None:\n    rank = int(r)\n"),
    _reading(None, "import os\nrank = int(r) if (r := os.environ.get('RANK')) else 0\n"),
    _reading(
        None, "import os\ntry:\n    r = os.environ.get('RANK')\n    rank = int(r)\nexcept TypeError:\n    rank = 0\n"
    ),
    _reading(
        None, "import os, sys\nif 'RANK' not in os.environ:\n    sys.exit('torchrun')\nrank = int(os.environ['RANK'])\n"
    ),
    _reading(
        None,
        "import os\nmine = os.environ.copy()\nmine['RANK'] = mine['OMPI_COMM_WORLD_RANK']\nrank = int(mine['RANK'])\n",
    ),
    _reading(
        None,
        "import os\nmine = dict(os.environ)\nmine.update(RANK=mine['OMPI_COMM_WORLD_RANK'])\nprint(mine['RANK'])\n",
    ),
    _reading(None, "import os\nenv = dict(os.environ, RANK='0')\nrank = int(env['RANK'])\n"),
    _reading(
        None,
        "import os\ndef env(name):\n    if name not in os.environ:\n        return None\n    return os.environ[name]\n"
        "rank = env('RANK')\n",
    ),
    _reading(
        None,
        "import os\ndef env(name):\n    return os.environ[name]\n"
        "rank = env('RANK') if 'RANK' in os.environ else env('OMPI_COMM_WORLD_RANK')\n",
    ),
    _reading(
        None,
        "import os\nreaders = {'torch': lambda: int(os.environ['RANK']),\n"
        "           'mpi': lambda: int(os.environ['OMPI_COMM_WORLD_RANK'])}\nrank = readers['mpi']()\n",
    ),
    _reading(
        None,
        "import os\nfrom dataclasses import dataclass, field\n@dataclass\nclass Config:\n"
        "    rank: int = field(default_factory=lambda: int(os.environ['RANK']))\n"
        "config = Config(rank=int(os.environ['OMPI_COMM_WORLD_RANK']))\n",
    ),
    _reading(
        None,
        "import os\nfor key in ('RANK', 'OMPI_COMM_WORLD_RANK'):\n    if key in os.environ:\n"
        "        rank = int(os.environ[key])\n",
    ),
    _reading(
        None,
        "import os\nfor key in ('RANK',):\n    try:\n        os.environ[key]\n    except KeyError:\n        pass\n",
    ),
    _reading(
        None,
        "import os\nclass Torch:\n    def rank(self, name='RANK'):\n        return int(os.environ[name])\n"
        "    size = property(lambda self: int(os.environ['WORLD_SIZE']))\n",
    ),
]

FURTHER = [*_MASTERS, *_ENTRIES, *_VARIABLES]
