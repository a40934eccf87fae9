"""Stands for one rank that runs in the container of its node: starts the container if it is the first one there, runs
the command in it, passes signals on, and ends as the command ended. Standard library only.

All that stand for ranks of a node hold one end of a pipe, and the container holds the other: when the last of them is
gone, however it ended, the container ends too, and the engine removes it. The first node's is held by all ranks of the
run, since the other containers use its network.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

WAIT = 300.0
"""Seconds until a container has to be up."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGABRT)
_PR_SET_PDEATHSIG = 1


def main(plan: str, *command: str) -> int:
    with open(plan, encoding="utf-8") as file:
        node: dict[str, Any] = json.load(file)
    for folder in {node["shared"], node["first"]}:
        # Until this process ends. Open for reading as well, so that this does not wait for the container.
        os.open(os.path.join(folder, "lifeline"), os.O_RDWR | os.O_CLOEXEC)
    if why := up(node):
        print(f"azml_dist: the container of this node could not be started: {why}", file=sys.stderr, flush=True)
        return 1
    code = run(node, str(os.getpid()), ("bash", *command[1:]))
    if code == 0:
        wait_until_held(node)
    return ended(code)


def wait_until_held(node: dict[str, Any]) -> None:
    """Wait until every other node that uses the network of this one holds its container."""
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    until = time.monotonic() + WAIT
    for folder in node["others"]:
        while not os.path.exists(os.path.join(folder, "starting")) and time.monotonic() < until:
            time.sleep(0.05)


def up(node: dict[str, Any]) -> "str | None":
    """Start the container, or wait until another one has; returns why there is none."""
    failed, shared = os.path.join(node["shared"], "failed"), node["shared"]
    try:
        os.mkdir(os.path.join(shared, "starting"))
    except FileExistsError:
        return waited(os.path.join(shared, "up"), failed)
    first = os.path.join(node["first"], "up")
    why = None if node["first"] == shared else waited(first, os.path.join(node["first"], "failed"))
    why = why or started(node) or waited(os.path.join(shared, "up"), failed)
    if why:
        with open(failed, "w", encoding="utf-8") as file:
            file.write(why)
    return why


def started(node: dict[str, Any]) -> "str | None":
    code, said = engine(node, node["start"])
    if code:
        return said.splitlines()[-1] if said else f"the engine ended with {code}"
    if node["bridge"]:
        outside, inside = node["bridge"]
        subprocess.Popen(outside, stdin=subprocess.DEVNULL, start_new_session=True)
        engine(node, inside)  # without Python in the image there is no MLflow either
    return None


def engine(node: dict[str, Any], words: "list[str]") -> "tuple[int, str]":
    """Call the engine; its exit code, and what it said. Not through a pipe, which a container might keep open."""
    with open(os.path.join(node["shared"], "said"), "w+b") as said:
        code = subprocess.call(
            words, env=own_environment(node), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        said.seek(0)
        return code, said.read(1 << 16).decode(errors="replace").strip()


def waited(file: str, failed: str) -> "str | None":
    until = time.monotonic() + WAIT
    while not os.path.exists(file):
        if os.path.exists(failed):
            with open(failed, encoding="utf-8") as why:
                return why.read() or "it failed"
        if time.monotonic() > until:
            return f"it was not up after {WAIT:g} s"
        time.sleep(0.05)
    return None


def run(node: dict[str, Any], rank: str, command: "tuple[str, ...]") -> int:
    """Run the command; returns how it ended, as `Popen.returncode` has it."""
    words = [word.replace("{rank}", rank) for word in node["exec"]]
    child = subprocess.Popen([*words, *command], stdin=subprocess.DEVNULL, preexec_fn=apart_from_signals)

    def pass_on(number: int, frame: "FrameType | None") -> None:
        name = signal.Signals(number).name.removeprefix("SIG")
        kill = [word.replace("{rank}", rank).replace("{signal}", name) for word in node["kill"]]
        subprocess.Popen(kill, env=own_environment(node), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    return child.wait()


def own_environment(node: dict[str, Any]) -> "dict[str, str]":
    """The environment of the engine, without the variables of the run."""
    return {name: value for name, value in os.environ.items() if name not in node["variables"]}


def apart_from_signals() -> None:
    """In the engine's client: a signal to the group of the rank must not end it before the rank has ended."""
    os.setsid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def ended(code: int) -> int:
    """The exit code; if a signal ended the command, this process ends by it too."""
    number = -code if code < 0 else code - 128
    if 0 < number < 32:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.kill(os.getpid(), number)
            time.sleep(1)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
