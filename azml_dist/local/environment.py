"""The environment that a local run starts with: the caller's, without the variables of another run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable

from azml_dist.errors import LaunchError

_OF_ANOTHER_RUN = re.compile(
    r"(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK|MASTER_ADDR|MASTER_PORT|GROUP_(RANK|WORLD_SIZE)"
    r"|ROLE_(NAME|RANK|WORLD_SIZE)|TF_CONFIG|RAY_ADDRESS|MLFLOW_(RUN_ID|TRACKING_\w+|EXPERIMENT_ID|EXPERIMENT_NAME)"
    r"|(TORCHELASTIC|OMPI|PMIX|PMI|AZUREML|AZURE_ML|AZ_BATCH|AZ_BATCHAI)_.*)"
)
"""Variables that tell a process its place in a run."""


WHERE_CODE_COMES_FROM = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONPLATLIBDIR"),
    *("PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__"),
)
"""Variables that make Python find code outside the snapshot and its own packages."""


def base_environment(python: str, temp: str, *, keep_pythonpath: bool = False) -> dict[str, str]:
    """The caller's environment, cleaned, in which `python` runs the given Python."""
    # The system accepts variables without a name (`=x`), but Python cannot start a process with them.
    env = {name: value for name, value in os.environ.items() if name and not _OF_ANOTHER_RUN.fullmatch(name)}
    if not keep_pythonpath:
        env = {name: value for name, value in env.items() if name not in WHERE_CODE_COMES_FROM}
    folder = _folder_of(os.path.abspath(python), temp)
    path = env.get("PATH", os.defpath).split(os.pathsep)
    env["PATH"] = os.pathsep.join([folder, *(p for p in path if p != folder)])
    env.pop("OLDPWD", None)
    return env


def handed_on(*, keep_pythonpath: bool) -> dict[str, str]:
    """The caller's environment, without variables that make Python find other code unless they are kept."""
    env = {name: value for name, value in os.environ.items() if name}
    return {name: value for name, value in env.items() if keep_pythonpath or name not in WHERE_CODE_COMES_FROM}


def left_out(job_variables: Iterable[str]) -> str | None:
    """A finding about the caller's variables that are not passed on. The job may set them itself."""
    names = [name for name in WHERE_CODE_COMES_FROM if os.environ.get(name) and name not in {*job_variables}]
    if not names:
        return None
    are = "are" if len(names) > 1 else "is"
    return (
        f"{' and '.join(names)} of your shell {are} not passed on: Azure ML has only the snapshot and packages of the"
        " environment; keep them with `--keep-pythonpath`"
    )


def has_module(python: str, name: str, *, keep_pythonpath: bool = False) -> bool:
    """Whether the given Python can find a package; the package is not imported."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    env = handed_on(keep_pythonpath=keep_pythonpath)
    return subprocess.run([python, "-c", code, name], env=env, capture_output=True, check=False).returncode == 0


def _folder_of(python: str, temp: str) -> str:
    """A folder in which `python` is the given Python: its own, or a new one if it is called `python3.12` only."""
    folder, named = os.path.dirname(python), os.path.join(os.path.dirname(python), "python")
    if os.path.exists(named) and os.path.samefile(named, python):
        return folder
    made = os.path.join(temp, "bin")
    os.makedirs(made, exist_ok=True)
    for name in ("python", "python3"):
        # A link does not work: Python finds its virtual environment by the folder that it is called from.
        with open(os.path.join(made, name), "w") as script:
            script.write(f'#!/bin/sh\nexec {shlex.quote(python)} "$@"\n')
        os.chmod(os.path.join(made, name), 0o755)
    if not os.access(os.path.join(made, "python"), os.X_OK):
        raise LaunchError(
            f"no file in {temp} can be executed, so `python` in the command would not run {python}",
            hint="set TMPDIR to a folder without `noexec`, or choose a Python whose file is named `python`",
        )
    return made
