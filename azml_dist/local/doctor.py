"""What this machine has for local runs: Python and its packages, launchers, GPUs, limits, and the folder of runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from azml_dist.errors import DistError, LaunchError
from azml_dist.health import Line
from azml_dist.local.gpus import visible_gpus
from azml_dist.local.launchers.openmpi import find_mpirun
from azml_dist.local.processes import file_limit, most_files
from azml_dist.local.roots import default_root
from azml_dist.words import plural, size_text

TRIED = ("1.35.0", "1.35.2")
"""The oldest and the newest azure-ai-ml with which the tests of this package ran."""
_SMALL_SHM = 1 << 30
"""How many bytes of shared memory the workers of data loaders need at least."""
_FEW_FILES = 1024
"""What a run with about 256 processes needs."""


def of_this_machine() -> Iterator[Line]:
    """One line for each thing; imports nothing and leaves nothing behind."""
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "not in a virtual environment"
    yield Line("Python", "ok", f"{platform.python_version()}, {sys.executable} ({where}), {platform.platform()}")
    yield _sdk()
    yield _torch()
    for name, used_for, extra in (
        ("tensorflow", "TensorFlow jobs", "pip install tensorflow-cpu"),
        ("mpi4py", "scripts that import it", "pip install 'azml-dist[mpi]'"),
        ("ray", "Ray jobs", "pip install 'azml-dist[ray]'"),
        ("mlflow-skinny", "metrics of local runs", "pip install mlflow-skinny"),
    ):
        yield _package(name, used_for, extra)
    yield _torchrun()
    yield _mpirun()
    yield _gpus()
    yield from _shared_memory()
    yield from _limits()
    yield _runs()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sdk() -> Line:
    version = _version("azure-ai-ml")
    if version is None:
        return Line("azure-ai-ml", "missing", "it is not installed", "pip install azure-ai-ml", is_needed=True)
    numbers = [_numbers(one) for one in (TRIED[0], version, TRIED[1])]
    if numbers == sorted(numbers):
        return Line("azure-ai-ml", "ok", version)
    found = f"{version}; tested with {TRIED[0]} to {TRIED[1]}"
    if numbers[1] < numbers[0]:
        return Line("azure-ai-ml", "missing", found, "pip install --upgrade azure-ai-ml", is_needed=True)
    return Line("azure-ai-ml", "ok", found)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _torch() -> Line:
    version = _version("torch")
    if version is None:
        return Line("torch", "missing", "it is not installed; PyTorch jobs need it to run locally", "pip install torch")
    build = version.partition("+")[2] or "the build of the index"
    return Line("torch", "ok", f"{version} ({build})")


def _package(name: str, used_for: str, install: str) -> Line:
    others = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "mlflow-skinny": ("mlflow", "mlflow-skinny")}
    for package in others.get(name, (name,)):
        if version := _version(package):
            return Line(name, "ok", version)
    return Line(name, "missing", f"it is not installed; {used_for} need it", install)


def _torchrun() -> Line:
    if _version("torch"):
        return Line("torchrun", "ok", f"as `{Path(sys.executable).name} -m torch.distributed.run`")
    return Line(
        "torchrun", "missing", "torch has it; PyTorch jobs then run with `--launcher direct`", "pip install torch"
    )


def _mpirun() -> Line:
    try:
        return Line("mpirun", "ok", str(find_mpirun(sys.executable, os.environ.get("PATH"))))
    except DistError as error:
        return Line("mpirun", "missing", f"{error.problems[0].message}", error.hint)


def _gpus() -> Line:
    gpus = visible_gpus(os.environ)
    if not gpus:
        limited = os.environ.get("CUDA_VISIBLE_DEVICES") is not None
        why = "none: CUDA_VISIBLE_DEVICES hides them" if limited else "none: runs use the CPU, and `gloo`"
        return Line("GPUs", "ok", why)
    smi = shutil.which("nvidia-smi")
    said = _said([smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]) if smi else None
    driver = f": {'; '.join(dict.fromkeys(said.splitlines()))}" if said else ""
    return Line("GPUs", "ok", f"{plural(len(gpus), 'GPU')}{driver}")


def _said(command: list[str]) -> str | None:
    """The output of a program; None if it fails or takes more than a few seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _shared_memory() -> Iterator[Line]:
    if not sys.platform.startswith("linux"):
        return
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError as error:
        yield Line("/dev/shm", "missing", f"it cannot be used: {error.strerror}", "workers of data loaders need it")
        return
    if size < _SMALL_SHM:
        hint = "in a container, start it with a larger `--shm-size`"
        yield Line("/dev/shm", "missing", f"{size_text(size)}: workers of data loaders need more", hint)
    else:
        yield Line("/dev/shm", "ok", size_text(size))


def _limits() -> Iterator[Line]:
    if sys.platform == "win32":
        yield Line("local runs", "missing", "local runs do not work on Windows", "use WSL")
        return
    most = most_files(file_limit())
    if 0 <= most < _FEW_FILES:
        yield Line("open files", "missing", f"at most {most}: runs with many processes need more", "raise `ulimit -Hn`")
    else:
        yield Line("open files", "ok", "no limit" if most < 0 else f"at most {most:,}")


def _runs() -> Line:
    def tried(folder: Path) -> Line:
        existing = next(one for one in (folder, *folder.parents) if one.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
        return Line("folder of runs", "ok", f"{folder}, {size_text(shutil.disk_usage(existing).free)} free")

    return _where_runs_go(tried)


def _where_runs_go(tried: Callable[[Path], Line]) -> Line:
    try:
        return tried(default_root())
    except LaunchError as error:
        return Line("folder of runs", "missing", error.problems[0].message, error.hint)
    except OSError as error:
        found = f"{default_root()} cannot be written: {error.strerror}"
        return Line("folder of runs", "missing", found, "use `--root FOLDER`, or set AZML_DIST_ROOT")
