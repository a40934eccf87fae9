"""Commands for editors and shells: `schema`, `completion`."""

from __future__ import annotations

import json

import click
from click.shell_completion import get_completion_class

from azml_dist.cli.base import cli, example, json_option


@click.command(epilog=example("azml-dist schema > job.schema.json"))
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of job files, for editors."""
    from azml_dist.schema import job_schema

    click.echo(json.dumps(job_schema(), indent=1))


@click.command(epilog=example('eval "$(azml-dist completion bash)"'))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    assert found
    script = found(cli, {}, "azml-dist", "_AZML_DIST_COMPLETE").source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)


COMMANDS = (schema, completion)
