"""`pytorch_fsdp` learns in four processes with a quarter of the model in each, and goes on in a world of two."""

from __future__ import annotations

import re

import pytest
from needs import needs
from running import log_of
from sampling import going_on_from, job_of, reported, submit_here

from azml_dist import Local, PyTorch
from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "sklearn")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here("pytorch_fsdp", tmp_path_factory.mktemp("fsdp"))


@pytest.fixture(scope="module")
def later(run: LocalRun, tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """One epoch more, in a world of half the size."""
    job = going_on_from(job_of("pytorch_fsdp", epochs=7), run.outputs["checkpoints"])
    job = job.with_(node_count=1, distribution=PyTorch(process_count_per_node=2))
    return Local(root=tmp_path_factory.mktemp("later"), launcher="direct").submit(job).wait(timeout=180)


def test_it_recognises_at_least_93_percent_of_unseen_digits(run: LocalRun) -> None:
    [accuracy] = reported(run, "test_accuracy")

    assert accuracy >= 0.93


def test_each_process_keeps_its_share_of_the_parameters(run: LocalRun, later: LocalRun) -> None:
    assert sum(kept(run, rank) for rank in range(4)) == sum(kept(later, rank) for rank in range(2)) == 537_482
    assert all(kept(run, rank) / 537_482 == pytest.approx(1 / 4, rel=0.01) for rank in range(4))


def test_a_sharded_checkpoint_is_the_same_model_in_another_world(run: LocalRun, later: LocalRun) -> None:
    for metric in ("test_loss", "test_accuracy"):
        assert reported(later, metric)[0] == pytest.approx(reported(run, metric)[0], rel=0.01)


def test_the_optimizer_goes_on_too(run: LocalRun, later: LocalRun) -> None:
    """Without its moments, the first steps of Adam are the largest: the loss would jump."""
    [loss] = reported(later, "epoch 7: loss")

    assert loss < 2 * reported(run, "epoch 6: loss")[0]


def test_every_epoch_leaves_a_checkpoint_with_a_part_of_every_rank(run: LocalRun) -> None:
    folders = sorted(run.outputs["checkpoints"].iterdir())

    assert [folder.name for folder in folders] == [f"epoch-{epoch:04}" for epoch in range(1, 7)]
    assert {file.name for file in folders[-1].glob("*.distcp")} == {f"__{rank}_0.distcp" for rank in range(4)}


def kept(run: LocalRun, rank: int) -> int:
    found = re.search(r"keeps (\d+) of", log_of(run, rank))
    assert found
    return int(found[1])
