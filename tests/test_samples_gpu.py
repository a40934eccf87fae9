"""The PyTorch samples on the GPUs of this machine: NCCL, one process a GPU, and the CPU where there are too few."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import job_of, reported, submit_here

from azml_dist import Local, PyTorch
from azml_dist.local.gpus import visible_gpus

pytestmark = [pytest.mark.gpu, needs("torch", "sklearn")]


@pytest.fixture(scope="module")
def processes() -> int:
    """One for each GPU, up to as many as the samples' layers go into evenly."""
    return max(count for count in (1, 2, 4) if count <= len(visible_gpus(os.environ)))


@pytest.mark.parametrize(
    ("sample", "metric", "least"),
    [
        ("pytorch_ddp", "test_accuracy", 0.95),
        ("pytorch_fsdp", "test_accuracy", 0.92),
        ("pytorch_tensor_parallel", "test_accuracy", 0.92),
        ("pytorch_pipeline_parallel", "test_accuracy", 0.92),
        ("spot_resume", "test_accuracy", 0.95),
        ("resnet50_benchmark", "images_per_second", 1),
    ],
)
def test_it_runs_with_one_process_a_gpu(sample: str, metric: str, least: float, processes: int, tmp_path: Path) -> None:
    run = submit_here(sample, tmp_path, "--nodes", "1", "--processes", str(processes), gpu=True)

    assert reported(run, metric)[-1] >= least
    for rank in range(processes):
        first = log_of(run, rank).splitlines()[0]
        assert first.startswith(f"rank {rank} of {processes} on ")
        assert " on cpu" not in first.lower()


def test_gpt_char_runs_with_one_process_a_gpu(processes: int, tmp_path: Path) -> None:
    job = job_of("gpt_char", steps=100, tensor_parallel=processes)
    job = job.with_(node_count=1, distribution=PyTorch(process_count_per_node=processes))

    run = Local(root=tmp_path).submit(job).wait(timeout=180)

    losses = reported(run, r"step \d+: loss")
    assert f"on cuda:{processes - 1}" in log_of(run, processes - 1)
    assert losses[-1] < losses[0]


def test_a_world_larger_than_the_gpus_runs_on_the_cpu_and_says_so(tmp_path: Path) -> None:
    gpus = len(visible_gpus(os.environ))

    run = submit_here("pytorch_ddp", tmp_path, "--nodes", "1", "--processes", str(gpus + 1), gpu=True)

    assert f"rank {gpus} of {gpus + 1} on cpu" in log_of(run, gpus)
    assert run.state().findings == [f"{gpus + 1} processes on {gpus} GPU(s): this run uses the CPU"]
