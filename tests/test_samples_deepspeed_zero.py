"""`deepspeed_zero` learns with its optimizer split over 2 nodes x 2 processes, under torchrun and under mpirun."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported, submit_here

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "deepspeed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, torch_extensions: str) -> LocalRun:
    return submit_here("deepspeed_zero", tmp_path_factory.mktemp("zero"), timeout=600)


def test_each_process_keeps_a_quarter_of_the_optimizer_state(run: LocalRun) -> None:
    for rank in range(4):
        assert f"rank {rank} of 4 on cpu: optimizer state for 75,268 of 301,066 weights" in log_of(run, rank)


def test_it_learns(run: LocalRun) -> None:
    assert reported(run, "test_accuracy")[0] >= 0.9
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [8, 0, 0, 0]
    assert set(run.metrics()) >= {"loss", "images_per_second", "test_accuracy"}


def test_it_goes_on_from_a_checkpoint(run: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("deepspeed_zero", epochs=9), run.outputs["model"])

    later = Local(root=tmp_path).submit(job).wait(timeout=600)

    assert "resumes after epoch 8" in log_of(later, 0)
    assert reported(later, "loss")[0] < reported(run, "loss")[0] / 10


@needs("mpi4py")
def test_it_learns_the_same_under_mpirun(run: LocalRun, tmp_path: Path) -> None:
    job = job_of("deepspeed_zero", "job-mpi.yml", epochs=1)

    there = Local(root=tmp_path).submit(job).wait(timeout=600)

    assert reported(there, "loss") == pytest.approx(reported(run, "loss")[:1], rel=1e-3)
