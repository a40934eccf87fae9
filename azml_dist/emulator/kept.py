"""The state of an emulator in a folder, so that it can be stopped and started again.

emulator.json   the workspace's ids and secrets, its assets, jobs and knobs; replaced as a whole
blobs/          the blobs
ca.pem          the authority that clients have to trust; authority.pem is its key
config.json     for `MLClient.from_config`
env.sh          the variables for azure-ai-ml and azure-identity
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import trustme

from azml_dist.emulator.account import Account
from azml_dist.emulator.jobs import TERMINAL, Job
from azml_dist.emulator.service import Emulator, own_account
from azml_dist.emulator.state import Workspace, new_token
from azml_dist.emulator.wire import Json

VERSION = 1
_FILES = ("emulator.json", "blobs", "ca.pem", "authority.pem", "config.json", "env.sh", "lock")
_WORKSPACE = ("workspace_id", "token", "run_token", "client_secret")
_JOB = ("name", "body", "status", "error", "warnings", "past", "queueing", "metrics", "system_data", "parent", "params")
_STARTED = ("Preparing", "Running", "Finalizing", "CancelRequested", "Provisioning", "Starting")


class StateError(Exception):
    """The folder cannot be used; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Kept:
    """A folder with the state of one emulator; only one process at a time has it open."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _refuse_strange(folder)
            self._lock = _locked(folder / "lock")
        except OSError as error:
            raise StateError(f"{folder} cannot be used: {error.strerror}", "name another with --folder") from error
        if fresh:
            for name in _FILES[:-1]:
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._told = _read(folder / "emulator.json")
        self._emulator: Emulator | None = None
        self._dirty = threading.Event()
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write_when_dirty, name="state of the emulator", daemon=True)

    @property
    def is_new(self) -> bool:
        """Whether nothing was kept here."""
        return not self._told

    def emulator(self, *, port: int | None = None, account: Account | None = None) -> Emulator:
        """The emulator as it was left; on its old port if that is free, and none is asked for."""
        told = self._told
        kept = account or self._account(told.get("account") or {})
        workspace = Workspace(
            kept,
            **(
                told.get("workspace")
                or {"token": new_token(), "run_token": new_token(), "client_secret": secrets.token_urlsafe(24)}
            ),
        )
        workspace.registry_environments = {"*"}
        secret = told.get("secret") or secrets.token_urlsafe(24)
        self._secret, self._authority = secret, _authority(self.folder)
        self._emulator = emulator = _on_a_port(workspace, self._authority, secret, port, told.get("port"))
        self._fill(emulator, told)
        workspace.on_change = self._dirty.set
        self._writer.start()
        self._dirty.set()
        return emulator

    def close(self) -> None:
        """Write the state, and let others use the folder."""
        self._ended.set()
        self._dirty.set()
        if self._writer.is_alive():
            self._writer.join(timeout=30)
        self._lock.close()

    def _account(self, told: Mapping[str, str]) -> Account:
        account = own_account(self.folder / "blobs")
        account.name, account.key = told.get("name", account.name), told.get("key", account.key)
        return account

    def _fill(self, emulator: Emulator, told: Json) -> None:
        for kind, name, versions in told.get("assets", []):
            emulator.assets.assets[kind, name] = versions
        for one in told.get("jobs", []):
            job = Job(one["name"], one["body"], emulator.workspace, on_completed=emulator.jobs.register)
            for field in _JOB:
                setattr(job, field, one[field])
            job.past = [(status, since) for status, since in one["past"]]
            emulator.jobs.jobs[job.name] = job
            if job.status in _STARTED:
                job.fail("The emulator was stopped while the job ran.", "ServiceError")
        for name, value in (told.get("knobs") or {}).items():
            emulator.knobs.set(name, value)

    def _write_when_dirty(self) -> None:
        while not self._ended.is_set():
            self._dirty.wait()
            self._ended.wait(0.1)  # several changes at a time
            self._dirty.clear()
            self._write()

    def _write(self) -> None:
        assert self._emulator
        emulator, here = self._emulator, self._emulator.workspace
        with here.changed:
            told = {
                "version": VERSION,
                "workspace": {name: getattr(here, name) for name in _WORKSPACE},
                "account": {"name": here.account.name, "key": here.account.key},
                "secret": self._secret,
                "port": emulator.port,
                "knobs": emulator.knobs.told(),
                "assets": [[kind, name, versions] for (kind, name), versions in emulator.assets.assets.items()],
                "jobs": [{name: getattr(job, name) for name in _JOB} for job in emulator.jobs.jobs.values()],
            }
            text = json.dumps(told)
        _replace(self.folder / "emulator.json", text)

    def resume(self) -> None:
        """Queue again what waited."""
        assert self._emulator
        for job in list(self._emulator.jobs.jobs.values()):
            if job.status not in TERMINAL and self._emulator.jobs.on_submit:
                self._emulator.jobs.on_submit(job)

    def write_files(self, config: Path | None = None) -> dict[str, str]:
        """The files by which clients find the emulator; returns the variables."""
        assert self._emulator
        ids = ids_of(self._emulator)
        for path in filter(None, (self.folder / "config.json", config)):
            _replace(path, json.dumps(ids, indent=2) + "\n")
        variables = variables_of(self._emulator, self.folder / "ca.pem")
        lines = "".join(f"export {name}={quote(value)}\n" for name, value in variables.items())
        _replace(self.folder / "env.sh", lines)
        return variables


def ids_of(emulator: Emulator) -> dict[str, str]:
    """What `config.json` says of the workspace."""
    here = emulator.workspace
    return {
        "subscription_id": here.subscription_id,
        "resource_group": here.resource_group,
        "workspace_name": here.name,
    }


def variables_of(emulator: Emulator, ca_file: Path) -> dict[str, str]:
    """The variables by which unmodified clients find the emulator, and log in."""
    here = emulator.workspace
    return {
        **emulator.environ(ca_file),
        "AZURE_TENANT_ID": here.tenant_id,
        "AZURE_CLIENT_ID": "emulator",
        "AZURE_CLIENT_SECRET": here.client_secret or "any",
        "AZUREML_ARM_SUBSCRIPTION": here.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": here.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": here.name,
        "AZML_EMULATOR_URL": emulator.url,
        "AZML_EMULATOR_TOKEN": here.token,
    }


def _on_a_port(
    workspace: Workspace, authority: trustme.CA, secret: str, wanted: int | None, before: int | None
) -> Emulator:
    def on(port: int) -> Emulator:
        return Emulator(authority=authority, workspace=workspace, secret=secret, port=port)

    try:
        return on(wanted or before or 0)
    except OSError as error:
        if wanted:
            hint = "name another port, or leave --port out for one that is free"
            raise StateError(f"port {wanted} cannot be used: {error.strerror}", hint) from error
        return on(0)


def _authority(folder: Path) -> trustme.CA:
    certificate, key = folder / "ca.pem", folder / "authority.pem"
    if certificate.exists() and key.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    made = trustme.CA()
    _replace(key, made.private_key_pem.bytes().decode())
    _replace(certificate, made.cert_pem.bytes().decode())
    return made


def _refuse_strange(folder: Path) -> None:
    """A folder with other things in it is no place for a state, and `--fresh` must not remove them."""
    found = {path.name for path in folder.iterdir()}
    if found and not found & {"emulator.json", "lock"}:
        raise StateError(f"{folder} has other files in it", "name an empty folder with --folder")


def _locked(path: Path) -> Any:
    import fcntl

    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise StateError(f"another emulator uses {path.parent}", "stop it, or name another folder") from error
    return file


def _read(path: Path) -> Json:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        version = told["version"]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"{path} cannot be read: {error}", "begin again with --fresh") from error
    if version != VERSION:
        hint = "name another folder with --folder, or begin again with --fresh"
        raise StateError(f"{path.parent} is of another version of the emulator ({version}, not {VERSION})", hint)
    return dict(told)


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole, for its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
