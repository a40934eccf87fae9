"""`sklearn_single` learns as a single process, and goes on where it was when it is started again."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from sampling import reported, submit_here, train_alone

from azml_dist.local.run import LocalRun

pytestmark = needs("sklearn")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("sklearn_single", tmp_path_factory.mktemp("sklearn"))


def test_it_recognises_at_least_95_percent_of_unseen_digits(run: LocalRun) -> None:
    [accuracy] = reported(run, "test_accuracy")

    assert accuracy >= 0.95


def test_the_loss_falls_and_is_recorded_with_mlflow(run: LocalRun) -> None:
    losses = reported(run, "loss")

    assert losses[-1] < losses[0] / 10
    assert run.metrics()["loss"] == pytest.approx(losses[-1], rel=0.001)


def test_started_again_it_goes_on_as_if_it_had_never_stopped(run: LocalRun, tmp_path: Path) -> None:
    train_alone("sklearn_single", tmp_path, "--epochs", "10")

    again = train_alone("sklearn_single", tmp_path, "--epochs", "20")

    assert "resumes after epoch 10" in again
    assert again.splitlines()[-2].split(",")[0] == _log(run).splitlines()[-2].split(",")[0]


def _log(run: LocalRun) -> str:
    return (run.folder / "user_logs" / "std_log.txt").read_text()
