"""What the processes of a probe's job printed, read out of its logs."""

from __future__ import annotations

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_LINE = re.compile(rb"azml-dist-probe ([0-9a-f]{12}) (\w{1,20}) (\d{1,4})/(\d{1,4}) (\d{1,10}) (.*)")
"""Anywhere in a line: what passes it on may write something before it."""
_LARGEST = 64 << 20
"""Bytes of a log that are read."""
_RETRY = re.compile(r"(?:^|/)retry_(\d+)/")


class Report(NamedTuple):
    """All that one process said."""

    log: str
    """Where: a path among the files of the run, such as `user_logs/std_log_process_0.txt`."""
    said: Mapping[str, Any]
    """By its kind: `process`, `node`, `clock`, `reduce`, `served`, `trouble`."""

    @property
    def env(self) -> dict[str, str]:
        """The variables that it printed with their values."""
        found = _inner(self.said, "process").get("env")
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

    @property
    def names(self) -> list[str]:
        """Variables that it has, and did not print."""
        found = _inner(self.said, "process").get("names")
        return [str(name) for name in found] if isinstance(found, list) else []

    @property
    def attempt(self) -> int:
        found = _RETRY.search(self.log)
        return int(found[1]) if found else 0

    def about(self, kind: str) -> Mapping[str, Any]:
        """What it said of that kind; empty for nothing."""
        return _inner(self.said, kind)


def _inner(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def read(folder: Path) -> tuple[list[Report], list[str]]:
    """The reports in the files of a run, and the names of its logs, those of the last attempt."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    names = [file.relative_to(folder).as_posix().removeprefix("artifacts/") for file in files]
    found = [report for file, name in zip(files, names, strict=True) for report in _reports(file, name)]
    last = max((report.attempt for report in found), default=0)
    logs = [name for name in names if "logs" in name.partition("/")[0]]
    return [report for report in found if report.attempt == last], logs


def _reports(file: Path, name: str) -> Iterator[Report]:
    """Usually one; several if a log has the lines of several processes."""
    pieces: dict[bytes, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    counts: dict[tuple[bytes, str], int] = {}
    with file.open("rb") as stream:
        for line in stream.read(_LARGEST).splitlines():
            if (match := _LINE.search(line)) and zlib.crc32(match[6]) == int(match[5]):
                sender, kind = match[1], match[2].decode()
                pieces[sender][kind][int(match[3])] = match[6].decode(errors="replace")
                counts[sender, kind] = int(match[4])
    for sender, kinds in pieces.items():
        whole = {kind: _value(parts, counts[sender, kind]) for kind, parts in kinds.items()}
        yield Report(name, {kind: value for kind, value in whole.items() if value is not None})


def _value(parts: Mapping[int, str], count: int) -> Any:
    if sorted(parts) != list(range(count)):
        return None  # a part of it is lost
    try:
        return json.loads("".join(parts[index] for index in range(count)))
    except ValueError:
        return None


def rank_of(env: Mapping[str, str], tasks: Sequence[tuple[str, int]]) -> int | None:
    """The rank of a process by what its launcher tells it; `tasks` are those of TensorFlow, by rank."""
    for name in ("RANK", "OMPI_COMM_WORLD_RANK"):
        if env.get(name, "").isdigit():
            return int(env[name])
    if not tasks:
        return 0
    try:
        task = json.loads(env.get("TF_CONFIG", ""))["task"]
        return list(tasks).index((task["type"], int(task["index"])))
    except (ValueError, LookupError, TypeError):
        return None
