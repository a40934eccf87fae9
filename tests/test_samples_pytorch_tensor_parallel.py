"""`pytorch_tensor_parallel`: two processes with half of each layer learn exactly what one with all of it does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import reported, submit_here, train_alone, values

from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "sklearn")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("pytorch_tensor_parallel", tmp_path_factory.mktemp("tensor"))


def test_its_losses_are_those_of_a_single_process(run: LocalRun, tmp_path: Path) -> None:
    alone = train_alone("pytorch_tensor_parallel", tmp_path, "--epochs", "2")

    assert reported(run, r"epoch \d: loss")[:2] == pytest.approx(values(alone, r"epoch \d: loss"), rel=0.005)


def test_its_checkpoint_goes_on_in_a_single_process(run: LocalRun, tmp_path: Path) -> None:
    earlier = run.outputs["checkpoints"]

    alone = train_alone("pytorch_tensor_parallel", tmp_path, "--epochs", "4", "--resume-from", earlier)

    assert "resumes after epoch 4" in alone
    for metric in ("test_loss", "test_accuracy"):
        assert values(alone, metric) == pytest.approx(reported(run, metric), rel=0.005)


def test_it_recognises_at_least_93_percent_of_unseen_digits(run: LocalRun) -> None:
    [accuracy] = reported(run, "test_accuracy")

    assert accuracy >= 0.93


def test_each_process_has_half_of_the_layers_that_are_cut(run: LocalRun) -> None:
    for rank in range(2):
        found = re.search(r"keeps (\d+) of 537482", log_of(run, rank))
        assert found
        assert int(found[1]) / 537_482 == pytest.approx(1 / 2, rel=0.03)
