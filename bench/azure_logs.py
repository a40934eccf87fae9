"""Following a log through azml_dist against azure-ai-ml alone.

`python -m bench.azure_logs ours|sdk NAME` is the client, in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.azure import client_env, storage
from bench.azure_client import Token, ids
from bench.measure import BenchError, Row

SIZE = 2_000_000
STEPS = 14
_LOG = "user_logs/std_log.txt"


class Followed(NamedTuple):
    """What following a log took."""

    megabytes: float
    """Downloaded from the storage."""
    slowest: float
    """The longest time in seconds until a new line was seen."""


def following(place: Path, runs: int) -> Iterator[Row]:
    """A log of 2 MB that grows in 14 steps, each after the one before has been seen."""
    place.mkdir(parents=True)
    with storage() as (azurite, authority):
        mine, theirs = (_follow(who, place, azurite, authority) for who in ("ours", "sdk"))
    size = SIZE / 1e6
    peer = f"azure-ai-ml: {theirs.megabytes:.1f} MB; the log itself: {size:.1f} MB"
    what = f"following a log of {size:.0f} MB that grows {STEPS} times: downloaded, by the log's size"
    less = mine.megabytes / theirs.megabytes
    yield Row(what, f"{mine.megabytes:.2f} MB", peer, less, 1.1, value=mine.megabytes / size)
    took = f"azure-ai-ml: {theirs.slowest:.1f} s"
    shorter = mine.slowest / theirs.slowest
    what = "its longest wait for a new line"
    yield Row(what, f"{mine.slowest:.1f} s", took, shorter, 3, unit="s", value=mine.slowest)


def _follow(who: str, place: Path, azurite: Any, authority: Any) -> Followed:
    from azml_dist.emulator import Emulator

    folder = place / who
    folder.mkdir()
    with Emulator(azurite.account(), authority) as emulator:
        job = _submitted(emulator, folder)
        job.advance("Running")
        emulator.forget()
        argv = [sys.executable, "-u", "-m", "bench.azure_logs", who, job.name]
        client = subprocess.Popen(argv, cwd=folder, env=client_env(emulator, folder), stdout=-1, stderr=-1, text=True)
        try:
            waits = list(_steps(job, client))
            job.advance("Completed")
            _, err = client.communicate(timeout=120)
        finally:
            client.kill()
        if client.returncode:
            raise BenchError(f"{' '.join(argv)} ended with {client.returncode}:\n{err[-2000:]}")
        emulator.assert_clean()
        downloaded = emulator.bytes_by_host()[emulator.workspace.account.host][1]
        # The first step exists before the client starts, so that its starting time does not count.
        return Followed(downloaded / 1e6, max(waits[1:]))


def _submitted(emulator: Any, folder: Path) -> Any:
    """An existing job; submitting it is not measured."""
    emulator.assets.add_environment("torch")
    argv = [sys.executable, "-m", "bench.azure_logs", "submit", "followed"]
    subprocess.run(argv, cwd=folder, env=client_env(emulator, folder), check=True, capture_output=True)
    return emulator.job("followed")


def _steps(job: Any, client: subprocess.Popen[str]) -> Iterator[float]:
    """Write the log step by step; the seconds until the last line of each step was printed."""
    line = "epoch 0001 step 00000001 loss 1.234567890 accuracy 0.123456789\n"
    for step in range(STEPS):
        marker = f"step {step} is written"
        job.write_log(_LOG, line * (SIZE // STEPS // len(line)) + marker + "\n")
        began = time.monotonic()
        _read_until(marker, client)
        yield time.monotonic() - began


def _read_until(marker: str, client: subprocess.Popen[str]) -> None:
    assert client.stdout
    # A client that never prints the line is ended, and its output is shown.
    watchdog = threading.Timer(300, client.kill)
    watchdog.start()
    try:
        for line in client.stdout:
            if marker in line:
                return
    finally:
        watchdog.cancel()
    raise BenchError(f"{marker!r} was never printed")


def main() -> None:
    who, name = sys.argv[1:]
    warnings.simplefilter("ignore")
    if who == "sdk":
        from azure.ai.ml import MLClient

        MLClient(Token(), *ids()).jobs.stream(name)
        return
    from azml_dist import AzureML, Job, Workspace
    from azml_dist.azureml.run import AzureRun

    workspace = Workspace(*ids(), credential=Token())
    if who == "submit":
        AzureML(workspace).submit(Job(name=name, command="true", environment="azureml:torch:1", compute="gpu-cluster"))
        return
    for line in AzureRun(workspace, name).logs(follow=True):
        print(line)


if __name__ == "__main__":
    main()
