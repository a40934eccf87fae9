"""What every test has: a home and a folder of runs of its own, and nobody whom it tells of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from horovod_build import VERSION, CannotBuildError, built, built_with_tensorflow, kept, kept_with_tensorflow

if TYPE_CHECKING:
    from azml_dist import AzureML
    from azml_dist.emulator import Emulator

# What DeepSpeed compiles at its first use, for a minute, is compiled once and not in each test's own home.
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache/torch_extensions/azml_dist"))

# `nohup make test &` ignores signals, and what the tests start would never hear them. A handler here is none there.
signal.pthread_sigmask(signal.SIG_SETMASK, [])
for ignored in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, lambda *_: None)
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["needs", "quick", "jit", "emulated"]


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


@pytest.fixture
def azure(emulator: Emulator, azure_sdk: None) -> AzureML:
    """The executor of the emulated workspace, which has an environment: a bare submission, without the check before it.

    It looks once for a job without an answer.
    """
    from submitting import workspace_of

    from azml_dist import AzureML

    emulator.assets.add_environment("torch")
    return AzureML(workspace_of(emulator), look_for=0, check=False)


@pytest.fixture(scope="session")
def horovod() -> Path:
    """The folder of a built Horovod."""
    return _horovod(built, kept)


@pytest.fixture(scope="session")
def horovod_tensorflow() -> Path:
    """The Python of an environment with Horovod and the TensorFlow that it builds against."""
    return _horovod(built_with_tensorflow, kept_with_tensorflow)


def _horovod(build: Callable[[], Path], keep: Callable[[], Path]) -> Path:
    """CI builds it, and says where it could not; elsewhere that is yours to ask for."""
    try:
        if os.environ.get("CI") == "true":
            return build()
        if (found := keep()).exists():
            return found
    except CannotBuildError as error:
        pytest.skip(f"Horovod {VERSION} could not be built: {error}")
    pytest.skip(f"Horovod {VERSION} is not built: `make horovod` does it, in some minutes, and keeps it")
