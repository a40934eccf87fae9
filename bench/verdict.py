"""What a verdict costs: over many ranks, at the end of a local run, and on Azure ML.

`python -m bench.verdict judge|judge-unlike COUNT`, `local FOLDER` and `follow NAME` are measured as processes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median
from string import ascii_lowercase
from typing import Any

from bench.azure import client_env, storage
from bench.azure_client import Token, ids
from bench.jobs import Workplace, our_run
from bench.measure import BenchError, Row, held, in_seconds

RANKS, TAIL = 512, 64_000
MANY = 4096
_LOST = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.4]:38032"
_CULPRIT = 77
_DIFFERENT = 16
"""How many of many logs differ in more than their names."""
_LOG = "user_logs/std_log_process_{}.txt"


def verdicts(place: Path, runs: int) -> Iterator[Row]:
    """Processor time and memory of verdicts."""
    place.mkdir(parents=True)
    took = median(float(_asked("judge", str(RANKS)).split()[0]) for _ in range(runs))
    what = f"the verdict over {RANKS} ranks x {TAIL // 1000} kB of text that was read: processor time"
    yield held(what, in_seconds(took), took, 0.3, unit="s")
    took = median(float(_asked("judge-unlike", str(RANKS)).split()[0]) for _ in range(runs))
    yield Row("the same, if no two lines of all these logs are alike", in_seconds(took), "", None, None)
    took = median(_of_a_local_run(place / f"run-{number}") for number in range(runs))
    what = "the verdict at the end of a local run that fails, with what it imports: processor time"
    yield held(what, in_seconds(took), took, 0.05, unit="s")
    mib = _of_many_on_azure(place / "azure")
    what = f"{MANY:,} ranks on Azure ML, followed to their end and judged: peak memory of the whole process"
    yield held(what, f"{mib:,.0f} MiB", mib, 200 * 1000**2 / 1024**2, unit="MiB")


def _asked(*args: str, **options: Any) -> str:
    argv = [sys.executable, "-m", "bench.verdict", *args]
    said: str = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=900, **options).stdout
    return said


def _of_a_local_run(place: Path) -> float:
    work = Workplace(place)
    work.write_script('import os\nif os.environ["RANK"] == "2":\n    {}["labels"]\nimport time\ntime.sleep(60)\n')
    job = work.write_job("python script.py", 2, 2)
    done = subprocess.run([*our_run(job, "direct"), "--root", str(place / "runs")], capture_output=True, text=True)
    found = [file.parent for file in (place / "runs").glob("*/verdict.json")]
    if done.returncode != 1 or not found:
        raise BenchError(f"the run did not fail as it should:\n{done.stderr[-2000:]}")
    return float(_asked("local", str(found[0])).split()[0])


def _of_many_on_azure(place: Path) -> float:
    place.mkdir()
    with storage() as (azurite, authority):
        said = _followed(place, azurite, authority)
    mib, rank, lines = (int(word) for word in said.split())
    if rank != _CULPRIT or lines != MANY * _text(0, 4000, "x").count("\n"):
        raise BenchError(f"rank {rank} after {lines} lines")
    return mib


def _followed(place: Path, azurite: Any, authority: Any) -> str:
    from azml_dist.emulator import Emulator

    with Emulator(azurite.account(), authority) as emulator:
        emulator.assets.add_environment("torch")
        env = client_env(emulator, place)
        _asked("submit", "many", cwd=place, env=env)
        job = emulator.job("many")
        job.advance("Running")
        for number in range(_DIFFERENT):
            job.write_log(_LOG.format(number), _text(number, 4000, _LOST if number else "KeyError: 'labels'"))
        # Whose log a file is, its name says, and not its content: many names may lead to one.
        urls = job.log_urls()
        numbers = {rank: 1 + rank % (_DIFFERENT - 1) for rank in range(MANY)} | {_CULPRIT: 0}
        named = {_LOG.format(rank): urls[_LOG.format(number)] for rank, number in numbers.items()}
        job.log_urls = lambda: named  # type: ignore[method-assign]  # the emulator's own answer, with more names
        job.fail("Execution failed. User process 'python' exited with status code 1.")
        return _asked("follow", "many", cwd=place, env=env)


def _text(rank: int, size: int, error: str, *, unlike: bool = False) -> str:
    """A log as training scripts write it, with a traceback at its end; `unlike` adds a random word to each line."""
    lines: list[str] = []
    left = size
    chance = Random(rank)
    while left > 0:
        step = len(lines)
        loss = (rank * 7919 + step * 104729) % 1_000_003 / 1_000_003
        lines.append(f"2026-11-28 10:{step % 60:02}:12 INFO trainer: epoch 3 step {step} loss {loss:.6f} lr 0.0003")
        if unlike:
            lines[-1] += " batch " + "".join(chance.choices(ascii_lowercase, k=16))
        left -= len(lines[-1]) + 1
    way = '  File "/mnt/azureml/cr/j/0a1b2c/exe/wd/train.py", line 12, in main\n    step()'
    return "\n".join([*lines, "Traceback (most recent call last):", way, error]) + "\n"


def _judge(ranks: int, *, unlike: bool = False) -> str:
    from azml_dist.verdict.judge import judge
    from azml_dist.verdict.known import Known, Line, Log

    logs = []
    for rank in range(ranks):
        text = _text(rank, TAIL, "KeyError: 'labels'" if rank == _CULPRIT else _LOST, unlike=unlike)
        lines = [Line(number, line) for number, line in enumerate(text.splitlines(), 1)]
        logs.append(Log(f"user_logs/std_log_process_{rank}.txt", lines, rank))
    began = time.process_time()
    found = judge(Known(logs))
    took = time.process_time() - began
    assert found
    assert found.rank == _CULPRIT
    return str(took)


def _local(folder: Path) -> str:
    import json

    began = time.process_time()
    from azml_dist.verdict.folder import of_a_run
    from azml_dist.verdict.judge import judge

    found = judge(of_a_run(folder, json.loads((folder / "run.json").read_text()), {}))
    took = time.process_time() - began
    assert found
    assert found.rank == 2
    return str(took)


def _follow(name: str) -> str:
    from azml_dist import Workspace
    from azml_dist.azureml.run import AzureRun

    run = AzureRun(Workspace(*ids(), credential=Token()), name)
    lines = sum(chunk.count(b"\n") for chunk in run.chunks(follow=True))
    found = run.verdict()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    assert peak
    return f"{int(peak[1]) // 1024} {found.rank} {lines}"


def _submit(name: str) -> str:
    from azml_dist import AzureML, Job, PyTorch, Workspace

    job = Job(
        name=name,
        command="true",
        environment="azureml:torch:1",
        compute="gpu-cluster",
        node_count=MANY // 8,
        distribution=PyTorch(process_count_per_node=8),
    )
    return AzureML(Workspace(*ids(), credential=Token()), check=False).submit(job).name


def main() -> None:
    what, argument = sys.argv[1:]
    warnings.simplefilter("ignore")
    if what in ("judge", "judge-unlike"):
        print(_judge(int(argument), unlike=what == "judge-unlike"))
    elif what == "local":
        print(_local(Path(argument)))
    else:
        print({"follow": _follow, "submit": _submit}[what](argument))


if __name__ == "__main__":
    main()
