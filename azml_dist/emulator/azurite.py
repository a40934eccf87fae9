"""Azurite, Microsoft's storage emulator, as a child process: it keeps the blobs and checks the signatures."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from azml_dist.emulator.blobs import AzuriteAccount

_ACCOUNTS = 1000
"""Accounts that Azurite is started with, one for each emulator; it takes no more while it runs."""
_DIE_WITH_US = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"
"""Node code that ends Azurite when its stdin does, that is, when this process is gone for whatever reason."""
VARIABLE = "AZML_EMULATOR_AZURITE"
"""Where Azurite is installed."""
_SCRIPT = "dist/src/blob/main.js"
_OPTIONS = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
_KEY = base64.b64encode(b"the key of every emulated account".ljust(64, b".")).decode()


class MissingError(Exception):
    """Node or the npm package is not installed; the message says what to do."""


def find_azurite(place: str | Path | None = None) -> list[str]:
    """The command that starts Azurite's blob service.

    `place` is the folder of the npm package, or one with a `node_modules` that has it; by default the variable
    `AZML_EMULATOR_AZURITE` says it, or the `azurite` on PATH is taken.
    """
    node = shutil.which("node")
    if node is None:
        raise MissingError("Azurite needs Node.js, and `node` is not on PATH: install Node.js 20 or later")
    place = place or os.environ.get(VARIABLE)
    found = _script_in(Path(place)) if place else _script_on_path()
    if found is None:
        where = f"not in {place}" if place else f"not on PATH, and {VARIABLE} is not set"
        raise MissingError(f"Azurite is {where}: run `npm install azurite`, and name the folder")
    return [node, "--import", _DIE_WITH_US, str(found)]


def _script_in(folder: Path) -> Path | None:
    folders = (folder, folder / "azurite", folder / "node_modules" / "azurite")
    return next((script for one in folders if (script := one / _SCRIPT).is_file()), None)


def _script_on_path() -> Path | None:
    """The package that the command `azurite` belongs to: npm links `dist/src/azurite.js` there."""
    command = shutil.which("azurite")
    script = Path(command).resolve().parent / "blob" / "main.js" if command else None
    return script if script and script.is_file() else None


class Azurite:
    """A running Azurite; each `account()` is a fresh, empty storage account."""

    def __init__(self, place: str | Path | None = None) -> None:
        """Start it; `place` says where it is installed, as for `find_azurite`."""
        command = find_azurite(place)
        self._folder = tempfile.TemporaryDirectory(prefix="azurite-")
        names = [f"emulated{number:03d}" for number in range(_ACCOUNTS)]
        self._unused = iter(names)
        self.port = _free_port()
        accounts = ";".join(f"{name}:{_KEY}" for name in names)
        self._log = open(Path(self._folder.name) / "azurite.log", "w+b")  # noqa: SIM115 (open as long as Azurite runs)
        self._process = subprocess.Popen(
            [*command, "--blobHost", "127.0.0.1", "--blobPort", str(self.port), *_OPTIONS],
            env={**os.environ, "AZURITE_ACCOUNTS": accounts},
            cwd=self._folder.name,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._await_port(seconds=60)
        except BaseException:
            self.stop()
            raise

    def account(self) -> AzuriteAccount:
        """An unused account."""
        name = next(self._unused, None)
        if name is None:
            raise RuntimeError(f"more than {_ACCOUNTS} emulators in one session: raise _ACCOUNTS in {__file__}")
        return AzuriteAccount(name, _KEY, self.port)

    def stop(self) -> None:
        """End the process and forget the blobs."""
        self._process.kill()  # nothing of it is on disk
        self._process.wait(timeout=10)
        if self._process.stdin:
            self._process.stdin.close()
        self._log.close()
        self._folder.cleanup()

    def _await_port(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        self._log.seek(0)
        raise RuntimeError(f"Azurite did not start:\n{self._log.read().decode(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
