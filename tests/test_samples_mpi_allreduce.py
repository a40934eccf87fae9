"""`mpi_allreduce` learns under a real mpirun what one process would, and measures its messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, place_of, reported, script, submit_here

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("mpi4py")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("mpi_allreduce", tmp_path_factory.mktemp("mpi"))


def test_it_learns_in_a_world_that_mpi_made(run: LocalRun) -> None:
    assert [place_of(run, rank) for rank in range(4)] == [f"rank {rank} of 4" for rank in range(4)]
    assert reported(run, "test_accuracy")[0] >= 0.95
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [6, 0, 0, 0]
    assert set(run.metrics()) >= {"loss", "images_per_second", "test_accuracy"}


def test_one_process_comes_to_the_same_loss(run: LocalRun, tmp_path: Path) -> None:
    ended = script("mpi_allreduce", "train.py", root=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert f"loss {reported(run, 'loss')[-1]:.4g}" in ended.stdout


def test_allreduces_are_measured(run: LocalRun) -> None:
    assert [line.split(":")[0] for line in log_of(run, 0).splitlines()[-3:]] == [
        "allreduce of 0.1 MB",
        "allreduce of 1 MB",
        "allreduce of 4 MB",
    ]


def test_it_goes_on_from_a_checkpoint(run: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("mpi_allreduce", steps=350), run.outputs["model"])

    later = Local(root=tmp_path).submit(job).wait(timeout=120)

    assert "resumes after step 300" in log_of(later, 0)
    assert reported(later, "loss")[0] < reported(run, "loss")[-1]
