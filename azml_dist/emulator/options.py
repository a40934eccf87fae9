"""The options of the command, apart from it, so that a help text needs nothing but click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
DEFAULT_FOLDER = "~/.azml_dist/emulator"


def options(function: _F) -> _F:
    """The arguments and options of `serve`, for a click command."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


_OPTIONS = (
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
    click.option("--folder", default=DEFAULT_FOLDER, show_default=True, help="Where its state is kept."),
    click.option("--fresh", is_flag=True, help="Forget the state from before."),
    click.option("--port", type=click.IntRange(1, 65535), help="Where it listens; by default a free port."),
    click.option(
        "--storage",
        type=click.Choice(["own", "azurite"]),
        default="own",
        show_default=True,
        help="What stores the blobs. Azurite loses them when the emulator ends.",
    ),
    click.option("--azurite", metavar="FOLDER", help="Where Azurite is installed. [env: AZML_EMULATOR_AZURITE]"),
    click.option("--config", metavar="FILE", help="Write a `config.json` here too."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set how it behaves, e.g. `queue_seconds=30`; all names are in docs/emulator.md.",
    ),
    click.option(
        "--fault",
        "faults",
        multiple=True,
        metavar="FAULT",
        help="Answer with an error, e.g. `429:route=jobs.put,times=3,retry_after=1`, `reset-after`, `delay=2`.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print only one JSON object on stdout."),
)
