"""`plan`: what a job means."""

from __future__ import annotations

import os
from typing import Any

import click

from azml_dist.cli.base import (
    DONE,
    WRONG,
    example,
    input_option,
    job_argument,
    json_option,
    no_script_option,
    set_option,
)
from azml_dist.cli.loading import lines_of, load, no_pipeline
from azml_dist.cli.output import say, tell_json, tell_page
from azml_dist.errors import any_error
from azml_dist.words import plural


@click.command(epilog=example("azml-dist plan job.yml --set node_count=4"))
@job_argument
@set_option
@input_option
@no_script_option
@click.option("--watch-hangs", is_flag=True, help="Show the job as `submit --watch-hangs` sends it.")
@json_option
def plan(
    job: str, settings: tuple[str, ...], inputs: tuple[str, ...], no_script: bool, watch_hangs: bool, as_json: bool
) -> int:
    """Show what a job means, offline: its processes, their environment, the command and the request.

    For a folder, show one line for each job in it, and what is wrong with it.
    """
    if os.path.isdir(job):
        return _plan_folder(job, settings, inputs, as_json)
    loaded = load(job, settings, inputs)
    if watch_hangs:
        loaded = no_pipeline(loaded, job)
    with lines_of(job, settings, inputs):
        return show(planned(loaded, no_script=no_script, watch_hangs=watch_hangs), as_json)


def planned(job: Any, *, no_script: bool, watch_hangs: bool) -> Any:
    """The plan of a job, as `submit` with these options sends it."""
    if watch_hangs:
        from azml_dist.plan.dumps import with_dumps

        job = with_dumps(job)
    found = job.plan()
    return found.without_script() if no_script else found


def show(found: Any, as_json: bool) -> int:
    if as_json:
        tell_json(found.to_dict())
    else:
        tell_page(found._page())
    return WRONG if any_error(found.findings) else DONE


COMMANDS = (plan,)


def _plan_folder(folder: str, settings: tuple[str, ...], inputs: tuple[str, ...], as_json: bool) -> int:
    from azml_dist.cli.folder import plan_folder

    if settings or inputs:
        raise click.UsageError(f"{folder} is a folder: --set and --input belong to a single job")
    found = plan_folder(folder)
    if as_json:
        tell_json(found.to_dict())
    else:
        tell_page(found._page())
    for skipped in found.skipped:
        say(f"note: {skipped.file} is not a job: {skipped.why}")
    say(f"{plural(len(found.jobs), 'job')}, {found.wrong} wrong")
    return WRONG if found.wrong else DONE
