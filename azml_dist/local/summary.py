"""What a list shows of the runs on this machine; an index in each folder of runs keeps it.

To read and check a `run.json` takes a tenth of a millisecond, so a list of thousands would take seconds. A run that has
ended does not change: its summary counts until its `run.json` has another time or size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.errors import NotFound
from azml_dist.local.checking import check_run, check_summary
from azml_dist.local.roots import roots_of
from azml_dist.local.state import RunFolder, replace_file
from azml_dist.regular import open_regular, read_regular
from azml_dist.status import RunStatus
from azml_dist.verdict.kept import kept
from azml_dist.words import plural

INDEX = ".index.json"
"""In a folder of runs: the summaries of those that have ended."""
_FORMAT = 3
_MAX_INDEX, _MAX_RUN = 200_000_000, 64_000_000
_CHECKED = 200
"""How many runs that are not in the index are checked in full; of more, only what a list shows is checked."""
_MEMBERS = {"sweep": ("trials", "trial"), "pipeline": ("steps", "step")}


class Summary(NamedTuple):
    """A run on this machine, as a list shows it."""

    name: str
    root: str
    status: RunStatus
    error: str | None
    """Why it failed, by its verdict, or was cancelled."""
    kind: str | None
    """`sweep` or `pipeline`."""
    parent: str | None
    world: str
    """`2 x 2 = 4`, or `12 trials`."""
    file: str | None
    script: str | None
    python: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.root, self.name))


def summaries(root: str | Path | None = None, *, skipped: list[str] | None = None) -> list[Summary]:
    """Every run in `root`, or by default in all known folders of runs, in the order of their creation.

    Folders that cannot be read are skipped, with the reason in `skipped`.
    """
    skipped = [] if skipped is None else skipped
    roots = dict.fromkeys(os.path.realpath(one) for one in roots_of(root, skipped))
    found = [one for one_root in roots for one in _Root(one_root, skipped).summaries()]
    return sorted(found, key=lambda one: (one.created_at, one.name))


class _Root:
    """A folder of runs, with its index."""

    def __init__(self, path: str, skipped: list[str]) -> None:
        self._path, self._skipped = path, skipped
        self._kept = _read_index(path)

    def summaries(self) -> Iterator[Summary]:
        stamps = dict(self._stamps())
        known = {
            name: entry for name, stamp in stamps.items() if (entry := self._kept.get(name)) and entry[:2] == stamp
        }
        in_full = len(stamps) - len(known) <= _CHECKED
        for name, stamp in stamps.items():
            if name in known:
                _, _, status, *rest = known[name]
                yield Summary(name, self._path, RunStatus(status), *rest)
            elif found := self._read(name, stamp[-1] if stamp else 0, in_full):
                if found.ended_at is not None and found.status.is_final:
                    known[name] = [*stamp, str(found.status), *found[3:]]
                yield found
        if known != self._kept:
            _write_index(self._path, known)

    def _stamps(self) -> Iterator[tuple[str, list[int]]]:
        """The time and size of each `run.json`. Names that begin with a dot are of runs that are being created."""
        try:
            names = sorted(name for name in os.listdir(self._path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError) as error:
            self._skipped.append(f"{self._path}: {getattr(error, 'strerror', None) or error}")
            return
        for name in names:
            file = f"{self._path}/{name}/run.json"
            try:
                status = os.stat(file)
            except OSError:
                if os.path.lexists(file):
                    yield name, []
            else:
                yield name, [status.st_mtime_ns, status.st_size]

    def _read(self, name: str, size: int, in_full: bool) -> Summary | None:
        try:
            data = self._ended(name, size, in_full)
            if data is None:
                data = RunFolder(Path(self._path, name)).read().to_dict()
            return _summary(data, name, self._path)
        except NotFound as error:  # damaged, or some other tool's file of that name
            self._skipped.append(error.problems[0].message)
            return None

    def _ended(self, name: str, size: int, in_full: bool) -> dict[str, Any] | None:
        """The contents of `run.json` of a run that says that it has ended; None of one that needs a closer look."""
        with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            fd = open_regular(f"{self._path}/{name}/run.json")
            try:
                data = json.loads(os.read(fd, min(size, _MAX_RUN)))  # a single call, as there may be thousands
            finally:
                os.close(fd)
            check_run(data) if in_full else check_summary(data)
            if RunStatus(data["status"]).is_final and data.get("ended_at") is not None:
                found: dict[str, Any] = data
                return found
        return None


def _summary(data: Mapping[str, Any], name: str, root: str) -> Summary:
    error = _why_failed(data, Path(root, name)) or data.get("error")
    return Summary(
        name,
        root,
        RunStatus(data["status"]),
        " ".join(error.split())[:500] if error else None,
        data.get("kind"),
        data.get("parent"),
        _world(data),
        _file(data),
        data.get("script"),
        data.get("python"),
        data.get("created_at") or 0.0,
        data.get("started_at"),
        data.get("ended_at"),
    )


def _file(data: Mapping[str, Any]) -> str | None:
    """The file of its job; of a run that repeats another one, which one that is."""
    origin = data.get("from")
    name = origin.get("name") if isinstance(origin, Mapping) else None
    file: str | None = data.get("file")
    return f"{data.get('script') or file or 'again'} (from {name})" if isinstance(name, str) else file


def _why_failed(data: Mapping[str, Any], folder: Path) -> str | None:
    retry = data.get("retry", 0)
    found = kept(folder, retry if isinstance(retry, int) else 0) if data["status"] == RunStatus.FAILED else None
    return found.summary if found else None


def _world(data: Mapping[str, Any]) -> str:
    if kind := data.get("kind"):
        members, word = _MEMBERS[kind]
        return plural(len(data[members]), word)
    world = data.get("world")
    return short_world(**world) if world else ""


def short_world(distribution: str | None, node_count: int, process_count_per_node: int, world_size: int) -> str:
    """`2 x 2 = 4`: nodes, processes of each, processes in all."""
    if distribution == "TensorFlow":
        return plural(world_size, "task")
    if distribution == "Ray":
        return plural(node_count, "node")
    return f"{node_count} x {process_count_per_node} = {world_size:,}" if world_size > 1 else "1"


def _read_index(root: str) -> dict[str, list[Any]]:
    """The entries by name; none where the index is missing, of another format, or damaged."""
    with suppress(OSError, ValueError, RecursionError, AttributeError, TypeError):
        data = json.loads(read_regular(f"{root}/{INDEX}", _MAX_INDEX))
        if data["format"] == _FORMAT and all(map(_is_entry, data["runs"].values())):
            entries: dict[str, list[Any]] = data["runs"]
            return entries
    return {}


_KINDS: tuple[Any, ...] = (
    *(int, int, str, (str, type(None)), (str, type(None)), (str, type(None)), str),
    *((str, type(None)), (str, type(None)), (str, type(None)), (int, float), (int, float, type(None)), (int, float)),
)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == len(_KINDS) and all(map(isinstance, entry, _KINDS))


def _write_index(root: str, entries: Mapping[str, list[Any]]) -> None:
    """Keep the entries; a folder that cannot be written is read each time."""
    with suppress(OSError, ValueError):
        replace_file(Path(root, INDEX), json.dumps({"format": _FORMAT, "runs": entries}))
