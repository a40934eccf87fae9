"""Why a run failed, in the words of one line and a hint."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from azml_dist.local.state import ProcessState

_MISSING = re.compile(rb"^ModuleNotFoundError: No module named '(\w+)", re.MULTILINE)
_HOW_TO_GET = {
    "torch": "pip install 'azml-dist[torch]'",
    "tensorflow": "pip install 'azml-dist[tensorflow]'",
    "tf_keras": "pip install 'tf_keras'",
    "mpi4py": "pip install 'mpi4py'",
    "ray": "pip install 'azml-dist[ray]'",
    "deepspeed": "pip install 'deepspeed'",
    "accelerate": "pip install 'accelerate'",
    "lightning": "pip install 'lightning'",
    # In azml_dist's repository: as it is, Horovod does not build against today's torch.
    "horovod": "bash environments/mpi-horovod/install_horovod.sh",
}
"""What brings the modules of the frameworks, which a run here takes from this machine and not from an image."""
_EXIT_ABORT = b"terminate called without an active exception"


def reason(process: ProcessState, log: Path) -> tuple[str, str | None]:
    """What to say of the process that failed first, and what to do about it."""
    rank = f"rank {process.rank} ({process.role})" if process.serves else f"rank {process.rank}"
    if process.signal is None:
        return f"{rank} failed with exit code {process.exit_code}", _of_a_missing_package(log)
    name = signal.Signals(process.signal).name if process.signal in set(signal.Signals) else str(process.signal)
    if process.signal == signal.SIGABRT and _EXIT_ABORT in _tail(log):
        return (
            f"{rank} was aborted ({name}) at the exit of its interpreter, after its work was done",
            "a known flake of gloo: end with `destroy_process_group()`, the model gone by then (`gc.collect()`)",
        )
    hint = "the kernel's out-of-memory killer does this; `dmesg` tells" if process.signal == signal.SIGKILL else None
    return f"{rank} was ended by signal {process.signal} ({name})", hint


def _of_a_missing_package(log: Path) -> str | None:
    missing = _MISSING.findall(_tail(log))
    command = _HOW_TO_GET.get(missing[-1].decode()) if missing else None
    if not command:
        return None
    return f"`{command}`: a run here has your own packages, not those of its environment"


def _tail(file: Path) -> bytes:
    with open(file, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
        return log.read()
