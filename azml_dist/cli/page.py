"""`azml-dist page`: a run as one HTML file."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from azml_dist.cli.base import example, json_option, last_argument, only_root_option
from azml_dist.cli.output import say, tell, tell_json
from azml_dist.cli.runs import find_run
from azml_dist.errors import DistError


@click.command(epilog=example("azml-dist page quickstart-3f2a91 --open"))
@last_argument
@click.option(
    "--output",
    "-o",
    "--to",
    "file",
    type=click.Path(dir_okay=False),
    help="The file, by default page.html in the run's folder, or NAME.html here for a run on Azure ML.",
)
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
@only_root_option
@json_option
def page(name: str | None, file: str | None, opens: bool, root: str | None, as_json: bool) -> None:
    """Write a run as one HTML file: its plan, a timeline, the verdict, logs, metrics and files.

    Without NAME, this is the run that was started last. The file needs no server and no network, so you can send it to
    somebody. It shows the run as it is now.
    """
    found = find_run(name, root)
    folder = getattr(found, "folder", None)
    path = Path(file) if file else Path(folder, "page.html") if folder else Path(f"{found.name}.html")
    try:
        path = found.page().save(path)
    except OSError as error:
        hint = "choose another file with `--output`"
        raise DistError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error
    address = path.resolve().as_uri()
    if as_json:
        tell_json({"name": found.name, "file": str(path.resolve()), "url": address})
    else:
        tell(str(path))
    if opens and not webbrowser.open(address):
        say(f"note: no browser was found; open {address}")


COMMANDS = (page,)
