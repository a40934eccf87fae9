"""The quickstart does what its README says: it learns, as 2 nodes x 2 processes, and leaves one model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

QUICKSTART = Path(__file__).parents[1] / "samples" / "quickstart"
JOB = QUICKSTART / "job.yml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the quickstart for all tests: training takes a quarter of a minute."""
    root = tmp_path_factory.mktemp("runs")
    argv = [_tool("azml-dist"), "run", str(JOB), "--launcher", "torchrun", "--json"]
    env = os.environ | {"AZML_DIST_ROOT": str(root)}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    described: dict[str, Any] = json.loads(ended.stdout)
    return described


def test_the_model_recognises_at_least_95_percent_of_unseen_digits(finished: dict[str, Any]) -> None:
    [accuracy] = re.findall(r"test_accuracy (\d\.\d+)", _log(finished, 0))

    assert float(accuracy) >= 0.95


def test_the_loss_falls_from_epoch_to_epoch(finished: dict[str, Any]) -> None:
    losses = [float(loss) for loss in re.findall(r"epoch \d+: loss (\d+\.\d+)", _log(finished, 0))]

    assert len(losses) == 8
    assert losses[-1] < losses[0] / 10


def test_the_model_is_written_once_and_to_the_named_output(finished: dict[str, Any]) -> None:
    folder = Path(finished["folder"])

    assert [path.relative_to(folder) for path in folder.rglob("*.pt")] == [Path("outputs/model/model.pt")]


def test_every_rank_has_its_log_and_learns_from_its_own_quarter(finished: dict[str, Any]) -> None:
    for rank in range(4):
        # 1,437 images: the sampler repeats three of them, so that all processes take as many steps.
        assert f"rank {rank} of 4 on " in _log(finished, rank)
        assert "learns 360 images, tests 90" in _log(finished, rank)
    assert len({process["log"] for process in finished["processes"]}) == 4


def test_loss_and_accuracy_are_recorded_with_mlflow(finished: dict[str, Any]) -> None:
    import azml_dist

    folder = Path(finished["folder"])
    metrics = azml_dist.run(finished["name"], root=folder.parent).metrics()

    assert set(metrics) == {"loss", "test_accuracy"}


def test_the_script_runs_without_any_launcher(tmp_path: Path) -> None:
    """`python train.py`, with none of the variables that a run sets."""
    bare = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    argv = [sys.executable, str(QUICKSTART / "train.py"), "--epochs", "1", "--output", str(tmp_path / "model")]

    ended = subprocess.run(argv, env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "model" / "model.pt").is_file()


def test_azure_ai_ml_reads_the_job() -> None:
    # In a process of its own: importing azure-ai-ml warns, and a warning is an error here.
    argv = [sys.executable, "-c", AS_AZURE_READS_IT, str(JOB)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    job = json.loads(ended.stdout)

    assert (job["distribution"], job["instance_count"], job["process_count_per_instance"]) == ("pytorch", 2, 2)
    assert job["image"].startswith("mcr.microsoft.com/azureml/")
    assert "torch==" in job["conda"]


AS_AZURE_READS_IT = """\
import json, sys
from azure.ai.ml import load_job

job = load_job(sys.argv[1])
read = {
    "instance_count": job.resources.instance_count,
    "distribution": job.distribution.type,
    "process_count_per_instance": job.distribution.process_count_per_instance,
    "image": job.environment.image,
    "conda": str(job.environment.conda_file),
}
print(json.dumps(read))
"""


def _log(finished: dict[str, Any], rank: int) -> str:
    [process] = [process for process in finished["processes"] if process["rank"] == rank]
    return Path(finished["folder"], process["log"]).read_text()


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)
