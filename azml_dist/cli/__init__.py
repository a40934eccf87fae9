"""The command line: parses and prints. Data goes to stdout, all else to stderr; every command has `--json`."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

import click

from azml_dist.cli import editors, jobs, runs
from azml_dist.cli.base import DONE, FAILED, INTERRUPTED, WRONG, cli
from azml_dist.cli.output import complain, say
from azml_dist.errors import DistError, RunFailed

__all__ = ["DONE", "FAILED", "INTERRUPTED", "WRONG", "cli", "main"]

for command in (*jobs.COMMANDS, *runs.COMMANDS, *editors.COMMANDS):
    cli.add_command(command)


def main() -> NoReturn:
    """Entry point of `azml-dist`."""
    try:
        code = cli.main(standalone_mode=False) or DONE
        sys.stdout.flush()
    except RunFailed as failure:
        complain(failure)
        code = FAILED
    except DistError as error:
        complain(error)
        code = WRONG
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        say(f"error: {error.format_message()}")
        say(f"hint: `{context.command_path if context else 'azml-dist'} --help` shows what can be written")
        code = WRONG
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    gc.freeze()  # the interpreter would look through all that is left once more, which takes 20 ms
    sys.exit(code)
