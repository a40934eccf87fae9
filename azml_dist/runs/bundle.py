"""Everything about a run that explains how it ended, in one zip to show to others, without its secrets.

Its code, outputs and data are not in it; of each log, only the first and the last lines are.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from azml_dist.errors import DistError
from azml_dist.runs.logs import Source
from azml_dist.runs.material import FORMAT, INDEX, METRICS, PAGES, STATUS, VERDICT, Material
from azml_dist.runs.metrics import Metrics
from azml_dist.runs.pagefile import to_json
from azml_dist.runs.target import readable
from azml_dist.show import Card, Page
from azml_dist.status import RunStatus
from azml_dist.verdict.cleaning import Cleaner
from azml_dist.verdict.known import NAME, Line, Log
from azml_dist.verdict.verdict import Verdict
from azml_dist.version import __version__
from azml_dist.words import plural, size_text

_ABOUT = {
    STATUS: "its state, as `azml-dist status --json` prints it",
    PAGES: "the same as `azml-dist status` and `why` show it",
    VERDICT: "why it failed, with the lines that show it",
    METRICS: "the metrics that it logged",
    "plan.json": "what the job means: processes, variables, command, request",
    "job.yml": "the job, as a file for `az ml`",
    "request.json": "the job as Azure ML has it",
    "details.json": "what Azure ML says about the run, with its error",
    "service.json": "ids for Azure support",
    "run.json": "the state of the run in its folder",
    "stacks.txt": "where its processes were",
    "versions.json": "Python, the system and the packages of this machine",
    INDEX: "this list",
}
_LOGS_BYTES = 64_000_000
"""Of all logs together; of many, less of each is in the bundle."""
_PER_LOG = 16_384 + 65_536
_MOST_POINTS = 20_000
"""Values of each metric; of more, every second one, or every third."""


class _Run(Protocol):
    name: str

    @property
    def status(self) -> RunStatus: ...

    def describe(self) -> dict[str, Any]: ...

    def verdict(self) -> Verdict | None: ...

    def ending(self, *, in_full: bool = False) -> Card: ...

    def metrics(self) -> Metrics: ...

    def _page(self) -> Page: ...

    def _processes(self) -> Sequence[Source]: ...

    def _material(self) -> Material: ...


class Entry(NamedTuple):
    """A file of a bundle."""

    path: str
    size: int
    about: str = ""


class Bundle:
    """A bundle that is ready to be written: look at `lines()` first, then `save()` it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.removed: Mapping[str, int] = {}
        """How many secrets of each kind were removed."""
        self.notes: Sequence[str] = ()
        self.data = b""

    def lines(self) -> list[str]:
        """What is in it, what was removed, and what to look at before it is shown to others: for people."""
        logs = [one for one in self.entries if not one.about]
        rows = [(one.path, size_text(one.size), one.about) for one in self.entries if one.about]
        rows += [(plural(len(logs), "log"), size_text(sum(one.size for one in logs)), _of_logs(logs))] if logs else []
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        table = [f"  {path:{widths[0]}}  {size:>{widths[1]}}  {about}".rstrip() for path, size, about in rows]
        counts = [f"{kind} ({plural(count, 'place')})" for kind, count in self.removed.items() if count]
        return [
            *table,
            f"removed: {'; '.join(counts) or 'nothing, since nothing looked like a secret'}",
            "not in it: the code, the outputs, the data",
            *(f"note: {note}" for note in self.notes),
        ]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "name": self.name,
            "files": [one._asdict() for one in self.entries],
            "removed": dict(self.removed),
            "notes": list(self.notes),
        }

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write it as a whole or not at all; an existing file is not overwritten."""
        place = Path(file)
        refuse_existing(place)
        draft = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
        try:
            draft.write_bytes(self.data)
            draft.rename(place)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise _unwritable(place, (error.strerror or str(error)).lower()) from error
        return place


def refuse_existing(place: Path) -> None:
    """Nothing that exists is overwritten."""
    if os.path.lexists(place):
        raise _unwritable(place, "it already exists")


def _unwritable(place: Path, why: str) -> DistError:
    return DistError(f"cannot write the bundle {readable(str(place))}: {why}", hint="choose another with `--to FILE`")


def bundle_of(run: _Run) -> Bundle:
    """Everything about a run, cleaned, in memory."""
    material = run._material()
    cleaner, notes = Cleaner(material.secrets), material.notes
    documents = {**_common(run, material, notes), **material.documents}
    made = Bundle(run.name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in documents.items():
            _add(archive, made, name, _as_text(cleaner, name, value))
        logs, order = _add_logs(archive, made, cleaner, material)
        notes += [_not_looked_for(name) for name in material.unknown]
        made.removed, made.notes = dict(cleaner.removed), [cleaner.text(note) for note in notes]
        _add(archive, made, INDEX, json.dumps({**_index(run, made, material), "logs": logs, "order": order}, indent=1))
    made.data = buffer.getvalue()
    return made


def _common(run: _Run, material: Material, notes: list[str]) -> dict[str, Any]:
    """What every run has, wherever it ran."""

    def verdict() -> Any:
        found = run.verdict()
        return found and {"attempt": material.attempt, **asdict(found)}

    def pages() -> Any:
        return {"status": run._page(), "ending": run.ending(), "in full": run.ending(in_full=True)}

    asked: dict[str, Callable[[], Any]] = {
        STATUS: run.describe,
        PAGES: lambda: {name: to_json(page) for name, page in pages().items()},
        VERDICT: verdict,
        METRICS: lambda: _thinned(run.metrics()),
        "versions.json": versions,
    }
    found = {}
    for name, ask in asked.items():
        try:
            if (value := ask()) or name == STATUS:
                found[name] = value
        except DistError as error:  # noqa: PERF203 (one that cannot be read keeps none of the others away)
            notes.append(f"{name} is not in it: {error.problems[0].message}")
    return found


def versions() -> dict[str, Any]:
    """Python, the system, and all packages of this machine."""
    found = {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"]}
    return {
        "azml_dist": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "packages": dict(sorted(found.items(), key=lambda one: one[0].lower())),
    }


def _thinned(metrics: Metrics) -> dict[str, Any]:
    found = {}
    for name, last in metrics.items():
        points = metrics.history(name)
        step = len(points) // _MOST_POINTS + 1
        found[name] = {"last": last, "points": [list(point) for point in points[::step]], "of": len(points)}
    return found


def _as_text(cleaner: Cleaner, name: str, value: Any) -> str:
    if isinstance(value, str):
        return cleaner.text(value)
    cleaned = cleaner.value(value)
    return yaml.safe_dump(cleaned, sort_keys=False) if name.endswith(".yml") else json.dumps(cleaned, indent=1)


def _add(archive: zipfile.ZipFile, made: Bundle, path: str, text: str, about: str | None = None) -> None:
    data = text.encode(errors="backslashreplace")
    one = zipfile.ZipInfo(path, time.localtime()[:6])
    one.compress_type, one.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(one, data)
    made.entries.append(Entry(path, len(data), _ABOUT.get(path, "") if about is None else about))


def _add_logs(
    archive: zipfile.ZipFile, made: Bundle, cleaner: Cleaner, material: Material
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Write the ends of all logs; returns what the index says about each, and the order of their lines.

    The order has a log, by its number, and how many of its lines come next.
    """
    logs = list(material.logs)
    each = min(_PER_LOG, _LOGS_BYTES // max(1, len(logs)))
    found: list[dict[str, Any]] = []
    order: list[tuple[int, int]] = []
    for log in logs:
        lines = _ends(log.lines, each)
        if log.rank is None and not lines:
            continue
        text = cleaner.text("".join(f"{line.text}\n" for line in lines))
        _add(archive, made, log.name, text, "")
        named = NAME.search(log.name)
        attempt = int((named and named["attempt"]) or 0)
        order += _places(log, lines, len(found))
        found.append({"path": log.name, "rank": log.rank, "node": log.node, "attempt": attempt})
    runs: list[list[int]] = []
    for _, number in sorted(order):
        if runs and runs[-1][0] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    for one in found:
        one["ordered"] = False
    for number, _ in runs:
        found[number]["ordered"] = True
    return found, runs


def _ends(lines: Sequence[Line], most: int) -> list[Line]:
    """The first and the last lines, with a line in the place of those that are left out."""
    lines = list(lines)
    if sum(len(line.text) + 1 for line in lines) > most:
        head, tail = _first(lines, most // 5), _first(reversed(lines), most - most // 5)
        lines = [*head, *reversed(tail)]
    shown: list[Line] = []
    for line in lines:
        if shown and line.number > shown[-1].number + 1:
            gap = line.number - shown[-1].number - 1
            shown.append(Line(gap, f"... {f'{gap:,} lines are' if gap < 1 << 39 else 'lines are'} left out here ..."))
            shown[-1] = shown[-1]._replace(number=line.number - 1)
        shown.append(line)
    return shown


def _first(lines: Iterable[Line], most: int) -> list[Line]:
    found = []
    for line in lines:
        most -= len(line.text) + 1
        if most < 0:
            break
        found.append(line)
    return found


def _places(log: Log, lines: Sequence[Line], number: int) -> Iterator[tuple[int, int]]:
    """The place of each line in the common order; a line without one comes right after the line before it."""
    if not log.arrived:
        return
    place = min(log.arrived.values())
    for line in lines:
        place = max(place, log.arrived.get(line.number, place))
        yield place, number


def _index(run: _Run, made: Bundle, material: Material) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": run.name,
        "status": str(run.status),
        "attempt": material.attempt,
        "made_at": time.time(),
        "azml_dist": __version__,
        "processes": [source._asdict() for source in material.sources or run._processes()],
        **{name: value for name, value in made.to_dict().items() if name != "name"},
    }


def _of_logs(logs: Sequence[Entry]) -> str:
    folders = sorted({one.path.rpartition("/")[0] for one in logs})
    shown = ", ".join(folders[:4]) + (", …" if len(folders) > 4 else "")
    return f"the first and the last lines of each, in {shown}"


def _not_looked_for(name: str) -> str:
    return f"the value of {name} is not known here, so it was not looked for: set it, and bundle again, if a log has it"


def save_bundle(run: _Run, file: str | os.PathLike[str] | None) -> Path:
    """Bundle a run into a file, by default one named like the run in the current folder."""
    return bundle_of(run).save(file or free_name(Path(), run.name))


def free_name(folder: Path, name: str) -> Path:
    """`NAME-bundle.zip`, or `NAME-bundle-2.zip` if that exists."""
    for number in range(1, 1000):
        place = folder / f"{name}-bundle{f'-{number}' if number > 1 else ''}.zip"
        if not os.path.lexists(place):
            return place
    return folder / f"{name}-bundle.zip"
