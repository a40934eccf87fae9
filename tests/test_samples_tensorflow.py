"""The samples of TensorFlow learn: mirrored on two workers, and with a parameter server that three workers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported, script, submit_here

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("tensorflow")


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("tensorflow_multiworker", tmp_path_factory.mktemp("mirrored"), timeout=300)


def test_two_workers_learn_as_one(mirrored: LocalRun) -> None:
    for rank in range(2):
        assert f"worker {rank} of 2: 2 replicas in the world" in log_of(mirrored, rank)
    assert reported(mirrored, "test_accuracy")[0] >= 0.95


def test_worker_0_alone_reports_and_writes(mirrored: LocalRun) -> None:
    assert [len(reported(mirrored, "loss", rank)) for rank in range(2)] == [8, 0]
    assert set(mirrored.metrics()) == {"loss", "images_per_second", "test_accuracy"}
    assert "ckpt-8.index" in [file.name for file in mirrored.outputs["model"].iterdir()]


def test_workers_go_on_from_a_checkpoint(mirrored: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("tensorflow_multiworker", epochs=9), mirrored.outputs["model"])

    later = Local(root=tmp_path).submit(job).wait(timeout=300)

    assert "resumes after epoch 8" in log_of(later, 0)
    assert reported(later, "loss")[0] < reported(mirrored, "loss")[0] / 10


def test_a_parameter_server_holds_what_the_workers_learn(tmp_path: Path) -> None:
    run = submit_here("tensorflow_parameter_server", tmp_path, timeout=300)

    assert "worker 0 is the chief of 2 others" in log_of(run, 0)
    assert "parameter server 0 serves" in log_of(run, 3)
    assert reported(run, "test_accuracy")[0] >= 0.9
    assert set(run.metrics()) == {"loss", "images_per_second", "test_accuracy"}


def test_without_any_server_one_process_learns_and_goes_on(tmp_path: Path) -> None:
    for epochs in ("1", "2"):
        ended = script("tensorflow_parameter_server", "train.py", "--epochs", epochs, root=tmp_path)
        assert ended.returncode == 0, ended.stderr

    assert "resumes after epoch 1" in ended.stdout
    assert "epoch 2: loss" in ended.stdout
