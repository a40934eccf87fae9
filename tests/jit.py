"""The C++ part that DeepSpeed compiles for the CPU: once for all tests, and kept between runs of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

_BUILD = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as Builder; Builder().load(verbose=False)"


@pytest.fixture(scope="session")
def torch_extensions() -> str:
    """The value of `TORCH_EXTENSIONS_DIR` with which DeepSpeed starts at once. The first time it takes a minute."""
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache/torch_extensions/azml_dist")
    env = os.environ | {"TORCH_EXTENSIONS_DIR": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    for lock in folder.glob("*/lock"):
        # torch waits without end for whoever was compiling; whoever was killed at it never comes back.
        with contextlib.suppress(OSError):
            lock.unlink()
    done = subprocess.run([sys.executable, "-c", _BUILD], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"DeepSpeed could not compile:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return str(folder)
