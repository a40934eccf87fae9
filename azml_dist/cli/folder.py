"""A folder of job files: what each one means, and what is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.cli.argument import lines_of, load_any
from azml_dist.errors import Finding, JobError, Problem, any_error, counted
from azml_dist.files.kinds import OF_A_JOB
from azml_dist.model.given import open_inputs_of
from azml_dist.notation.azml import OTHER_TYPES
from azml_dist.notation.document import read_yaml
from azml_dist.show import Page, Shown, Table

_RUN_HERE = ("command", "sweep", "pipeline")
_ENDINGS = ("Deployment", "Endpoint", "Component", "schedule", "data", "model")
"""Schemas of other kinds of files, which may have the same fields as a job."""
_LOOKS_LIKE_A_JOB = re.compile(
    r"^(?:command|jobs|trial|distribution)\s*:|ommand(?:Job|Component)\.schema", re.MULTILINE
)


class Skipped(NamedTuple):
    """A YAML file that is clearly not a job, and what it is instead."""

    file: str
    why: str


class FolderEntry(NamedTuple):
    """One job file: its processes, its findings, and its errors; with errors, it has no processes."""

    file: str
    world: str | None
    kind: str | None
    """`PyTorch`, `Mpi`, …; None for a single process."""
    open_inputs: Sequence[str]
    """Inputs of a component that have no value yet."""
    findings: Sequence[Finding]
    problems: Sequence[Problem]


@dataclass(frozen=True)
class FolderPlan(Shown):
    """All job files in a folder and its subfolders; `print` shows one line for each."""

    jobs: Sequence[FolderEntry]
    skipped: Sequence[Skipped]

    @property
    def wrong(self) -> int:
        """How many of the jobs are invalid or sure to fail."""
        return sum(bool(entry.problems) or any_error(entry.findings) for entry in self.jobs)

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist plan FOLDER --json` prints."""
        jobs = [
            entry._asdict()
            | {"findings": [f.to_dict() for f in entry.findings], "problems": [p._asdict() for p in entry.problems]}
            for entry in self.jobs
        ]
        return {"jobs": jobs, "skipped": [skipped._asdict() for skipped in self.skipped]}

    def _page(self) -> Page:
        return Page([], [Table(("job", "means"), [(entry.file, _means(entry)) for entry in self.jobs])])


def plan_folder(folder: str | os.PathLike[str]) -> FolderPlan:
    """Plan every job file in a folder, without hidden subfolders. Starts nothing and needs no login."""
    jobs, skipped = [], []
    for file in _yaml_files(Path(folder)):
        if why := not_a_job(file):
            skipped.append(Skipped(file, why))
        else:
            jobs.append(_entry(file))
    if not jobs:
        found = ", ".join(f"{Path(file).name} is {why}" for file, why in skipped[:3])
        hint = found or "a job is a YAML file with a `command`"
        raise JobError(f"no job file in {folder}", hint=hint)
    return FolderPlan(jobs, skipped)


def _means(entry: FolderEntry) -> str:
    if entry.problems:
        first, *others = entry.problems
        where = (first.where or "").removeprefix(f"{entry.file}:")
        more = f" (and {len(others)} more)" if others else ""
        return f"WRONG  {'line ' if where[:1].isdigit() else ''}{where}{': ' if where else ''}{first.message}{more}"
    parts = [entry.world or "", entry.kind or ""]
    parts += [f"needs inputs: {', '.join(entry.open_inputs)}"] if entry.open_inputs else []
    parts += [counted(entry.findings)]
    return "  ".join(filter(None, parts))


def _yaml_files(folder: Path) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found = (
            os.path.normpath(os.path.join(path, name)) for name in sorted(files) if name.endswith((".yml", ".yaml"))
        )
        yield from filter(os.path.isfile, found)  # not a pipe, which would block


def _entry(file: str) -> FolderEntry:
    try:
        job = load_any(file)
        with lines_of(file):
            plan = job.plan()
            findings = plan.findings
    except JobError as error:
        return FolderEntry(file, None, None, (), (), tuple(error.problems))
    single = getattr(plan, "trial", plan)
    world = getattr(single, "world", None)
    text = str(world) if world else str(plan).split("\n", 1)[0]
    if hasattr(plan, "trial_count"):
        text = f"{plan.trial_count} trials of {text}"
    return FolderEntry(file, text, world and world.distribution, open_inputs_of(job), tuple(findings), ())


def not_a_job(file: str) -> str | None:
    """What a YAML file is if it is clearly not a job."""
    try:
        data = read_yaml(file).data
    except JobError:
        return None if _LOOKS_LIKE_A_JOB.search(_text(file)) else "it has no fields of a job"
    return _what(data)


def _what(data: Mapping[str, Any]) -> str | None:
    schema = str(data.get("$schema", "")).rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".schema")
    kind = data.get("type")
    if kind in OTHER_TYPES and kind not in _RUN_HERE and "command" not in data:
        return OTHER_TYPES[kind]
    if schema.lower().endswith(("commandjob", "commandcomponent", "sweepjob", "pipelinejob")):
        return None
    if "jobs" in data and "on" in data and not schema:
        return "a GitHub workflow"
    if "nvironment" in schema:
        return "an environment"
    if not schema.endswith(_ENDINGS) and (kind in _RUN_HERE or any(name in data for name in OF_A_JOB)):
        return None
    if "dependencies" in data or "channels" in data:
        return "a conda file"
    if "image" in data or "build" in data:
        return "an environment"
    return f"its schema is {schema}" if schema else "it has no command"


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")[:100_000]
    except OSError:
        return "command:"  # a file that cannot be read is reported on its line
