"""What a test gets of the emulator: a workspace, its client, and the jobs that were submitted."""

from __future__ import annotations

import atexit
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from azml_dist.emulator.account import Account
from azml_dist.emulator.azurite import Azurite
from azml_dist.emulator.credential import TokenOfEachScope
from azml_dist.emulator.jobs import Job
from azml_dist.emulator.kept import ids_of, variables_of
from azml_dist.emulator.knobs import Knobs
from azml_dist.emulator.service import Emulator
from azml_dist.emulator.state import Workspace

STORAGE = "AZML_EMULATOR_STORAGE"
"""`azurite` for tests whose blobs Azurite keeps."""
_IN_THE_WAY = ("AZUREML_DEV_URL_MFE", "ALL_PROXY", "all_proxy", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_AUTHORITY_HOST")


class EmulatedWorkspace:
    """A workspace of Azure ML on this machine. Every client in this process and its children is sent to it."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        """The service itself: requests, faults, assets."""
        self.folder = folder
        self._open = ExitStack()

    def stop(self) -> None:
        """End a workspace that `start` has started, and all its jobs."""
        self._open.close()

    @property
    def workspace(self) -> Workspace:
        """Its ids, and what the service has: computes, datastores, quota."""
        return self.emulator.workspace

    @property
    def knobs(self) -> Knobs:
        """How the service behaves."""
        return self.emulator.knobs

    @property
    def ids(self) -> dict[str, str]:
        """`subscription_id`, `resource_group` and `workspace_name`, as `config.json` names them."""
        return ids_of(self.emulator)

    @property
    def config(self) -> Path:
        """A `config.json` for `MLClient.from_config`."""
        return self.folder / "config.json"

    @cached_property
    def credential(self) -> TokenOfEachScope:
        """A credential that needs no login; those of azure-identity find theirs in the environment."""
        return TokenOfEachScope(self.workspace)

    @cached_property
    def ml_client(self) -> Any:
        """The real client of azure-ai-ml."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from azure.ai.ml import MLClient
        return MLClient(self.credential, *self.ids.values())

    @property
    def jobs(self) -> Any:
        """`ml_client.jobs`."""
        return self.ml_client.jobs

    def submit(self, job: Any) -> Job:
        """Submit a job of azure-ai-ml, or the YAML of `az ml` at a path; returns it as the service has it."""
        if isinstance(job, (str, os.PathLike)):
            from azure.ai.ml import load_job

            job = load_job(job)
        return self.emulator.job(self.jobs.create_or_update(job).name)


def start() -> EmulatedWorkspace:
    """A fresh workspace until its `stop`, or until this process ends: for notebooks."""
    with ExitStack() as opened:
        folder = opened.enter_context(TemporaryDirectory(prefix="azml-emulator-"))
        here = opened.enter_context(emulated_workspace(Path(folder)))
        here._open = opened.pop_all()
    atexit.register(here.stop)
    return here


@contextmanager
def emulated_workspace(folder: Path) -> Iterator[EmulatedWorkspace]:
    """A fresh workspace, to which the environment leads for as long as it is there."""
    with _account() as account, Emulator(account) as emulator:
        emulator.workspace.registry_environments = {"*"}
        emulator.run_what_is_submitted()
        here = EmulatedWorkspace(emulator, folder)
        here.config.write_text(json.dumps(here.ids), encoding="utf-8")
        with environment(variables_of(emulator, folder / "ca.pem")):
            yield here


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables, and none that would lead elsewhere, until the end."""
    before = {name: os.environ.get(name) for name in (*variables, *_IN_THE_WAY)}
    for name in _IN_THE_WAY:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _account() -> Iterator[Account | None]:
    if os.environ.get(STORAGE) != "azurite":
        yield None
        return
    running = Azurite()
    try:
        yield running.account()
    finally:
        running.stop()
