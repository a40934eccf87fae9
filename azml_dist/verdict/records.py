"""Structured logs: takes apart a traceback that a logger has put into one record, and the records of a collector.

A logger writes a traceback with escaped line ends, or as a list of its frames; a collector, such as Docker's, puts each
line of a process into a record. What comes out of one line of a log keeps its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from azml_dist.verdict.known import Line
from azml_dist.verdict.scan import FRAMES, PREFIX, STREAM

_HEADER = "Traceback (most recent call last)"
_ESCAPED = re.compile(
    r"(?P<quote>(?<!\\)(?:\\\\)*[\"'])?(?P<before>[^\"'\\]{0,400}(?:\\+r)?(?:\\+n)?)"
    r"Traceback \(most recent call last\):(?:\\+r)?(?P<escape>\\+)n"
)
_ESCAPES = re.compile(r"\\(?:u(?P<code>[0-9a-fA-F]{4})|x(?P<byte>[0-9a-fA-F]{2})|(?P<other>.))", re.DOTALL)
_MEANS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "e": "\x1b"}
_MESSAGES = ("message", "msg", "event", "text", "body")
_LEVELS = ("level", "levelname", "severity", "severity_text", "log.level", "lvl")
_TEXTS = ("log", "message", "msg", "event", "text", "body", "line", "content")
"""Fields in which a collector of logs keeps a line."""
_PATHS, _NUMBERS, _FUNCTIONS = (
    ("filename", "abs_path", "path", "file"),
    ("lineno", "line", "line_number"),
    ("name", "function", "func"),
)
_TYPES = ("exc_type", "type", "class", "exception_type")
_VALUES = ("exc_value", "value", "exception_message", "message")
_OF_A_LOG = re.compile(
    r"(?i)level|severity|\blvl\b|exc_?(?:info|text|eption)|stack_?trace|traceback\b.{0,4}:|\berror\b|\bfailed\b|\"stream\""
)
"""What a record of a log has, and a sample of training data has not."""
_DEEPEST = 8
_MOST = 400
"""Lines that one record may become."""
_LONGEST = 1 << 20
"""Characters of a line to look into."""


def unwrapped(lines: Sequence[Line], telling: Sequence[int]) -> Sequence[Line]:
    """The lines, with those of records taken out of them; the same object if there are none.

    `telling` are the lines that have one of the words of records.
    """
    field = _field([lines[at].text for at in telling])
    parts: dict[int, list[str]] = {}
    # A collector has put every line into a record, also those that have none of the words.
    for at in range(len(lines)) if field else telling:
        text = lines[at].text
        taken = _of_a_collector(text, field) if field else None
        inner = text if taken is None else taken
        found = _of_a_record(inner)
        if found or taken is not None:
            parts[at] = found or [inner]
    if not parts:
        return lines
    return [Line(line.number, text) for at, line in enumerate(lines) for text in parts.get(at, [line.text])]


def _field(texts: Sequence[str]) -> str | None:
    """The field in which a collector of logs has put each line, if one has."""
    for text in texts:
        if text[:1] != "{" or not (_HEADER in text or STREAM in text):
            continue
        record = _record(text)
        if isinstance(record.get("log"), str) and isinstance(record.get("stream"), str):
            return "log"
        for name in _TEXTS:
            value = record.get(name)
            if isinstance(value, str) and "\n" not in value.rstrip("\n") and _HEADER in value:
                return name
    return None


def _of_a_collector(text: str, field: str) -> str | None:
    if text[:1] != "{":
        return None
    value = _record(text).get(field)
    return value.rstrip("\r\n") if isinstance(value, str) and "\n" not in value.rstrip("\n") else None


def _of_a_record(text: str) -> list[str] | None:
    """The lines of a traceback that one line has, after a line that says that it was logged."""
    if _HEADER in text:
        after = text.partition(_HEADER)[2].lstrip(":").rstrip()
        if not after or len(text) > _LONGEST:
            return None
    elif not any(word in text for word in FRAMES):
        return None
    if text[:1].isspace() or not _OF_A_LOG.search(text.replace(_HEADER, "")):
        return None  # a line of code, or a sample
    begin = text.find("{")
    record = _record(text[begin:]) if begin >= 0 else {}
    said = _traceback_in(record) if record else None
    said = said or (_escaped(text) if _HEADER in text else None)
    if said is None:
        return None
    lines = said.replace("\r\n", "\n").strip("\n").split("\n")[:_MOST]
    at = next((at for at, line in enumerate(lines) if _HEADER in line), 0)
    by = found[0] if (found := PREFIX.match(text)) else ""
    label = _label(record, text[len(by) : max(begin, len(by))])
    return [f"{by}{line}" for line in (*lines[:at], label, *lines[at:])]


def _label(record: Mapping[str, Any], before: str) -> str:
    """What a plain logger would have written before the traceback."""
    level = next((str(record[name]) for name in _LEVELS if isinstance(record.get(name), str)), "error").upper()
    message = next((record[name] for name in _MESSAGES if isinstance(record.get(name), str)), "")
    said = message.partition("\n")[0] if _HEADER not in message.partition("\n")[0] else ""
    known = level if level in ("ERROR", "CRITICAL", "WARNING", "WARN") else "ERROR"
    return f"{before[:100]}{known} {said}".strip()


def _record(text: str) -> dict[str, Any]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _traceback_in(value: Any, depth: int = _DEEPEST) -> str | None:
    """The text of the first traceback in a JSON value."""
    if isinstance(value, str):
        if _HEADER not in value:
            return None
        inner = value.lstrip()
        if inner[:1] == "{":
            return _traceback_in(_record(inner), depth - 1) if depth else None
        return value if "\n" in value else _escaped(value)
    if not depth:
        return None
    if isinstance(value, list):
        if any(isinstance(one, str) and _HEADER in one for one in value):
            return "\n".join(one.rstrip("\n") for one in value if isinstance(one, str))
        chain = [text for one in value if isinstance(one, dict) and (text := _of_frames(one))]
        if chain:
            return _CAUSED.join(reversed(chain))
    elif isinstance(value, dict) and (text := _of_frames(value)):
        return text
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((text for one in parts if (text := _traceback_in(one, depth - 1))), None)


_CAUSED = "\n\nThe above exception was the direct cause of the following exception:\n\n"


def _of_frames(value: Mapping[str, Any]) -> str | None:
    """A traceback whose frames are objects, as in Python's words."""
    frames = value.get("frames")
    if frames is None and isinstance(stack := value.get("stacktrace"), dict):
        frames = stack.get("frames")
    name = _first(value, _TYPES)
    if not isinstance(frames, list) or not isinstance(name, str):
        return None
    said = _first(value, _VALUES)
    return "\n".join([f"{_HEADER}:", *_frames(frames), f"{name}: {said}" if said else name])


def _frames(frames: Sequence[Any]) -> Iterator[str]:
    for frame in frames:
        if not isinstance(frame, dict):
            continue
        path, number = _first(frame, _PATHS), _first(frame, _NUMBERS)
        if isinstance(path, str) and isinstance(number, int):
            yield f'  File "{path}", line {number}, in {_first(frame, _FUNCTIONS) or "<module>"}'


def _first(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _escaped(text: str) -> str | None:
    """A traceback in a quoted text with escapes, such as a field of logfmt, `repr`, or a record that was cut."""
    found = _ESCAPED.search(text)
    if not found:
        return None
    depth = len(found["escape"])
    begin = text.index(_HEADER, found.start())
    quote = (found["quote"] or '"')[-1]
    inner = text[begin : _end(text, begin, quote, depth)]
    while depth:
        inner = _ESCAPES.sub(_plain, inner)
        depth //= 2
    return inner


def _end(text: str, begin: int, quote: str, depth: int) -> int:
    """Where the quoted text ends: at a quote with fewer backslashes before it than those within."""
    for found in re.finditer(rf"(\\*){re.escape(quote)}", text[begin:]):
        if len(found[1]) < depth:
            return begin + found.start()
    return len(text)


def _plain(found: re.Match[str]) -> str:
    if code := found["code"] or found["byte"]:
        return chr(int(code, 16))
    return _MEANS.get(found["other"], found["other"])
