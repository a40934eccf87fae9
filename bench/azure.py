"""Submission through azml_dist against azure-ai-ml alone, to the emulated service of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.measure import BenchError, Row, held, wait_for

ROOT = Path(__file__).parents[1]
LATENCY = 0.05


class Taken(NamedTuple):
    """What a submission cost."""

    requests: float
    seconds: float


class _Case(NamedTuple):
    what: str
    name: str
    files: int
    size: int
    requests: int | None
    """The most requests that were promised."""
    ratio: float
    """The most seconds that were promised, by those of azure-ai-ml."""


CASES = (
    _Case("100 jobs that differ in one argument, 30 files", "many", 30, 1000, 140, 0.1),
    _Case("one first submit, 30 files", "first", 30, 1000, 39, 1.0),
    _Case("one submit again", "again", 30, 1000, 3, 0.8),
    _Case("a first submit of 2,000 files (20 MB)", "upload", 2000, 10_000, None, 0.2),
)


def submission(place: Path, runs: int) -> Iterator[Row]:
    """Requests and seconds, at 0 and at 50 ms added to each request."""
    place.mkdir(parents=True)
    with storage() as (azurite, authority):
        service = Service(azurite, authority)
        for case in CASES:
            for latency in (0.0, LATENCY):
                found = service.medians(case, place, latency, min(runs, 3) if case.name in ("many", "upload") else runs)
                mine, theirs = found["ours"], found["sdk"]
                what = f"{case.what}, {latency * 1000:.0f} ms a request"
                ratio = mine.seconds / theirs.seconds
                target = case.ratio if latency else 1.0  # the factors were promised for 50 ms
                yield Row(what, f"{mine.seconds:.2f} s", f"azure-ai-ml: {theirs.seconds:.2f} s", ratio, target)
                if latency and case.requests:
                    counted = f"azure-ai-ml: {theirs.requests:.0f}"
                    fewer = mine.requests / theirs.requests
                    ours = f"{mine.requests:.0f}"
                    yield Row("its requests", ours, counted, fewer, case.requests, value=mine.requests)
        yield from _with_check(service, place, runs)
        found = service.medians(CASES[1], place, 0.0, 1, failing=True)
        mine, theirs = found["ours"], found["sdk"]
        took = f"azure-ai-ml: {theirs.seconds:.1f} s"
        what, shorter = "a first submit, one blob request answered 503", mine.seconds / theirs.seconds
        yield Row(what, f"{mine.seconds:.2f} s", took, shorter, 3, unit="s", value=mine.seconds)


def _with_check(service: Service, place: Path, runs: int) -> Iterator[Row]:
    """A submission with the check before it, against a bare one."""
    for case, count in ((CASES[1], runs), (CASES[0], min(runs, 3))):
        found: dict[str, list[Taken]] = {"bare": [], "checked": []}
        for _ in range(count):  # by turns, as the machine is not always as busy
            for who, taken in found.items():
                name = case.name if who == "bare" else f"checked {case.name}"
                taken.append(service.one("ours", case._replace(name=name), place, LATENCY))
        bare, checked = (Taken(*map(median, zip(*found[who], strict=True))) for who in ("bare", "checked"))
        more = checked.seconds - bare.seconds
        what = f"{case.what}: its check, {LATENCY * 1000:.0f} ms a request"
        yield held(what, f"{more:.2f} s more than {bare.seconds:.2f} s", more, 0.3, unit="s")
        asked = checked.requests - bare.requests
        yield held("requests of the check", f"{asked:.0f}", asked, 7)


class Service:
    """Emulators of the service, each for one submission."""

    def __init__(self, azurite: Any, authority: Any) -> None:
        self._azurite, self._authority = azurite, authority
        self._count = 0

    def medians(
        self, case: _Case, place: Path, latency: float, runs: int, *, failing: bool = False
    ) -> dict[str, Taken]:
        found: dict[str, list[Taken]] = {"ours": [], "sdk": []}
        for _ in range(runs):
            for who, taken in found.items():
                taken.append(self._measure(who, case, place, latency, failing))
        return {who: Taken(*map(median, zip(*taken, strict=True))) for who, taken in found.items()}

    def one(self, who: str, case: _Case, place: Path, latency: float, *, storage: str = "azurite") -> Taken:
        """One submission."""
        return self._measure(who, case, place, latency, False, storage)

    def _measure(
        self, who: str, case: _Case, place: Path, latency: float, failing: bool, storage: str = "azurite"
    ) -> Taken:
        from azml_dist.emulator import Emulator, answer

        self._count += 1
        code = place / str(self._count)
        write_files(code / "code", case.files, case.size)
        account = self._azurite.account() if storage == "azurite" else None
        with Emulator(account, self._authority) as emulator:
            emulator.assets.add_environment("torch")
            ready, go = code / "ready", code / "go"
            env = client_env(emulator, code) | {"BENCH_READY": str(ready), "BENCH_GO": str(go)}
            argv = [sys.executable, "-m", "bench.azure_client", who, case.name, str(code / "code")]
            # In a folder of its own: azure-ai-ml asks git about the working directory.
            client = subprocess.Popen(argv, cwd=code, env=env, stdout=-1, stderr=-1, text=True)
            wait_for(lambda: ready.exists() or client.poll() is not None, 60, "the client")
            emulator.forget()
            emulator.latency = latency
            if failing:
                emulator.inject(answer(503), route="blobs.put")
            go.touch()
            out, err = client.communicate(timeout=300)
            if client.returncode:
                raise BenchError(f"{' '.join(argv)} ended with {client.returncode}:\n{err[-2000:]}")
            emulator.assert_clean()
            return Taken(len(emulator.requests), float(out.split()[-1]))


def client_env(emulator: Any, folder: Path) -> dict[str, str]:
    """What a client in a process of its own needs to be sent to the emulator."""
    import certifi

    here, authorities = emulator.workspace, folder / "ca.pem"
    variables = emulator.environ(authorities)
    with authorities.open("a") as file:
        file.write(certifi.contents())  # reading many takes its time, as it does with Azure
    return {
        **os.environ,
        **variables,
        "BENCH_TOKEN": here.token,
        "BENCH_SUBSCRIPTION": here.subscription_id,
        "BENCH_GROUP": here.resource_group,
        "BENCH_WORKSPACE": here.name,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


@contextmanager
def storage() -> Iterator[tuple[Any, Any]]:
    """A running Azurite, and an authority for certificates."""
    sys.path.insert(0, str(ROOT / "tests"))
    import trustme

    from azml_dist.emulator.azurite import Azurite, MissingError

    try:
        azurite = Azurite(ROOT / "tests")
    except MissingError as missing:
        raise BenchError(str(missing)) from missing
    try:
        yield azurite, trustme.CA()
    finally:
        azurite.stop()


def write_files(folder: Path, count: int, size: int) -> None:
    """Files of different content, in folders of 100."""
    for i in range(count):
        file = folder / str(i // 100) / f"file{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{i:08d}".encode() * (size // 8))
