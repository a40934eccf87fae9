"""`resnet50_benchmark` measures worlds of several processes, and shows how they scale."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from sampling import script, submit_here

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


@needs("matplotlib")
def test_several_worlds_give_a_table_and_a_plot(tmp_path: Path) -> None:
    ended = script("resnet50_benchmark", "scaling.py", "--local", "--worlds", "1x1", "1x2", root=tmp_path, timeout=240)

    assert ended.returncode == 0, ended.stderr
    head, _, one, two = ended.stdout.splitlines()
    assert head == "| processes | images/s | images/s and process | scaling efficiency |"
    assert re.fullmatch(r"\| 1 \| [\d.,]+ \| [\d.,]+ \| 100% \|", one)
    assert re.fullmatch(r"\| 2 \| [\d.,]+ \| [\d.,]+ \| \d+% \|", two)
    assert (tmp_path / "scaling.md").read_text() == ended.stdout
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
