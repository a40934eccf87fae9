"""`diff`: two runs or jobs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from azml_dist.cli.base import DONE, example, json_option, root_option, run_names
from azml_dist.cli.named import is_file
from azml_dist.cli.output import tell, tell_json, tell_page
from azml_dist.errors import JobError

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields
    from azml_dist.runs.run import Run


@click.command(epilog=example("azml-dist diff digits-3f2a91 digits-8c1d07 --code"))
@click.argument("a", metavar="A", shell_complete=run_names)
@click.argument("b", metavar="B", shell_complete=run_names)
@click.option("--code", is_flag=True, help="Also print the lines of the code that differ.")
@root_option
@json_option
def diff(a: str, b: str, code: bool, root: str | None, as_json: bool) -> int:
    """Show what differs between two runs or jobs, each on this machine or on Azure ML: command, inputs, variables,
    world, environment, code; for runs, also their status, why they failed, and their last metrics.

    A and B are names of runs, or job files as for `plan`.
    """
    from azml_dist.runs.difference import diff as compare

    found = compare(_found(a, root), _found(b, root), names=(a, b))
    if as_json:
        tell_json(found.to_dict() | ({"diff": list(found.text())} if code else {}))
        return DONE
    tell_page(found._page())
    if code and (lines := list(found.text())):
        tell("\n" + "\n".join(lines))
    return DONE


def _found(text: str, root: str | None) -> Run | JobFields:
    from azml_dist.runs.bundled import is_bundle

    if is_file(text) and not is_bundle(text):
        return _job(text)
    from azml_dist.api import run

    return run(text, root=root)


def _job(file: str) -> JobFields:
    from azml_dist.cli.argument import load_any
    from azml_dist.job import Job

    found: Any = load_any(file)
    if not isinstance(found, Job):
        raise JobError(f"{file} is not a command job, and `diff` compares only those", hint="name one of its runs")
    return found


COMMANDS = (diff,)
