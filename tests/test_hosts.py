"""Nodes that are really apart: each with a network and a `localhost` of its own, on one machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from owners import the_command_line, the_guard, the_supervisor
from running import (
    CLI,
    LOG,
    await_,
    children,
    cli,
    find,
    launchers,
    lines_of,
    living,
    log_of,
    pytorch,
    run_here,
    write_job,
)

from azml_dist import Job, LaunchError, Local, Mpi, TensorFlow
from azml_dist.local.launchers.hosts import check_apart

pytestmark = needs("ip", "unshare")


@pytest.fixture(scope="session", autouse=True)
def networks() -> None:
    """Skips where this machine lets nobody make them, as most containers do: in CI too, where nothing would help."""
    try:
        check_apart()
    except LaunchError as error:
        pytest.skip(f"nodes cannot be apart here: {error.problems[0].message}")


def apart(job: Job, **options: Any) -> Any:
    return run_here(job, hosts="apart", **options)


MEET = """
import os, socket
here = int(os.environ["RANK"])
port = int(os.environ["MASTER_PORT"])
if here == 0:
    with socket.create_server(("", port)) as server:
        print("heard", server.accept()[0].recv(100).decode())
else:
    try:
        socket.create_connection(("localhost", port), timeout=5)
    except ConnectionRefusedError:
        print("nobody at localhost")
    while True:
        try:
            peer = socket.create_connection((os.environ["MASTER_ADDR"], port), timeout=5)
            break
        except ConnectionRefusedError:
            pass
    peer.sendall(f"{os.environ['MASTER_ADDR']}:{port} from {socket.gethostname()}".encode())
"""


@launchers
def test_localhost_of_one_node_is_not_that_of_another(launcher: str) -> None:
    run = apart(pytorch(["python", "-c", MEET], nodes=2), launcher=launcher)

    assert run.status == "Completed", lines_of(run)
    assert log_of(run, 0) == "heard 10.0.0.4:6105 from 10.0.0.5\n"
    assert log_of(run, 1) == "nobody at localhost\n"


@needs("torch")
@launchers
def test_processes_on_one_node_share_its_network(launcher: str) -> None:
    script = """
        import torch.distributed as dist, torch
        dist.init_process_group("gloo")
        sum = torch.tensor(dist.get_rank() + 1)
        dist.all_reduce(sum)
        print(dist.get_rank(), sum.item(), flush=True)
        dist.destroy_process_group()
    """
    lines = "\n".join(line.strip() for line in script.splitlines())
    run = apart(pytorch(["python", "-c", lines], 2, 2), timeout=120, launcher=launcher)

    assert run.status == "Completed", lines_of(run)
    assert [log_of(run, rank).splitlines()[-1] for rank in range(4)] == ["0 10", "1 10", "2 10", "3 10"]


@needs("mpirun", "mpi4py")
def test_mpi_talks_over_the_networks() -> None:
    script = "from mpi4py import MPI; w = MPI.COMM_WORLD; print(MPI.Get_processor_name(), w.allreduce(w.rank + 1))"
    job = Job(command=["python", "-c", script], node_count=2, distribution=Mpi(process_count_per_node=2))

    run = apart(job)

    assert [log_of(run, rank).split() for rank in range(4)] == [["10.0.0.4", "10"]] * 2 + [["10.0.0.5", "10"]] * 2


def test_tasks_of_tensorflow_have_the_ports_of_azure_ml() -> None:
    dump = """[[ $TF_CONFIG == *'"type":"ps"'* ]] || echo $TF_CONFIG"""
    run = apart(Job(command=dump, node_count=2, distribution=TensorFlow(parameter_server_count=1)))

    assert json.loads(log_of(run, 1))["cluster"] == {
        "ps": ["10.0.0.4:2222"],
        "worker": ["10.0.0.4:2223", "10.0.0.5:2222"],
    }


def test_every_node_logs_to_the_server_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "log.py").write_text(LOG)
    command = "python log.py loss $RANK; echo $MLFLOW_TRACKING_URI"

    run = apart(pytorch(command, nodes=3, code=str(tmp_path)), launcher="direct")

    assert run.status == "Completed", lines_of(run)
    assert sorted(run.metric_histories()["loss"]) == [0.0, 1.0, 2.0]
    assert len({log_of(run, rank) for rank in range(3)}) == 1


def test_two_runs_at_once_have_the_same_ports() -> None:
    """Their networks have nothing to do with each other."""
    job = pytorch(["python", "-c", MEET], nodes=2)
    runs = [Local(hosts="apart", launcher="direct").submit(job) for _ in range(2)]

    assert [log_of(run.wait(timeout=60), 0) for run in runs] == ["heard 10.0.0.4:6105 from 10.0.0.5\n"] * 2


def test_a_failing_rank_ends_the_run_and_is_named() -> None:
    state = apart(pytorch("[ $RANK = 1 ] && exit 3; sleep 300", nodes=2), launcher="direct").state()

    assert (state.failed_rank, state.exit_code) == (1, 3)


def networks_there() -> set[str]:
    """The network namespaces in which processes are."""
    return {network for pid in os.listdir("/proc") if pid.isdigit() and (network := network_of(pid))}


def network_of(pid: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def what_holds_the_network_of_a_node(process: subprocess.Popen[str]) -> int:
    return children(the_supervisor(process), "cat")[-1]


VICTIMS = [the_command_line, the_guard, the_supervisor, what_holds_the_network_of_a_node]


@pytest.mark.parametrize("victim", VICTIMS)
def test_no_network_outlives_a_run_of_which_anything_is_killed(
    victim: Callable[[subprocess.Popen[str]], int], tmp_path: Path
) -> None:
    ends = "until [ -e end ]; do sleep 0.05; done; exit 1"
    job = write_job(tmp_path, f"(setsid sleep 300 &); readlink /proc/self/ns/net; {ends}", 2, name="killed")

    with cli("run", job, "--apart", "--launcher", "direct", mark="apart") as process:
        assert process.stdout
        networks = {process.stdout.readline().split()[-1] for _ in range(2)}
        assert len(networks) == 2
        assert networks <= networks_there()
        os.kill(victim(process), 9)
        if victim is what_holds_the_network_of_a_node:  # it takes no process along: the run goes on until it ends
            (find("killed").folder / "nodes/0/end").touch()
        await_(lambda: not living("apart"))
        await_(lambda: not networks & networks_there())

    assert find("killed").status in ("Failed", "Canceled")


@pytest.mark.skipif(os.geteuid() != 0, reason="rights are taken away from root")
def test_who_may_not_make_networks_is_told_so(tmp_path: Path) -> None:
    job = write_job(tmp_path, "true", 2)
    without = ["setpriv", "--bounding-set=-sys_admin,-net_admin", *CLI, "run", str(job), "--apart"]

    ended = subprocess.run(without, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "does not let you create a network for a node" in ended.stderr
    assert "hint: leave out `--apart`" in ended.stderr


ASK = """
import os, socket, sys, threading, time
address, done = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), sys.argv[1] + "/done"
if os.environ["RANK"] == "0":
    server = socket.create_server(("", address[1]))
    def answer():
        while True:
            peer = server.accept()[0]
            peer.sendall(peer.recv(5))
    threading.Thread(target=answer, daemon=True).start()
    while not os.path.exists(done):
        time.sleep(0.05)
else:
    said, until = [], time.monotonic() + 30
    while said != ["answer", "silence", "answer"] and time.monotonic() < until:
        try:
            peer = socket.create_connection(address, timeout=0.3)
            peer.sendall(b"hello")
            now = "answer" if peer.recv(5) else None
        except ConnectionRefusedError:
            now = None
        except OSError:
            now = "silence"
        if now and now not in said[-1:]:
            said.append(now)
            print(now, flush=True)
        time.sleep(0.05)
    open(done, "w").close()
"""


@launchers
def test_a_node_is_cut_off_the_network_for_a_time(launcher: str) -> None:
    job = pytorch(["python", "-c", ASK, "${{outputs.up}}"], nodes=2)

    run = apart(job, launcher=launcher, faults=["partition:node=1,for=2s@line=answer"])

    assert run.status == "Completed", lines_of(run)
    assert log_of(run, 1).split() == ["answer", "silence", "answer"]
    assert run.state().faults[0].note is None


@needs("tc")
def test_the_network_of_one_node_is_limited() -> None:
    shown = "tc qdisc show dev eth0"
    command = f"echo step 1; [ $RANK = 0 ] || while ! {shown} | grep rate; do sleep 0.05; done; {shown}"

    run = apart(pytorch(command, nodes=2), timeout=60, launcher="direct", faults=["rate:node=1,mbit=10@step=1"])

    assert run.status == "Completed", lines_of(run)
    assert "tbf" in log_of(run, 1)
    assert "rate 10Mbit" in log_of(run, 1)
    assert "tbf" not in log_of(run, 0)
