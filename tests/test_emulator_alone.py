"""The fixture in an environment that has only `azml-dist[emulator]` and pytest, with what those two require."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from needs import needs
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[1]
TEST = """
from azure.ai.ml import command
from azure.ai.ml.entities import Environment


def test_a_stranger_submits(azureml):
    job = command(command="echo hello", environment=Environment(image="any"), compute="gpu-cluster")
    submitted = azureml.submit(job)
    assert submitted.wait() == "Completed"
    assert submitted.log("user_logs/std_log.txt") == "hello\\n"
"""


def add_required(of: Distribution, extras: Iterable[str], found: dict[str, Distribution]) -> None:
    """All that a distribution requires, and what those require, as it is installed here."""
    for one in map(Requirement, of.requires or []):
        key = re.sub(r"[-_.]+", "-", one.name).lower()
        is_wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if is_wanted and (key not in found or one.extras):
            found[key] = distribution(one.name)
            add_required(found[key], one.extras, found)


@needs("hatchling", "packaging")
def test_the_fixture_needs_nothing_else(tmp_path: Path) -> None:
    """Links to the files of exactly those packages stand for an installation, which would take minutes."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv/bin/python"
    site = next((tmp_path / "venv/lib").glob("python3*")) / "site-packages"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    needed = {"pytest": distribution("pytest")}
    add_required(needed["pytest"], (), needed)
    add_required(Distribution.at(next(site.glob("azml_dist-*.dist-info"))), ["emulator"], needed)
    for one in needed.values():
        link(one, site)
    (tmp_path / "test_it.py").write_text(TEST)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    ran = subprocess.run(
        [python, "-m", "pytest", "-q", "test_it.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )

    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert not {"torch", "mlflow-skinny", "pytest-xdist", "uv"} & needed.keys()


def link(one: Distribution, site: Path) -> None:
    """The files of a distribution, in another environment."""
    for file in one.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            place = site / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(file.locate())
