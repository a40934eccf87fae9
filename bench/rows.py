"""What is measured, and what was promised. Every function here gives the rows of one measurement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from bench.azure import submission
from bench.azure_logs import following
from bench.emulator import emulator
from bench.frameworks import mpi, tensorflow
from bench.gpu import throughput
from bench.home import code_home
from bench.jobs import (
    FAILS,
    LINES_PER_RANK,
    PRINTS_ITS_RANK,
    PRINTS_LINES,
    SLEEPS,
    Workplace,
    agents,
    our_run,
    tool,
)
from bench.listing import listing
from bench.measure import (
    BenchError,
    Row,
    Started,
    held,
    in_seconds,
    mebibytes,
    medians,
    ratio,
    seconds,
    started,
    wait_for,
)
from bench.verdict import verdicts
from bench.watching import watching

LAUNCHERS = ("torchrun", "direct")


def plan_command(place: Path, runs: int) -> Iterator[Row]:
    work = Workplace(place)
    work.write_script(PRINTS_ITS_RANK)
    job = work.write_job("python script.py", 2, 4)
    found = medians(
        {
            "ours": lambda: seconds([tool("azml-dist"), "plan", str(job)]),
            "peer": lambda: _python("import azure.ai.ml"),
        },
        2 * runs,
    )
    yield ratio("`azml-dist plan job.yml` (2x4), whole process", "`python -c 'import azure.ai.ml'`", found, 0.4)


def import_time(place: Path, runs: int) -> Iterator[Row]:
    for what, measure in {"whole process": _python, "Python's own start not counted": _import_alone}.items():
        found = medians(
            {"ours": partial(measure, "import azml_dist"), "peer": partial(measure, "import pydantic")},
            4 * runs,
        )
        yield ratio(f"`import azml_dist`, {what}", "`import pydantic`", found, 0.3)


def print_ranks(place: Path, runs: int) -> Iterator[Row]:
    """A script that only prints its rank, to the end: what starting and stopping a run costs."""
    work = Workplace(place)
    work.write_script(PRINTS_ITS_RANK)
    promised = {(1, 4): (1.05, 0.3), (2, 2): (0.8, None), (4, 1): (0.6, None), (8, 2): (0.4, 0.1)}
    for (nodes, processes), targets in promised.items():
        found = medians(_print_contenders(work, nodes, processes), runs)
        peer = "`torchrun --nproc-per-node 4`" if nodes == 1 else f"{nodes} bare torchrun agents"
        for launcher, target in zip(LAUNCHERS, targets, strict=True):
            pair = {"ours": found[launcher], "peer": found["peer"]}
            what = f"print the rank, {nodes}x{processes}, launcher {launcher}"
            if target is not None:
                yield ratio(what, peer, pair, target)


def _print_contenders(work: Workplace, nodes: int, processes: int) -> dict[str, Callable[[], float]]:
    job = work.write_job("python script.py", nodes, processes)
    printed = work.folder / "printed"

    def complete(argv: list[str]) -> float:
        took = seconds(argv, stdout=printed)
        if not all(re.search(rf"rank {rank}(?!\d)", printed.read_text()) for rank in range(nodes * processes)):
            raise BenchError(f"not every rank printed:\n{printed.read_text()}")
        return took

    script = str(work.script)
    bare = [tool("torchrun"), "--nproc-per-node", str(processes), script]
    return {
        **{launcher: partial(complete, our_run(job, launcher)) for launcher in LAUNCHERS},
        "peer": lambda: seconds(bare if nodes == 1 else agents(nodes, processes, script)),
    }


def chatty_ranks(place: Path, runs: int) -> Iterator[Row]:
    """Four ranks that print as fast as Python can; then four whose lines cost them nothing."""
    work = Workplace(place)
    work.write_script(PRINTS_LINES)
    console = work.folder / "console"
    flaws = dict.fromkeys(LAUNCHERS, 0)

    def ours(launcher: str, job: Path, repeat: int, check: bool) -> float:
        runs_folder = Path(os.environ["AZML_DIST_ROOT"])
        shutil.rmtree(runs_folder, ignore_errors=True)
        took = seconds(our_run(job, launcher), stdout=console)
        logs = list(runs_folder.glob("*/user_logs/std_log_process_*.txt"))
        if check:
            flaws[launcher] += _flaws([console], LINES_PER_RANK, labelled=True)
            flaws[launcher] += _flaws(logs, LINES_PER_RANK, labelled=False)
        else:
            flaws[launcher] += 4 * repeat - _line_count(console)
        return took

    def peer(*command: str) -> float:
        logs = work.folder / "tee"
        shutil.rmtree(logs, ignore_errors=True)
        torchrun = [tool("torchrun"), "--nproc-per-node", "4", "--tee", "3", "--log-dir", str(logs)]
        return seconds([*torchrun, *command], stdout=console)

    job = work.write_job(f"python script.py {LINES_PER_RANK}", 1, 4, name="lines")
    found = medians(
        {
            **{launcher: partial(ours, launcher, job, LINES_PER_RANK, True) for launcher in LAUNCHERS},
            "peer": partial(peer, str(work.script), str(LINES_PER_RANK)),
        },
        max(2, runs // 2),
    )
    for launcher in LAUNCHERS:
        what = f"4 ranks x {LINES_PER_RANK:,} lines, printed by Python, start to end, launcher {launcher}"
        yield _rate(what, 4 * LINES_PER_RANK, found[launcher], found["peer"])

    text = "".join(f"line {i:06d} of the many that a chatty training script prints\n" for i in range(LINES_PER_RANK))
    (work.folder / "text").write_text(text)
    many, one = 10 * LINES_PER_RANK, 1
    commands = {many: f"for i in 0 1 2 3 4 5 6 7 8 9; do cat {work.folder}/text; done", one: "echo one"}
    contenders: dict[str, Callable[[], float]] = {}
    for count, command in commands.items():
        job = work.write_job(command, 1, 4, name=f"{count}-lines")
        contenders |= {f"{launcher} {count}": partial(ours, launcher, job, count, False) for launcher in LAUNCHERS}
        contenders[f"peer {count}"] = partial(peer, "--no-python", "bash", "-c", command)
    found = medians(contenders, max(2, runs // 2))
    net = {name: found[f"{name} {many}"] - found[f"{name} {one}"] for name in (*LAUNCHERS, "peer")}
    for launcher in LAUNCHERS:
        what = f"4 ranks x {many:,} lines from `cat`, starting and stopping not counted, launcher {launcher}"
        yield _rate(what, 4 * many, net[launcher], net["peer"])
        yield held("lines lost or torn in all of these runs", str(flaws[launcher]), flaws[launcher], 0)


def _line_count(file: Path) -> int:
    with open(file, "rb") as content:
        return sum(piece.count(b"\n") for piece in iter(lambda: content.read(1 << 20), b""))


def _rate(what: str, lines: int, took: float, peer_took: float) -> Row:
    peer = f"`torchrun --tee 3 --log-dir`: {lines / peer_took:,.0f} lines/s"
    return Row(what, f"{lines / took:,.0f} lines/s", peer, peer_took / took, 3, at_least=True)


def _flaws(files: list[Path], count: int, *, labelled: bool) -> int:
    """How many of the lines are missing, and how many are not whole."""
    label = r"\[[^]]*rank *{rank}\] ?" if labelled else ""
    whole = [re.compile(label.format(rank=r) + rf"rank {r} line (\d{{6}}) of .* prints\n") for r in range(4)]
    seen: set[tuple[int, str]] = set()
    torn = 0
    for file in files:
        with open(file, newline="\n") as lines:
            for line in lines:
                rank = next((r for r in range(4) if f"rank {r} line" in line), None)
                match = rank is not None and whole[rank].fullmatch(line)
                if match and rank is not None:
                    seen.add((rank, match[1]))
                elif " line " in line or "chatty" in line:
                    torn += 1
    return torn + 4 * count - len(seen)


def memory(place: Path, runs: int) -> Iterator[Row]:
    """While 16 processes of the user sleep: what everything else takes."""
    work = Workplace(place)
    pids = work.folder / "pids"
    command = SLEEPS.format(pids=pids)
    job = work.write_job(command, 8, 2)

    def weigh(argv: list[str]) -> float:
        pids.mkdir()
        with started(argv, work.folder) as it:
            wait_for(lambda: _present(pids, 16), 120, "16 sleeping processes")
            time.sleep(1)  # what was busy starting them may still be letting go of memory
            users = {int(file.read_text()) for file in pids.iterdir()}
            weight = mebibytes([pid for pid in it.pids() if pid not in users])
        for file in pids.iterdir():
            file.unlink()
        pids.rmdir()
        return weight

    script = work.folder / "sleep.sh"
    script.write_text(command)
    bare = partial(agents, 8, 2, f"--no-python bash {script}")
    found = medians(
        {
            **{launcher: partial(weigh, our_run(job, launcher)) for launcher in LAUNCHERS},
            "peer": lambda: weigh(bare()),
        },
        max(1, runs // 2),
    )
    for launcher in LAUNCHERS:
        yield Row(
            f"memory of all but the user's processes, 8x2, launcher {launcher}",
            f"{found[launcher]:,.0f} MiB",
            f"8 bare torchrun agents: {found['peer']:,.0f} MiB",
            found[launcher] / found["peer"],
            0.25,
        )


def failure(place: Path, runs: int) -> Iterator[Row]:
    work = Workplace(place)
    pids, failed_at = work.folder / "pids", work.folder / "failed_at"
    job = work.write_job(FAILS.format(pids=pids, failed_at=failed_at), 2, 2)

    def until_gone(launcher: str) -> float:
        pids.mkdir()
        it = Started(our_run(job, launcher), work.folder)
        try:
            wait_for(lambda: failed_at.exists() and failed_at.read_text() != "", 120, "the failure")
            it.wait_until_gone(60)
            took = time.time() - float(failed_at.read_text())
        finally:
            it.stop()
        for file in (*pids.iterdir(), failed_at):
            file.unlink()
        pids.rmdir()
        return took

    for launcher in LAUNCHERS:
        took = median([until_gone(launcher) for _ in range(runs)])
        what = f"first failure until everything is gone, 2x2, peers blocked, launcher {launcher}"
        yield held(what, in_seconds(took), took, 5, unit="s")


LARGE_PLAN = """\
import re, time
from azml_dist import Job, PyTorch
job = Job(command="python train.py", node_count=1000, distribution=PyTorch(process_count_per_node=8),
          environment="azureml:bench@latest", compute="cluster")
start = time.perf_counter()
plan = job.plan()
text = str(plan)
count = sum(len(process.env) > 0 for process in plan.processes)
took = time.perf_counter() - start
assert count == 8000
# Not ru_maxrss: that starts at what the parent process had.
print(took, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def large_plan(place: Path, runs: int) -> Iterator[Row]:
    argv = [sys.executable, "-c", LARGE_PLAN]
    results = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split() for _ in range(runs)]
    took = median(float(seconds_) for seconds_, _ in results)
    mib = median(int(kib) / 1024 for _, kib in results)
    what = "plan of 1,000x8: the plan, its table, the environment of every process"
    yield held(what, in_seconds(took), took, 0.5, unit="s")
    yield held("its peak memory, whole process", f"{mib:,.0f} MiB", mib, 150 * 1000**2 / 1024**2, unit="MiB")


LOAD_MANY = """\
import logging, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
files = sorted(Path(sys.argv[2]).glob("*.yml"))
if sys.argv[1] == "ours":
    from azml_dist import Job
    each = lambda file: Job.load(file).plan()
else:
    from azure.ai.ml import load_job as each
def one_pass():
    start = time.perf_counter()
    for file in files:
        each(file)
    return time.perf_counter() - start
print(min(one_pass() for _ in range(3)))
"""


def many_jobs(place: Path, runs: int) -> Iterator[Row]:
    """The best of three passes; imports do not count, which favours azure-ai-ml."""
    work = Workplace(place)
    work.write_script(PRINTS_ITS_RANK)
    for number in range(100):
        work.write_job("python script.py --data ${{inputs.data}}", 2, 4, name=f"job{number:03}").open("a").write(
            "inputs: {data: {type: uri_folder, path: 'azureml:digits:1'}, epochs: 3, rate: 0.1}\n"
            "outputs: {model: {type: uri_folder}}\nenvironment_variables: {A: b}\ntags: {a: b}\n"
        )

    def load(who: str) -> float:
        argv = [sys.executable, "-c", LOAD_MANY, who, str(work.folder)]
        return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    found = medians({"ours": lambda: load("ours"), "peer": lambda: load("peer")}, runs)
    yield ratio("100 job files read and planned, one process", "`load_job` of azure-ai-ml", found, 0.1)


ALL: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "plan": plan_command,
    "import": import_time,
    "print": print_ranks,
    "lines": chatty_ranks,
    "memory": memory,
    "failure": failure,
    "mpi": mpi,
    "tensorflow": tensorflow,
    "large-plan": large_plan,
    "many-jobs": many_jobs,
    "listing": listing,
    "submission": submission,
    "emulator": emulator,
    "home": code_home,
    "following": following,
    "verdicts": verdicts,
    "watching": watching,
    "gpu": throughput,
}


def _python(code: str) -> float:
    return seconds([sys.executable, "-c", code])


def _import_alone(statement: str) -> float:
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def _present(folder: Path, count: int) -> bool:
    return sum(file.name.isdigit() for file in folder.iterdir()) == count
