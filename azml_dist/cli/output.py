"""What is printed: data on stdout, all else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from azml_dist.errors import DistError, visible


def complain(error: DistError) -> None:
    for problem in error.problems:
        say(visible(f"error: {problem}"))
        if problem.hint:
            say(visible(f"hint: {problem.hint}"))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def print_chunks(chunks: Iterator[bytes], as_json: bool) -> None:
    stream = (sys.stderr if as_json else sys.stdout).buffer
    for chunk in chunks:
        # With PYTHONUNBUFFERED the stream is a bare file, which may write a part and say so.
        rest = memoryview(chunk)
        while rest:
            rest = rest[stream.write(rest) :]
        stream.flush()


def colours(as_json: bool) -> bool:
    stream = sys.stderr if as_json else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR")
