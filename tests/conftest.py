"""What every test has: a home and a folder of runs of its own, and nobody whom it tells of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from horovod_build import VERSION, CannotBuildError, built, kept

# What DeepSpeed compiles at its first use, for a minute, is compiled once and not in each test's own home.
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache/torch_extensions/azml_dist"))

pytest_plugins = ["needs", "jit", "emulator.fixtures"]


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a test does reaches the user's home, or another test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AZML_DIST_ROOT", str(home / "runs"))
    # Ray tells its makers of each cluster, even that they are not to be told.
    monkeypatch.setenv("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")
    for name in list(os.environ):
        if name.startswith(("AZURE_", "AZUREML_", "MLFLOW_")) or name == "CUDA_VISIBLE_DEVICES":
            monkeypatch.delenv(name)
    return home


@pytest.fixture(scope="session")
def horovod() -> Path:
    """The folder of a built Horovod. CI builds it, and says where it could not; elsewhere that is yours to ask for."""
    try:
        if os.environ.get("CI") == "true":
            return built()
        if (folder := kept()).exists():
            return folder
    except CannotBuildError as error:
        pytest.skip(f"Horovod {VERSION} could not be built: {error}")
    pytest.skip(f"Horovod {VERSION} is not built: `make horovod` does it, in some three minutes, and keeps it")
