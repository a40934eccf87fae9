"""Words and figures for people: text that is safe for a terminal, plurals, sizes, similar names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from typing import Any, AnyStr, cast


def late(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """A regular expression that is compiled when it is first used: a start pays only for those that it needs."""
    return cast("re.Pattern[AnyStr]", _Late(pattern, flags))


class _Late:
    def __init__(self, pattern: Any, flags: int) -> None:
        self._given = pattern, flags

    def __getattr__(self, name: str) -> Any:
        compiled = re.compile(*self._given)
        for method in ("match", "fullmatch", "search", "sub", "findall", "finditer", "split"):
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Whatever moves the cursor, changes colours or titles, or reverses the direction of text; and non-characters."""


def visible(text: str) -> str:
    """The text with its control characters made visible, so that a job's text cannot control the terminal."""
    return _UNSEEN.sub(lambda c: f"\\x{ord(c[0]):02x}" if ord(c[0]) < 256 else f"\\u{ord(c[0]):04x}", text)


def in_ascii(text: str) -> str:
    """Accented letters as those of ASCII: `Größe` is `Grosse`. Letters of other scripts stay as they are."""
    apart = unicodedata.normalize("NFKD", text).translate(_SPELLED)
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


_SPELLED = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"}
    | {"Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "TH", "\u0131": "i"}
)
"""Letters that are no letter and an accent in Unicode."""


def slug(text: str) -> str:
    """A text as part of a name that Azure ML accepts: letters, digits and `-`; empty if it has nothing else."""
    return re.sub(r"[^A-Za-z0-9]+", "-", in_ascii(text)).strip("-")


def like(name: object, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that are similar to this one, ignoring case, the nearest first."""
    from difflib import get_close_matches  # only after a mistake

    # Only names of a sensible length: the time to compare two grows with its square.
    by_lower = {one.lower(): one for one in known if len(one) <= 100}
    text = (name if isinstance(name, str) else shown(name))[:100].lower()
    found = [by_lower[one] for one in get_close_matches(text, by_lower, n=most, cutoff=cutoff)]
    # `min` is far from `min_value`, and yet it can mean nothing else.
    longer = [by_lower[one] for one in by_lower if len(text) > 2 and re.match(rf"{re.escape(text)}[_-]", one)]
    return found or (longer if len(longer) == 1 else [])


def did_you_mean(names: Sequence[str]) -> str | None:
    """A hint with the names that were probably meant."""
    return f"did you mean {' or '.join(f'`{one}`' for one in names)}?" if names else None


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, as a hint."""
    return did_you_mean(like(name, known))


def nearest_or_all(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or all of them if there are few, as a hint."""
    known = list(known)
    if hint := nearest(name, known):
        return hint
    return f"known here: {', '.join(known)}" if 0 < len(known) <= 8 else None


def similar_file(path: str | os.PathLike[str]) -> str | None:
    """The name of an existing file or folder that was probably meant instead of a missing one, as a hint."""
    folder, name = os.path.split(path)
    close = _similar(name, _names_in(folder))
    return f"there is {os.path.join(folder, close)}" if close else None


def found_instead(path: str | os.PathLike[str]) -> str:
    """What there is instead of a missing file or folder: a similar one, or what is in its folder; as a hint.

    A similar one is written as the missing one was: from here, if that was.
    """
    if close := similar_file(path):
        return close
    folder, name = os.path.split(os.path.abspath(path))
    either = ""
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        either = f"there is no folder {folder} either; "
        folder, name = os.path.split(folder)
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"you have no permission to read {folder}"
    names = sorted(_names_in(folder))
    if close := _similar(name, names):
        return f"{either}there is {os.path.join(folder, close)}"
    shown_names = [one for one in names if not one.startswith(".")][:_FEW]
    if not shown_names:
        return f"{either}{folder} is empty"
    more = f" and {len(names) - len(shown_names):,} more" if len(names) > len(shown_names) else ""
    return f"{either}{folder} has {', '.join(shown_names)}{more}"


_FEW = 5


def _names_in(folder: str) -> list[str]:
    try:
        return [one.name for one in islice(os.scandir(folder or "."), 10_000)]
    except (OSError, ValueError):
        return []


def _similar(name: str, names: Sequence[str]) -> str | None:
    """Of two files of the same kind, the names may differ more; a common `.yml` makes no two names similar."""
    stem, suffix = os.path.splitext(name.lower())
    same = [one for one in names if os.path.splitext(one.lower())[1] == suffix]
    for candidates, cutoff in ((same, 0.65), (names, 0.85)):
        known = {os.path.splitext(one)[0]: one for one in candidates}
        if close := like(stem, known, cutoff=cutoff):
            return known[close[0]]
    return None


def shown(value: object) -> str:
    """A value for a message: short, and on one line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    try:
        text = repr(value) if isinstance(value, str | int | float | list | tuple | dict) else str(value)
    except ValueError:  # Python does not write out a number of more than 4,300 digits
        return "a number with thousands of digits"
    except Exception:  # an object of the user, with a `__repr__` that fails
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def shorten(text: str) -> str:
    """A part of the command for a message, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def is_utf8(name: str) -> bool:
    """Whether a file name is valid text, not bytes in some other encoding."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def plural(count: int, word: str, many: str = "") -> str:
    """`2 nodes`, `2 processes`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def ranks_text(ranks: Iterable[int]) -> str:
    """`rank 2`, `ranks 0, 1 and 3`, `ranks 0-6 and 8`."""
    ordered = sorted(set(ranks))
    parts: list[str] = []
    at = 0
    while at < len(ordered):
        end = at
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        if end - at >= 3:
            parts.append(f"{ordered[at]}-{ordered[end]}")
        else:
            parts += [str(rank) for rank in ordered[at : end + 1]]
        at = end + 1
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    return f"{'rank' if len(ordered) == 1 else 'ranks'} {listed}"


def size_text(count: int) -> str:
    """`1 byte`, `1.2 MB`, `76.2 GB`."""
    if count < 1000:
        return plural(count, "byte")
    for unit, name in ((1_000_000_000, "GB"), (1_000_000, "MB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 1000:.1f} kB"


def value_text(value: Any) -> str:
    """A short form of the value of a hyperparameter or a metric."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def mean_over_time(points: Sequence[tuple[float, float]]) -> float:
    """The mean of values with their times: each holds for the time since the one before it."""
    spans = [later[0] - earlier[0] for earlier, later in pairwise(points)]
    if sum(spans) <= 0:
        return points[-1][1]
    return sum(span * value for span, (_, value) in zip(spans, points[1:], strict=True)) / sum(spans)


def duration(seconds: float) -> str:
    """A duration for people, such as `3 min`."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


def took_text(seconds: float | None) -> str:
    """How long something took, to a tenth of a second if that was not long; nothing for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)  # the clock may have been set back
    return f"{seconds:.1f} s" if seconds < 120 else duration(seconds)
