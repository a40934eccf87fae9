"""What samples reach on this machine's GPUs under `azml-dist run`, against bare torchrun."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from bench.jobs import tool
from bench.measure import BenchError, Row, medians

SAMPLES = Path(__file__).parents[1] / "samples"
MEASURED: Mapping[str, Mapping[str, int]] = {"pytorch_ddp": {"epochs": 40}, "resnet50_benchmark": {"steps": 200}}
"""The samples, and inputs with which they run long enough to be measured."""


def throughput(place: Path, runs: int) -> Iterator[Row]:
    """A row for each sample if there is a CUDA device, otherwise none."""
    import torch

    if count := torch.cuda.device_count():
        device = f"{count} x {torch.cuda.get_device_name(0)}"
        for sample, inputs in MEASURED.items():
            yield row(sample, inputs, count, device, place, runs)


def row(sample: str, inputs: Mapping[str, int], processes: int, device: str, place: Path, runs: int) -> Row:
    place.mkdir(parents=True, exist_ok=True)
    found = medians(
        {
            "ours": lambda: under_azml_dist(sample, inputs, processes),
            "peer": lambda: under_torchrun(sample, inputs, processes, place),
        },
        runs,
    )
    ours, peer = found["ours"], found["peer"]
    what = f"images/s of {sample} on {device}"
    return Row(what, f"{ours:,.0f}", f"torchrun: {peer:,.0f}", ours / peer, 0.99, at_least=True)


def under_azml_dist(sample: str, inputs: Mapping[str, int], processes: int) -> float:
    world = {"node_count": 1, "distribution.process_count_per_node": processes}
    changes = {**world, **{f"inputs.{name}": value for name, value in inputs.items()}}
    settings = [word for field, value in changes.items() for word in ("--set", f"{field}={value}")]
    printed = _run([tool("azml-dist"), "run", str(SAMPLES / sample / "job.yml"), "--json", *settings])
    run = json.loads(printed)
    return images_per_second(Path(run["folder"], run["processes"][0]["log"]).read_text())


def under_torchrun(sample: str, inputs: Mapping[str, int], processes: int, place: Path) -> float:
    given = _defaults(sample) | {name: str(value) for name, value in inputs.items()}
    flags = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    output = [
        "--output",
        str(place / os.urandom(4).hex()),
    ]  # a separate folder, because samples resume from checkpoints that they find
    torchrun = [tool("torchrun"), "--standalone", "--nproc-per-node", str(processes)]
    return images_per_second(_run([*torchrun, str(SAMPLES / sample / "train.py"), *flags, *output]))


def images_per_second(printed: str) -> float:
    """The median of the figures that a script reports, without the first, which includes warming up."""
    found = [float(value) for value in re.findall(r"\bimages_per_second ([\d.]+(?:e\+\d+)?)", printed)]
    if not found:
        raise BenchError(f"no throughput in:\n{printed}")
    return median(found[1:] or found)


def _defaults(sample: str) -> dict[str, str]:
    """The inputs of the sample's job, so that both sides do the same."""
    from azml_dist import Job

    job = Job.load(SAMPLES / sample / "job.yml")
    return {name: job.literal(name) for name in job.inputs}


def _run(argv: list[str]) -> str:
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchError(f"{' '.join(argv)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return ended.stdout
