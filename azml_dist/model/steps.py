"""The lines of a log in which a script says at which step it is. Pure, and needs only the standard library."""

from __future__ import annotations

import re

STEP_PATTERN = (
    r"(?i)\b(?:global[ _-]?)?(?:steps?|iter(?:ation)?s?)\b\W{0,4}(?P<step>\d+)"
    r"|\bepochs?\b(?!.*\b(?:steps?|iter(?:ation)?s?)\b\W{0,4}\d)\W{0,4}(?P<epoch>\d+)"
)
"""Lines with a step: `step 3`, `Iteration [3/100]`, `global_step=3`; or with an epoch, if they have no step."""


def shown_lines(line: bytes) -> list[str]:
    """What a terminal shows of a line, one after another: progress bars overwrite it, and colours are no words."""
    parts = line[:_LONGEST].replace(b"\r\n", b"\n").rstrip(b"\r\n").split(b"\r")
    return [_COLOURS.sub("", part.decode(errors="replace")) for part in parts]


_LONGEST = 4096
"""Bytes of a line that are looked at."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def step_number(match: re.Match[str]) -> int | None:
    """The number of the step in a line that has one: the group `step`, or else the first group."""
    groups = match.groupdict().get("step"), *match.groups()
    text = next((one for one in groups if one is not None), None)
    return int(text) if text and text.isdigit() and len(text) < 10 else None
