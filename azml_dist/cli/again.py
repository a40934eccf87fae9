"""`rerun`: a run of Azure ML, or one of this machine, again on this machine."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import example, run_names
from azml_dist.cli.jobs import SECTIONS, run
from azml_dist.cli.last import last_run
from azml_dist.cli.named import RunName, is_file
from azml_dist.cli.output import say
from azml_dist.cli.sections import Sectioned
from azml_dist.errors import JobError

if TYPE_CHECKING:
    from azml_dist.job import Job
    from azml_dist.runs.rerun import Rerun
    from azml_dist.runs.run import Run

_OF_GROUPS = ("job", "file", "max_trials", "parallel")
"""Parameters of `run` for what a run is never: a file, a sweep or a pipeline."""


def _rerun(
    name: str | None, download: tuple[str, ...], sample: int | None, resume: bool, root: str | None, **options: Any
) -> int:
    """Run the job of an earlier run again on this machine, with the code that it had.

    NAME is a run in the workspace or on this machine, by default the one that was started last here. Its code is
    fetched, whatever your files look like now. Data that is only in the workspace is downloaded if you say so.

    All options of `azml-dist run` work; `--set` and `--input` change the job.
    """
    found = _found(name, root)
    prepare = partial(_prepared, found, download, sample, resume)
    started: int = run.callback(  # type: ignore[misc]  # a command has one
        job=RunName.of(found, prepare), root=root, max_trials=None, parallel=1, **options
    )
    return started


def _prepared(run: Run, download: tuple[str, ...], sample: int | None, resume: bool, job: Job) -> Rerun:
    began = time.monotonic()
    found = run.rerun(job, download=download, sample=sample, resume=resume)
    origin, took = found.origin, time.monotonic() - began
    where = f"workspace {origin.workspace}" if origin.workspace else "this machine"
    say(f"again: {origin.name} of {where} ({origin.status}), {_code(found)} in {took:.1f} s")
    return found


def _code(found: Rerun) -> str:
    return f"code {found.origin.snapshot[:12]}" if found.origin.snapshot else "ready"


def _found(name: str | None, root: str | None) -> Run:
    from azml_dist.api import run as find
    from azml_dist.local.find import find as find_here

    if name is None:
        return last_run(root)
    if is_file(name):
        hint = f"`azml-dist run {name}` runs the job in it"
        raise JobError(f"{name} is a file, and `rerun` needs the name of a run", hint=hint)
    return find_here(name, root) or find(name)


def _command() -> click.Command:
    own: list[click.Parameter] = [
        click.Argument(["name"], required=False, shell_complete=run_names),
        click.Option(["--download"], multiple=True, metavar="NAME", help="Download this data input, or `all`."),
        click.Option(
            ["--sample"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Download only N files of each folder.",
        ),
        click.Option(["--resume"], is_flag=True, help="Let the named outputs start with what that run had written."),
    ]
    shared = [parameter for parameter in run.params if parameter.name not in _OF_GROUPS]
    of_run = {title: names for title, names in SECTIONS.items() if title not in ("The job", "Sweeps and pipelines")}
    sections = {"The earlier run": "download sample resume", "The job": "inputs settings", **of_run}
    epilog = example("azml-dist rerun quickstart-3f2a91 --download all --set inputs.epochs=1")
    return Sectioned(
        "rerun", sections=sections, params=[*own, *shared], callback=_rerun, help=_rerun.__doc__, epilog=epilog
    )


rerun = _command()
COMMANDS = (rerun,)
