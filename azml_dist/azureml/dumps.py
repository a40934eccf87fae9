"""Downloads the dumps of torch's Flight Recorder that the ranks of a run left in `./logs`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.azureml.datastores import Blob, Blobs
from azml_dist.azureml.errors import translated
from azml_dist.azureml.parallel import each
from azml_dist.errors import DistError

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace

_AT_A_TIME = 8
_MOST, _MOST_BYTES = 4096, 64_000_000
"""How many dumps to read, and how many bytes of each: one with 2,000 entries has less than 2 million."""


class Dump(NamedTuple):
    """A dump of one rank."""

    path: str
    rank: int
    data: bytes


def dumps(workspace: Workspace, artifacts: str, prefix: str) -> Iterator[Dump]:
    """The dumps of a run. `prefix` is the value of the variable: a path in the working directory, before the rank."""
    path = prefix.removeprefix("./")
    folder, _, name = path.rpartition("/")
    if folder.split("/")[0] not in ("logs", "outputs"):
        return  # Azure ML keeps no other folder
    with translated("read the dumps of the hang", workspace):
        blobs = Blobs(workspace, f"{artifacts.rstrip('/')}/{folder}", _AT_A_TIME)
        found = {rank: one for one in blobs.listed() if (rank := _rank(one.path, name)) is not None}
        chosen = sorted(found.items())[:_MOST]
        for at in range(0, len(chosen), _AT_A_TIME):
            batch = chosen[at : at + _AT_A_TIME]
            read = dict(each(lambda one: _read(blobs, one[1]), batch, at_a_time=_AT_A_TIME, stop=threading.Event()))
            for number, (rank, one) in enumerate(batch):
                yield Dump(f"{folder}/{one.path}", rank, read[number])


def _rank(path: str, name: str) -> int | None:
    digits = path.removeprefix(name)
    return int(digits) if path.startswith(name) and digits.isascii() and digits.isdigit() and len(digits) < 8 else None


def _read(blobs: Blobs, blob: Blob) -> bytes:
    if blob.size > _MOST_BYTES:
        raise DistError(f"{blob.name} has {blob.size:,} bytes, and at most {_MOST_BYTES:,} are read")
    return b"".join(blobs.chunks(blob))
