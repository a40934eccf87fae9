"""`emulator`: a workspace on this machine to test against."""

from __future__ import annotations

import click

from azml_dist.cli.base import example
from azml_dist.emulator.options import options
from azml_dist.errors import DistError


@click.command(epilog=example("azml-dist emulator -- python -m pytest"))
@options
def emulator(command: tuple[str, ...], **options: object) -> int:
    """Start a workspace of Azure ML on this machine, to test against: submitted jobs run here.

    It ends with Ctrl-C or, if there is a COMMAND, with that command, which finds the workspace in its environment.
    """
    try:
        from azml_dist.emulator.command import EmulatorFailed, serve
    except ImportError as error:
        raise DistError(
            f"the emulator needs the package `{error.name}`", hint="pip install 'azml-dist[emulator]'"
        ) from error
    try:
        return serve(command=command, **options)  # type: ignore[arg-type] # click has checked them
    except EmulatorFailed as error:
        raise DistError(error.message, hint=error.hint) from error


COMMANDS = (emulator,)
