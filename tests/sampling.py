"""Runs samples for tests as their users do, and reads what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from running import log_of

from azml_dist import Input, Job
from azml_dist.local.find import find
from azml_dist.local.run import LocalRun

SAMPLES = Path(__file__).parents[1] / "samples"
NAMES = sorted(file.parent.name for file in SAMPLES.glob("*/train.py"))


def submit_here(sample: str, root: Path, *args: str, gpu: bool = False, timeout: float = 180) -> LocalRun:
    """`python submit.py --local` of a sample, to its good end; on the CPU, unless told otherwise."""
    ended = script(sample, "submit.py", "--local", *args, root=root, gpu=gpu, timeout=timeout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [name] = re.findall(r"^run (\S+): file:", ended.stderr, re.MULTILINE)
    run = find(name, root)
    assert run
    return run


def train_alone(sample: str, folder: Path, *args: str | Path) -> str:
    """`python train.py` of a sample, to its good end; what it printed. It leaves its checkpoint in `folder`/outputs."""
    ended = script(sample, "train.py", *args, root=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def script(
    sample: str, file: str, *args: str | Path, root: Path, gpu: bool = False, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """A script of a sample, run by itself: without any variable that a run sets, and with a home of its own."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "MLFLOW_"))}
    env = outside | {"HOME": str(root), "AZML_DIST_ROOT": str(root)} | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})
    argv = [sys.executable, str(SAMPLES / sample / file), *map(str, args)]
    return subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, timeout=timeout, check=False)


def job_of(sample: str, file: str = "job.yml", **inputs: Any) -> Job:
    """A sample's job with other inputs. One that it does not have, as the path of data, is for further arguments."""
    job = Job.load(SAMPLES / sample / file)
    return job.with_(inputs={**job.inputs, **inputs})


def going_on_from(job: Job, folder: Path) -> Job:
    """The job with an earlier run's output as a further input, as the READMEs say it is written."""
    command = f"{job.shell_command} --resume-from ${{{{inputs.earlier}}}}"
    return job.with_(command=command, inputs={**job.inputs, "earlier": Input(path=str(folder))})


def reported(run: LocalRun, name: str, rank: int = 0) -> list[float]:
    """The values of a metric, in the order in which that rank printed them."""
    return values(log_of(run, rank), name)


def values(printed: str, name: str) -> list[float]:
    """The values of a metric in what was printed."""
    return [float(value) for value in re.findall(rf"\b{name} (-?[\d.]+(?:e[-+]\d+)?)", printed)]


def place_of(run: LocalRun, rank: int) -> str:
    """What a process says of its place in the world, as `rank 3 of 4`."""
    found = re.search(r"^rank \d+ of \d+", log_of(run, rank), re.MULTILINE)
    assert found, log_of(run, rank)
    return found[0]


@cache
def job_files() -> Mapping[str, Any]:
    """Every job file of every sample as YAML, by its path below samples/."""
    files = sorted(SAMPLES.glob("*/job*.yml"))
    return {str(file.relative_to(SAMPLES)): yaml.safe_load(file.read_text()) for file in files}
