"""What a local run keeps of its job, so that it can be run again: its code, as it was staged, and its job file.

The content of each file is kept once for all runs of a root, and shared by hard links, so an unchanged folder of code
costs a run no space. The run's own links go with the run.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.contents.code import FOLDER, KeptCode, keep_code, kept_code
from azml_dist.contents.store import Contents, Kept
from azml_dist.errors import JobError
from azml_dist.files.dump import yaml_of
from azml_dist.files.jobfile import load_job
from azml_dist.job import Job
from azml_dist.model.parts import Environment
from azml_dist.notation.document import read_yaml
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.snapshot import CodeFile
from azml_dist.regular import read_regular
from azml_dist.runs.rerun import Origin, Rerun, changed_fields

if TYPE_CHECKING:
    from azml_dist.local.state import RunState
    from azml_dist.model.job import JobFields
    from azml_dist.verdict.verdict import Verdict

CONTENTS = ".contents"
"""The folder in a root with the content of all kept files."""
_CODE, _JOB = "snapshot", "job.yml"
_INDEX = "index"
"""The folder of the kept contents that lists what was seen in each folder of code."""
_RACY = 2_000_000_000
"""Nanoseconds: a file that was changed so shortly before it was kept may have changed again unseen."""
_MAX_BYTES = 100_000_000


def keep_run(plan: LaunchPlan, folder: Path) -> None:
    """Keep code and job of a run that is about to start in its folder."""
    job = plan.job
    if plan.code.files:
        contents = Contents(folder.parent / CONTENTS)
        files = _kept_files(plan.code.root or "", plan.code.files, contents)
        executable = {file.path for file in plan.code.files if os.stat(file.source).st_mode & stat.S_IXUSR}
        keep_code(folder / _CODE, contents, files, executable)
    code = str(folder / _CODE / FOLDER) if plan.code.files else None
    changed = {"name": None, "code": code, "environment": _whole(job.environment)}
    kept = job.with_(**{name: value for name, value in changed.items() if name in job.model_fields_set})
    try:
        text = yaml_of(kept, folder)
    except JobError as error:  # it runs all the same, and says so when it is to run again
        text = f"# this job cannot be written as YAML: {error.problems[0]}\n"
    (folder / _JOB).write_text(text, encoding="utf-8", errors="surrogateescape")


def job_of(folder: Path) -> Job:
    """The job of a local run; raises `JobError` with the reason if the run did not keep it."""
    name, file = folder.name, folder / _JOB
    if not file.is_file():
        hint = "runs keep their code and job since this version: start it once more with `azml-dist run JOB`"
        raise JobError(f"run {name} was started before runs kept their code and job", hint=hint)
    with file.open(encoding="utf-8", errors="replace") as opened:
        if (first := opened.readline()).startswith("# this job"):
            raise JobError(f"run {name} cannot be run again: {first[2:].strip()}")
    return load_job(Job, file)


def code_of_run(folder: Path) -> KeptCode | None:
    """The code that a local run kept."""
    return kept_code(folder / _CODE)


def rerun_of(
    state: RunState, verdict: Verdict | None, before: JobFields, job: JobFields | None, *, resume: bool
) -> Rerun:
    """A local run with the job `before`, prepared to run again; `job` is the same job, with all changes to it."""
    job, folder = job or before, Path(state.folder)
    code = code_of_run(folder)
    digest = code.digest if code and job.code == str(code.folder) else None
    why = verdict.to_dict() if verdict else None
    changed = changed_fields(before, job)
    origin = Origin(state.name, None, state.retry, digest, state.status, why, changed)
    places = ((name, folder / "outputs" / name) for name in job.outputs) if resume else ()
    outputs = {name: place.resolve() for name, place in places if place.is_dir() and any(place.iterdir())}
    notes = [f"output {name} starts with what that run wrote" for name in outputs]
    empty = [name for name in job.outputs if resume and name not in outputs]
    return Rerun(
        job,
        origin,
        [*notes, *(f"output {name} starts empty: that run has written nothing there" for name in empty)],
        outputs,
    )


def _whole(environment: Any) -> Any:
    """An environment with the content of its conda file, which may change."""
    if isinstance(environment, Environment) and isinstance(environment.conda_file, str):
        with suppress(JobError):
            return environment.with_(conda_file=read_yaml(environment.conda_file, "conda file").data)
    return environment


def _kept_files(root: str, files: Iterable[CodeFile], contents: Contents) -> dict[str, Kept]:
    """The kept content of each file. What is unchanged since the last run of this folder is not read again."""
    index = contents.folder / _INDEX / f"{sha256(os.fsencode(root)).hexdigest()[:24]}.json"
    known, now = _read_index(index), time.time_ns()
    found: dict[str, Kept] = {}
    seen: dict[str, list[Any]] = {}
    for file in files:
        status = os.stat(file.source)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        name = known.get(file.path, [None])[-1] if known.get(file.path, [])[:-1] == stamp else None
        kept = Kept(str(name), status.st_size)
        found[file.path] = kept if name and contents.has(kept) else contents.add_file(file.source)
        if now - max(stamp[1], stamp[2]) > _RACY:
            seen[file.path] = [*stamp, found[file.path].name]
    if seen != known:
        _write_index(index, seen)
    return found


def _read_index(file: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(read_regular(file, _MAX_BYTES))
        return {path: stamp for path, stamp in found.items() if isinstance(stamp, list)}
    except (OSError, ValueError, AttributeError):
        return {}


def _write_index(file: Path, seen: dict[str, list[Any]]) -> None:
    with suppress(OSError):  # it only saves time
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(seen))
        draft.replace(file)
