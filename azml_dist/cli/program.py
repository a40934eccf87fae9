"""Runs the command that was typed, and says what went wrong."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from azml_dist.cli.base import DONE, FAILED, INTERRUPTED, WRONG, cli
from azml_dist.cli.output import OutputError, complain, give_up, prepare_streams, say, say_card, write
from azml_dist.errors import DistError, RunFailed


def run() -> int:
    """Run the command of this process; returns the exit code."""
    prepare_streams()
    return called()


def called() -> int:
    """Run the command and report errors."""
    try:
        code = cli.main(standalone_mode=False) or DONE
        write("")
    except RunFailed as failure:
        say(f"error: {failure.problems[0]}")
        with suppress(DistError):
            say_card(failure.run.ending())
        return FAILED
    except BrokenPipeError:
        # The reader of the output, such as `head`, has seen enough.
        give_up(sys.stdout.fileno())
        return DONE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        say(f"error: {' '.join(error.format_message().split())}")
        say(f"hint: `{context.command_path if context else 'azml-dist'} --help` shows the arguments and options")
        return WRONG
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except Exception as error:
        _complain_of(error)
        return WRONG
    return code


def _complain_of(error: Exception) -> None:
    if isinstance(error, OSError):
        error = _of_the_output() or error
    if isinstance(error, OutputError):
        give_up(sys.stdout.fileno())
    elif _folder_is_gone():
        complain(DistError("the current folder no longer exists", hint="`cd` to a folder that exists"))
        return
    if isinstance(error, DistError):
        complain(error, otherwise=_HINT)
        return
    from azml_dist.cli.unforeseen import foreseen, typed_command

    complain(foreseen(error, typed_command()))


_HINT = "`azml-dist schema` describes job files; `azml-dist COMMAND --help` describes a command"


def _of_the_output() -> OutputError | None:
    """Why click could not write to stdout; None if that is not what failed."""
    try:
        write("")
    except OutputError as error:
        return error
    return None


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
