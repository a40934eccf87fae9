"""Commands for editors and shells: `schema`, `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from azml_dist.cli.base import cli, example, json_option
from azml_dist.cli.output import tell_json, write


@click.command(epilog=example("azml-dist schema > job.schema.json"))
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of job files, which editors use to complete and check them."""
    from azml_dist.files.schema import job_schema

    tell_json(job_schema())


@click.command(epilog=example('eval "$(azml-dist completion bash)"'))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script for a shell."""
    found = get_completion_class(shell)
    assert found
    script = found(cli, {}, "azml-dist", "_AZML_DIST_COMPLETE").source()
    if as_json:
        tell_json({"shell": shell, "script": script})
    else:
        write(f"{script}\n")


COMMANDS = (schema, completion)
