"""Gives each emulated node its own `/tmp`, as real machines have: a mount namespace that its processes enter (Linux).

What a node writes to `/tmp` is in a folder of the run. Files in the machine's `/tmp` that the run needs, above all its
own folders, stay visible under their paths.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

TMP = "/tmp"
_ENTRIES = re.compile(r"/tmp/+([^/:;,\s\"']+)")
_OF_THE_MACHINE = (".X11-unix", ".ICE-unix", "nvidia-mps")
"""Sockets of the display and of NVIDIA's server, which programs expect there."""
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18


def given_in_tmp(environment: Mapping[str, str], paths: Iterable[str]) -> list[str]:
    """Entries of the machine's `/tmp` that a run needs: those in its paths and variables, and its own folders."""
    paths = list(paths)
    told = [*environment.values(), *paths, *map(os.path.realpath, paths)]
    names = {*_OF_THE_MACHINE, *(name for text in told for name in _ENTRIES.findall(text))}
    return sorted(path for path in (f"{TMP}/{name}" for name in names - {".", ".."}) if os.path.lexists(path))


_Call = Callable[..., None]


class Room(NamedTuple):
    """The namespaces of a node, kept alive by descriptors of this process."""

    mount: int
    user: int | None

    @property
    def fds(self) -> list[int]:
        """The namespaces, in the order in which processes enter them."""
        return [fd for fd in (self.user, self.mount) if fd is not None]

    @property
    def paths(self) -> list[str]:
        """Their files for other processes."""
        return [f"/proc/{os.getpid()}/fd/{fd}" for fd in self.fds]

    @property
    def options(self) -> list[str]:
        """The options with which `nsenter` enters them."""
        mount = f"--mount={self.paths[-1]}"
        return [mount] if self.user is None else ["--preserve-credentials", f"--user={self.paths[0]}", mount]


def make_room(folder: str, kept: Iterable[str]) -> Room:
    """A namespace in which `/tmp` is the given folder plus `kept` entries of the machine's `/tmp`. Raises `OSError`."""
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o1777)
    call = system_calls()
    ready, told = os.pipe()
    wait, go = os.pipe()
    if not (pid := os.fork()):
        os.close(go)
        _become(call, folder, kept, told, wait)
    os.close(told)
    os.close(wait)
    try:
        said = os.read(ready, 4096).decode()
        if said != _UP:
            raise OSError(said or "the process that creates it ended")
        user = None if os.geteuid() == 0 else _hold(pid, "user")
        return Room(_hold(pid, "mnt"), user)
    finally:
        os.close(ready)
        os.close(go)
        os.waitpid(pid, 0)


_UP = "up"


def _hold(pid: int, kind: str) -> int:
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _become(call: _Call, folder: str, kept: Iterable[str], told: int, wait: int) -> None:
    """In a child: create the namespace, report it, and wait until the parent holds it."""
    try:
        _enter_new_namespaces(call)
        call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
        for path in kept:
            _keep(call, path, os.path.join(folder, os.path.basename(path)))
        call("mount", os.fsencode(folder), os.fsencode(TMP), None, _MS_BIND | _MS_REC, None)
        os.write(told, _UP.encode())
        os.read(wait, 1)
    except OSError as error:
        os.write(told, (error.strerror or str(error)).encode())
    finally:
        os._exit(0)


def _enter_new_namespaces(call: _Call) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call("unshare", _CLONE_NEWNS)
        return
    # Any user may mount in a user namespace, if the system allows user namespaces at all.
    call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as written:
            written.write(text)


def _keep(call: _Call, path: str, target: str) -> None:
    """Make an entry of the machine's `/tmp` visible in the folder too."""
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    call("mount", os.fsencode(path), os.fsencode(target), None, _MS_BIND | _MS_REC, None)


def system_calls() -> _Call:
    """A function of the C library that raises `OSError` when it fails."""
    import ctypes  # slower to import than everything else here

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *args: object) -> None:
        if getattr(libc, name)(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in args)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return call


def tidy(folder: str, kept: Iterable[str]) -> None:
    """Remove the mount points of kept entries, and the folder if nothing was written to it."""
    for path in kept:
        target = os.path.join(folder, os.path.basename(path))
        with contextlib.suppress(OSError):
            if os.path.islink(target) or (os.path.isfile(target) and not os.path.getsize(target)):
                os.unlink(target)
            else:
                os.rmdir(target)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def shared_tmp(used_by: str, why: str) -> str:
    """A finding if the job uses `/tmp`, and the nodes share the machine's."""
    return (
        f"{used_by} uses /tmp, and in this run all nodes share the machine's ({why}): its files stay for the next run;"
        " on Azure ML each node has its own, empty at the start"
    )
