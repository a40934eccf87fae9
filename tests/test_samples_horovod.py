"""The samples of Horovod learn under mpirun as 2 nodes x 2 processes, and go on where they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported

from azml_dist import Local

pytestmark = needs("torch", "mpirun")


def test_pytorch_learns_and_goes_on(horovod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(horovod))

    here = Local(root=tmp_path, keep_pythonpath=True)

    run = here.submit(job_of("horovod_pytorch")).wait(timeout=180)

    for rank in range(4):
        assert f"rank {rank} of 4 on cpu, {rank % 2} on node {rank // 2}" in log_of(run, rank)
    assert reported(run, "test_accuracy")[0] >= 0.95
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [8, 0, 0, 0]
    assert set(run.metrics()) == {"loss", "images_per_second", "test_accuracy"}

    job = going_on_from(job_of("horovod_pytorch", epochs=9), run.outputs["model"])
    later = here.submit(job).wait(timeout=180)

    assert "resumes after epoch 8" in log_of(later, 0)
    assert reported(later, "loss")[0] < reported(run, "loss")[0] / 5


def test_tensorflow_learns_and_goes_on(horovod_tensorflow: Path, tmp_path: Path) -> None:
    here = Local(root=tmp_path, python=str(horovod_tensorflow))

    run = here.submit(job_of("horovod_tensorflow")).wait(timeout=240)

    for rank in range(4):
        assert f"rank {rank} of 4, {rank % 2} on node {rank // 2}" in log_of(run, rank)
    assert reported(run, "test_accuracy")[0] >= 0.95
    assert [len(reported(run, "loss", rank)) for rank in range(4)] == [8, 0, 0, 0]
    assert set(run.metrics()) == {"loss", "images_per_second", "test_accuracy"}

    job = going_on_from(job_of("horovod_tensorflow", epochs=9), run.outputs["model"])
    later = here.submit(job).wait(timeout=240)

    assert "resumes after epoch 8" in log_of(later, 0)
    assert reported(later, "loss")[0] < reported(run, "loss")[0] / 5
