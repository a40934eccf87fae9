"""`pytorch_ddp` learns as 2 nodes x 2 processes, as one process would, and goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported, submit_here, train_alone, values

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "sklearn")


class Alone(NamedTuple):
    printed: str
    checkpoint: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("pytorch_ddp", tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """One epoch of one process, in steps as large as those of four together."""
    folder = tmp_path_factory.mktemp("alone")
    return Alone(train_alone("pytorch_ddp", folder, "--epochs", "1", "--batch-size", "128"), folder / "outputs")


def test_it_recognises_at_least_95_percent_of_unseen_digits(run: LocalRun) -> None:
    [accuracy] = reported(run, "test_accuracy")

    assert accuracy >= 0.95


def test_four_processes_learn_what_one_does_though_the_last_batches_are_uneven(run: LocalRun, alone: Alone) -> None:
    assert "353 images in 12 batches" in log_of(run, 3)
    assert "1409 images in 12 batches" in alone.printed
    assert reported(run, "loss")[:1] == pytest.approx(values(alone.printed, "loss"), rel=0.01)


def test_a_run_goes_on_from_the_checkpoint_of_another_world(run: LocalRun, alone: Alone, tmp_path: Path) -> None:
    job = going_on_from(job_of("pytorch_ddp", epochs=2), alone.checkpoint)

    later = Local(root=tmp_path, launcher="direct").submit(job).wait(timeout=120)

    assert "resumes after epoch 1" in log_of(later, 0)
    # As if it had never stopped: with another state of the optimizer, or another order of images, it is far off.
    assert reported(later, "loss") == pytest.approx(reported(run, "loss")[1:2], rel=0.02)


def test_rank_0_alone_reports_and_writes(run: LocalRun) -> None:
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [8, 0, 0, 0]
    assert [file.name for file in run.outputs["model"].iterdir()] == ["checkpoint.pt"]
    assert set(run.metrics()) == {"loss", "images_per_second", "test_accuracy"}
