"""The folder of the package in the user's home."""

from __future__ import annotations

import os
from pathlib import Path

from azml_dist.errors import LaunchError


def own_folder() -> Path:
    """`~/.azml_dist`: the default place for runs, and a list of other places. Raises `LaunchError` without a home."""
    hint = "set HOME, or a folder for runs: `--root FOLDER`, or AZML_DIST_ROOT"
    try:
        home = Path.home()
    except (RuntimeError, KeyError) as error:
        raise LaunchError("there is no home folder: HOME is not set, and your user has none", hint=hint) from error
    if not home.is_absolute():  # it would be another folder wherever one stands
        raise LaunchError(f"HOME is not an absolute path: {os.fspath(home)!r}", hint=hint)
    return home / ".azml_dist"
