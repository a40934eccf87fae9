"""`lightning` learns in the world of its job, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported, submit_here

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "lightning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("lightning", tmp_path_factory.mktemp("lightning"))


def test_it_learns_in_the_world_of_the_job(run: LocalRun) -> None:
    said = [next(x for x in log_of(run, rank).splitlines() if x.startswith("rank ")) for rank in range(4)]

    assert said == [
        f"rank {rank} of 4, {rank % 2} on node {rank // 2}, on cpu: begins after epoch 0" for rank in range(4)
    ]
    assert reported(run, "test_accuracy")[-1] >= 0.95
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [8, 0, 0, 0]
    assert set(run.metrics()) >= {"loss", "images_per_second", "test_accuracy"}


def test_it_goes_on_from_a_checkpoint(run: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("lightning", epochs=9), run.outputs["model"])

    later = Local(root=tmp_path).submit(job).wait(timeout=120)

    assert "begins after epoch 8" in log_of(later, 3)
    assert len(reported(later, "loss")) == 1
