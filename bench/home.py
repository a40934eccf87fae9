"""The code of a run, brought home: 2,000 files from the emulated workspace, against azure-ai-ml's own download."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.azure import LATENCY, client_env, storage, write_files
from bench.measure import BenchError, Row, held, wait_for

FILES, SIZE = 2000, 10_000
_AGAIN = 5


def code_home(place: Path, runs: int) -> Iterator[Row]:
    """Seconds to have all files here, at 50 ms a request; the peer, which takes minutes, runs once."""
    from azml_dist.emulator import Emulator

    place.mkdir(parents=True)
    with storage() as (azurite, authority), Emulator(azurite.account(), authority) as emulator:
        code = _uploaded(emulator, place)
        emulator.latency = LATENCY
        ours = median(_seconds(emulator, "ours", code, place / str(i)) for i in range(min(runs, 3)))
        again = median(_seconds(emulator, "ours", code, place / "0") for _ in range(_AGAIN))
        theirs = _seconds(emulator, "sdk", code, place / "sdk")
        emulator.assert_clean()
    what = f"the code of a run home, {FILES:,} files (20 MB), {LATENCY * 1000:.0f} ms a request"
    yield Row(what, f"{ours:.2f} s", f"azure-ai-ml: {theirs:.1f} s", ours / theirs, 0.2)
    yield held("again, from the cache", f"{again:.2f} s", again, 0.3, unit="s")


def _uploaded(emulator: Any, place: Path) -> str:
    """The id of code that was uploaded to the workspace."""
    write_files(place / "code", FILES, SIZE)
    emulator.assets.add_environment("torch")
    with_tls = {**client_env(emulator, place), "AZML_DIST_CACHE": str(place / "none")}
    argv = [sys.executable, "-m", "bench.home_client", "upload", str(place / "code")]
    done = subprocess.run(argv, env=with_tls, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(done.stderr[-2000:])
    return done.stdout.split()[-1]


def _seconds(emulator: Any, who: str, code: str, folder: Path) -> float:
    folder.mkdir(exist_ok=True)
    ready, go = folder / "ready", folder / "go"
    for file in (ready, go):
        file.unlink(missing_ok=True)
    more = {"BENCH_READY": str(ready), "BENCH_GO": str(go), "AZML_DIST_CACHE": str(folder / "cache")}
    argv = [sys.executable, "-m", "bench.home_client", who, code, str(folder / "home")]
    client = subprocess.Popen(
        argv, env=client_env(emulator, folder) | more, stdout=-1, stderr=-1, text=True, cwd=os.getcwd()
    )
    wait_for(lambda: ready.exists() or client.poll() is not None, 60, "the client")
    go.touch()
    out, err = client.communicate(timeout=900)
    if client.returncode:
        raise BenchError(f"{' '.join(argv)} ended with {client.returncode}:\n{err[-2000:]}")
    return float(out.split()[-1])
