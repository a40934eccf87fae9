"""`export`: a job as YAML for `az ml`, from a file or from a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from azml_dist.cli.base import example, input_option, job_or_run_argument, json_option, set_option
from azml_dist.cli.loading import load
from azml_dist.cli.named import RunName, file_or_run
from azml_dist.cli.output import say, tell_json, write
from azml_dist.errors import DistError, JobError

if TYPE_CHECKING:
    from azml_dist.job import Job


@click.command(epilog=example("azml-dist export train.py:job > job.yml"))
@job_or_run_argument
@set_option
@input_option
@click.option("--code", "folder", type=click.Path(), help="Write the code of run NAME into this new folder.")
@json_option
def export(job: str, settings: tuple[str, ...], inputs: tuple[str, ...], folder: str | None, as_json: bool) -> None:
    """Print a job as YAML for `az ml job create -f`, with absolute paths; also the job of run NAME.

    Values of secret variables of a run are left out: the job then takes them from your environment.
    """
    from azml_dist.files.dump import yaml_of
    from azml_dist.job import Job

    job = file_or_run(job)
    if folder and not isinstance(job, RunName):
        raise click.UsageError("--code is for runs: a job file names its own code")
    loaded = load(job, settings, inputs)
    if not isinstance(loaded, Job):
        raise JobError(f"{job} is not a command job, and `export` writes only those")
    if isinstance(job, RunName):
        loaded = _without_secrets(loaded)
        loaded = _with_code_in(job, loaded, Path(folder)) if folder else loaded
    text = yaml_of(loaded)
    if as_json:
        tell_json({"yaml": text})
    else:
        write(text)


def _without_secrets(job: Job) -> Job:
    from azml_dist.verdict.hidden import is_secret

    variables = job.environment_variables
    secret = [name for name, value in variables.items() if value and is_secret(name, value)]
    if secret:
        say(f"note: {', '.join(secret)}: the value is not written, and taken from your environment at the next start")
    return job.with_(environment_variables={**variables, **dict.fromkeys(secret)}) if secret else job


def _with_code_in(name: RunName, job: Job, folder: Path) -> Job:
    """The job with a copy of the run's code in a new folder."""
    import shutil

    if os.path.lexists(folder):
        raise DistError(f"{folder} exists already", hint="name a folder that does not exist: nothing is overwritten")
    if (code := name.run.code()) is None:
        raise DistError(f"run {name} has no code", hint="leave out `--code`")
    try:
        for path in code.files:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(code.folder / path, target)
            target.chmod((code.folder / path).stat().st_mode | 0o200)
    except OSError as error:
        raise DistError(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from error
    return job.with_(code=str(folder.absolute()))


COMMANDS = (export,)
