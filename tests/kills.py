"""Kills processes of runs at random: any of those that a run consists of, or two at once, at any moment of it.

Whoever is killed, nothing may be left running, the run has a final status with its reason, and none is `Completed`
whose ranks have not all done their work. `make kills` does it a thousand times, the tests do it some twenty times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from running import CLI, MARK

from azml_dist.errors import NotFound
from azml_dist.local.state import RunFolder

_AT_A_TIME = 3
_PATIENCE = 90.0
"""Seconds for everything of a run to be gone. On a busy machine processes wait for a core."""
_ENDS_WELL = "sleep {seconds:.2f}; touch ${{{{outputs.done}}}}/{rank}"
_SLEEPS = "(setsid sleep 300 &); sleep 300 & wait"
_READS = "exec tail -f /dev/null"
_ENDS_AND_FAILS = "sleep {seconds:.2f}; touch ${{{{outputs.done}}}}/{rank}; exit $(( {rank} == 1 ))"


_MOMENTS = ("start", "running", "up")
"""From which on it is waited: when the command line starts, when the run does, when all ranks are there."""


class Case(NamedTuple):
    """A run, when to kill in it, and how many."""

    number: int
    launcher: str
    command: str
    nodes: int
    retries: int
    moment: str
    delay: float
    """Seconds after that moment."""
    victims: int
    choice: int
    """Seed of which ones."""


class Outcome(NamedTuple):
    """What became of it. No `faults`: as it is to be."""

    case: Case
    victims: tuple[str, ...]
    status: str
    faults: tuple[str, ...]


def cases(seed: int, count: int) -> Iterator[Case]:
    """The cases of that seed; the first ones of a longer campaign are those of a shorter one."""
    chance = random.Random(seed)
    for number in range(count):
        launcher = chance.choices(["direct", "torchrun", "mpirun"], [84, 10, 6])[0]
        rank = "$OMPI_COMM_WORLD_RANK" if launcher == "mpirun" else "$RANK"
        command = chance.choices([_SLEEPS, _READS, _ENDS_WELL, _ENDS_AND_FAILS], [5, 1, 4, 2])[0]
        ends = command in (_ENDS_WELL, _ENDS_AND_FAILS)
        moment = chance.choices(_MOMENTS, [2, 3, 5])[0]
        longest = {"direct": 0.8, "torchrun": 3.0, "mpirun": 2.0}[launcher]
        yield Case(
            number,
            launcher,
            command.format(seconds=chance.uniform(0, 0.8), rank=rank) if "{" in command else command,
            nodes=chance.choice([1, 2]),
            # A further attempt of one that does not end would not end either.
            retries=chance.choice([0, 1]) if ends else 0,
            moment=moment,
            delay=chance.uniform(0.1, 1.0) if moment == "start" else chance.uniform(0, longest),
            victims=chance.choices([1, 2], [2, 1])[0],
            choice=chance.randrange(1 << 30),
        )


def campaign(seed: int, count: int, launchers: tuple[str, ...]) -> list[Outcome]:
    """Run the cases that need one of these launchers, some at a time."""
    chosen = [case for case in cases(seed, count) if case.launcher in launchers]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(try_case, chosen))


def try_case(case: Case) -> Outcome:
    """Start the run, kill, and look at what is left."""
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    mark = f"kill-{os.getpid()}-{case.number}-{home.name}"
    options = ["--root", str(home / "runs"), "--retries", str(case.retries)]
    options += [] if case.launcher == "mpirun" else ["--launcher", case.launcher]
    process = subprocess.Popen(
        [*CLI, "run", str(_job(case, home)), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {MARK: mark, "HOME": str(home)},
    )
    try:
        while process.poll() is None and not _has_come(case.moment, _folder(home)):
            time.sleep(0.01)
        time.sleep(case.delay)
        victims = _kill(case, process, mark, home)
        faults, status = _look(process, mark, home)
        return Outcome(case, victims, status, tuple(faults))
    finally:
        for pid in _members(mark):
            _send(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _job(case: Case, home: Path) -> Path:
    kind = "mpi" if case.launcher == "mpirun" else "pytorch"
    job = {
        "command": case.command,
        "resources": {"instance_count": case.nodes},
        "distribution": {"type": kind, "process_count_per_instance": 2},
        "outputs": {"done": {"type": "uri_folder"}},
    }
    (home / "job.yml").write_text(json.dumps(job | {"name": "victim"}))
    return home / "job.yml"


def _has_come(moment: str, folder: Path) -> bool:
    if moment == "start":
        return True
    try:
        run = RunFolder(folder).read()
    except NotFound:
        return False
    is_running = run.status not in ("NotStarted", "Preparing")
    return run.is_final() or (is_running and (moment == "running" or all(p.pid for p in run.processes)))


def _kill(case: Case, process: subprocess.Popen[bytes], mark: str, home: Path) -> tuple[str, ...]:
    """Kill one of those that are there, or two of different parts, so that none sees the other's end; their parts."""
    chance = random.Random(case.choice)
    by_part: dict[str, list[int]] = {}
    for pid, part in sorted(_parts(process.pid, mark, home).items()):
        by_part.setdefault(part, []).append(pid)
    parts = chance.sample(sorted(by_part), min(case.victims, len(by_part)))
    victims = [chance.choice(by_part[part]) for part in parts]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            _send(pid, signum)
    return tuple(parts)


def _parts(cli: int, mark: str, home: Path) -> dict[int, str]:
    """What each process of a run is, without those that ranks have started: these may end, and the run goes on."""
    try:
        ranks = {p.pid for p in RunFolder(_folder(home)).read().processes}
    except NotFound:
        ranks = set()
    members = _members(mark)
    parents = {pid: _parent(pid) for pid in members}
    found: dict[int, str] = {}
    for pid, command in members.items():
        if pid == cli:
            found[pid] = "command line"
        elif "guard_supervisor" in command:
            depth, ancestor = 0, parents[pid]
            while "guard_supervisor" in members.get(ancestor, ""):
                depth, ancestor = depth + 1, parents[ancestor]
            # Deeper ones are about to become something else: a rank, or what makes room for one and is not missed.
            if depth < 3:
                found[pid] = ["warden", "guard", "supervisor"][depth]
        elif "torchrun_host" in command:
            found[pid] = "torchrun agent" if "torchrun_host" in members.get(parents[pid], "") else "torchrun host"
        elif "prted" in command or "orted" in command:
            found[pid] = "daemon"
        elif "mpirun" in command or "prterun" in command:
            found[pid] = "mpirun"
        elif "rank.pyc" in command:
            found[pid] = "rank.py"
        elif pid in ranks or "rank.pyc" in members.get(parents[pid], ""):
            found[pid] = "rank"
    return found


def _look(process: subprocess.Popen[bytes], mark: str, home: Path) -> tuple[list[str], str]:
    """What is wrong, once all is over that can be; and the status."""
    faults = []
    deadline = time.monotonic() + _PATIENCE
    while (left := _members(mark)) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.05)
    if left:
        faults.append(f"left running: {sorted(set(left.values()))}")
    code = process.poll() if left else process.wait(timeout=30)
    folder = _folder(home)
    if not (folder / "run.json").exists():
        return faults, "never began"
    try:
        state = RunFolder(folder).read()
    except NotFound as error:
        return [*faults, str(error)], "unknown"
    if not state.is_final():
        faults.append(f"not final: {state.status}")
    if state.status != "Completed" and not state.error:
        faults.append(f"{state.status} without a reason")
    done = len(list((folder / "outputs" / "done").iterdir()))
    if state.status == "Completed" and (done < len(state.processes) or any(p.exit_code for p in state.processes)):
        faults.append(f"Completed, and {done} of {len(state.processes)} ranks have done their work")
    if code == 0 and state.status != "Completed":
        faults.append(f"the command line ended with 0 and the run is {state.status}")
    return faults, state.status


def _folder(home: Path) -> Path:
    return home / "runs" / "victim"


def _members(mark: str) -> dict[int, str]:
    """The processes that have the mark in their environment and have not ended, with their commands."""
    needle = f"{MARK}={mark}".encode()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if needle in Path("/proc", name, "environ").read_bytes().split(b"\0") and _state(int(name)) not in "ZX":
                    found[int(name)] = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def summary(outcomes: list[Outcome]) -> str:
    """The figures of a campaign, and each fault with the case that it came of."""
    killed = [o for o in outcomes if o.victims]
    faulty = [o for o in outcomes if o.faults]

    def count(words: Iterable[str]) -> str:
        return ", ".join(f"{word} {times}" for word, times in Counter(words).most_common())

    lines = [
        f"{len(outcomes)} runs, {len(killed)} with a kill, of {sum(len(o.victims) > 1 for o in killed)} two at once; "
        f"{len(faulty)} with a fault",
        f"killed: {count(part for o in killed for part in o.victims)}",
        f"launchers: {count(o.case.launcher for o in outcomes)}",
        f"status: {count(o.status for o in outcomes)}",
        *(f"case {o.case.number}: {o.case.launcher}, {' and '.join(o.victims)}: {'; '.join(o.faults)}" for o in faulty),
    ]
    return "\n".join(lines)


def main(count: str = "1000", seed: str = "1") -> int:
    """Print the figures; 1 where there is any fault."""
    launchers = ("direct", "torchrun", *(["mpirun"] if shutil.which("mpirun") else []))
    outcomes = campaign(int(seed), int(count), launchers)
    print(f"seed {seed}: {summary(outcomes)}")
    return int(any(o.faults for o in outcomes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
