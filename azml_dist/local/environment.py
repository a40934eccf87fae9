"""The environment that a local run starts from: the caller's, without what tells of another run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

_OF_ANOTHER_RUN = re.compile(
    r"(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK|MASTER_ADDR|MASTER_PORT|GROUP_(RANK|WORLD_SIZE)"
    r"|ROLE_(NAME|RANK|WORLD_SIZE)|TF_CONFIG|RAY_ADDRESS|MLFLOW_(RUN_ID|TRACKING_URI|EXPERIMENT_ID|EXPERIMENT_NAME)"
    r"|(TORCHELASTIC|OMPI|PMIX|PMI|AZUREML|AZURE_ML|AZ_BATCH|AZ_BATCHAI)_.*)"
)
"""Variables that tell a process its place in some run."""


def base_environment(python: str, temp: str) -> dict[str, str]:
    """The caller's environment, cleaned; `python` in it is the given one."""
    env = {name: value for name, value in os.environ.items() if not _OF_ANOTHER_RUN.fullmatch(name)}
    folder = _folder_of(os.path.abspath(python), temp)
    path = env.get("PATH", os.defpath).split(os.pathsep)
    env["PATH"] = os.pathsep.join([folder, *(p for p in path if p != folder)])
    env.pop("OLDPWD", None)
    return env


def has_module(python: str, name: str) -> bool:
    """Whether that Python can import a package; it is looked for, and not imported."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", code, name], capture_output=True, check=False).returncode == 0


def _folder_of(python: str, temp: str) -> str:
    """The folder in which `python` is that one: its own, or one made for a `python3.12` that has no such name."""
    folder, named = os.path.dirname(python), os.path.join(os.path.dirname(python), "python")
    if os.path.exists(named) and os.path.samefile(named, python):
        return folder
    made = os.path.join(temp, "bin")
    os.makedirs(made, exist_ok=True)
    for name in ("python", "python3"):
        # A link would not do: a virtual environment is known by the folder that its Python is called from.
        with open(os.path.join(made, name), "w") as script:
            script.write(f'#!/bin/sh\nexec {shlex.quote(python)} "$@"\n')
        os.chmod(os.path.join(made, name), 0o755)
    return made
