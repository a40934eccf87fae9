"""The verdict that a local run stores: judged once at its end, while the values of its secrets are known."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from azml_dist.regular import NO_LINK, read_regular
from azml_dist.verdict.verdict import Certainty, Evidence, Kind, Verdict

NAME = "verdict.json"
_MOST = 4_000_000


def keep(verdict: Verdict, folder: Path, attempt: int) -> None:
    """Write it into the run's folder; if the disk is full, the logs still have everything."""
    text = json.dumps({"attempt": attempt, **asdict(verdict)})
    with suppress(OSError):
        # A script may put a link there.
        file = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_LINK, 0o666)
        with open(file, "w", encoding="utf-8") as opened:
            opened.write(text)


def kept(folder: Path, attempt: int) -> Verdict | None:
    """The verdict stored for an attempt; None if there is none."""
    try:
        return read(json.loads(read_regular(folder / NAME, _MOST)), attempt)
    except (OSError, ValueError, RecursionError):
        return None


def read(found: Any, attempt: int | None) -> Verdict | None:
    """The verdict of the attempt; None if it is not one that `keep` writes."""
    if not isinstance(found, dict) or found.get("attempt") != attempt:
        return None
    return _verdict({name: value for name, value in found.items() if name != "attempt"})


def _verdict(found: dict[str, Any]) -> Verdict | None:
    if found.keys() != {one.name for one in fields(Verdict)} or not all(map(_is_right, found.items())):
        return None
    lines = [Evidence(**one) for one in found["evidence"]]
    return Verdict(**{**found, "evidence": lines, "before": tuple(found["before"])})


_TEXTS = frozenset({"exception", "message", "file", "source", "hint", "consequence"})
_NUMBERS = frozenset({"rank", "node", "line"})


def _is_right(one: tuple[str, Any]) -> bool:
    name, value = one
    if name in _TEXTS or name == "summary":
        return isinstance(value, str) or (value is None and name != "summary")
    if name in _NUMBERS:
        return value is None or _is_number(value)
    if name in ("kind", "certainty"):
        return value in get_args(Kind if name == "kind" else Certainty)
    if not isinstance(value, list):
        return False
    if name == "evidence":
        return all(map(_is_evidence, value))
    return all(isinstance(each, str) if name == "before" else _is_number(each) for each in value)


def _is_evidence(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and one.keys() == {"rank", "log", "line", "text"}
        and all(one[name] is None or _is_number(one[name]) for name in ("rank", "line"))
        and isinstance(one["log"], str)
        and isinstance(one["text"], str)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
