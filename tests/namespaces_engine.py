"""What a container engine does, made of namespaces: `run`, `exec`, `image inspect` and `info`, for tests of `--image`.

It has no images: a container sees the files of this machine, with its own mounts, processes and network, which another
one can join. It shows that a run in containers starts, passes signals on and ends; what a real engine does with a
command line, `podman create` shows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ.get("NAMESPACES_ENGINE", "/nowhere"))
SLOW = float(os.environ.get("NAMESPACES_ENGINE_SLOW", "0"))
"""Seconds that the container of another node gets to end before one that shares its network starts."""


def main(verb: str, *words: str) -> int:
    if verb in ("info", "image"):
        return 0
    return run(words) if verb == "run" else execute(words)


def run(words: tuple[str, ...]) -> int:
    options = argparse.ArgumentParser()
    for name in ("--name", "--shm-size", "--security-opt", "--network", "--entrypoint"):
        options.add_argument(name)
    options.add_argument("--mount", action="append", default=[])
    options.add_argument("--detach", action="store_true")
    options.add_argument("--rm", action="store_true", required=True)
    options.add_argument("image")
    options.add_argument("command", nargs=argparse.REMAINDER)
    given = options.parse_args(words)
    script = ["mount --make-rprivate /", "mount -t proc proc /proc", "ip link set lo up"]
    for mount in given.mount:
        fields = dict(field.partition("=")[::2] for field in mount.split(","))
        source, target = fields["source"], fields["target"]
        if source != target:
            script += [f"mkdir -p {target}", f"mount --bind {source} {target}"]
        if "readonly" in fields:
            script += [f"mount --bind {target} {target}", f"mount -o remount,bind,ro {target}"]
    join: list[str] = []
    own = ["--net"]
    if given.network:
        other, until = pid_of(given.network.removeprefix("container:")), time.monotonic() + SLOW
        while Path("/proc", other).exists() and time.monotonic() < until:
            time.sleep(0.01)
        join = ["nsenter", "--target", other, "--net", "--"]
        own = []
    start = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *own, "sh", "-c"]
    inside = " && ".join([*script, 'exec "$0" "$@"'])
    out = subprocess.DEVNULL if given.detach else None
    all_words = [*join, *start, inside, given.entrypoint, *given.command]
    child = subprocess.Popen(all_words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    if not given.detach:
        return child.wait()
    while not (pids := Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()):
        if child.poll() is not None:
            return 125
        time.sleep(0.01)
    (STATE / given.name).write_text(pids[0])
    return 0


def execute(words: tuple[str, ...]) -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--detach", action="store_true")
    options.add_argument("--workdir", default="/")
    options.add_argument("--env", action="append", default=[])
    options.add_argument("name")
    options.add_argument("command", nargs=argparse.REMAINDER)
    given = options.parse_args(words)
    env = {"PATH": os.environ["PATH"], **{name: os.environ[name] for name in given.env if name in os.environ}}
    enter = ["nsenter", "--target", pid_of(given.name), "--mount", "--pid", "--net", "--"]
    into = ["sh", "-c", 'cd "$0" && exec setsid "$@"', given.workdir]
    child = subprocess.Popen([*enter, *into, *given.command], env=env, start_new_session=given.detach)
    if given.detach:
        return 0
    code = child.wait()
    return 128 - code if code < 0 else code


def pid_of(name: str) -> str:
    return (STATE / name).read_text()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
