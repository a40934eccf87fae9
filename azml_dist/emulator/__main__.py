"""`python -m azml_dist.emulator`: see `azml-dist emulator --help`."""

from __future__ import annotations

import sys

import click

from azml_dist.emulator.command import EmulatorFailed, serve
from azml_dist.emulator.options import options


def main() -> None:
    """Run the command; errors are one line and a hint."""
    command = click.command(name="emulator", help="A workspace of Azure ML on this machine.")(options(serve))
    try:
        sys.exit(command.main(prog_name="python -m azml_dist.emulator", standalone_mode=False))
    except EmulatorFailed as error:
        click.echo(f"error: {error.message}\nhint: {error.hint}", err=True)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}\nhint: `--help` shows the options", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
