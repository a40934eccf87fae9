"""The command line: parses and prints. Data goes to stdout, the rest to stderr; every command has `--json`."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from azml_dist.cli.base import cli as cli

_OBJECTS = 50_000
"""How many new objects start a garbage collection. Imports make many, and no garbage: looking for it takes 15 ms."""


def main() -> NoReturn:
    """Entry point of `azml-dist`."""
    gc.set_threshold(_OBJECTS)
    try:
        from azml_dist.cli.program import run  # imported without looking for garbage
    except KeyboardInterrupt:  # Ctrl-C in the first 50 ms, before anything is there to answer it
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    code = run()
    gc.freeze()  # a last garbage collection of everything would take 20 ms
    sys.exit(code)


def __getattr__(name: str) -> object:
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from azml_dist.cli.base import cli

    return cli
