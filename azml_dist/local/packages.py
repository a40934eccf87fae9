"""A virtual environment with the packages of a job's environment, made once for each list of them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.home import own_folder
from azml_dist.listed import REQUIREMENT, Listed, Unlisted, listed, plain
from azml_dist.local.gpus import visible_gpus
from azml_dist.words import plural

_DONE = "azml-dist.json"
"""In a finished environment: what it was made of. Without it, the environment was left half made."""
_LAST_WORDS = 15
"""Lines of an installer that failed."""

_OF_CONDA: Mapping[str, str] = {
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "opencv": "opencv-python",
    "py-opencv": "opencv-python",
    "tensorflow-gpu": "tensorflow",
}
"""Packages of conda-forge and pytorch that have another name on PyPI."""
_NOT_OF_PYTHON = frozenset(
    [
        *(
            "cudatoolkit",
            "cudatoolkit-dev",
            "cuda-toolkit",
            "cuda-nvcc",
            "cuda",
            "cudnn",
            "nccl",
            "pytorch-cuda",
            "mkl",
        ),
        *("openmpi", "mpich", "gcc", "gxx", "gcc-linux-64", "gxx-linux-64", "cmake", "make", "ninja-build", "git"),
        *("ffmpeg", "libgcc", "libstdcxx-ng", "openssl", "nodejs", "r-base", "openjdk", "compilers", "blas", "mkl"),
    ]
)
"""Packages of conda that are no packages of Python."""


class Made(NamedTuple):
    """An environment that is ready."""

    python: str
    note: str | None
    """What is not as the job's environment has it."""


def environment_of(job_environment: object) -> Made:
    """The Python of a virtual environment that has what a job's environment lists, made where it is not there yet.

    Raises `LaunchError` where that is not known, or cannot be installed.
    """
    found = listed(job_environment)
    if isinstance(found, Unlisted):
        raise LaunchError(
            f"its packages cannot be installed here: {found.why}",
            hint="`--packages here` runs with those of your own Python",
            where="environment",
        )
    requirements = _requirements(found)
    python, note = _python(found)
    made_of = {
        "requirements": sorted(requirements),
        "python": python,
        "platform": sysconfig.get_platform(),
        "cpu": _wants_cpu_builds(requirements),
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    folder = own_folder() / "environments" / key
    with _only_one(folder):
        if not (folder / _DONE).is_file():
            _make(folder, python, requirements, cpu=bool(made_of["cpu"]))
            (folder / _DONE).write_text(json.dumps(made_of, indent=1))
        os.utime(folder / _DONE)  # by which `prune` knows when it was used last
    return Made(str(folder / "bin" / "python"), note)


def _requirements(found: Listed) -> list[str]:
    """What pip is to install: its own lines, and those of conda whose packages PyPI has."""
    refused = [one for one in found.conda if plain(_name(one)) in _NOT_OF_PYTHON]
    if refused:
        raise LaunchError(
            f"{found.where} lists {', '.join(refused)}, which only conda can install",
            hint="`--packages here` runs with the packages of your own Python",
            where="environment",
        )
    return [*map(_of_conda, found.conda), *found.requirements]


def _name(requirement: str) -> str:
    match = REQUIREMENT.match(requirement)
    return match[1] if match else requirement


def _of_conda(line: str) -> str:
    """A line of conda as pip writes it: `numpy=1.26` is any 1.26, and a build behind a second `=` is conda's own."""
    name = _name(line)
    rest = line[len(name) :].strip().split("[")[0]
    package = _OF_CONDA.get(plain(name), name)
    if rest.startswith("=") and not rest.startswith("=="):
        version = rest[1:].split("=")[0]
        return f"{package}=={version}" if version.endswith("*") else f"{package}=={version}.*"
    if rest.startswith("=="):
        return f"{package}=={rest[2:].split('=')[0]}"
    return f"{package}{rest}"


def _python(found: Listed) -> tuple[str, str | None]:
    """The Python of the version that the environment has, where one is here; else this one, and a note."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if found.python is None or found.python == here:
        return sys.executable, None
    if other := shutil.which(f"python{found.python}"):
        return other, None
    return sys.executable, f"{found.where} has Python {found.python}, which is not here: this run has {here}"


def _wants_cpu_builds(requirements: Sequence[str]) -> bool:
    """Whether builds of torch without CUDA are to be taken: no GPU is here, and no index of your own is set."""
    is_torch = any(plain(_name(one)) in ("torch", "torchvision", "torchaudio") for one in requirements)
    return is_torch and sys.platform == "linux" and not visible_gpus(os.environ) and not _has_own_index()


_OWN_INDEX = ("PIP_INDEX", "PIP_EXTRA", "PIP_FIND", "UV_INDEX", "UV_DEFAULT", "UV_FIND")


def _has_own_index() -> bool:
    """Whether pip or uv was told where packages come from; then they come from nowhere else."""
    if any(name.startswith(_OWN_INDEX) for name in os.environ):
        return True
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return "index-url" in told.stdout or "find-links" in told.stdout


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keeps others from making the same environment at the same time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise LaunchError(
            f"{folder} cannot be made: {error.strerror}", hint="see its permissions, and the disk"
        ) from error


def _make(folder: Path, python: str, requirements: Sequence[str], *, cpu: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
    what = plural(len(requirements), "package")
    print(f"installing {what} of the job's environment with {'uv' if uv else 'pip'}, once", file=sys.stderr, flush=True)
    list_of_them = folder / "requirements.txt"
    inside = str(folder / "bin" / "python")
    if uv:
        _run([uv, "venv", "--quiet", "--seed", "--python", python, str(folder)], folder)
        install = [uv, "pip", "install", "--quiet", "--python", inside]
        install += ["--torch-backend", "cpu"] if cpu else []
    else:
        _run([python, "-m", "venv", str(folder)], folder)
        install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    list_of_them.write_text("".join(f"{one}\n" for one in requirements))
    _run([*install, "--requirement", str(list_of_them)], folder)


def _run(command: Sequence[str], folder: Path) -> None:
    """Run a step; what it made goes when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be started: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()][-_LAST_WORDS:]
        raise LaunchError(
            "the packages of the job's environment cannot be installed on "
            f"{platform.system()} with Python {platform.python_version()}:\n  " + "\n  ".join(said),
            hint="`--packages here` runs with those of your own Python",
            where="environment",
        )
