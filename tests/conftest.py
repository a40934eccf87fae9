"""What every test has: a home and a folder of runs of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["emulator.fixtures"]


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a test does reaches the user's home, or another test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AZML_DIST_ROOT", str(home / "runs"))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return home
