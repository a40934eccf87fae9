"""Printing: data on stdout, the rest on stderr. Control characters in other programs' texts never reach a terminal."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from azml_dist.errors import DistError
from azml_dist.runs.screen import Screen, print_above, screen_in_use
from azml_dist.show import WIDEST_CARD, Card, Page, card_text, page_text, wrapped
from azml_dist.words import visible


class OutputError(DistError):
    """The output of a command cannot be written, for example because a disk is full."""

    def __init__(self, error: OSError) -> None:
        hint = "check where stdout goes, and whether there is space left"
        super().__init__(f"the output cannot be written: {error.strerror or error}", hint=hint)


def prepare_streams() -> None:
    """Make sure that the standard streams exist, and that any text can be written to them.

    If the caller closed a descriptor, the next file that is opened would get it, and with it everything printed.
    """
    for fd, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            nothing = os.open(os.devnull, mode)
            if nothing != fd:
                os.dup2(nothing, fd)
                os.close(nothing)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # File names need not be UTF-8, and a terminal may not support all characters.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def complain(error: DistError, otherwise: str | None = None) -> None:
    """Print an error; `otherwise` is the hint if it has none."""
    for problem in error.problems:
        say(f"error: {problem}")
        if problem.hint:
            say(f"hint: {problem.hint}")
    if otherwise and not any(problem.hint for problem in error.problems):
        say(f"hint: {otherwise}")


def say(text: str) -> None:
    """Print a message; failing to write it is no reason to stop."""
    shown = _fitted(visible(text))
    try:
        if not print_above(shown + "\n", sys.stderr):
            print(shown, file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr.fileno())


def _fitted(text: str) -> str:
    """A message whose long lines are wrapped between words at a terminal; what is indented is laid out already."""
    room = columns(sys.stderr)
    if room is None:
        return text
    lines = [
        [line] if line.startswith(" ") or len(line) <= room else wrapped(line, room, "  ") for line in text.split("\n")
    ]
    return "\n".join(one for some in lines for one in some)


def tell(text: str) -> None:
    """Print data for people, without control characters."""
    write(visible(text) + "\n")


def tell_json(value: Any) -> None:
    """Print one object for programs. JSON has no NaN, which a metric may well be: it becomes null."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=1)
    try:
        write(f"{text}\n")
    except BrokenPipeError:  # nobody reads it: the exit code still says how the run ended
        give_up(sys.stdout.fileno())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(text: str) -> None:
    """Print data as it is."""
    try:
        if print_above(text, sys.stdout):
            return
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error) from error


def give_up(fd: int) -> None:
    """Discard further output, so that the interpreter does not fail on it when it exits."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, fd)
    os.close(nothing)


def print_chunks(chunks: Iterator[bytes], as_json: bool) -> bool:
    """Print the lines of a run, as its processes wrote them, above the foot, if there is one; whether there are any."""
    stream, some = (sys.stderr if as_json else sys.stdout).buffer, False
    for chunk in chunks:
        some = some or bool(chunk)
        _write_bytes(stream, chunk, screen_in_use())
    return some


def _write_bytes(stream: BinaryIO, chunk: bytes, screen: Screen | None) -> None:
    try:
        if screen:
            screen.write(chunk)
            return
        # With PYTHONUNBUFFERED the stream is a raw file, and may write only part of the chunk.
        rest = memoryview(chunk)
        while rest:
            rest = rest[stream.write(rest) :]
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up(stream.fileno())
        raise OutputError(error) from error


def colours(as_json: bool) -> bool:
    """Whether to colour the lines: only on a terminal."""
    return coloured(sys.stderr if as_json else sys.stdout)


def folds(as_json: bool, fold: bool | None) -> bool:
    """Whether equal lines of many ranks are printed as one: unless somebody wants it otherwise, not into a file."""
    if fold is not None:
        return fold
    try:
        return not stat.S_ISREG(os.fstat((sys.stderr if as_json else sys.stdout).fileno()).st_mode)
    except (OSError, ValueError):
        return False


def is_terminal(as_json: bool) -> bool:
    """Whether the lines go to a terminal, which must not get control sequences of others."""
    return (sys.stderr if as_json else sys.stdout).isatty()


def coloured(stream: TextIO) -> bool:
    """Whether a stream is a terminal with colours, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns(stream: TextIO) -> int | None:
    """How wide a stream is, if it is a terminal that says so."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or None) if stream.isatty() else None
    except (OSError, ValueError):
        return None


def card_width(stream: TextIO) -> int:
    """How wide a card may be there."""
    return min(columns(stream) or WIDEST_CARD, WIDEST_CARD)


def say_card(card: Card) -> None:
    """Print how a run ended, as a message."""
    gap = "" if card.good else "\n"
    text = gap + card_text(card, colour=coloured(sys.stderr), width=card_width(sys.stderr))
    with suppress(OSError):
        if not print_above(text + "\n", sys.stderr):
            print(text, file=sys.stderr, flush=True)


def tell_page(page: Page) -> None:
    """Print a page, as data for people."""
    write(page_text(page, colour=coloured(sys.stdout), width=columns(sys.stdout)) + "\n")
