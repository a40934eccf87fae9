"""`check`: compares a job with the workspace; `doctor`: shows what this machine and the workspace have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from azml_dist.cli.base import (
    DONE,
    FAILED,
    WRONG,
    example,
    input_option,
    job_argument,
    json_option,
    no_script_option,
    set_option,
    workspace_options,
)
from azml_dist.cli.loading import lines_of, load
from azml_dist.cli.named import file_or_run
from azml_dist.cli.output import tell_json, tell_page

if TYPE_CHECKING:
    from azml_dist.health import Line


@click.command(epilog=example("azml-dist check job.yml --set node_count=4"))
@job_argument
@set_option
@input_option
@no_script_option
@workspace_options
@json_option
def check(
    job: str,
    settings: tuple[str, ...],
    inputs: tuple[str, ...],
    no_script: bool,
    workspace: str | None,
    resource_group: str | None,
    subscription: str | None,
    as_json: bool,
) -> int:
    """Check a job against the workspace: compute, quota, environment, data.

    JOB may also be the name of a run, as for `submit`. Only reads: nothing is uploaded, changed or started. Exits
    with 2 if the job is sure to be refused, never to start, or to fail.
    """
    from azml_dist.azureml.workspace import Workspace

    place = Workspace(subscription, resource_group, workspace)
    job = file_or_run(job, place)
    loaded = load(job, settings, inputs)
    with lines_of(job, settings, inputs):
        found = place.check(loaded, script=not no_script)
    if as_json:
        tell_json(found.to_dict())
    else:
        tell_page(found._page())
    return WRONG if found.is_refused else DONE


@click.command(epilog=example("azml-dist doctor --local"))
@click.option("--local", is_flag=True, help="Check only this machine, not Azure.")
@workspace_options
@json_option
def doctor(
    local: bool, workspace: str | None, resource_group: str | None, subscription: str | None, as_json: bool
) -> int:
    """Show what this machine and the workspace have, and what is missing for a submission.

    Only reads. Exits with 0 if a submission could work (with --local: a local run), otherwise with 1.
    """
    from azml_dist.health import Report
    from azml_dist.local.doctor import of_this_machine

    here = [*of_this_machine()]
    azure: list[Line] = []
    if not local:
        from azml_dist.azureml.doctor import of_azure
        from azml_dist.azureml.workspace import Workspace

        azure = [*of_azure(Workspace(subscription, resource_group, workspace))]
    report = Report(here, azure)
    if as_json:
        tell_json(report.to_dict())
    else:
        tell_page(report._page())
    return DONE if report.is_ready else FAILED


COMMANDS = (check, doctor)
