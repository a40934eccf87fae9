"""What a run's processes left in their working directories, once it has ended: kept, and held against Azure's rules."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

UPLOADED = ("outputs", "logs")
"""Folders of the working directory that Azure ML uploads unasked ("Set up training targets")."""

Stamp = Sequence[int]
"""Size in bytes and time of the last change in ns, as the file was staged."""


def collect(run_folder: Path, nodes: Sequence[str], staged: Mapping[str, Stamp], retry: int = 0) -> list[str]:
    """Move what each node wrote to `./outputs` and `./logs` into `artifacts/`; what is worth telling about it.

    A further attempt's go to `outputs/retry_001` and its like there (seen).
    """
    writers: dict[str, list[int]] = defaultdict(list)
    strays: list[str] = []
    for node, working_dir in enumerate(nodes):
        for path in sorted(_written(working_dir, staged)):
            if path.split("/", 1)[0] in UPLOADED:
                _keep(run_folder / "artifacts", Path(working_dir), node, path, retry, again=path in writers)
                writers[path].append(node)
            elif path not in strays:
                strays.append(path)
    return [*_clashes(writers), *_lost(strays)]


def _keep(artifacts: Path, working_dir: Path, node: int, path: str, retry: int, *, again: bool) -> None:
    folder, _, rest = path.partition("/")
    kept = f"{folder}/retry_{retry:03}/{rest}" if retry else path
    # Nothing of the user's is lost: what Azure would refuse to overwrite stands under the node that wrote it.
    target = artifacts / f"node_{node}" / kept if again else artifacts / kept
    target.parent.mkdir(parents=True, exist_ok=True)
    (working_dir / path).replace(target)


def _written(working_dir: str, staged: Mapping[str, Stamp]) -> Iterator[str]:
    for folder, _, names in os.walk(working_dir):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), working_dir)
            status = os.lstat(os.path.join(folder, name))
            if [status.st_size, status.st_mtime_ns] != list(staged.get(path, ())):
                yield path


def _clashes(writers: Mapping[str, Sequence[int]]) -> Iterator[str]:
    for path, nodes in writers.items():
        if len(nodes) > 1:
            names = " and ".join(f"node {node}" for node in nodes)
            yield f"./{path} was written by {names}: on Azure ML that upload breaks; put the rank into the file's name"


def _lost(strays: Sequence[str]) -> Iterator[str]:
    strays = [path for path in strays if "__pycache__" not in path.split("/")]
    if strays:
        more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        yield (
            f"{', '.join(strays[:3])}{more} would be lost on Azure ML, which keeps ./outputs, ./logs and named outputs"
        )
