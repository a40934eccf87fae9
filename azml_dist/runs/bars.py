"""Lines that rewrite themselves, as progress bars do: what each says last; and lines that are safe for a terminal."""

from __future__ import annotations

from azml_dist.words import late

_REWRITTEN = late(rb"(?m)^[^\n]*\r(?=[^\r\n])")
"""What a line says before its last carriage return: tqdm, pip and curl write that alone, Keras backspaces before it."""
_ENDS = b"\r\b"
_CONTROL = late(
    rb"(\x1b\[[0-9;:]*m)"  # colours: kept
    rb"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
    rb"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]"
)
"""Whatever moves the cursor, clears the screen, sets a title or rings: sequences of ECMA-48, and single characters."""
_PRINTED = bytes(byte for byte in range(256) if (byte >= 0x20 and byte not in (0x7F, 0xC2)) or byte in b"\t\n")
"""Bytes that are no part of a control sequence."""
_COLOURED = late(rb"(?m)\x1b\[[0-9;:]*m[^\n]*$")
_PLAIN = b"\x1b[0m"


def last_states(lines: bytes) -> bytes:
    """Lines without what each overwrote; the last one may be incomplete."""
    return _REWRITTEN.sub(b"", lines) if b"\r" in lines else lines


def state_of(line: bytes) -> bytes:
    """What a terminal shows of a line that is still being written."""
    return last_states(line.rpartition(b"\n")[2].rstrip(_ENDS)).rstrip(_ENDS)


def for_terminal(lines: bytes) -> bytes:
    """Lines that can only be read: of their control sequences, colours are left, and end with the line."""
    if not lines.translate(None, _PRINTED):
        return lines  # nearly all lines; this is ten times as fast as the search
    shown = _CONTROL.sub(lambda found: found[1] or b"", lines)
    return _COLOURED.sub(lambda found: found[0] + _PLAIN, shown)


def plain_text(line: bytes) -> str:
    """A line without any control sequence, for places that have their own colours."""
    return _CONTROL.sub(b"", line).decode(errors="replace").expandtabs(4)


def last_text(data: bytes) -> str | None:
    """The last line that says something: as a terminal would show it, without colours."""
    *whole, begun = data.split(b"\n")
    lines = [state_of(begun), *(last_states(line) for line in reversed(whole))]
    return next((text for line in lines if (text := plain_text(line).strip())), None)
