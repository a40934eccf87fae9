"""Builds Horovod for the tests that train with it, once: `python tests/horovod_build.py`, or `make horovod`.

By the script with which the environment `mpi-horovod` installs it: Horovod 0.28.1, its last release, does not build
against today's torch as it is. It takes two to three minutes on two cores. What was built is kept in the user's cache,
by the versions of everything that it was built with.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from azml_dist.errors import LaunchError
from azml_dist.local.launchers.openmpi import OpenMpi, find_mpirun

VERSION = "0.28.1"
ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "environments" / "mpi-horovod" / "install_horovod.sh"
TOOLS = ["setuptools==79.0.1", "wheel==0.45.1"]  # its setup.py needs a setuptools before 80
CMAKE = "cmake==3.31.6"
TENSORFLOW = ["tensorflow-cpu==2.16.2", "numpy==1.26.4", "scikit-learn==1.9.1", "mlflow-skinny==3.17.2"]
"""Of Azure ML's environment with Horovod, which does not build against the TensorFlow of the other tests: 2.21 comes
without a header of its own (highwayhash)."""
NEEDED = ["openmpi==5.0.11", "cffi", "cloudpickle", "psutil", "pyyaml", "packaging"]


class CannotBuildError(Exception):
    """This machine lacks what the build needs, or it failed; the message says which."""


def kept() -> Path:
    """The folder to put on `PYTHONPATH`, whether or not it is there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    return cache / "azml_dist" / f"horovod-{VERSION}-{python}-torch{version('torch')}-openmpi{_mpi().version}"


def built() -> Path:
    """The folder to put on `PYTHONPATH`; built now where it is not there yet. Raises `CannotBuildError`."""
    folder = kept()
    with _one_at_a_time(folder):
        if folder.exists():
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="horovod-") as temp:
            wheel = _build(Path(temp), sys.executable, _mpi().path, "PYTORCH")
            _pip(sys.executable, "install", "--no-deps", "--target", f"{temp}/site", str(wheel))
            os.rename(f"{temp}/site", folder)
    return folder


def kept_with_tensorflow() -> Path:
    """The Python of an environment with TensorFlow and Horovod, whether or not it is there yet."""
    return (
        kept().with_name(f"horovod-{VERSION}-{TENSORFLOW[0]}-cp{sys.version_info[0]}{sys.version_info[1]}")
        / "bin/python"
    )


def built_with_tensorflow() -> Path:
    """The Python of that environment; made now where it is not there yet. Raises `CannotBuildError`."""
    python = kept_with_tensorflow()
    made = python.parent.parent
    with _one_at_a_time(made):
        if (made / "made").exists():
            return python
        if sys.version_info >= (3, 13):
            raise CannotBuildError(f"{TENSORFLOW[0]} is not there for Python 3.13 and later")
        shutil.rmtree(made, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", made], check=True)
        _pip(str(python), "install", *TENSORFLOW, *NEEDED)
        with tempfile.TemporaryDirectory(dir=made) as temp:
            wheel = _build(Path(temp), str(python), str(python.with_name("mpirun")), "TENSORFLOW")
            _pip(str(python), "install", "--no-deps", str(wheel))
        (made / "made").touch()
    return python


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """While one process of the tests builds, the others wait for what it makes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(temp: Path, python: str, mpirun: str, framework: str) -> Path:
    mpicxx = Path(mpirun).with_name("mpicxx")
    if not mpicxx.exists():
        raise CannotBuildError(f"there is no {mpicxx}: install Debian's libopenmpi-dev, or `pip install openmpi`")
    if not shutil.which("g++"):
        raise CannotBuildError("there is no g++")
    tools = [*TOOLS, *([] if shutil.which("cmake") else [CMAKE])]
    _pip(python, "install", "--target", str(temp / "tools"), *tools)
    # The script takes `python`, CMake and Open MPI from the PATH.
    path = [Path(python).parent, mpicxx.parent, temp / "tools" / "bin", os.environ["PATH"]]
    env = os.environ | {
        "PATH": os.pathsep.join(map(str, path)),
        "PYTHONPATH": str(temp / "tools"),
        "MAKEFLAGS": f"-j{os.cpu_count()}",
        "FRAMEWORK": framework,
    }
    _run(["bash", str(SCRIPT), "wheel", "--no-deps", "--wheel-dir", str(temp)], env)
    [wheel] = temp.glob("horovod-*.whl")
    return wheel


def _mpi() -> OpenMpi:
    try:
        return find_mpirun(sys.executable, os.environ["PATH"])
    except LaunchError as error:
        raise CannotBuildError(error.problems[0].message) from error


def _pip(python: str, *args: str) -> None:
    _run([python, "-m", "pip", "--disable-pip-version-check", "--quiet", *args])


def _run(argv: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise CannotBuildError(f"{' '.join(argv)} failed with exit code {done.returncode}:\n{tail}")


if __name__ == "__main__":
    try:
        print(f"Horovod {VERSION} is in {built()}")
        print(f"Horovod {VERSION} with TensorFlow is in {built_with_tensorflow().parent.parent}")
    except CannotBuildError as error:
        sys.exit(f"Horovod {VERSION} is not built: {error}")
