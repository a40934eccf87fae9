"""Folders of runs that have ended, without running anything."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def make_runs(root: Path, count: int, **changes: Any) -> None:
    """Folders of runs that have ended, as this package leaves them; a minute between two of them."""
    process = {"rank": 0, "node_rank": 0, "local_rank": 0, "log": "user_logs/std_log_process_0.txt", "exit_code": 0}
    world = {"distribution": "PyTorch", "node_count": 2, "process_count_per_node": 2, "world_size": 4}
    begun = time.time() - 60 * count - 600
    for number in range(count):
        at = begun + 60 * number
        state = {
            "name": f"run-{number:04}",
            "folder": "",
            "processes": [process],
            "status": "Completed",
            "exit_code": 0,
            "world": world,
            "created_at": at,
            "started_at": at,
            "ended_at": at + 30,
        }
        folder = root / f"run-{number:04}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(state | changes))
