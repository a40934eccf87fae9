"""`pytorch_pipeline_parallel`: a pipeline of two processes learns exactly what one process with all layers does."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import reported, submit_here, train_alone, values

from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "sklearn")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("pytorch_pipeline_parallel", tmp_path_factory.mktemp("pipeline"))


def test_its_losses_are_those_of_one_process_that_takes_batches_whole(run: LocalRun, tmp_path: Path) -> None:
    alone = train_alone("pytorch_pipeline_parallel", tmp_path, "--epochs", "2", "--microbatches", "1")

    assert reported(run, "loss")[:2] == pytest.approx(values(alone, "loss"), rel=0.005)


def test_its_checkpoint_goes_on_in_a_single_process(run: LocalRun, tmp_path: Path) -> None:
    earlier = run.outputs["checkpoints"]

    alone = train_alone("pytorch_pipeline_parallel", tmp_path, "--epochs", "5", "--resume-from", earlier)

    assert "resumes after epoch 4" in alone
    [loss] = values(alone, "loss")
    # Without the optimizer's moments, or with a layer that was not loaded, it would jump.
    assert loss < 1.5 * reported(run, "loss")[-1]


def test_it_recognises_at_least_92_percent_of_unseen_digits(run: LocalRun) -> None:
    [accuracy] = reported(run, "test_accuracy")

    assert accuracy >= 0.92


def test_each_stage_has_its_own_layers_and_the_first_rank_reports(run: LocalRun) -> None:
    assert "has blocks 0, 1\n" in log_of(run, 0)
    assert "has blocks 2, 3\n" in log_of(run, 1)
    assert [len(reported(run, "loss", rank)) for rank in range(2)] == [4, 0]
