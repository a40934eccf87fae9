"""Which files of a code folder travel with a job: azure-ai-ml's rules, to the letter.

The rules (azure-ai-ml 1.35, `_utils/_asset_utils.py`): `.amlignore` in the root of the folder counts, or else
`.gitignore` there; never both, never one further down. Patterns are matched against the path of each *file*, the
last match wins, and folders are not pruned, so `!data/keep.txt` brings a file back from an ignored `data/`, which
git would not do. Nothing else is left out: `.git`, `__pycache__` and the ignore file itself are uploaded. Links are
followed, and the files behind a linked folder are matched under their real path.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from azml_dist.errors import JobError

IGNORE_FILES = (".amlignore", ".gitignore")
MAX_FILES = 200_000
"""A bound on the walk, for a folder that was not meant."""


class Rule(NamedTuple):
    """A line of an ignore file."""

    line: int
    text: str
    regex: re.Pattern[str]
    excludes: bool


class CodeFile(NamedTuple):
    """A file of the snapshot: its path inside the code folder, where its content is, and its size in bytes."""

    path: str
    source: str
    size: int


class Excluded(NamedTuple):
    """A file that stays here, and the rule that says so, as `.amlignore:3: data/`."""

    path: str
    rule: str


class Snapshot(NamedTuple):
    """The files of a code folder that are uploaded, and those that are not."""

    root: str | None
    """The code folder; None where the job has none, and starts in an empty folder."""
    files: tuple[CodeFile, ...]
    excluded: tuple[Excluded, ...]
    broken_links: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    """Files whose content lies outside the code folder, behind a link; it is uploaded all the same."""

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)


NO_CODE = Snapshot(None, (), ())


def take_snapshot(folder: str | Path) -> Snapshot:
    """The snapshot that azure-ai-ml would upload of `folder`; reads names and sizes, no contents."""
    root = os.path.realpath(folder)
    ignore_name, rules = _read_rules(root)
    files: list[CodeFile] = []
    excluded: list[Excluded] = []
    broken: list[str] = []
    outside: list[str] = []
    for path, source in _walk(root):
        if rules and (rule := _excluding_rule(os.path.relpath(source, root), rules)):
            excluded.append(Excluded(path, f"{ignore_name}:{rule.line}: {rule.text}"))
            continue
        content = os.path.realpath(source) if os.path.islink(source) else source
        try:
            files.append(CodeFile(path, content, os.stat(content).st_size))
        except FileNotFoundError:
            broken.append(path)
            continue
        if not content.startswith(os.path.join(root, "")):
            outside.append(path)
    files.sort()
    return Snapshot(root, tuple(files), tuple(sorted(excluded)), tuple(sorted(broken)), tuple(sorted(outside)))


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Each file's path inside the folder, and the path that the rules are matched against."""
    count = 0
    for folder, folders, names in os.walk(root, followlinks=True):
        inside = os.path.relpath(folder, root) if folder != root else "."
        real = os.path.realpath(folder) if folder != root else root
        _refuse_circles(folder, real, folders)
        for name in names:
            count += 1
            if count > MAX_FILES:
                raise JobError(
                    f"the code folder {root} has more than {MAX_FILES:,} files",
                    hint="point `code` at the folder that holds your scripts alone",
                    where="code",
                )
            yield (name if inside == "." else f"{inside}/{name}").replace(os.sep, "/"), os.path.join(real, name)


def _refuse_circles(folder: str, real: str, folders: Sequence[str]) -> None:
    """azure-ai-ml would walk a link to a folder around itself forty times over, and two of those without an end."""
    for name in folders:
        path = os.path.join(folder, name)
        if os.path.islink(path) and os.path.commonpath([real, target := os.path.realpath(path)]) == target:
            raise JobError(
                f"the link {path} leads in a circle: it holds itself",
                hint="take it away; azure-ai-ml follows every link",
                where="code",
            )


def _read_rules(root: str) -> tuple[str, list[Rule]]:
    for name in IGNORE_FILES:
        # An empty .amlignore counts: it turns the .gitignore beside it off.
        if os.path.exists(file := os.path.join(root, name)):
            try:
                lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
                found = [_parse_rule(number, line) for number, line in enumerate(lines, 1)]
            except (UnicodeDecodeError, ValueError) as error:
                raise JobError(f"{name} cannot be read: {error}", where=file) from error
            return name, [rule for rule in found if rule]
    return "", []


def _excluding_rule(path: str, rules: list[Rule]) -> Rule | None:
    path = path.replace(os.sep, "/")
    for rule in reversed(rules):
        if rule.regex.match(path):
            return rule if rule.excludes else None
    return None


def _parse_rule(number: int, line: str) -> Rule | None:
    text = line.strip()
    if not text or text == "/" or text.startswith("#"):
        return None
    pattern = text[1:] if text.startswith("!") else text
    try:
        with warnings.catch_warnings():
            # `[[a]` is fine in a glob, and a FutureWarning in a regular expression.
            warnings.simplefilter("ignore", FutureWarning)
            regex = re.compile(_pattern_regex(pattern))
    except (ValueError, re.error) as error:
        raise ValueError(f"line {number}, {text!r}, is not a pattern ({error})") from error
    return Rule(number, text, regex, excludes=pattern is text)


def _pattern_regex(pattern: str) -> str:
    """A gitwildmatch pattern as the regular expression that azure-ai-ml's own copy of pathspec makes of it."""
    segments = pattern.split("/")
    for i in range(len(segments) - 1, 0, -1):
        if segments[i - 1] == segments[i] == "**":
            del segments[i]
    if segments == ["**", ""]:
        return "^.+/.*$"
    if not segments[0]:
        del segments[0]
    elif segments[0] != "**" and (len(segments) == 1 or (len(segments) == 2 and not segments[1])):
        segments.insert(0, "**")
    if not segments:
        raise ValueError("it names nothing")
    if len(segments) > 1 and not segments[-1]:
        segments[-1] = "**"
    return f"^{_join(segments)}$"


def _join(segments: list[str]) -> str:
    parts: list[str] = []
    need_slash = False
    last = len(segments) - 1
    for i, segment in enumerate(segments):
        if segment == "**":
            if i == last:
                return ".+" if i == 0 else "".join(parts) + "/.*"
            parts.append("(?:.+/)?" if i == 0 else "(?:/.+)?")
            need_slash = i > 0
            continue
        if need_slash:
            parts.append("/")
        parts.append("[^/]+" if segment == "*" else _glob_regex(segment))
        need_slash = True
    # A pattern that ends without a slash names a file, or a folder with all that is in it.
    return "".join(parts) + "(?:/.*)?"


_GLOB_TOKEN = re.compile(
    r"(?s)\\(?P<escaped>.)|(?P<star>\*)|(?P<one>\?)|\[(?P<set>(?:!|(?!!))(?:\]|(?!\]))[^\]]*)\]|(?P<other>.)"
)


def _glob_regex(segment: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*\\$", segment):
        raise ValueError("a backslash ends it")
    return "".join(_token_regex(token) for token in _GLOB_TOKEN.finditer(segment))


def _token_regex(token: re.Match[str]) -> str:
    if token["star"]:
        return "[^/]*"
    if token["one"]:
        return "[^/]"
    if (chars := token["set"]) is not None:
        negated = "^" if chars.startswith("!") else ""
        chars = chars[1:] if negated else chars
        if not negated and chars.startswith("^"):
            chars = "\\^" + chars[1:].replace("\\", "\\\\")
        else:
            chars = chars.replace("\\", "\\\\")
        return f"[{negated}{chars}]"
    return re.escape(token["escaped"] or token["other"])
