"""`gpt_char`: a grid of 2 x 2 processes learns and writes exactly what one process does."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported, train_alone, values

from azml_dist import Local, PyTorch
from azml_dist.local.run import LocalRun

pytestmark = needs("torch")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    job = job_of("gpt_char", steps=100)
    return Local(root=tmp_path_factory.mktemp("gpt")).submit(job).wait(timeout=240)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return train_alone("gpt_char", tmp_path_factory.mktemp("alone"), "--steps", "100")


def test_the_loss_falls(run: LocalRun) -> None:
    first, last = reported(run, r"step \d+: loss")

    assert last < first - 0.3
    assert reported(run, "test_loss")[0] < first


def test_its_losses_are_those_of_a_single_process(run: LocalRun, alone: str) -> None:
    for loss in (r"step \d+: loss", "test_loss"):
        assert reported(run, loss) == pytest.approx(values(alone, loss), rel=0.01)


def test_the_grid_puts_tensor_parallel_processes_on_one_node(run: LocalRun) -> None:
    rows = [log_of(run, rank).splitlines()[0].partition(": ")[2] for rank in range(4)]

    assert rows == ["row 0 of 2", "row 0 of 2", "row 1 of 2", "row 1 of 2"]


def test_it_writes_at_the_end(run: LocalRun) -> None:
    assert len(log_of(run, 0).partition("it writes: The ")[2]) >= 190


def test_its_checkpoint_goes_on_in_another_grid(run: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("gpt_char", steps=100, tensor_parallel=1), run.outputs["checkpoints"])
    job = job.with_(node_count=1, distribution=PyTorch(process_count_per_node=2))

    later = Local(root=tmp_path, launcher="direct").submit(job).wait(timeout=240)

    assert "resumes after step 100" in log_of(later, 0)
    assert reported(later, "test_loss") == pytest.approx(reported(run, "test_loss"), rel=0.01)
