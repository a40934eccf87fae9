"""`resnet50_benchmark` measures worlds of several processes, and shows how they scale."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import await_, log_of
from sampling import going_on_from, job_of, script, submit_here, train_alone, values

from azml_dist import Local, PyTorch
from azml_dist.local.run import LocalRun

pytestmark = needs("torch")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return submit_here(
        "resnet50_benchmark", tmp_path_factory.mktemp("resnet"), "--nodes", "2", "--processes", "1", timeout=240
    )


def test_every_process_learns_and_is_counted(run: LocalRun) -> None:
    result: dict[str, Any] = json.loads((run.outputs["result"] / "result.json").read_text())

    assert result["world_size"] == 2
    assert result["images_per_second"] == pytest.approx(2 * result["images_per_second_and_process"])
    assert result["images_per_second"] == pytest.approx(run.metrics()["images_per_second"])
    assert 6 < result["first_loss"] < 9  # of 1,000 classes, all alike: ln 1000 is 6.9


def test_it_is_a_resnet_50_and_learns_its_few_images_by_heart(tmp_path: Path) -> None:
    """Of the published network: 25,557,032 parameters (ResNet-50 for 1,000 classes)."""
    ended = script("resnet50_benchmark", "train.py", "--steps", "12", root=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "25,557,032 parameters" in ended.stdout
    [first], [last] = (re.findall(rf"{name} ([\d.]+)", ended.stdout) for name in ("first_loss", "last_loss"))
    assert float(last) < float(first) / 2


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    job = job_of("resnet50_benchmark", steps=12, checkpoint_every=1)
    job = job.with_(node_count=2, distribution=PyTorch(process_count_per_node=1))
    run = Local(root=tmp_path, launcher="direct", retries=1).submit(job)
    await_((run.outputs["result"] / "checkpoint.pt").exists, 120)
    for process in run.state().processes:
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)

    run.wait(timeout=180)

    [done] = values(log_of(run, 0), "resumes after step")
    assert 2 <= done < 13  # the first one is to warm up
    assert "last_loss" in log_of(run, 0)


def test_what_is_learnt_in_two_runs_is_what_one_learns(tmp_path: Path) -> None:
    """Each warms up with a step: 1 + 2 and 1 + 2 of them are as many as 1 + 5."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = train_alone("resnet50_benchmark", tmp_path / "one", "--steps", "5")
    train_alone("resnet50_benchmark", tmp_path / "two", "--steps", "2")

    two = train_alone("resnet50_benchmark", tmp_path / "two", "--steps", "2")

    assert "resumes after step 3" in two
    assert values(two, "last_loss") == pytest.approx(values(one, "last_loss"), rel=0.01)


def test_a_run_goes_on_from_the_checkpoint_of_another_world(run: LocalRun, tmp_path: Path) -> None:
    job = going_on_from(job_of("resnet50_benchmark", steps=1), run.outputs["result"])
    job = job.with_(node_count=1, distribution=PyTorch(process_count_per_node=1))

    later = Local(root=tmp_path, launcher="direct").submit(job).wait(timeout=120)

    assert "resumes after step 5" in log_of(later, 0)


def test_rank_0_alone_writes(run: LocalRun) -> None:
    assert sorted(file.name for file in run.outputs["result"].iterdir()) == ["checkpoint.pt", "result.json"]
    assert "images_per_second" not in log_of(run, 1)


@needs("matplotlib")
def test_several_worlds_give_a_table_and_a_plot(tmp_path: Path) -> None:
    ended = script("resnet50_benchmark", "scaling.py", "--local", "--worlds", "1x1", "1x2", root=tmp_path, timeout=240)

    assert ended.returncode == 0, ended.stderr
    head, _, one, two = ended.stdout.splitlines()
    assert head == "| processes | images/s | images/s and process | scaling efficiency |"
    assert re.fullmatch(r"\| 1 \| [\d.,]+ \| [\d.,]+ \| 100% \|", one)
    assert re.fullmatch(r"\| 2 \| [\d.,]+ \| [\d.,]+ \| \d+% \|", two)
    assert (tmp_path / "outputs" / "scaling.md").read_text() == ended.stdout
    assert (tmp_path / "outputs" / "scaling.png").read_bytes().startswith(b"\x89PNG")
