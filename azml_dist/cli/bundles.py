"""`bundle`: one zip that explains a run to others."""

from __future__ import annotations

from pathlib import Path

import click

from azml_dist.cli.base import DONE, example, json_option, name_argument, root_option
from azml_dist.cli.output import say, tell, tell_json


@click.command(epilog=example("azml-dist bundle quickstart-3f2a91"))
@name_argument
@click.option(
    "--to", "--output", "-o", "file", type=click.Path(), help="The file to write, by default `NAME-bundle.zip`."
)
@click.option("--list", "only_list", is_flag=True, help="List what would be in it, and write nothing.")
@root_option
@json_option
def bundle(name: str, file: str | None, only_list: bool, root: str | None, as_json: bool) -> int:
    """Write one zip that explains how a run ended, for a colleague or a support ticket; list first what is in it.

    It has the plan, the request, the verdict, the ends of all logs, metrics, versions, and the ids for Azure support.
    Secrets are removed; code, outputs and data are not in it. `status`, `logs` and `why` read it like a run.
    """
    from azml_dist.api import run as find
    from azml_dist.runs.bundle import bundle_of, free_name, refuse_existing

    if file and not only_list:
        refuse_existing(Path(file))
    found = find(name, root=root)
    made = bundle_of(found)
    for line in made.lines():
        say(line)
    place = None if only_list else made.save(file or free_name(Path(), made.name))
    if as_json:
        tell_json({**made.to_dict(), "file": place and str(place)})
    elif place:
        tell(str(place))
    return DONE


COMMANDS = (bundle,)
