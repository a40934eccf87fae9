"""What is ready before the first process of a local run starts: code on every node, inputs, outputs, MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import time
from pathlib import Path

from azml_dist.errors import JobError, Problem
from azml_dist.job import Input, Job
from azml_dist.local.artifacts import UPLOADED
from azml_dist.local.supervision import needs_no_quotes
from azml_dist.snapshot import Snapshot

MLFLOW_EXPERIMENT = "0"


def stage_code(code: Snapshot, working_dir: Path) -> None:
    """A writable copy of the snapshot, as each node has one, with `./outputs` and `./logs` in it."""
    working_dir.mkdir(parents=True)
    made = {""}
    for file in code.files:
        target = working_dir / file.path
        if (folder := os.path.dirname(file.path)) not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(folder)
        shutil.copy2(file.source, target)
        if not (mode := target.stat().st_mode) & stat.S_IWUSR:
            target.chmod(mode | stat.S_IWUSR)
    for name in UPLOADED:
        (working_dir / name).mkdir(exist_ok=True)


def keep_code(job: Job, code: Snapshot, folder: Path) -> Job:
    """The job with a copy of its code: runs that start later get the same files, as from one upload."""
    if not code.files:
        return job
    stage_code(code, folder)
    for name in UPLOADED:
        with contextlib.suppress(OSError):  # the user's own files in it are kept
            (folder / name).rmdir()
    return job.with_(code=str(folder))


def stamps(code: Snapshot) -> dict[str, list[int]]:
    """Size and last change of each staged file, by which what a run writes is told from what it was given."""
    return {f.path: [f.size, os.stat(f.source).st_mtime_ns] for f in code.files}


def refuse_remote_inputs(job: Job) -> None:
    """Raise where data is somewhere that only Azure ML can read."""
    inputs = ((name, value) for name, value in job.inputs.items() if isinstance(value, Input))
    if problems := [_elsewhere(name, data) for name, data in inputs if not data.is_local]:
        raise JobError.of(problems)


def _elsewhere(name: str, data: Input) -> Problem:
    return Problem(
        f"{data.path} can be read on Azure ML, and not from here",
        f'say where its data is on this machine: `--input {name}=PATH`, or `Local(inputs={{"{name}": "PATH"}})`',
        f"inputs.{name}",
    )


def stage_outputs(job: Job, folder: Path) -> dict[str, str]:
    """A folder for every named output, shared by all nodes; a `uri_file` output is a file to be written in its folder.

    The file's name is inferred: no page says what it is on Azure ML.
    """
    paths = {}
    for name, output in job.outputs.items():
        (folder / name).mkdir(parents=True)
        paths[name] = output_path(folder, name, output.type)
    return paths


def output_path(folder: Path, name: str, kind: str) -> str:
    """Where an output of that type is, in a run's folder of outputs."""
    return str(folder / name / name if kind == "uri_file" else folder / name)


def link_inputs(job: Job, links: Path) -> dict[str, str]:
    """The path of every data input, safe in a command without quotes: its own, or that of a link to it."""
    safe = {}
    for name in job.inputs:
        if path := job.local_path(name):
            path = os.path.abspath(path)
            if not needs_no_quotes(path):
                links.mkdir(exist_ok=True)
                (links / f"INPUT_{name}").symlink_to(path)
                path = str(links / f"INPUT_{name}")
            safe[name] = path
    return safe


def create_mlflow_store(folder: Path, run_id: str, experiment: str, display_name: str) -> str:
    """An MLflow file store that holds this run, as the service has made it before a job starts; its tracking URI."""
    now = int(time.time() * 1000)
    run = folder / MLFLOW_EXPERIMENT / run_id
    for name in ("metrics", "params", "tags", "artifacts"):
        (run / name).mkdir(parents=True)
    _write_yaml(
        run.parent / "meta.yaml",
        artifact_location=run.parent.as_uri(),
        creation_time=now,
        experiment_id=MLFLOW_EXPERIMENT,
        last_update_time=now,
        lifecycle_stage="active",
        name=experiment,
    )
    _write_yaml(
        run / "meta.yaml",
        artifact_uri=(run / "artifacts").as_uri(),
        end_time=None,
        entry_point_name="",
        experiment_id=MLFLOW_EXPERIMENT,
        lifecycle_stage="active",
        run_id=run_id,
        run_name=display_name,
        run_uuid=run_id,
        source_name="",
        source_type=4,
        source_version="",
        start_time=now,
        status=1,
        tags=[],
        user_id="",
    )
    return folder.as_uri()


def _write_yaml(file: Path, **values: object) -> None:
    file.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
