"""The C++ part that DeepSpeed compiles for the CPU: once for all tests, and kept between runs of them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

_BUILD = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as Builder; Builder().load(verbose=False)"
_LONGEST = 1800
"""Seconds that compiling takes at most, on a machine with much else to do."""


@pytest.fixture(scope="session")
def torch_extensions() -> str:
    """The value of `TORCH_EXTENSIONS_DIR` with which DeepSpeed starts at once. The first time it takes a minute."""
    folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "one-at-a-time").open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        # torch waits without end for whoever was compiling; whoever was killed at it never comes back.
        for lock in folder.glob("*/lock"):
            lock.unlink(missing_ok=True)
        done = subprocess.run([sys.executable, "-c", _BUILD], env=env, capture_output=True, text=True, timeout=_LONGEST)
    assert done.returncode == 0, f"DeepSpeed could not compile:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return str(folder)
