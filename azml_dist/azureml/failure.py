"""What the service says about a failed run: its message, the rank that it blames, the exit code."""

from __future__ import annotations

import re

from azml_dist.azureml.answers import Answer
from azml_dist.verdict.ends import blamed

_EXIT_CODE = re.compile(r"exited with (?:status )?code (?!-2\b)(-?\d+)")


def service_message(details: Answer) -> str | None:
    """The service's own message about why a run failed, on one line."""
    return " ".join((details.object("error").object("error").text("message") or "").split()) or None


def blamed_rank(message: str | None, known: int) -> int | None:
    """The rank that, according to the message, failed by itself and was not just stopped."""
    return next((rank for rank in blamed(message or "") if rank < known), None)


def exit_code(message: str | None) -> int | None:
    """The exit code of the process that failed, if the message contains it."""
    found = _EXIT_CODE.search(message or "")
    return int(found[1]) if found else None
