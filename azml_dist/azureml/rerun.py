"""Prepares a run of Azure ML to run again on this machine: its code, its data, what it had written, what differs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azml_dist.azureml.data import Stored, data_home, input_in, stored_at
from azml_dist.azureml.described import Details
from azml_dist.azureml.ranges import Ranges
from azml_dist.azureml.snapshot import code_home
from azml_dist.azureml.unlike import environment_of, identity_note, versions_note, without_secrets
from azml_dist.errors import JobError, Problem, SubmitError
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Input
from azml_dist.runs.rerun import Origin, Rerun, changed_fields
from azml_dist.words import nearest_or_all

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.verdict.verdict import Verdict

ALL = "all"


class Earlier(NamedTuple):
    """What is known of the run."""

    name: str
    job: JobFields
    details: Details
    verdict: Verdict | None
    attempt: int
    outputs: Mapping[str, str]
    """The address of each named output."""
    ranges: Ranges


class Fetch(NamedTuple):
    """What is to be fetched besides the code."""

    download: Collection[str] = ()
    """Names of data inputs, or `all`."""
    sample: int | None = None
    """How many files of a folder."""
    resume: bool = False
    """Whether the named outputs start with what the run had written."""


def prepared(workspace: Workspace, earlier: Earlier, job: JobFields, wanted: Fetch) -> Rerun:
    """The run, ready to run here: `job` is its job, with all changes to it.

    Raises `JobError` for inputs that are not on this machine and that nobody has asked to download.
    """
    notes: list[str] = []
    changed = changed_fields(earlier.job, job)
    job, digest = _with_code(workspace, earlier, job)
    job = _with_data(workspace, job, wanted, notes)
    outputs = dict(_outputs(workspace, earlier, job, notes)) if wanted.resume else {}
    installed = environment_of(workspace, earlier.job)
    is_same = job.environment == earlier.job.environment
    secrets, about_secrets = without_secrets(job)
    variables = {**job.environment_variables, **dict.fromkeys(secrets)}
    about = (installed.note, versions_note(earlier.details.logs, earlier.ranges), about_secrets, identity_note(job))
    status = str(earlier.details.status)
    why = earlier.verdict.to_dict() if earlier.verdict else None
    origin = Origin(earlier.name, workspace.name, earlier.attempt, digest, status, why, changed)
    return Rerun(
        job.with_(environment_variables=variables) if secrets else job,
        origin,
        [*notes, *filter(None, about)],
        outputs,
        installed.environment if is_same else None,
        secrets,
    )


def _with_code(workspace: Workspace, earlier: Earlier, job: JobFields) -> tuple[JobFields, str | None]:
    if not job.code or job.local_code:
        return job, None
    code = code_home(workspace, job.code, earlier.name)
    return job.with_(code=str(code.folder)), code.digest


def _with_data(workspace: Workspace, job: JobFields, wanted: Fetch, notes: list[str]) -> JobFields:
    """The job with its data inputs on this machine."""
    remote = {name: data for name, data in job.inputs.items() if isinstance(data, Input) and not data.is_local}
    _refuse_unknown(wanted.download, job)
    asked = remote.keys() & {*(remote if _means_all(wanted) else wanted.download)}
    found = {name: input_in(workspace, name, data) for name, data in remote.items() if name in asked}
    if left := [name for name in remote if name not in asked]:
        raise JobError.of(_not_here(workspace, name, remote[name]) for name in left)
    inputs = dict(job.inputs)
    for name, data in found.items():
        inputs[name] = remote[name].with_(path=str(data_home(workspace, data, wanted.sample)))
        notes.append(f"input {name} is {_part(data, wanted.sample)}")
    return job.with_(inputs=inputs) if found else job


def _means_all(wanted: Fetch) -> bool:
    return ALL in wanted.download or (wanted.sample is not None and not wanted.download)


def _refuse_unknown(names: Collection[str], job: JobFields) -> None:
    known = [name for name in job.inputs if job.is_data(name)]
    for name in names:
        if name not in known and name != ALL:
            hint = nearest_or_all(name, known) or "the job has no data inputs"
            raise JobError(f"the job has no data input `{name}` to download", hint=hint)


def _not_here(workspace: Workspace, name: str, data: Input) -> Problem:
    try:
        size = str(input_in(workspace, name, data))
    except SubmitError as error:
        size = f"{data.path}; its size is not known: {error.problems[0].message}"
    own = f"`--input {name}=PATH` uses your own data"
    hint = f"`--download {name}` fetches it, `--sample N` only N files of it; {own}"
    return Problem(f"it is in the workspace, not on this machine: {size}", hint, f"inputs.{name}")


def _part(data: Stored, sample: int | None) -> str:
    if sample is None or sample >= len(data.files):
        return str(data)
    return f"a sample of {sample} of its files: {data}"


def _outputs(workspace: Workspace, earlier: Earlier, job: JobFields, notes: list[str]) -> Iterator[tuple[str, Path]]:
    """What the run wrote to its named outputs."""
    for name in job.outputs:
        if not (address := earlier.outputs.get(name)):
            notes.append(f"output {name} starts empty: that run had no such output")
            continue
        found = stored_at(workspace, f"output {name}", address, address)
        if found.files:
            place = data_home(workspace, found)
            yield name, place if place.is_dir() else place.parent
            notes.append(f"output {name} starts with what that run wrote: {found}")
        else:
            notes.append(f"output {name} starts empty: that run has written nothing there")
