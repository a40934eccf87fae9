"""Ways to the same mistakes that are less often seen: stores, names for variables, packages as scripts, other files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azml_dist import Output
from scriptscore.cases import LAUNCHED, MPI, ONE, TORCH, Case
from scriptscore.idioms import RANKS

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
_MASTERS += [
    _case(
        "master-on-every-node",
        "warning",
        "import utils.misc as misc\nfor _ in range(1):\n    misc.setup()\n",
        TORCH,
        others={"utils/misc.py": _GROUP + "def setup():\n    os.environ['MASTER_ADDR'] = 'localhost'\n"},
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
    _reading(
        None,
        "import os, sys\nimport torch.distributed as dist\ntry:\n    size = int(os.environ['WORLD_SIZE'])\n"
        "except KeyError:\n    sys.exit('start it with torchrun')\ndist.init_process_group('nccl')\n",
    ),
    _reading(
        "warning",
        "import os\nimport torch.distributed as dist\ntry:\n    size = int(os.environ['WORLD_SIZE'])\n"
        "except KeyError:\n    size = 1\nfor _ in range(1):\n    dist.init_process_group('nccl')\n",
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


def _writing(level: str | None, script: str, job: dict[str, Any] = TORCH, command: str = "python train.py") -> Case:
    return _case("saved-by-every-rank", level, RANKS + script, job, command)


_TO_AN_OUTPUT = {**TORCH, "outputs": {"model": Output()}}
_OUT = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--output_dir')\nargs = p.parse_args()\n"
_FLAG = (
    "import argparse\np = argparse.ArgumentParser()\np.add_argument('--export', action='store_true')\n"
    "p.add_argument('--train', action='store_true')\np.add_argument('--mode', default='fit')\nargs = p.parse_args()\n"
)
_WITH_OUT = "python train.py --output_dir ${{outputs.model}}"
_SAFE = "from safetensors.torch import save_file, save_model\n"
_JSON = "import json\nfrom pathlib import Path\n"
_LOG = "class Log:\n    def __init__(self, path):\n        self.file = open(path, 'w')\n"
_FILES = [
    _writing("warning", _SAFE + "save_file(model.state_dict(), 'outputs/model.safetensors')\n"),
    _writing("warning", _SAFE + "save_model(model, filename='model.safetensors')\n"),
    _writing("warning", _SAFE + "for epoch in range(2):\n    save_file({}, f'outputs/epoch-{epoch}.safetensors')\n"),
    _writing("warning", _JSON + "with open('outputs/metrics.json', 'w') as f:\n    json.dump({'loss': 1}, f)\n"),
    _writing("warning", _JSON + "Path('outputs/metrics.json').write_text(json.dumps({'loss': 1}))\n"),
    _writing("warning", _JSON + "out = Path('outputs')\nwith (out / 'log.txt').open('w') as f:\n    f.write('x')\n"),
    _writing(
        "warning", _JSON + "def dump(to):\n    with open(to, 'w') as f:\n        json.dump({}, f)\ndump('outputs/a')\n"
    ),
    _writing("warning", "import numpy as np\nnp.save('outputs/losses.npy', [1])\n"),
    _writing("warning", "import numpy as np\nnp.savez(os.path.join('outputs', 'a.npz'), x=[1])\n"),
    _writing("warning", "import pandas as pd\npd.DataFrame([1]).to_csv('./outputs/losses.csv')\n"),
    _writing("warning", _LOG + "log = Log('outputs/log.txt')\n"),
    _writing(
        "warning",
        _OUT + "with open(os.path.join(args.output_dir, 'config.txt'), 'w') as f:\n    f.write(str(args))\n",
        _TO_AN_OUTPUT,
        _WITH_OUT,
    ),
    _writing(
        "warning",
        _JSON + "out = Path(os.environ['AZURE_ML_OUTPUT_model'])\n(out / 'config.txt').write_text('x')\n",
        _TO_AN_OUTPUT,
    ),
    _writing(
        "warning",
        "class Log:\n    def __init__(self, folder):\n        self.path = os.path.join(folder, 'log.txt')\n"
        "    def write(self, text):\n        with open(self.path, 'w') as f:\n            f.write(text)\n"
        "log = Log('outputs')\nlog.write('a')\n",
    ),
    _writing(
        "warning",
        _SAFE + "def save(step):\n    path = os.path.join('outputs', f'{step}.safetensors')\n    save_file({}, path)\n"
        "def main():\n    step = 0\n    for batch in range(3):\n        step += 1\n    save(step)\nmain()\n",
    ),
    # For one rank only.
    _writing(None, _SAFE + "if rank == 0:\n    save_file(model.state_dict(), 'outputs/model.safetensors')\n"),
    _writing(None, _SAFE + "save_file(model.state_dict(), f'outputs/model-{rank:05d}-of-{world:05d}.safetensors')\n"),
    _writing(
        None,
        _SAFE + "def save(path):\n    if rank != 0:\n        return\n    save_file({}, path)\nsave('outputs/m')\n",
    ),
    _writing(
        None,
        _JSON + "def is_main_process():\n    return dist.get_rank() == 0\nif is_main_process():\n"
        "    with open('outputs/metrics.json', 'w') as f:\n        json.dump({'loss': 1}, f)\n",
    ),
    _writing(None, _JSON + "log = open('outputs/log.txt', 'w') if rank == 0 else open(os.devnull, 'w')\n"),
    _writing(None, _LOG + "log = Log('outputs/log.txt') if rank == 0 else None\n"),
    _writing(
        None,
        "class Log:\n    def __init__(self, path, enabled):\n        self.enabled = enabled\n        if self.enabled:\n"
        "            self.file = open(path, 'w')\nlog = Log('outputs/log.txt', enabled=rank == 0)\n",
    ),
    _writing(
        None,
        "class Log:\n    def write(self, text):\n        open('outputs/log.txt', 'w').write(text)\n"
        "class Quiet:\n    def write(self, text):\n        pass\n"
        "log = Log() if rank == 0 else Quiet()\nlog.write('a')\n",
    ),
    _writing(
        None,
        "def dump(path, write):\n    if write:\n        open(path, 'w').write('a')\n"
        "dump('outputs/a.txt', write=not rank)\n",
    ),
    _writing(
        None,
        "import functools\ndef once(function):\n    @functools.wraps(function)\n    def inner(*args):\n"
        "        if dist.get_rank() == 0:\n            function(*args)\n    return inner\n"
        "@once\ndef dump(text):\n    open('outputs/a.txt', 'w').write(text)\ndump('a')\n",
    ),
    _writing(
        None,
        "import threading\ndef dump(path='outputs/a.txt'):\n    open(path, 'w').write('a')\n"
        "if rank == 0:\n    threading.Thread(target=dump).start()\n",
    ),
    _writing(
        None,
        _JSON + "def evaluate():\n    parts = [None] * world if rank == 0 else None\n    dist.gather_object(1, parts)\n"
        "    if rank != 0:\n        return None\n    return sum(parts)\nresult = evaluate()\nif result is not None:\n"
        "    Path('outputs/result.txt').write_text(str(result))\n",
    ),
    _writing(
        None,
        "profiler = None\nif rank == 0:\n    profiler = torch.profiler.profile()\nif profiler:\n"
        "    open('outputs/trace.txt', 'w').write('a')\n",
    ),
    _writing(
        None,
        "def first(function, *args):\n    if dist.get_rank() == 0:\n        function(*args)\n"
        "def dump(path):\n    open(path, 'w').write('a')\nfirst(dump, 'outputs/a.txt')\n"
        "first(lambda: open('outputs/b.txt', 'w').write('a'))\n",
    ),
    _writing(
        "warning",
        "def run(function, *args):\n    function(*args)\n"
        "def dump():\n    open('outputs/a.txt', 'w').write('a')\nrun(dump)\n",
    ),
    # Other names for a rank.
    _writing(None, "me = dist.get_rank()\nif me == 0:\n    torch.save(model, 'outputs/m.pt')\n"),
    _writing(None, "me, of = dist.get_rank(), 8\nif not me:\n    torch.save(model, 'outputs/m.pt')\n"),
    _writing(None, "me, of = dist.get_rank(), 8\nopen(f'outputs/{me}.txt', 'w').write('a')\n"),
    _writing(
        None,
        "def setup():\n    return dist.get_rank(), dist.get_world_size()\nme, of = setup()\nif me == 0:\n"
        "    torch.save(model, 'outputs/m.pt')\n",
    ),
    _writing(
        None,
        "def lead():\n    return dist.get_rank() == 0\nif lead():\n    torch.save(model, 'outputs/m.pt')\n",
    ),
    _writing(
        None,
        "class Run:\n    def __init__(self):\n        self.id = dist.get_rank()\n    @property\n    def first(self):\n"
        "        return self.id == 0\nrun = Run()\nif run.first:\n    torch.save(model, 'outputs/m.pt')\n"
        "if run.id == 0:\n    torch.save(model, 'outputs/n.pt')\n",
    ),
    _writing(
        None,
        "def part(folder):\n    return os.path.join(folder, f'{dist.get_rank()}.pt')\n"
        "torch.save(model, part('outputs'))\n",
    ),
    _writing(
        "warning",
        "def train(r):\n    print(r)\n    return 1.0\nloss = train(rank)\nbest = 9\nif loss < best:\n"
        "    torch.save(model, 'outputs/m.pt')\n",
    ),
    _writing("warning", "def name():\n    return 'outputs/m.pt'\ntorch.save(model, name())\n"),
    # What the job does not ask for.
    _writing(None, _FLAG + "if args.export:\n    torch.save(model, 'outputs/m.pt')\n"),
    _writing(
        None, _FLAG + "if not args.train:\n    torch.save(model, 'outputs/m.pt')\n", TORCH, "python train.py --train"
    ),
    _writing(
        None, _FLAG + "def main():\n    torch.save(model, 'outputs/m.pt')\nif args.mode == 'export':\n    main()\n"
    ),
    _writing(None, _FLAG + "if args.train:\n    pass\nelif args.export:\n    torch.save(model, 'outputs/m.pt')\n"),
    _writing("warning", _FLAG + "if args.export:\n    torch.save(model, 'm')\n", TORCH, "python train.py --export"),
    _writing("warning", _FLAG + "if args.mode != 'export':\n    torch.save(model, 'outputs/m.pt')\n"),
    _writing("warning", _FLAG + "args.export = True\nif args.export:\n    torch.save(model, 'outputs/m.pt')\n"),
    _writing("warning", _FLAG + "if args.export or world > 1:\n    torch.save(model, 'outputs/m.pt')\n"),
    # One after the other.
    _writing(
        None,
        "from filelock import FileLock\nwith FileLock('outputs/.lock'):\n    open('outputs/a.txt', 'w').write('a')\n",
    ),
    _writing(
        None,
        "import fcntl\ndef dump():\n    with open('outputs/a.txt', 'w') as f:\n        fcntl.flock(f, fcntl.LOCK_EX)\n"
        "        f.write('a')\ndump()\n",
    ),
    # A path of each rank.
    _writing(None, _JSON + "with open(f'outputs/metrics-{rank}.json', 'w') as f:\n    json.dump({}, f)\n"),
    _writing(None, "import numpy as np\nfor i in range(rank, 100, world):\n    np.save(f'outputs/{i}.npy', [i])\n"),
    _writing(
        None,
        "loader = DataLoader(range(9), sampler=DistributedSampler(range(9), shuffle=False))\n"
        "for name in loader:\n    open(f'outputs/{name}.txt', 'w').write('x')\n",
    ),
    _writing(None, "def dump(path):\n    open(path, 'w').write('a')\ndump(f'outputs/{rank}.txt')\n"),
    _writing(None, "def dump(path):\n    torch.save({}, path)\ndump(f'outputs/{rank}.pt')\n"),
    _writing(
        None,
        _OUT + "args.output_dir = os.path.join(args.output_dir, f'rank{rank}')\n"
        "open(os.path.join(args.output_dir, 'log.txt'), 'w').write('a')\ntorch.save({}, args.output_dir + '/m.pt')\n",
        _TO_AN_OUTPUT,
        _WITH_OUT,
    ),
    _writing(None, "import socket\nopen(f'outputs/{socket.gethostname()}-{os.getpid()}.txt', 'w').write('a')\n"),
    _writing(
        None,
        "def add(path, deep):\n    path = os.path.join(path, 'a')\n    open(path, 'w').write('a')\n"
        "    add(path, deep)\nadd('outputs', rank)\n",
    ),
    _writing(
        "warning",
        "class Trainer:\n    def save(self):\n        def write(path):\n            torch.save({}, path)\n"
        "        write('outputs/m.pt')\nTrainer().save()\n",
    ),
    _writing(
        None,
        "class Trainer:\n    def save(self):\n        def write(path):\n            torch.save({}, path)\n"
        "        write('outputs/m.pt')\ntrainer = Trainer()\nif rank == 0:\n    trainer.save()\n",
    ),
    _writing(
        None,
        "def save():\n    if rank == 0:\n        def write(path):\n            torch.save({}, path)\n"
        "        later.append(write)\nlater = []\nsave()\n",
    ),
    _writing(None, "class Saver:\n    def save(self, path):\n        torch.save({}, path)\n"),
    _writing(
        None,
        "class Clips(torch.utils.data.Dataset):\n    def __getitem__(self, i):\n        path = f'data/{i}.pt'\n"
        "        if os.path.exists(path):\n            return torch.load(path)\n        torch.save([i], path)\n"
        "        return [i]\nprint(Clips()[0])\n",
    ),
    _writing(
        None,
        "class Clips(torch.utils.data.Dataset):\n    def __getitem__(self, i):\n        path = f'data/{i}.pt'\n"
        "        if not os.path.isfile(path):\n            torch.save([i], path)\n        return torch.load(path)\n"
        "print(Clips()[0])\n",
    ),
    # Not whole files, not outputs, or not certain.
    _writing(None, "open('outputs/log.txt', 'a').write(f'{rank}: begun')\n"),
    _writing(None, "open('/tmp/begun', 'w').write('x')\nprint(open('outputs/x').read())\n"),
    _writing(None, "if not os.path.exists('outputs/config.txt'):\n    open('outputs/config.txt', 'w').write('x')\n"),
    _writing(None, "if world == 1:\n    open('outputs/config.txt', 'w').write('x')\n"),
    _case("saved-by-every-rank", None, "open('outputs/a.txt', 'w').write('x')\n", TORCH),
    _case(
        "saved-by-every-rank",
        None,
        RANKS.replace("world =", "from accelerate import Accelerator\nworld =")
        + "open('outputs/a.txt', 'w').write('x')\n",
        TORCH,
    ),
]


_CLI = "from lightning.pytorch.cli import LightningCLI\n"
_MAIN = _CLI + "def main():\n    cli = LightningCLI(Model, Data, save_config_callback=None)\nmain()\n"
_OWN = _CLI + "class CLI(LightningCLI):\n    def add_arguments_to_parser(self, parser):\n"


def _cli(level: str | None, arguments: str, script: str = _MAIN, config: str = "", job: dict[str, Any] = TORCH) -> Case:
    files = {"conf/a.yaml": config} if config else None
    return _case("trainer-counts", level, script, job, f"python train.py {arguments}", files)


_COMMAND_LINES = [
    _cli("error", "fit --trainer.devices 4 --trainer.num_nodes 1"),
    _cli("error", "fit --trainer.devices=2 --trainer.num_nodes=2"),
    _cli("error", "fit --trainer.devices 8 --trainer.num_nodes $AZUREML_NODE_COUNT --trainer.num_nodes 2"),
    _cli("error", "fit --trainer.strategy ddp"),
    _cli("error", "fit --config conf/a.yaml", config="trainer:\n  devices: 4\n  num_nodes: 4\n"),
    _cli("error", "--config conf/a.yaml fit", config="fit:\n  trainer: {devices: [0, 1], num_nodes: 2}\n"),
    _cli("error", "fit -c conf/a.yaml --trainer.devices 2", config="trainer: {devices: 4, num_nodes: 2}\n"),
    _cli("error", "fit", _CLI + "LightningCLI(trainer_defaults={'devices': 4, 'strategy': 'fsdp'})\n"),
    _cli("error", "fit --trainer.devices 4", _OWN + "        parser.add_argument('--x')\ncli = CLI()\n"),
    _cli("warning", "fit --trainer.devices 1"),
    _cli("warning", "fit"),
    _cli(None, "fit --trainer.devices 4 --trainer.num_nodes 2"),
    _cli(None, "fit --trainer.devices auto --trainer.num_nodes=2"),
    _cli(None, "fit --trainer.devices 0,1,2,3 --trainer.num_nodes $AZUREML_NODE_COUNT"),
    _cli(None, "fit --config conf/a.yaml", config="trainer:\n  devices: -1\n  num_nodes: 2\n  strategy: ddp\n"),
    _cli(None, "--config conf/a.yaml fit", config="fit:\n  trainer: {devices: 4, num_nodes: 2}\n"),
    _cli(None, "fit --config conf/a.yaml --trainer.num_nodes 2", config="trainer: {devices: 4, num_nodes: 8}\n"),
    _cli(None, "fit --config conf/a.yaml --trainer.num_nodes 2", config="trainer: trainer.yaml\n"),
    _cli(None, "fit --config conf/a.yaml", config="trainer: {num_nodes: '${oc.env:AZUREML_NODE_COUNT}'}\n"),
    _cli(None, "fit --config conf/a.yaml", config="[not, a, mapping]\n"),
    _cli(None, "fit --config conf/other.yaml"),
    _cli(None, "fit $ARGUMENTS"),
    _cli(None, "fit --print_config"),
    _cli(None, "fit", _OWN + "        parser.set_defaults({'trainer.num_nodes': 2})\ncli = CLI()\n"),
    _cli(None, "fit", _CLI + "LightningCLI(parser_kwargs={'default_config_files': ['a.yaml']})\n"),
    _cli(None, "fit", _CLI + "import sys\nLightningCLI(args=sys.argv[1:] + ['--trainer.num_nodes=2'])\n"),
    _cli(None, "fit", _CLI + "LightningCLI(trainer_defaults={'devices': 4, 'num_nodes': 2})\n"),
    _cli(None, "fit --trainer.devices 4", job={"instance_type": "Standard_NC24s_v3"}),
]

FURTHER = [*_MASTERS, *_ENTRIES, *_VARIABLES, *_FILES, *_COMMAND_LINES]
