"""Times whole processes in turns; finds every process that a command started, and its memory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import NamedTuple

_MARK = "AZML_DIST_BENCH_MARK"


class BenchError(Exception):
    """A command that should be measured did not do its work."""


class Row(NamedTuple):
    """One line of the table."""

    what: str
    ours: str
    peer: str
    ratio: float | None
    """Ours over the peer's; None for a row without a peer."""
    target: float | None
    """None for a figure that is only reported."""
    at_least: bool = False
    """The target is a floor, not a ceiling."""
    unit: str = ""
    value: float | None = None
    """What is compared with the target, if not the ratio."""

    @property
    def hit(self) -> bool:
        if self.target is None:
            return True
        value = self.value if self.value is not None else self.ratio
        assert value is not None
        return value >= self.target if self.at_least else value <= self.target


def ratio(what: str, peer: str, found: Mapping[str, float], target: float) -> Row:
    """Our seconds against a peer's; the target is for their ratio."""
    ours, theirs = found["ours"], found["peer"]
    return Row(what, in_seconds(ours), f"{peer}: {in_seconds(theirs)}", ours / theirs, target)


def held(what: str, ours: str, value: float, target: float, *, unit: str = "") -> Row:
    """A figure without a peer, compared with its target."""
    return Row(what, ours, "", None, target, unit=unit, value=value)


def in_seconds(value: float) -> str:
    """`0.25 s`, `12.7 ms`."""
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"


def medians(contenders: Mapping[str, Callable[[], float]], runs: int) -> dict[str, float]:
    """The median of each, run in turns (A B C A B C ...), so that a busy minute hits all of them alike.

    A first round is not counted: it fills the caches.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(runs + 1):
        for name, contender in contenders.items():
            value = contender()
            if i:
                found[name].append(value)
    return {name: median(values) for name, values in found.items()}


def seconds(argv: Sequence[str], *, cwd: Path | None = None, stdout: Path | None = None) -> float:
    """Seconds from the start of a command to its end, which must be successful."""
    with TemporaryFile() as messages, open(stdout or os.devnull, "wb") as out:
        start = time.perf_counter()
        process = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=messages, check=False)
        took = time.perf_counter() - start
        if process.returncode:
            messages.seek(0)
            tail = messages.read()[-2000:].decode(errors="replace")
            raise BenchError(f"{' '.join(argv)} ended with {process.returncode}:\n{tail}")
    return took


class Started:
    """A command in the background with all its processes, which are found by a mark in their environment."""

    def __init__(self, argv: Sequence[str], cwd: Path) -> None:
        self._mark = f"{_MARK}={uuid.uuid4().hex}".encode()
        env = os.environ | dict([self._mark.decode().split("=")])
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def pids(self) -> list[int]:
        """Every process that is left, whatever its parent is now."""
        self.process.poll()  # reap the command, which would stay a zombie otherwise
        return [pid for pid in _all_pids() if self._mark in _read(pid, "environ").split(b"\0")]

    def wait_until_gone(self, timeout: float) -> None:
        wait_for(lambda: not self.pids(), timeout, "the end of all processes")

    def stop(self) -> None:
        """Ask the processes to end, wait, then kill those that are left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(BenchError):
            self.wait_until_gone(5)
        while left := self.pids():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.process.wait()


@contextmanager
def started(argv: Sequence[str], cwd: Path) -> Iterator[Started]:
    it = Started(argv, cwd)
    try:
        yield it
    finally:
        it.stop()


def wait_for(done: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.02)


def mebibytes(pids: Sequence[int]) -> float:
    """Proportional set size: memory that several processes share counts once."""
    kib = 0
    for pid in pids:
        for line in _read(pid, "smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                kib += int(line.split()[1])
    return kib / 1024


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    """For a process that may be gone by now, or be a zombie."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
