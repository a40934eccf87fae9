"""The environment that a local run starts from: the caller's, without what tells of another run."""

from __future__ import annotations

import os
import re

_OF_ANOTHER_RUN = re.compile(
    r"(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK|MASTER_ADDR|MASTER_PORT|GROUP_(RANK|WORLD_SIZE)"
    r"|ROLE_(NAME|RANK|WORLD_SIZE)|TF_CONFIG|RAY_ADDRESS|MLFLOW_(RUN_ID|TRACKING_URI|EXPERIMENT_ID|EXPERIMENT_NAME)"
    r"|(TORCHELASTIC|OMPI|PMIX|PMI|AZUREML|AZURE_ML|AZ_BATCH|AZ_BATCHAI)_.*)"
)
"""Variables that tell a process its place in some run."""


def base_environment(python: str) -> dict[str, str]:
    """The caller's environment, cleaned; `python` in it is the given one."""
    env = {name: value for name, value in os.environ.items() if not _OF_ANOTHER_RUN.fullmatch(name)}
    folder = os.path.dirname(os.path.abspath(python))
    path = env.get("PATH", os.defpath).split(os.pathsep)
    env["PATH"] = os.pathsep.join([folder, *(p for p in path if p != folder)])
    env.pop("OLDPWD", None)
    return env
