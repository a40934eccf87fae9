"""A small sweep for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from running import LOG

from azml_dist import Sweep

SWEEP: dict[str, Any] = {
    "type": "sweep",
    "trial": {"command": "echo lr=${{search_space.lr}}", "environment": "azureml:env:1"},
    "search_space": {"lr": {"type": "choice", "values": [0.1, 0.2, 0.3]}},
    "sampling_algorithm": "grid",
    "objective": {"primary_metric": "loss", "goal": "minimize"},
    "limits": {"max_total_trials": 10},
}


def write_sweep(folder: Path, **fields: Any) -> Path:
    """A sweep file; JSON is YAML. Its code folder holds `log.py`."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "log.py").write_text(LOG)
    file = folder / "sweep.yml"
    trial = fields.pop("trial", {})
    if isinstance(trial, dict):
        trial = {**SWEEP["trial"], "code": "src", **trial}
    file.write_text(json.dumps({**SWEEP, "trial": trial, **fields}))
    return file


def sweep_of(folder: Path, command: str, **fields: Any) -> Sweep:
    return Sweep.load(write_sweep(folder, trial={"command": command}, **fields))
