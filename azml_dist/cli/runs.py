"""Commands that take a run: `status`, `logs`, `cancel`, `list`, `download`."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import DONE, FAILED, example, json_option, name_argument, root_option
from azml_dist.cli.output import colours, print_chunks, say
from azml_dist.errors import RunFailed, SubmitError

if TYPE_CHECKING:
    from azml_dist.runs import Run


@click.command(epilog=example("azml-dist status quickstart-3f2a91"))
@name_argument
@root_option
@json_option
def status(name: str, root: str | None, as_json: bool) -> None:
    """Show how a run stands."""
    found = find_run(name, root)
    click.echo(json.dumps(found.describe(), indent=1) if as_json else str(found))


@click.command(epilog=example("azml-dist logs quickstart-3f2a91 --rank 3 --follow"))
@name_argument
@click.option("--rank", type=int, help="Of this rank alone.")
@click.option("--node", type=int, help="Of this node alone.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines alone.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends, and exit as it does.")
@root_option
@json_option
def logs(
    name: str, rank: int | None, node: int | None, tail: int | None, follow: bool, root: str | None, as_json: bool
) -> int:
    """Print the logs of a run, in the order in which their lines arrived."""
    found = find_run(name, root)
    ranks = found.ranks(rank, node)
    print_chunks(found.chunks(ranks, colour=colours(as_json), follow=follow, tail=tail), as_json)
    if as_json:
        click.echo(json.dumps(found.describe(), indent=1))
    return FAILED if follow and found.status != "Completed" else DONE


@click.command(epilog=example("azml-dist cancel quickstart-3f2a91"))
@name_argument
@root_option
@json_option
def cancel(name: str, root: str | None, as_json: bool) -> None:
    """End a run, and wait until its processes are gone."""
    found = find_run(name, root)
    had_ended = found.status.is_final
    found.cancel()
    with suppress(RunFailed, TimeoutError):
        found.wait(timeout=60)
    if as_json:
        click.echo(json.dumps(found.describe(), indent=1))
    else:
        say(f"run {name} had ended: {found.status}" if had_ended else f"run {name}: {found.status}")


@click.command("list", epilog=example("azml-dist list"))
@root_option
@json_option
def list_runs(root: str | None, as_json: bool) -> None:
    """List the runs of this machine, and those of the configured workspace; the newest last."""
    from azml_dist.local.run import LocalRun
    from azml_dist.render import azure_runs_text, runs_text

    states = [found.state() for found in LocalRun.all(root)]
    submitted = [] if root else _runs_in_the_workspace()
    if as_json:
        runs = [state.to_dict() | {"where": "local"} for state in states]
        click.echo(json.dumps({"runs": runs + [run | {"where": "azureml"} for run in submitted]}, indent=1))
        return
    if states:
        click.echo(runs_text(states))
    if submitted:
        click.echo(("\n" if states else "") + azure_runs_text(submitted))
    if not states and not submitted:
        say("no runs yet; `azml-dist run JOB` starts one")


@click.command(epilog=example("azml-dist download quickstart-3f2a91 --to results"))
@name_argument
@click.option("--to", "folder", type=click.Path(), help="The folder to copy into; one named like the run if not given.")
@root_option
@json_option
def download(name: str, folder: str | None, root: str | None, as_json: bool) -> None:
    """Copy a run's named outputs, artifacts and logs."""
    found = find_run(name, root)
    target = found.download(folder or found.name)
    click.echo(json.dumps({"name": found.name, "folder": str(target.resolve())}) if as_json else str(target))


COMMANDS = (status, logs, cancel, list_runs, download)


def find_run(name: str, root: str | None) -> Run:
    from azml_dist.runs import run as find

    return find(name, root=root)


def _runs_in_the_workspace() -> list[dict[str, Any]]:
    """What is there, if a workspace is configured; where it cannot be asked, that is said and no more."""
    from azml_dist.azureml.workspace import Workspace

    workspace = Workspace()
    if not workspace.is_configured:
        return []
    from azml_dist.azureml.run import AzureRun

    try:
        return AzureRun.latest(workspace)
    except SubmitError as error:
        say(f"note: the runs of workspace {workspace.name} are not shown: {error.problems[0].message}")
        return []
