"""pytest's fixtures `azureml` and `azureml_session`. Nothing else is imported before a test asks for one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from azml_dist import emulator


@pytest.fixture
def azureml(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A fresh workspace of Azure ML on this machine, for this test: `azml_dist.emulator.EmulatedWorkspace`."""
    if "azureml_session" in request.fixturenames:
        pytest.fail("a test uses `azureml` or `azureml_session`: every client is sent to one of them", pytrace=False)
    with _workspace(tmp_path_factory.mktemp("azureml")) as here:
        yield here


@pytest.fixture(scope="session")
def azureml_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A workspace that all tests of this process share."""
    with _workspace(tmp_path_factory.mktemp("azureml")) as here:
        yield here


@contextmanager
def _workspace(folder: Path) -> Iterator[emulator.EmulatedWorkspace]:
    """A workspace; what it did not know fails the test, or with `azureml_session` the last one."""
    try:
        started = emulator.emulated_workspace(folder)
    except ModuleNotFoundError as missing:
        pytest.fail(f"no module {missing.name}: pip install 'azml-dist[emulator]'", pytrace=False)
    with started as here:
        yield here
    if here.emulator.problems:
        told = "\n  ".join(here.emulator.problems)
        pytest.fail(
            f"the emulator met what it does not know; `azureml.emulator.problems.clear()` if that is right:\n  {told}",
            pytrace=False,
        )
