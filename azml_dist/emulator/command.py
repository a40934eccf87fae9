"""The command: a workspace on this machine, until Ctrl-C or until the command that uses it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from azml_dist.emulator.account import Account
from azml_dist.emulator.azurite import Azurite, MissingError
from azml_dist.emulator.control import fault_in, known_route
from azml_dist.emulator.kept import Kept, StateError, ids_of
from azml_dist.emulator.knobs import KnobError
from azml_dist.emulator.options import DEFAULT_FOLDER
from azml_dist.emulator.service import Emulator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a supervisor of services, the end of the terminal."""


class EmulatorFailed(click.ClickException):
    """The emulator cannot start; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def serve(
    *,
    folder: str = DEFAULT_FOLDER,
    fresh: bool = False,
    port: int | None = None,
    storage: str = "own",
    azurite: str | None = None,
    config: str | None = None,
    settings: Sequence[str] = (),
    faults: Sequence[str] = (),
    as_json: bool = False,
    command: Sequence[str] = (),
) -> int:
    """Start a workspace, say how to reach it, and serve until a signal, or until `command` ends; its exit code."""
    _allow_many_clients()
    try:
        kept = Kept(Path(folder).expanduser().absolute(), fresh=fresh)
        try:
            with _storage(storage, azurite) as account:
                emulator = kept.emulator(port=port, account=account)
                _set(emulator, settings, faults)
                return _served(kept, emulator, config, as_json, command)
        finally:
            kept.close()
    except StateError as error:
        raise EmulatorFailed(str(error), error.hint) from error
    except KnobError as error:
        raise EmulatorFailed(str(error), "`--help` names the page with all settings") from error
    except MissingError as error:
        raise EmulatorFailed(str(error), "leave `--storage` out for the emulator's own blob service") from error


def _allow_many_clients() -> None:
    """Each has a connection, and the usual limit is 1,024 files."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _storage(kind: str, place: str | None) -> Iterator[Account | None]:
    if kind != "azurite":
        yield None
        return
    running = Azurite(place)
    try:
        yield running.account()
    finally:
        running.stop()


def _set(emulator: Emulator, settings: Sequence[str], faults: Sequence[str]) -> None:
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise KnobError(f"`{setting}` is no setting: write NAME=VALUE")
        emulator.knobs.set(name, value)
    for text in faults:
        fault, where, times = fault_in(text)
        emulator.inject(fault, route=known_route(where, emulator.routes), times=times)


def _served(kept: Kept, emulator: Emulator, config: str | None, as_json: bool, command: Sequence[str]) -> int:
    with _end_asked() as wait_for_it, emulator:
        emulator.run_what_is_submitted()
        kept.resume()
        variables = kept.write_files(Path(config).absolute() if config else None)
        if command:
            return _ran(command, {**os.environ, **variables})
        _tell(kept, emulator, variables, as_json)
        wait_for_it()
        click.echo("stopping the workspace and its jobs", err=True)
        return 0


@contextmanager
def _end_asked() -> Iterator[Callable[[], object]]:
    """While the block runs, no signal that asks for the end ends anything; what it gets waits for one of them.

    One that is ignored stays so: `nohup` and `&` in a script mean it. It waits for a socket: a thread that is about to
    wait for a lock would miss a signal that comes just before.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    heeded = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in heeded}
    told_before = signal.set_wakeup_fd(told.fileno())
    try:
        yield lambda: heard.recv(1)
    finally:
        signal.set_wakeup_fd(told_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.close()
        told.close()


def _ran(command: Sequence[str], env: dict[str, str]) -> int:
    """Run a command that finds the workspace in its environment; a signal reaches it too, as it is in our group."""
    try:
        code = subprocess.run(command, env=env, check=False).returncode
    except OSError as error:
        raise EmulatorFailed(f"{command[0]} cannot be started: {error.strerror}", "write it after `--`") from error
    return code if code >= 0 else 128 - code


def _tell(kept: Kept, emulator: Emulator, variables: dict[str, str], as_json: bool) -> None:
    here = emulator.workspace
    if as_json:
        told = {
            "url": emulator.url,
            "folder": str(kept.folder),
            "config": str(kept.folder / "config.json"),
            "storage": here.account.kept_by,
            "workspace": ids_of(emulator),
            "environment": variables,
        }
        click.echo(json.dumps(told, indent=2))
        sys.stdout.flush()
        return
    state = "new" if kept.is_new else f"{len(emulator.jobs.jobs)} jobs from before"
    config = kept.folder / "config.json"
    click.echo(
        f"{here.name} on {emulator.url}, {state}; blobs: {here.account.kept_by}\n\n"
        "In another terminal, for azure-ai-ml, azure-identity and azml-dist:\n\n"
        f"  . {kept.folder / 'env.sh'}\n\n"
        "and in Python there:\n\n"
        "  from azure.ai.ml import MLClient\n"
        "  from azure.identity import EnvironmentCredential\n\n"
        f"  ml_client = MLClient.from_config(EnvironmentCredential(), path={str(config)!r})\n"
    )
    click.echo(
        "warning: this is no place for secrets: the jobs run on this machine, as you, and its files are not encrypted\n"
        "note: only this machine can reach it. Until you close that terminal, all its HTTPS requests come here\n"
        "Ctrl-C ends it, and every job that runs",
        err=True,
    )
    sys.stdout.flush()
