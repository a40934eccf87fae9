"""What differs between two runs or jobs, here or on Azure ML: their meaning, their code, and how they ended."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.errors import DistError
from azml_dist.model.job import JobFields
from azml_dist.regular import open_regular
from azml_dist.runs.run import Run
from azml_dist.show import Block, Facts, Page, Shown, Table, Told
from azml_dist.verdict.hidden import is_secret
from azml_dist.words import plural, value_text

_FIELDS = {
    "command": "command",
    "inputs": "inputs",
    "outputs": "outputs",
    "variables": "environment_variables",
    "world": "node_count distribution",
    "environment": "environment shm_size docker_args",
    "compute": "compute instance_type max_node_count locations resource_properties queue identity",
    "limits": "timeout",
    "services": "services",
}
"""The fields of a job by what they are about; its names and tags are left out."""
_WIDE = 44
"""Characters of a value in a table."""
_BEFORE = 16
"""Characters that are shown before the first difference."""
_MOST_BYTES, _MOST_LINES = 2_000_000, 400
"""Of a file whose text is compared, and of what is shown of it."""
_TAKEN, _NONE, _SECRET = "taken from the caller's environment", "", "*** (secret)"


class Field(NamedTuple):
    """A value that is not the same."""

    about: str
    """`command`, `inputs`, `variables`, `world`, …."""
    name: str
    """`inputs.epochs`."""
    a: str | None
    b: str | None


class Code(NamedTuple):
    """The code of both, file by file."""

    added: Sequence[str]
    """Only `b` has them."""
    removed: Sequence[str]
    changed: Sequence[str]
    same: int
    """How many files are equal."""

    @property
    def differs(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class _Files(NamedTuple):
    hashes: Mapping[str, str]
    where: Callable[[str], str]
    """The place of a file by its path in the code."""


class _Side(NamedTuple):
    name: str
    job: JobFields | None
    files: _Files | None
    results: Mapping[str, str] | None
    """None of a job, which has not run."""
    metrics: Mapping[str, float]
    notes: Sequence[str]
    began: float | None = None
    """When it began on this machine, if it did."""


class Difference(Shown):
    """What differs between `a` and `b`. `print` it, or put it at the end of a notebook cell."""

    def __init__(self, a: _Side, b: _Side) -> None:
        self.a, self.b = a.name, b.name
        self.fields: Sequence[Field] = list(_fields(a.job, b.job)) if a.job and b.job else []
        self.code: Code | None = _code(a.files, b.files) if a.files and b.files else None
        """None if the code of one of them is not known."""
        self.results: Sequence[Field] = list(_results(a, b))
        self.notes: Sequence[str] = [f"{side.name}: {note}" for side in (a, b) for note in side.notes]
        """What is not compared, and why."""
        self._files = a.files, b.files
        compared = [about for about in _FIELDS if a.job and b.job] + (["code"] if self.code else [])
        differ = {field.about for field in self.fields} | ({"code"} if self.code and self.code.differs else set())
        self.same: Sequence[str] = [about for about in compared if about not in differ]
        """What is equal."""

    def text(self) -> Iterator[str]:
        """The lines of the code that differ, as a unified diff."""
        a, b = self._files
        if not self.code or a is None or b is None:
            return
        for path in sorted([*self.code.added, *self.code.removed, *self.code.changed]):
            yield from _file_diff(path, a if path in a.hashes else None, b if path in b.hashes else None)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "a": self.a,
            "b": self.b,
            "fields": [field._asdict() for field in self.fields],
            "code": self.code and {**self.code._asdict(), "differs": self.code.differs},
            "results": [field._asdict() for field in self.results],
            "same": list(self.same),
            "notes": list(self.notes),
        }

    def _page(self) -> Page:
        rows = [(field.name, *_beside(field.a, field.b)) for field in (*self.fields, *self.results)]
        blocks: list[Block] = [Table(("", self.a, self.b), rows)] if rows else []
        if self.code and self.code.differs:
            kinds = (("changed", self.code.changed), ("added", self.code.added), ("removed", self.code.removed))
            found = [(f"code {kind}", _some(paths)) for kind, paths in kinds if paths]
            blocks.append(Facts([*found, ("code unchanged", f"{plural(self.code.same, 'file')}")]))
        told = [("same", ", ".join(self.same) or None), *(("note", note) for note in self.notes)]
        return Page([], [*blocks, Told(told)])


def diff(a: Run | JobFields, b: Run | JobFields, *, names: tuple[str, str] | None = None) -> Difference:
    """What differs between two runs or jobs, wherever they are: command, inputs, variables, world, environment, code;
    and of runs also their status, the reason of a failure, and the last metrics.

    The code of a run on Azure ML is fetched. What cannot be read is in `notes`. `names` is how to call them.
    """
    ours, theirs = _side(a, names and names[0]), _side(b, names and names[1])
    return Difference(_named_as(ours, b, theirs), _named_as(theirs, a, ours))


def _side(what: Run | JobFields, name: str | None) -> _Side:
    return _side_of_run(what, name) if isinstance(what, Run) else _side_of_job(what, name)


def _named_as(side: _Side, other: Run | JobFields, that: _Side) -> _Side:
    """A side with the names of the other one, so that what has several names is compared by what it is."""
    if side.job is None or that.job is None or not isinstance(other, Run):
        return side
    job, notes = other.named_as_here(side.job, side.began)
    return side._replace(job=job, notes=[*side.notes, *notes])


def _side_of_job(job: JobFields, name: str | None) -> _Side:
    notes: list[str] = []
    files = _tried(lambda: _files_of_job(job), "its code is not compared", notes)
    return _Side(name or job.name or job.display_name or "job", job, files, None, {}, notes)


def _side_of_run(run: Run, name: str | None) -> _Side:
    notes: list[str] = []
    job = _tried(run.job, "its job is not compared", notes)
    files = _tried(lambda: _files_of_run(run), "its code is not compared", notes) if job and job.code else None
    results = _tried(lambda: _results_of(run), "its end is not compared", notes)
    metrics = _tried(run.metrics, "its metrics are not compared", notes)
    no_code = _Files({}, str) if job and not job.code else None
    return _Side(name or run.name, job, files or no_code, results or {}, metrics or {}, notes, run.began_here)


def _tried(ask: Callable[[], Any], otherwise: str, notes: list[str]) -> Any:
    try:
        return ask()
    except DistError as error:
        notes.append(f"{otherwise}: {error.problems[0].message}")
        return None


def _files_of_job(job: JobFields) -> _Files | None:
    plan: Any = getattr(job, "plan", None)
    if job.code is not None and job.local_code is None:
        raise DistError(f"it is in the workspace: {job.code}")
    files = {file.path: file.source for file in plan().code.files} if plan and job.code else {}
    return _Files({path: _hash(source) for path, source in files.items()}, files.__getitem__)


def _files_of_run(run: Run) -> _Files | None:
    code = run.code()
    if code is None:
        return None
    return _Files({path: kept.sha256 for path, kept in code.files.items()}, lambda path: str(code.folder / path))


def _hash(source: str) -> str:
    try:
        with open(open_regular(source), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _old(file)
    except OSError as error:
        raise DistError(f"{source} cannot be read: {error.strerror or error}") from error


def _old(file: Any) -> str:
    found = hashlib.sha256()
    while data := file.read(1 << 20):
        found.update(data)
    return found.hexdigest()


def _results_of(run: Run) -> dict[str, str]:
    verdict = run.verdict()
    return {"status": str(run.status), **({"why": verdict.summary} if verdict else {})}


def _fields(a: JobFields, b: JobFields) -> Iterator[Field]:
    for about, names in _FIELDS.items():
        ours, theirs = (dict(_values(job, names.split())) for job in (a, b))
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                yield Field(about, name, _shown(name, ours.get(name)), _shown(name, theirs.get(name)))


def _values(job: JobFields, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The fields of a job; of those that are mappings, each entry by its own name."""
    dumped = job.model_dump(mode="json", exclude_none=True)
    for name in names:
        value = dict(job.environment_variables) if name == "environment_variables" else dumped.get(name)
        if isinstance(value, Mapping):
            yield from (
                (f"{name}.{key}", _TAKEN if one is None else one) for key, one in value.items() if one not in ({}, [])
            )
        elif value is not None:
            yield name, value


def _shown(name: str, value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if name.startswith(("environment_variables.", "inputs.")) and is_secret(name.partition(".")[2], text):
        return _SECRET
    return text


def _code(a: _Files, b: _Files) -> Code:
    both = a.hashes.keys() & b.hashes.keys()
    changed = [path for path in both if a.hashes[path] != b.hashes[path]]
    added, removed = b.hashes.keys() - both, a.hashes.keys() - both
    return Code(sorted(added), sorted(removed), sorted(changed), len(both) - len(changed))


def _results(a: _Side, b: _Side) -> Iterator[Field]:
    if a.results is None or b.results is None:
        return
    for name in {**a.results, **b.results}:
        if a.results.get(name) != b.results.get(name):
            yield Field("results", name, a.results.get(name), b.results.get(name))
    for name in {**a.metrics, **b.metrics}:
        ours, theirs = (_metric(side.metrics.get(name)) for side in (a, b))
        if ours != theirs:
            yield Field("metrics", name, ours, theirs)


def _metric(value: float | None) -> str | None:
    return None if value is None else value_text(float(value)) if math.isfinite(value) else str(value)


def _beside(a: str | None, b: str | None) -> tuple[str, str]:
    """Both values, each on one line; of long ones, the part that differs."""
    ours, theirs = (" ".join((text or _NONE).split()) for text in (a, b))
    if max(len(ours), len(theirs)) <= _WIDE:
        return ours, theirs
    first = next((i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y), min(len(ours), len(theirs)))
    begin = ours.rfind(" ", 0, max(0, first - _BEFORE)) + 1
    return _cut(ours, begin), _cut(theirs, begin)


def _cut(text: str, begin: int) -> str:
    before = "…" if begin else ""
    return before + (text[begin:] if len(text) - begin <= _WIDE else text[begin : begin + _WIDE] + "…")


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 8:,} more" if len(paths) > 8 else ""
    return ", ".join(paths[:8]) + more


def _file_diff(path: str, a: _Files | None, b: _Files | None) -> Iterator[str]:
    ours, theirs = (_lines(files.where(path)) if files else [] for files in (a, b))
    if ours is None or theirs is None:
        yield f"{path}: not a text, or too long to be compared"
        return
    names = (f"a/{path}" if a else "/dev/null", f"b/{path}" if b else "/dev/null")
    for number, line in enumerate(difflib.unified_diff(ours, theirs, *names, lineterm="")):
        if number == _MOST_LINES:
            yield f"... more lines of {path} differ ..."
            return
        yield line


def _lines(place: str) -> list[str] | None:
    try:
        with open(open_regular(Path(place)), "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        return None if len(data) > _MOST_BYTES or b"\0" in data else data.decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
