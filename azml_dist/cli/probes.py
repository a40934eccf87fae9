"""`probe`: finds out with small jobs what a workspace really does, and what the nodes of a cluster have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from azml_dist.cli.base import DONE, FAILED, Finite, example, import_models, json_option, workspace_options
from azml_dist.cli.output import say, tell_json, tell_page

if TYPE_CHECKING:
    from azml_dist.check.report import Check

_KINDS = ("pytorch", "mpi", "tensorflow", "ray", "none")


@click.command(epilog=example("azml-dist probe gpu-cluster --nodes 2 --max-cost 20"))
@click.argument("cluster")
@click.option("--nodes", type=click.IntRange(min=1), default=2, show_default=True, help="How many nodes to use.")
@click.option(
    "--distribution",
    "distributions",
    type=click.Choice([*_KINDS, "all"]),
    multiple=True,
    default=("pytorch",),
    show_default=True,
    help="Which kind of job to send; several may be given.",
)
@click.option("--environment", metavar="NAME", help="The environment of the jobs; by default a curated one with torch.")
@click.option(
    "--max-cost",
    type=Finite(min=0, min_open=True),
    metavar="AMOUNT",
    help="Refuse the probe if its jobs may cost more together.",
)
@click.option(
    "--max-wait",
    type=Finite(min=0, min_open=True),
    metavar="SECONDS",
    default=1800.0,
    show_default=True,
    help="Cancel a job that has not started after SECONDS.",
)
@workspace_options
@json_option
def probe(
    cluster: str,
    nodes: int,
    distributions: tuple[str, ...],
    environment: str | None,
    max_cost: float | None,
    max_wait: float,
    workspace: str | None,
    resource_group: str | None,
    subscription: str | None,
    as_json: bool,
) -> int:
    """Find out what the workspace and the nodes of CLUSTER really do, with jobs of at most five minutes.

    Compares the environment of every process with the plan, and measures GPUs, all-reduce, disks, mounts and clocks.
    Plans and local runs of this workspace then go by what was found. Exits with 1 if a job fails or is incomplete.
    """
    import_models()
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.probe.jobs import ENVIRONMENT
    from azml_dist.probe.run import probe as probed

    found = probed(
        cluster,
        nodes=nodes,
        distributions=cast("Any", _KINDS if "all" in distributions else distributions),
        environment=environment or ENVIRONMENT,
        max_cost=max_cost,
        max_wait=max_wait,
        workspace=Workspace(subscription, resource_group, workspace),
        tell=say,
        tell_check=_say_check,
        tell_start=say,
    )
    if as_json:
        tell_json(found.to_dict())
    else:
        tell_page(found._page())
    return DONE if found.is_complete else FAILED


def _say_check(check: Check) -> None:
    for line in check.lines():
        say(line)


COMMANDS = (probe,)
