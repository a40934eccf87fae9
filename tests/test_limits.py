"""Limits of the system: what a run needs is asked for before it starts, and what is refused later is told as it is."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import needs
from running import CLI, await_, call, launchers, pytorch, run_here, write_job

from azml_dist import Job, LaunchError, Mpi


def with_files(soft: int, hard: int | None = None) -> Callable[[], None]:
    """Start a process with that limit of open files."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard or 4096))


@launchers
def test_more_processes_run_than_the_usual_limit_of_files_has_room_for(launcher: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, "ulimit -Sn; ulimit -Hn", 1, 24, name="many")

    ran = call("run", job, "--launcher", launcher, preexec_fn=with_files(48))

    assert ran.returncode == 0, ran.stderr
    assert {line.split("] ")[1] for line in ran.stdout.splitlines()} == {"48", "4096"}  # as the user has them


@needs("mpirun")
def test_processes_of_mpi_get_the_limit_of_files_back(tmp_path: Path) -> None:
    mpi = {"type": "mpi", "process_count_per_instance": 8}
    job = write_job(tmp_path, "ulimit -Sn", distribution=mpi)

    ran = call("run", job, preexec_fn=with_files(48))

    assert ran.returncode == 0, ran.stderr
    assert {line.split("] ")[1] for line in ran.stdout.splitlines()} == {"48"}


@pytest.mark.parametrize(
    ("kind", "options", "needed"),
    [("pytorch", ["--launcher", "torchrun"], 335), ("mpi", [], 635)],
    ids=["torch", "mpi"],
)
def test_a_run_that_needs_more_open_files_than_there_may_be_is_refused_before_it_starts(
    kind: str, options: list[str], needed: int, tmp_path: Path
) -> None:
    each = {"type": kind, "process_count_per_instance": 100}
    job = write_job(tmp_path, "true", name="refused", distribution=each)

    ran = call("run", job, *options, preexec_fn=with_files(64, 256))

    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        f"error: 100 processes need about {needed} open files; the hard limit is 256",
        f"hint: raise the hard limit to {needed} or more (`ulimit -Hn` shows it), or run fewer processes",
    ]
    assert call("status", "refused").returncode == 2


def test_ports_of_many_attempts_are_counted_before_they_are_taken(tmp_path: Path) -> None:
    job = write_job(tmp_path, "true", 30, 1, distribution={"type": "tensorflow", "worker_count": 30})

    ran = call("run", job, "--retries", "3", preexec_fn=with_files(64))

    assert ran.returncode == 2
    assert "the ports of this run need 128 open files; the limit is 64" in ran.stderr
    assert "hint: run `ulimit -Sn 356` first" in ran.stderr


@launchers
def test_a_variable_that_is_too_long_is_named(launcher: str) -> None:
    job = pytorch("true", environment_variables={"BIG": "x" * 131_072}, outputs={})

    state = run_here(job, launcher=launcher).state()

    assert (state.status, state.failed_rank) == ("Failed", None)
    assert "bash could not be started in" in (state.error or "")
    assert "Argument list too long" in (state.error or "")
    assert state.hint == "the variable BIG has 131,076 bytes; Linux allows 131,071 for each: put it into a file"


@needs("mpirun")
def test_a_variable_that_is_too_long_is_named_under_mpirun_too() -> None:
    job = Job(command="true", distribution=Mpi(), environment_variables={"BIG": "x" * 131_072})

    state = run_here(job).state()

    assert (state.status, state.failed_rank) == ("Failed", None)
    assert state.hint == "the variable BIG has 131,076 bytes; Linux allows 131,071 for each: put it into a file"


@launchers
def test_the_longest_variable_that_linux_takes_reaches_the_command(launcher: str) -> None:
    job = pytorch("echo ${#BIG}", environment_variables={"BIG": "x" * (131_071 - 4)}, outputs={})

    assert list(run_here(job, launcher=launcher).logs(rank=0)) == ["131067"]


def test_a_variable_of_this_process_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `os.environ[...] = ...` in a notebook may make one."""
    monkeypatch.setenv("BIG", "x" * 200_000)
    with pytest.raises(LaunchError, match="Argument list too long") as refused:
        run_here(pytorch("true"), launcher="direct")

    assert "the variable BIG has 200,004 bytes" in str(refused.value.problems[0].hint)


ODD = {
    "": "x=1",  # the system calls it `=x`
    "LOGLEVEL": "info",
    "PYTHONWARNINGS": "error",
    "PET_NNODES": "7",
    "TORCHELASTIC_ERROR_FILE": "/nowhere/error.json",
    "PYTHONOPTIMIZE": "2",
}


@pytest.mark.parametrize("launcher", ["torchrun", "direct", pytest.param("mpirun", marks=needs("mpirun"))])
def test_odd_variables_keep_no_launcher_from_starting(launcher: str, tmp_path: Path) -> None:
    kind = {"type": "mpi" if launcher == "mpirun" else "pytorch", "process_count_per_instance": 2}
    job = write_job(tmp_path, "echo up $LOGLEVEL", distribution=kind)
    options = [] if launcher == "mpirun" else ["--launcher", launcher]

    ran = subprocess.run(
        [*CLI, "run", str(job), *options], env=os.environ | ODD, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout.splitlines()) == ["[node0 rank0] up info", "[node0 rank1] up info"]


CGROUPS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def few_processes() -> Iterator[Callable[[int], Callable[[], None]]]:
    """Makes what starts a process that may have so many descendants, itself included."""
    group = CGROUPS / f"azml-dist-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("only root limits the processes of a group, and only where the system has groups of version 1")

    def limited(count: int) -> Callable[[], None]:
        (group / "pids.max").write_text(str(count))

        def join() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        return join

    yield limited
    await_(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.parametrize(
    ("launcher", "counts"),
    [
        ("direct", (2, 4, 9)),
        pytest.param("torchrun", (5, 7, 12), marks=needs("torch")),
        pytest.param("mpirun", (8, 14), marks=needs("mpirun")),
    ],
)
def test_a_limit_of_processes_is_told_as_it_is(
    launcher: str, counts: tuple[int, ...], few_processes: Callable[[int], Callable[[], None]], tmp_path: Path
) -> None:
    each = {"type": "mpi" if launcher == "mpirun" else "pytorch", "process_count_per_instance": 6}
    job = write_job(tmp_path, "sleep 1", distribution=each)
    options = [] if launcher == "mpirun" else ["--launcher", launcher]

    for count in counts:
        ran = call("run", job, *options, preexec_fn=few_processes(count))

        assert ran.returncode in (1, 2), (count, ran.stderr)
        assert "Resource temporarily unavailable" in ran.stderr or "mpirun ended with exit code" in ran.stderr, (
            ran.stderr
        )
        assert "SIG" not in ran.stderr
        assert "Traceback" not in ran.stderr
        assert not re.search(r" in \d{4,}", ran.stderr)  # how long a run took that did not start
