"""Fixtures: `emulator`, which every client in this process and its children is sent to, and a real `ml_client`.

Nothing is imported from Azure, and nothing started, before a test asks for one of them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from needs import refuse

if TYPE_CHECKING:
    import trustme

    from azml_dist.emulator.account import Account
    from azml_dist.emulator.azurite import Azurite
    from azml_dist.emulator.service import Emulator

SDK_WARNINGS = (
    "ignore:The .context. parameter is deprecated",  # marshmallow 3.26, of azure-ai-ml's schemas
    "ignore:The use of a 'BlobProperties' instance",  # azure-storage-blob 12.31, of azure-ai-ml's downloads
    "ignore:content_as_bytes is deprecated",
)
"""Warnings of azure-ai-ml itself: `pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]`."""


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """One Azurite for all tests; a missing one is a skip here and a failure in CI."""
    from azml_dist.emulator.azurite import VARIABLE, Azurite, MissingError

    try:
        running = Azurite(os.environ.get(VARIABLE) or Path(__file__).parent)
    except MissingError as missing:
        refuse(str(missing))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The throw-away authority that signs the emulated hosts' certificates."""
    import trustme

    return trustme.CA()


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Account:
    """An empty storage account of the emulator's own; with `AZML_EMULATOR_STORAGE=azurite`, one in Azurite."""
    from azml_dist.emulator.service import own_account

    kind = getattr(request, "param", os.environ.get("AZML_EMULATOR_STORAGE", "own"))
    return request.getfixturevalue("azurite").account() if kind == "azurite" else own_account()


@pytest.fixture(params=["own", "azurite"])
def either_storage(request: pytest.FixtureRequest) -> Account:
    """For tests that both storages pass: `storage = either_storage`."""
    from azml_dist.emulator.service import own_account

    return request.getfixturevalue("azurite").account() if request.param == "azurite" else own_account()


@pytest.fixture
def emulator(
    storage: Account,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Emulator]:
    """A fresh workspace. A request for an unknown host or route fails the test that caused it."""
    from azml_dist.emulator.service import Emulator

    with Emulator(storage, authority) as running:
        for name in ("AZUREML_DEV_URL_MFE", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in running.environ(tmp_path_factory.mktemp("tls") / "ca.pem").items():
            monkeypatch.setenv(name, value)
        yield running
    running.assert_clean()


@pytest.fixture(scope="session")
def azure_sdk() -> None:
    """azure-ai-ml, imported once, without the warnings that its import gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import azure.ai.ml  # noqa: F401


@pytest.fixture
def ml_client(emulator: Emulator, azure_sdk: None) -> Any:
    """The real client of the emulated workspace."""
    from azure.ai.ml import MLClient

    from azml_dist.emulator.credential import StaticToken

    here = emulator.workspace
    return MLClient(StaticToken(here), here.subscription_id, here.resource_group, here.name)
