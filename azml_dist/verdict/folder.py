"""Reads what a folder or a zip of logs says about a run: the folder of a local run, or logs under Azure's names.

Files are only read, links are not followed, and only the beginning and the end of each log are kept.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from azml_dist.errors import DistError, NotFound
from azml_dist.regular import NO_LINK, kind_of, open_regular
from azml_dist.status import RunStatus
from azml_dist.verdict.cut import HEAD, TAIL, Part, beginning, is_needed, last_traceback
from azml_dist.verdict.hidden import secret_values
from azml_dist.verdict.kept import NAME as KEPT
from azml_dist.verdict.kept import read
from azml_dist.verdict.known import DUMP, NAME, Ended, Known, Line, Log, OnPurpose, Said
from azml_dist.verdict.order import INDEX, Order
from azml_dist.verdict.several import of_several, outermost, without_copies
from azml_dist.verdict.verdict import Verdict
from azml_dist.words import shown

_MOST_FILES = 8192
_MOST_ENTRIES = 100_000
_MOST_JSON = 8_000_000
_PER_MEMBER, _IN_ALL = 512_000_000, 2_000_000_000
"""How many bytes to unpack from one member of a zip, and from all of them."""
_DUMPS_IN_ALL = 256_000_000
"""How many bytes of dumps to read; one with 2,000 collectives has less than 2 million."""
_COUNTED = 1_000_000_000
"""How many bytes of a file to count lines in; line numbers after that are unknown."""
_LOGS = re.compile(r"(?:\.(?:txt|log|out|err)|/?memory\.(?:events|oom_control)|(?:^|/)(?:dmesg|kmsg))$")
_MPIRUN = "user_logs/mpi_log.txt"
_DETAILS = re.compile(r"(?:^|/)[\w.-]*(?:details|error|run|service|status|job)[\w.-]*\.json$")
_PLACES = re.compile(r"(?:^|/)(?:user_logs|system_logs|azureml-logs|logs|cgroup)/")
_OLD_NAME = re.compile(r"(?:^|/)azureml-logs/70_(?:driver_log|mpi_log)(?:_(?:rank_|worker_)?(?P<rank>\d+))?\.txt$")


class LogFolder(NamedTuple):
    """A run found in logs: its name, its state, and what is known about it."""

    name: str
    status: RunStatus
    known: Known
    kept: Verdict | None = None
    """The verdict that a local run stored when it ended, while the values of its secrets were known."""
    dumps: Mapping[str, bytes] = {}
    """What ranks left when a collective timed out."""


def is_logs(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder or a zip, which may contain logs."""
    kind = kind_of(path)
    return kind == "folder" or (kind == "file" and zipfile.is_zipfile(path))


def read_logs(path: str | os.PathLike[str], *, code_roots: Iterable[str] = ()) -> LogFolder:
    """Read the logs in a folder or in a zip; raises `NotFound` if there are none."""
    source: _Files = _Zip(Path(path)) if kind_of(path) == "file" else _Folder(Path(path))
    with source.opened():
        return _read(source, Path(os.path.abspath(path)).name.removesuffix(".zip"), list(code_roots))


def of_a_run(folder: str | os.PathLike[str], state: Mapping[str, Any], environment: Mapping[str, str]) -> Known:
    """What is known about a local run that has ended, before its `run.json` says so."""
    files = _Folder(Path(folder))
    return _read_run(files, files.names(), "", state, [], environment).known


def ends_of_logs(
    folder: str | os.PathLike[str], attempts: Sequence[Mapping[str, tuple[int, int | None]]], others: Sequence[str] = ()
) -> Iterator[Log]:
    """The first and last lines of the logs of a local run, attempt by attempt, and those of other logs.

    Of each attempt, `attempts` has the rank and node of each log by its path, in the order of the ranks.
    """
    files = _Folder(Path(folder))
    for number, whose in enumerate(attempts):
        logs = [
            (whose[log.name][0], replace(log, rank=whose[log.name][0], node=whose[log.name][1]), at)
            for path in whose
            for log, at in _placed_logs(files, [path])
            if log.name in whose
        ]
        yield from _with_order(files, INDEX, logs, number * len(whose))
    yield from (replace(log, rank=None, node=None) for log in _logs(files, others))


class _Files:
    """Names and contents of files."""

    def opened(self) -> Any:
        raise NotImplementedError

    def names(self) -> list[str]:
        raise NotImplementedError

    def open(self, name: str) -> IO[bytes] | None:
        """Open a file for reading; None if that fails."""
        raise NotImplementedError

    limit = _COUNTED


class _Folder(_Files):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def opened(self) -> Iterator[None]:
        yield

    def names(self) -> list[str]:
        found: list[str] = []
        seen = 0
        for folder, folders, files in os.walk(self._folder):
            folders.sort()
            below = os.path.relpath(folder, self._folder).replace(os.sep, "/")
            found += [name if below == "." else f"{below}/{name}" for name in sorted(files)]
            seen += len(folders) + len(files)
            if seen > _MOST_ENTRIES:
                break
        return found

    def open(self, name: str) -> IO[bytes] | None:
        try:
            return open(open_regular(self._folder / name, NO_LINK), "rb")
        except OSError:
            return None


class _Zip(_Files):
    limit = _PER_MEMBER

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        self._real: dict[str, zipfile.ZipInfo] = {}

    @contextmanager
    def opened(self) -> Iterator[None]:
        try:
            with zipfile.ZipFile(self._path) as self._zip:
                yield
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DistError(
                f"cannot read the zip {self._path}: {error}", hint="unpack it, and give the folder instead"
            ) from error

    def names(self) -> list[str]:
        assert self._zip
        entries = self._zip.infolist()[:_MOST_ENTRIES]
        # Some programs on Windows write backslashes.
        self._real = {
            one.filename.replace("\\", "/"): one for one in entries if not one.is_dir() and not one.flag_bits & 1
        }
        return sorted(self._real)

    def open(self, name: str) -> IO[bytes] | None:
        assert self._zip
        try:
            return self._zip.open(self._real[name])
        except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, KeyError, ValueError):
            return None


def _read(files: _Files, name: str, code_roots: list[str]) -> LogFolder:
    names = files.names()
    runs = list(islice(_runs(files, names), 2))
    if len(runs) > 1:
        raise of_several(name, [own.removesuffix("/run.json") for own, _ in runs])
    for own, state in runs:
        return _read_run(files, names, own.removesuffix("run.json"), state, code_roots)
    logs = _logs(files, wanted(without_copies(names, name)))
    said = next((one for n in names if _DETAILS.search(n) and (one := _said(_json(files, n)))), None)
    if not logs and not said:
        packed = any(_LOGS.search(one.removesuffix(".gz")) for one in names if one.endswith(".gz"))
        hint = "logs are files such as user_logs/std_log_process_0.txt, in a folder or a zip"
        raise NotFound(f"no logs in {shown(name)}", hint="unpack its .gz files first" if packed else hint)
    known = Known(logs, said=said, code_roots=code_roots)
    return LogFolder(name, RunStatus.UNKNOWN, known, dumps=dict(_dumps(files, names)))


def _runs(files: _Files, names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The states of local runs that are least deep in the folder."""
    for own in outermost(one for one in names if one.rpartition("/")[2] == "run.json"):
        state = _json(files, own)
        if state is not None and isinstance(state.get("processes"), list):
            yield own, state


def _dumps(files: _Files, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    left = _DUMPS_IN_ALL
    for name in [one for one in names if DUMP.search(one)]:
        file = files.open(name)
        if file is None:
            continue
        with file:
            data = file.read(left + 1)
        if len(data) > left:
            return
        left -= len(data)
        yield _short(name), data


def _read_run(
    files: _Files,
    names: list[str],
    base: str,
    state: Mapping[str, Any],
    code_roots: list[str],
    environment: Mapping[str, str] | None = None,
) -> LogFolder:
    """A local run, whose state also says how its processes ended."""
    processes = [one for one in state["processes"] if isinstance(one, dict) and isinstance(one.get("rank"), int)]
    wanted = {base + str(one.get("log")): one for one in processes}
    there = set(names)
    logs = {
        path: (one["rank"], Log(log.name.removeprefix(base), log.lines, one["rank"], _number(one.get("node_rank"))), at)
        for path, one in wanted.items()
        if path in there
        for log, at in _placed_logs(files, [path])
    }
    ended = [one for one in processes if one.get("exit_code") is not None or one.get("signal")]
    ends = {one["rank"]: _ended(one) for one in ended}
    status = RunStatus(state.get("status"))
    none_failed = all(end.stopped for end in ends.values())
    error = state.get("error") if status is RunStatus.CANCELED or none_failed else None
    own = _with_order(files, base + INDEX, list(logs.values()), (_number(state.get("retry")) or 0) * len(processes))
    # Where no rank has failed by itself, mpirun may say which one left the others.
    told = [base + _MPIRUN] if base + _MPIRUN in there and all(end.well or end.stopped for end in ends.values()) else []
    known = Known(
        [*own, *(replace(log, name=_MPIRUN, rank=None) for log in _logs(files, told))],
        ends,
        status=status,
        error=str(error) if error else None,
        on_purpose=_on_purpose(state),
        nodes={one["rank"]: node for one in processes if (node := _number(one.get("node_rank"))) is not None},
        out_of_memory_kills=_number(state.get("out_of_memory_kills")),
        code_roots=[*code_roots, *_copies(state, processes)],
        here=True,
        **_planned(_json(files, base + "plan.json") or {}, os.environ if environment is None else environment),
    )
    kept = read(_json(files, base + KEPT), _number(state.get("retry"))) if status is RunStatus.FAILED else None
    return LogFolder(str(state.get("name") or base), status, known, kept)


def _planned(plan: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The job: its command, its environment, its secrets, and the files that its code left out."""
    request = _of(_of(plan, "request"), "properties")
    image = request.get("environmentId")
    excluded = _of(plan, "code").get("excluded")
    variables = {name: text for name, text in _of(request, "environmentVariables").items() if isinstance(text, str)}
    return {
        "command": str(plan["command"]) if isinstance(plan.get("command"), str) else None,
        "environment": image if isinstance(image, str) and not image.startswith("<") else None,
        "left_out": {
            str(one.get("path")): str(one.get("rule"))
            for one in (excluded if isinstance(excluded, list) else ())
            if isinstance(one, dict)
        },
        # Variables that the job takes from the caller are in angle brackets there.
        "secrets": [
            *secret_values(variables),
            *(environment.get(name, "") for name, text in variables.items() if text.startswith("<")),
        ],
    }


def _of(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _on_purpose(state: Mapping[str, Any]) -> dict[int, OnPurpose]:
    """What injected faults did to ranks in the last attempt."""
    found: dict[int, OnPurpose] = {}
    faults = state.get("faults")
    for fault in faults if isinstance(faults, list) else []:
        if isinstance(fault, dict) and fault.get("at") is not None and fault.get("attempt") == state.get("retry"):
            spec = str(fault.get("spec"))
            kind = spec.partition(":")[0]
            did = {"stop": "stopped", "exit": "ended"}.get(kind, "killed")
            ended = [rank for rank in fault.get("ended") or [] if isinstance(rank, int)]
            rank = _number(fault.get("rank"))
            stopped = [rank] if kind == "stop" and rank is not None else []
            found |= {one: OnPurpose(spec, did, one in ended) for one in [*stopped, *ended]}
    return found


def _copies(state: Mapping[str, Any], processes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The code folder of each node of a local run."""
    folder, retry = state.get("folder"), _number(state.get("retry"))
    nodes = {_number(one.get("node_rank")) for one in processes}
    base = f"{folder}/nodes/retry_{retry:03}" if retry else f"{folder}/nodes"
    return [f"{base}/{node}/" for node in nodes if node is not None] if isinstance(folder, str) else []


def _with_order(files: _Files, index: str, logs: Sequence[tuple[int, Log, _Bytes]], first: int) -> list[Log]:
    """Logs of ranks, with the place of each line in the common order; `first` is rank 0's number in the index."""
    file = files.open(index)
    if file is None:
        return [log for _, log, _ in logs]
    with file:
        try:
            order = Order(file, {first + rank: at.size for rank, _, at in logs})
        except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError):
            return [log for _, log, _ in logs]
    found = []
    for rank, log, at in logs:
        numbers = [line.number for line in log.lines]
        placed = zip(numbers, at.begins[: len(numbers)], strict=True)
        found.append(replace(log, arrived=order.of_lines(first + rank, placed)))
    return found


def _ended(process: Mapping[str, Any]) -> Ended:
    noticed = _number(process.get("noticed"))
    quiet = process.get("quiet")
    return Ended(
        _number(process.get("exit_code")),
        _number(process.get("signal")),
        bool(process.get("stopped")),
        None if noticed is None else float(noticed),
        float(quiet) if isinstance(quiet, int | float) else 0.0,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def wanted(names: Iterable[str]) -> list[str]:
    """The relevant logs: those of the last attempt, and those about the whole run."""
    logs = [n for n in names if _LOGS.search(n) and (_PLACES.search(n) or n.count("/") <= 1 or NAME.search(n))]
    attempts = {n: int(found["attempt"] or 0) for n in logs if (found := NAME.search(n))}
    last = max(attempts.values(), default=0)
    kept = [n for n in logs if attempts.get(n, last) == last]
    ranks = [n for n in kept if NAME.search(n) or _OLD_NAME.search(n)]
    return [*ranks, *(n for n in kept if n not in set(ranks))][:_MOST_FILES]


class _Bytes(NamedTuple):
    """The length of a log, where each of its kept lines begins, and how it ends."""

    size: int
    begins: Sequence[int]
    cut: bool = False
    """Whether its last line has no end."""


def _logs(files: _Files, names: Iterable[str]) -> list[Log]:
    return [log for log, _ in _placed_logs(files, names)]


def _placed_logs(files: _Files, names: Iterable[str]) -> list[tuple[Log, _Bytes]]:
    names = list(names)
    tasks = [named for name in names if (named := NAME.search(name)) and named["node"]]
    workers = sum(named["role"] != "ps" for named in tasks)
    found: list[tuple[Log, _Bytes]] = []
    left = _IN_ALL
    for name in names:
        file = files.open(name)
        if file is None:
            continue
        with file:
            lines, at = _ends_of(file, min(files.limit, left))
        left -= at.size if isinstance(files, _Zip) else 0
        rank, node = _rank(name, workers)
        found.append((Log(_short(name), lines, rank, node, cut=at.cut), at))
    return found


def _short(name: str) -> str:
    """A name as on Azure ML, without the folder that may contain everything in a zip."""
    found = NAME.search(name)
    if found and "user_logs/" in name:
        return name[name.rindex("user_logs/") :]
    found = _PLACES.search(name)
    return name[found.start() :].lstrip("/") if found else name


def _rank(name: str, workers: int) -> tuple[int | None, int | None]:
    if found := NAME.search(name):
        if found["node"]:
            node = _int(found["node"])
            # Numbered as on Azure ML: workers first, then parameter servers.
            return (None if node is None else node + workers * (found["role"] == "ps")), node
        return (_int(found["rank"]) if found["rank"] else 0), None
    if found := _OLD_NAME.search(name):
        return _int(found["rank"] or "0"), None
    return None, None


def whose(names: Iterable[str]) -> dict[str, tuple[int | None, int | None]]:
    """The rank and the node of each log according to its name; None if it says neither."""
    names = list(names)
    tasks = [named for name in names if (named := NAME.search(name)) and named["node"]]
    workers = sum(named["role"] != "ps" for named in tasks)
    return {name: _rank(name, workers) for name in names}


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) < 10 else None


def _ends_of(file: IO[bytes], limit: int) -> tuple[list[Line], _Bytes]:
    """The first and last lines of a file with their numbers, and their positions in what was read."""
    head = b""
    tail = b""
    size = first = dropped = 0
    raised: Part | None = None
    try:
        start = file.read(2 * HEAD)
        size = len(start)
        head = beginning(start)
        tail, first = start[len(head) :], len(head)
        dropped = head.count(b"\n")
        while size < limit and (piece := file.read(1 << 20)):
            size += len(piece)
            tail += piece
            if (surplus := len(tail) - TAIL) > TAIL:
                if found := last_traceback(tail, surplus):
                    raised = Part(first + found.first, found.data, dropped + found.lines_before)
                dropped += tail.count(b"\n", 0, surplus)
                tail, first = tail[surplus:], first + surplus
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raised = None
    end = (tail or head).rstrip(b"\0")  # of UTF-16
    is_cut = bool(end) and not end.endswith((b"\n", b"\r"))
    if first == len(head):
        return _numbered(head + tail, 1), _Bytes(size, _begins(head + tail, 0), is_cut)
    cut = tail.find(b"\n") + 1
    parts = [Part(0, head), Part(first + cut, tail[cut:], dropped + tail.count(b"\n", 0, cut))]
    if raised and is_needed(raised, parts[1]):
        parts.insert(1, raised._replace(data=raised.data[: max(0, parts[1].first - raised.first)]))
    lines = [_numbered(part.data, part.lines_before + 1) for part in parts]
    begins = [_begins(part.data, part.first)[: len(kept)] for part, kept in zip(parts, lines, strict=True)]
    return [*chain(*lines)], _Bytes(size, [*chain(*begins)], is_cut)


def _begins(data: bytes, first: int) -> list[int]:
    """Where each line begins, starting at a given position."""
    return list(accumulate((len(line) + 1 for line in data.split(b"\n")[:-1]), initial=first))


def _numbered(data: bytes, first: int) -> list[Line]:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", errors="replace").encode()
    lines = data.decode("utf-8", errors="replace").removeprefix("\ufeff").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [Line(number, text) for number, text in enumerate(lines, first)]


def _json(files: _Files, name: str) -> dict[str, Any] | None:
    file = files.open(name)
    if file is None:
        return None
    with file:
        try:
            data = file.read(_MOST_JSON + 1)
            value = json.loads(data) if len(data) <= _MOST_JSON else None
        except (ValueError, RecursionError, OSError, EOFError, zlib.error, zipfile.BadZipFile):
            return None
    return value if isinstance(value, dict) else None


def _said(value: dict[str, Any] | None) -> Said | None:
    return Said.of(value) if value else None
