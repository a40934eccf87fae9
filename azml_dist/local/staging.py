"""Prepares what a local run needs before its first process starts: code on every node, inputs, outputs."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from azml_dist.errors import JobError, Problem
from azml_dist.local.state import ARTIFACTS
from azml_dist.local.supervision import needs_no_quotes
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Input
from azml_dist.plan.folders import UPLOADED
from azml_dist.plan.snapshot import CodeFile, Snapshot
from azml_dist.words import plural, size_text


class Staging:
    """How far the copies of the snapshot are."""

    def __init__(self, code: Snapshot, copies: int, tell: Callable[[str], None]) -> None:
        """`tell` gets it in words, after each file."""
        self._tell = tell
        self._files, self._bytes = 0, 0
        self._all = copies * len(code.files), copies * sum(file.size for file in code.files)

    def copied(self, file: CodeFile) -> None:
        self._files, self._bytes = self._files + 1, self._bytes + file.size
        files, size = plural(self._all[0], "file"), size_text(self._all[1])
        self._tell(f"staging {self._files:,} of {files}, {size_text(self._bytes)} of {size}")


def stage_code(code: Snapshot, working_dir: Path, staging: Staging | None = None) -> None:
    """Create a node's writable copy of the snapshot, with `./outputs`, `./logs` and `./user_logs` in it."""
    working_dir.mkdir(parents=True)
    made = {""}
    for file in code.files:
        target = working_dir / file.path
        if (folder := os.path.dirname(file.path)) not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(folder)
        try:
            shutil.copy2(file.source, target)
        except OSError:
            _refuse_unreadable(file)
            raise
        if not (mode := target.stat().st_mode) & stat.S_IWUSR:
            target.chmod(mode | stat.S_IWUSR)
        if staging:
            staging.copied(file)
    for name in UPLOADED:
        with contextlib.suppress(FileExistsError):  # the user has a file with that name
            (working_dir / name).mkdir(exist_ok=True)


def _refuse_unreadable(file: CodeFile) -> None:
    try:
        with open(file.source, "rb") as source:
            source.read(1)
    except OSError as error:
        raise JobError(
            f"cannot read {file.path} in the code folder: {error.strerror}",
            hint="make it readable, or exclude it in `.amlignore`",
            where="code",
        ) from error


def keep_code(job: JobFields, code: Snapshot, folder: Path) -> JobFields:
    """The job with a copy of its code, so that runs that start later get the same files, as from one upload."""
    if not code.files:
        return job
    stage_code(code, folder)
    for name in UPLOADED:
        with contextlib.suppress(OSError):  # keep the user's own files in it
            (folder / name).rmdir()
    return job.with_(code=str(folder))


def stamps(code: Snapshot) -> dict[str, list[int]]:
    """Size and modification time of each staged file, to recognise which files the run wrote."""
    return {f.path: [f.size, os.stat(f.source).st_mtime_ns] for f in code.files}


def refuse_remote_inputs(job: JobFields) -> None:
    """Raise if the data of an input can only be read on Azure ML."""
    inputs = ((name, value) for name, value in job.inputs.items() if isinstance(value, Input))
    if problems := [_elsewhere(name, data) for name, data in inputs if not data.is_local]:
        raise JobError.of(problems)


def _elsewhere(name: str, data: Input) -> Problem:
    return Problem(
        f"{data.path} can be read only on Azure ML",
        f'give a local path for it: `--input {name}=PATH`, or `Local(inputs={{"{name}": "PATH"}})`',
        f"inputs.{name}",
    )


def stage_outputs(job: JobFields, folder: Path) -> dict[str, str]:
    """Create a folder for every named output, shared by all nodes; a `uri_file` output is a file inside its folder.

    The file's name is inferred: no page documents it for Azure ML.
    """
    paths = {}
    for name, output in job.outputs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        paths[name] = output_path(folder, name, output.type)
        if paths[name] == str(folder.parent / ARTIFACTS):
            (folder.parent / ARTIFACTS).mkdir()
            (folder / name).symlink_to(Path("..", ARTIFACTS))
        else:
            (folder / name).mkdir()
    return paths


def put_back(before: Mapping[str, Path], outputs: Mapping[str, str]) -> None:
    """Let outputs start with copies of files, for each output those of a folder."""
    for name, folder in before.items():
        target = Path(outputs[name])
        # A `uri_file` output is a file inside its folder.
        into = target if target.is_dir() else target.parent
        for above, _, files in os.walk(folder):
            place = into / os.path.relpath(above, folder)
            place.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copyfile(os.path.join(above, file), place / file)


def output_path(folder: Path, name: str, kind: str) -> str:
    """The path of an output in a run's folder of outputs; `artifacts` are the files that the run itself keeps."""
    if kind == "uri_file":
        return str(folder / name / name)
    return str(folder.parent / ARTIFACTS if name == ARTIFACTS else folder / name)


def link_logs(run_folder: Path, logs: Iterable[str]) -> None:
    """Link the logs into the artifacts, as on Azure ML."""
    for log in logs:
        link = run_folder / ARTIFACTS / log
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(Path("..", "..", log))


def make_capability(folder: Path, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """Create a node's `AZUREML_CR_DATA_CAPABILITY_PATH`: inputs as `INPUT_<name>`, outputs by their names."""
    folder.mkdir(parents=True)
    links = {**{f"INPUT_{name}": path for name, path in inputs.items()}, **outputs}
    for name, path in links.items():
        (folder / name).symlink_to(path)
    return str(folder)


def link_inputs(job: JobFields, links: Path, linked: Collection[str] = ()) -> dict[str, str]:
    """A path for every data input that needs no quotes in a command: its own, or that of a link to it.

    Inputs in `linked` always get a link.
    """
    safe = {}
    for name in job.inputs:
        if path := job.local_path(name):
            path = os.path.abspath(path)
            if name in linked or not needs_no_quotes(path):
                safe[name] = str(_link_to(path, links / f"INPUT_{name}"))
            else:
                safe[name] = path
    return safe


def _link_to(path: str, link: Path) -> Path:
    """A link to a path, under the name that it has, if that needs no quotes: scripts look at the ends of names."""
    if needs_no_quotes(name := os.path.basename(path)):
        link = link / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(path)
    return link
