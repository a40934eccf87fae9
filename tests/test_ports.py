"""No two runs of a machine meet on one port, whatever their environments say, and whoever else is on the machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import cli, find, pytorch

from azml_dist import LaunchError, Local, RunFailed
from azml_dist.local.ports import Ports, lock_in

NOBODY = 65534
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user, as root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")

PORT = 12000 + os.getpid() % 8000
"""Outside of what runs take by themselves, and of what systems give to connections."""
KEEP_ONE = f"from azml_dist.local.ports import Ports; p = Ports(); print(p.take({PORT}), flush=True)"


@contextmanager
def another_user(act: Callable[[], Any]) -> Iterator[None]:
    """Meanwhile a process of another user has done something, and holds what it opened."""
    done, ours = os.pipe()
    theirs, end = os.pipe()
    if not (pid := os.fork()):
        with suppress(BaseException):
            os.close(end)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            held = act()
            os.write(ours, b"x")
            os.read(theirs, 1)
            del held
        os._exit(0)
    os.close(ours)
    try:
        assert os.read(done, 1) == b"x", "the other user failed"
        yield
    finally:
        os.close(end)
        os.waitpid(pid, 0)
        os.close(done)
        os.close(theirs)


def test_runs_with_other_temporary_folders_have_ports_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.yml").write_text("command: echo $MASTER_PORT; sleep 60\ndistribution: {type: pytorch}\n")
    ports = []
    with ExitStack() as runs:
        for number in range(3):
            folder = tmp_path / f"temp{number}"
            folder.mkdir()
            monkeypatch.setenv("TMPDIR", str(folder))
            owner = runs.enter_context(cli("run", tmp_path / "job.yml", "--launcher", "direct"))
            assert owner.stdout
            ports.append(owner.stdout.readline())
        assert len(set(ports)) == 3


def test_a_port_is_kept_while_its_run_lives_though_nobody_listens_there() -> None:
    run = Local(launcher="direct").submit(pytorch("echo $MASTER_PORT; sleep 60"))
    port = int(next(iter(run.logs(rank=0, follow=True))))
    ports = Ports()
    try:
        assert ports.take(port) != port
        find(run.name).cancel()
        with pytest.raises(RunFailed):
            run.wait(timeout=30)
        assert ports.take(port) == port
    finally:
        ports.close()


def test_a_port_on_which_somebody_listens_is_nobodys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ports = Ports()
        assert ports.take(port) != port
        with pytest.raises(LaunchError, match=f"port {port}, which the job sets for Ray's head, is in use"):
            ports.take_exactly(port, "Ray's head")
        ports.close()


@on_linux
def test_ports_that_are_given_back_leave_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    ports = Ports()
    for _ in range(20):
        ports.take(6105)
    ports.close()

    assert os.listdir("/proc/self/fd") == before


@on_linux
@as_root
def test_a_port_that_another_user_keeps_is_left_to_them() -> None:
    with another_user(partial(_keep, PORT)):
        ports = Ports()
        assert ports.take(PORT) != PORT
        ports.close()


@pytest.mark.parametrize("make", [os.mkfifo, partial(os.symlink, "victim"), Path.touch, os.mkdir])
def test_what_lies_in_the_temporary_folder_is_nothing_to_a_run(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody could have put it there: a pipe to wait at, a link to write through, a folder that is not ours."""
    for name in ("azml-dist-ports", f"azml-dist-{os.geteuid()}"):
        (tmp_path / name).mkdir()
        make(tmp_path / name / str(PORT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    ended = subprocess.run([sys.executable, "-c", KEEP_ONE], capture_output=True, text=True, timeout=60, check=True)

    assert int(ended.stdout) == PORT
    assert not (tmp_path / "azml-dist-ports" / "victim").exists()


@on_linux
@as_root
@needs("unshare")
def test_another_network_has_ports_of_its_own() -> None:
    with subprocess.Popen(
        ["unshare", "--net", "--", sys.executable, "-c", f"{KEEP_ONE}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        assert int(other.stdout.readline()) == PORT
        ports = Ports()
        assert ports.take(PORT) == PORT
        ports.close()
        other.communicate("\n")


class TestLocksInAFolder:
    """Where there are no abstract names."""

    def ports(self, folder: Path) -> Ports:
        return Ports(mark=partial(lock_in, str(folder)))

    def test_a_port_is_kept_from_other_runs(self, tmp_path: Path) -> None:
        first, second = self.ports(tmp_path / "ports"), self.ports(tmp_path / "ports")

        port = first.take(PORT)

        assert second.take(port) != port
        first.close()
        assert second.take(port) == port
        second.close()

    @pytest.mark.parametrize("make", [partial(os.symlink, "victim"), os.mkdir])
    def test_what_is_no_file_is_taken_for_anothers(self, make: Callable[[Path], None], tmp_path: Path) -> None:
        (tmp_path / "ports").mkdir(mode=0o700)
        make(tmp_path / "ports" / str(PORT))
        ports = self.ports(tmp_path / "ports")

        assert ports.take(PORT) != PORT
        assert not (tmp_path / "ports/victim").exists()
        ports.close()

    def test_a_pipe_is_not_waited_at(self, tmp_path: Path) -> None:
        (tmp_path / "ports").mkdir(mode=0o700)
        os.mkfifo(tmp_path / "ports" / str(PORT))
        ports = self.ports(tmp_path / "ports")

        assert ports.take(PORT)
        ports.close()

    @as_root
    def test_the_folder_of_another_user_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "ports").mkdir(mode=0o700)
        os.chown(tmp_path / "ports", NOBODY, NOBODY)

        with pytest.raises(LaunchError, match="cannot reserve ports in"):
            self.ports(tmp_path / "ports").take(PORT)

    @pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
    def test_a_folder_that_others_can_write_to_is_refused(self, mode: int, tmp_path: Path) -> None:
        (tmp_path / "ports").mkdir()
        (tmp_path / "ports").chmod(mode)

        with pytest.raises(LaunchError, match="cannot reserve ports in"):
            self.ports(tmp_path / "ports").take(PORT)

    def test_a_link_to_a_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir(mode=0o700)
        (tmp_path / "ports").symlink_to("mine")

        with pytest.raises(LaunchError, match="cannot reserve ports in"):
            self.ports(tmp_path / "ports").take(PORT)

    def test_with_every_mark_held_by_somebody_a_run_still_has_a_port(self, tmp_path: Path) -> None:
        (tmp_path / "ports").mkdir(mode=0o700)
        for port in [6105, *range(20000, 32000)]:
            (tmp_path / "ports" / str(port)).mkdir()
        ports = self.ports(tmp_path / "ports")

        with socket.create_server(("", ports.take(6105))):
            pass


def _keep(port: int) -> Ports:
    ports = Ports()
    assert ports.take(port) == port
    return ports
