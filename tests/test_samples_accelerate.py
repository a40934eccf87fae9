"""`accelerate` learns in the world of its job, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, place_of, reported, submit_here

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "accelerate")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("accelerate", tmp_path_factory.mktemp("accelerate"))


def test_it_learns_in_the_world_of_the_job(run: LocalRun) -> None:
    assert [place_of(run, rank) for rank in range(4)] == [f"rank {rank} of 4" for rank in range(4)]
    assert all("12 batches" in log_of(run, rank) for rank in range(4))
    assert reported(run, "test_accuracy")[-1] >= 0.95
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [8, 0, 0, 0]
    assert set(run.metrics()) >= {"loss", "images_per_second", "test_accuracy"}


def test_it_goes_on_from_a_checkpoint(run: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("accelerate", epochs=9), run.outputs["model"])

    later = Local(root=tmp_path).submit(job).wait(timeout=120)

    assert "resumes after epoch 8" in log_of(later, 0)
    assert reported(later, "loss")[0] < reported(run, "loss")[0] / 10
