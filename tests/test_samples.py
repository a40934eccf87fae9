"""What holds for every sample: its files, what its script says first, and that Azure ML takes its jobs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from sampling import NAMES, SAMPLES, job_files, script
from submitting import workspace_of

from azml_dist import AzureML, Job
from azml_dist.emulator import Emulator

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

each_sample = pytest.mark.parametrize("sample", [name for name in NAMES if name != "quickstart"])
"""The quickstart is submitted with the command line alone: it is the README's."""
each_job = pytest.mark.parametrize("file", job_files())


@each_sample
@pytest.mark.parametrize("file", ["train.py", "job.yml", "submit.py", "README.md", ".amlignore"])
def test_a_sample_has_its_files(sample: str, file: str) -> None:
    assert (SAMPLES / sample / file).is_file()


@each_sample
def test_the_script_is_one_file_that_can_be_read(sample: str) -> None:
    text = (SAMPLES / sample / "train.py").read_text()

    assert len(text.splitlines()) <= 215
    assert "azml_dist" not in text


@each_sample
def test_the_script_begins_with_the_commands_that_run_it(sample: str) -> None:
    said = ast.get_docstring(ast.parse((SAMPLES / sample / "train.py").read_text())) or ""
    first = "\n".join(said.splitlines()[:8])

    assert "On a laptop" in first
    assert "python submit.py --local" in first
    assert "python submit.py --compute gpu-cluster" in first


@each_sample
def test_its_readme_leads_from_the_clone_to_the_run(sample: str) -> None:
    _, _, block = (SAMPLES / sample / "README.md").read_text().partition("```sh\n")
    lines = [line.partition("#")[0].strip() for line in block.partition("```")[0].splitlines()]

    assert lines[0] in ("make demo && . .venv/bin/activate", "make horovod && . .venv/bin/activate")
    assert f"cd samples/{sample}" in lines
    for command in ("train.py", "submit.py --dry-run", "submit.py --local", "submit.py --compute"):
        assert any(command in line for line in lines[lines.index(f"cd samples/{sample}") :]), command


@each_sample
def test_the_table_of_samples_has_it(sample: str) -> None:
    assert f"({sample}/README.md)" in (SAMPLES / "README.md").read_text()


@each_sample
def test_a_dry_run_shows_the_world_and_starts_nothing(sample: str, tmp_path: Path) -> None:
    ended = script(sample, "submit.py", "--dry-run", root=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert str(Job.load(SAMPLES / sample / "job.yml").plan().world) in ended.stdout
    assert list(tmp_path.iterdir()) == []


@each_sample
def test_nodes_and_processes_are_said_on_the_command_line(sample: str, tmp_path: Path) -> None:
    if "process_count_per_instance" not in (job_files()[f"{sample}/job.yml"].get("distribution") or {}):
        pytest.skip("its processes are not counted by node")

    ended = script(sample, "submit.py", "--dry-run", "--nodes", "2", "--processes", "4", root=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "2 nodes x 4 processes = 8" in ended.stdout


@each_sample
def test_a_world_that_cannot_be_is_refused_in_a_line(sample: str, tmp_path: Path) -> None:
    ended = script(sample, "submit.py", "--dry-run", "--nodes", "0", root=tmp_path)

    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert "error: " in ended.stderr


@each_job
def test_azure_ai_ml_reads_the_job(file: str, as_azure_reads: dict[str, Any]) -> None:
    written = job_files()[file]
    distribution = written.get("distribution") or {}

    read = as_azure_reads[file]

    assert read["instance_count"] == written.get("resources", {}).get("instance_count", 1)
    assert read["distribution"] == distribution.get("type")
    assert read["process_count_per_instance"] == distribution.get("process_count_per_instance")
    assert read["from"].startswith(("mcr.microsoft.com/azureml/", "azureml://registries/azureml/environments/"))


@each_job
def test_azure_ml_takes_the_job(file: str, emulator: Emulator, azure_sdk: None) -> None:
    job = Job.load(SAMPLES / file)

    run = AzureML(workspace_of(emulator)).submit(job)

    sent = emulator.job(run.name)
    assert sent.body.get("distribution") == job.plan().request["properties"].get("distribution")
    assert sent.body["command"] == job.shell_command


@pytest.fixture(scope="module")
def as_azure_reads() -> dict[str, Any]:
    """Every job file as azure-ai-ml reads it."""
    # In a process of its own: importing azure-ai-ml warns, and a warning is an error here.
    argv = [sys.executable, "-c", AS_AZURE_READS, str(SAMPLES), *job_files()]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    read: dict[str, Any] = json.loads(ended.stdout)
    return read


AS_AZURE_READS = """\
import json, sys
from pathlib import Path
from azure.ai.ml import load_job

def base_image(folder):
    [line] = [line for line in Path(folder, "Dockerfile").read_text().splitlines() if line.startswith("FROM ")]
    return line.split()[1]

def origin(environment):
    if isinstance(environment, str):
        return environment
    return environment.image or base_image(Path(environment.base_path, environment.build.path))

def read(file):
    job = load_job(Path(sys.argv[1], file))
    return {
        "instance_count": job.resources.instance_count if job.resources else 1,
        "distribution": job.distribution.type if job.distribution else None,
        "process_count_per_instance": getattr(job.distribution, "process_count_per_instance", None),
        "from": origin(job.environment),
    }

print(json.dumps({file: read(file) for file in sys.argv[2:]}))
"""
