"""What the service says of a run that failed: its message, the rank it blames, the exit code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

_BLAMED = re.compile(r"(?i)(?:std_log_process_|process '?(?:rank|worker)[ _]?|rank[ _])(\d+)")
_EXIT_CODE = re.compile(r"exited with (?:status )?code (?!-2\b)(-?\d+)")
_VICTIM = re.compile(r"(?i)terminated by the runtime|exited with code -2\b")
"""Said of processes that were stopped because another one failed. Seen in public logs."""


def service_message(details: Mapping[str, Any]) -> str | None:
    """The service's own words on why a run failed, on one line."""
    error = (details.get("error") or {}).get("error") or {}
    return " ".join(str(error.get("message") or "").split()) or None


def blamed_rank(message: str | None, known: int) -> int | None:
    """The rank that the message names as the one that failed, and not as stopped for it."""
    text = message or ""
    named = list(_BLAMED.finditer(text))
    for found, after in zip_longest(named, named[1:]):
        said = text[found.end() : after.start() if after else None]
        if int(found[1]) < known and not _VICTIM.search(said):
            return int(found[1])
    return None


def exit_code(message: str | None) -> int | None:
    """With which code the process that failed ended, if the message says so."""
    found = _EXIT_CODE.search(message or "")
    return int(found[1]) if found else None
