"""The folder of the package in the user's home."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from azml_dist.errors import LaunchError


def own_folder() -> Path:
    """`~/.azml_dist`: the default place for runs, and a list of other places. Raises `LaunchError` without a home."""
    hint = "set HOME, or a folder for runs: `--root FOLDER`, or AZML_DIST_ROOT"
    home = os.path.expanduser("~")
    if home == "~":
        raise LaunchError("there is no home folder: HOME is not set, and your user has none", hint=hint)
    if not os.path.isabs(home):  # it would be another folder wherever one stands
        raise LaunchError(f"HOME is not an absolute path: {home!r}", hint=hint)
    return _own_folder(home)


@lru_cache(maxsize=4)
def _own_folder(home: str) -> Path:
    return Path(home, ".azml_dist")
