"""Which files of a code folder travel with a job: azure-ai-ml's rules, to the letter.

The rules (azure-ai-ml 1.35, `_utils/_asset_utils.py`): only the `.amlignore` in the root of the folder counts, or, if
there is none, the `.gitignore` there; never both, and never one in a subfolder. Patterns are matched against the path
of each *file*, the last match wins, and folders are not pruned, so `!data/keep.txt` brings a file back from an ignored
`data/`, which git would not do. Nothing else is excluded: `.git`, `__pycache__` and the ignore file itself are
uploaded. Links are followed, and the files in a linked folder are matched under their real path.
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from azml_dist.contents.code import is_kept, kept_code
from azml_dist.errors import JobError
from azml_dist.plan.wildcards import Token, matcher, optional
from azml_dist.regular import irregular, kind_of
from azml_dist.words import late, shown

IGNORE_FILES = (".amlignore", ".gitignore")
_IGNORE_HINT = "it is a text file with one pattern per line; delete it if nothing is to be excluded"
MAX_FILES = 200_000
"""Where the walk stops, in case `code` points to the wrong folder."""
MAX_IGNORE = 1_000_000
"""The longest ignore file, in characters."""
MAX_PATTERN = 4096
"""The longest line of it, in characters: no path is longer."""


class Rule(NamedTuple):
    """A line of an ignore file."""

    line: int
    text: str
    matches: Callable[[str], bool]
    excludes: bool


class CodeFile(NamedTuple):
    """A file of the snapshot: its path inside the code folder, where its content is, and its size in bytes."""

    path: str
    source: str
    size: int


class Excluded(NamedTuple):
    """A file that is not uploaded, and the rule that excludes it, such as `.amlignore:3: data/`."""

    path: str
    rule: str


class Snapshot(NamedTuple):
    """Which files of a code folder are uploaded, and which are not."""

    root: str | None
    """The code folder, or the one file; None if the job has no code and starts in an empty folder."""
    files: tuple[CodeFile, ...]
    excluded: tuple[Excluded, ...]
    broken_links: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    """Files whose content is outside the code folder, behind a link; it is uploaded too."""
    irregular: tuple[str, ...] = ()
    """What cannot be uploaded, such as `queue, a named pipe`."""
    unlisted: tuple[str, ...] = ()
    """Folders that this user has no permission to list; nothing in them is uploaded."""

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)


NO_CODE = Snapshot(None, (), ())


def take_snapshot(code: str | Path) -> Snapshot:
    """The snapshot that azure-ai-ml would upload of a folder or a file. Reads names and sizes, not contents."""
    root = os.path.realpath(code)
    if os.path.isfile(root):
        # A link is uploaded under the name of its target, and an ignore file next to it has no effect.
        return Snapshot(root, (CodeFile(os.path.basename(root), root, os.stat(root).st_size),), ())
    if is_kept(root):
        return _kept(root)
    base, ignore_name, rules = _read_rules(root)
    files: list[CodeFile] = []
    excluded: list[Excluded] = []
    broken: list[str] = []
    outside: list[str] = []
    strange: list[str] = []
    unlisted: list[str] = []
    for path, source in _walk(root, lambda folder: unlisted.append(os.path.relpath(folder, root))):
        if rules and (rule := _excluding_rule(os.path.relpath(source, base), rules)):
            excluded.append(Excluded(path, f"{ignore_name}:{rule.line}: {rule.text}"))
            continue
        content = os.path.realpath(source) if os.path.islink(source) else source
        try:
            status = os.stat(content)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                hint = "check its permissions, or exclude it in an .amlignore"
                raise JobError(f"{source} cannot be read: {error.strerror}", hint=hint, where="code") from error
            broken.append(path)
            continue
        if kind := irregular(content, status.st_mode):
            strange.append(f"{path}, a {kind}")
            continue
        files.append(CodeFile(path, content, status.st_size))
        if not content.startswith(os.path.join(root, "")):
            outside.append(path)
    files.sort()
    left = (tuple(sorted(found)) for found in (broken, outside, strange, unlisted))
    return Snapshot(root, tuple(files), tuple(sorted(excluded)), *left)


def _kept(root: str) -> Snapshot:
    """The code of an earlier run: all that is listed, and nothing else."""
    if (found := kept_code(Path(root).parent)) is None:
        hint = "delete this folder: the code is fetched again, if the run is on Azure ML"
        raise JobError(f"the code that was kept in {root} is incomplete or was changed", hint=hint, where="code")
    files = (CodeFile(path, os.path.join(root, path), kept.size) for path, kept in found.files.items())
    return Snapshot(root, tuple(sorted(files)), ())


def _walk(root: str, cannot_list: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """The path of each file inside the folder, and the path that the rules are matched against."""
    count = 0
    walk = os.walk(root, followlinks=True, onerror=lambda error: cannot_list(str(error.filename)))
    for folder, folders, names in walk:
        inside = os.path.relpath(folder, root) if folder != root else "."
        real = os.path.realpath(folder) if folder != root else root
        _refuse_circles(folder, real, folders)
        for name in names:
            count += 1
            if count > MAX_FILES:
                raise JobError(
                    f"the code folder {root} has more than {MAX_FILES:,} files",
                    hint="point `code` at a folder that contains only your scripts",
                    where="code",
                )
            yield (name if inside == "." else f"{inside}/{name}").replace(os.sep, "/"), os.path.join(real, name)


def _refuse_circles(folder: str, real: str, folders: Sequence[str]) -> None:
    """azure-ai-ml would follow a link to a parent folder forty times, and two such links endlessly."""
    for name in folders:
        path = os.path.join(folder, name)
        if os.path.islink(path) and os.path.commonpath([real, target := os.path.realpath(path)]) == target:
            raise JobError(
                f"the link {path} is circular: it points to a folder that contains it",
                hint="remove it; azure-ai-ml follows every link",
                where="code",
            )


def _read_rules(root: str) -> tuple[str, str, list[Rule]]:
    """The folder that the rules are relative to, the name of their file, and the rules."""
    for name in IGNORE_FILES:
        # An empty .amlignore counts: it disables the .gitignore next to it.
        if os.path.exists(file := os.path.join(root, name)):
            try:
                lines = _ignore_text(file).split("\n")
                found = [_parse_rule(number, line) for number, line in enumerate(lines, 1)]
            except (OSError, ValueError) as error:
                raise JobError(f"{name} cannot be read: {_words(error)}", hint=_IGNORE_HINT, where=file) from error
            return os.path.dirname(os.path.realpath(file)), name, [rule for rule in found if rule]
    return root, "", []


def _ignore_text(file: str) -> str:
    if (kind := kind_of(file)) != "file":
        raise ValueError(f"it is a {kind}")
    with open(file, encoding="utf-8-sig") as stream:
        text = stream.read(MAX_IGNORE + 1)
    if len(text) > MAX_IGNORE:
        raise ValueError(f"it is longer than {MAX_IGNORE:,} characters")
    return text


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _excluding_rule(path: str, rules: list[Rule]) -> Rule | None:
    path = path.replace(os.sep, "/")
    for rule in reversed(rules):
        if rule.matches(path):
            return rule if rule.excludes else None
    return None


def _parse_rule(number: int, line: str) -> Rule | None:
    text = line.strip()
    if not text or text == "/" or text.startswith("#"):
        return None
    pattern = text[1:] if text.startswith("!") else text
    try:
        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"it has {len(pattern):,} characters")
        with warnings.catch_warnings():
            # `[[a]` is fine in a glob, and a FutureWarning in a regular expression.
            warnings.simplefilter("ignore", FutureWarning)
            matches = matcher(_pattern_tokens(pattern))
    except (ValueError, re.error) as error:
        raise ValueError(f"line {number}, {shown(text)}, is not a valid pattern ({error})") from error
    return Rule(number, text, matches, excludes=pattern is text)


_ANY, _NO_SLASH = Token("."), Token("[^/]")
_SLASH = Token("/")


def _pattern_tokens(pattern: str) -> list[Token]:
    """A gitwildmatch pattern as tokens, which match what azure-ai-ml's own copy of pathspec would match."""
    segments = pattern.split("/")
    for i in range(len(segments) - 1, 0, -1):
        if segments[i - 1] == segments[i] == "**":
            del segments[i]
    if segments == ["**", ""]:
        return [_ANY, _ANY.repeated(), _SLASH, _ANY.repeated()]
    if not segments[0]:
        del segments[0]
    elif segments[0] != "**" and (len(segments) == 1 or (len(segments) == 2 and not segments[1])):
        segments.insert(0, "**")
    if not segments:
        raise ValueError("it matches nothing")
    if len(segments) > 1 and not segments[-1]:
        segments[-1] = "**"
    return _joined(segments)


def _joined(segments: list[str]) -> list[Token]:
    tokens: list[Token] = []
    need_slash = False
    last = len(segments) - 1
    for i, segment in enumerate(segments):
        if segment == "**":
            if i == last:
                return [*tokens, *([_ANY] if i == 0 else [_SLASH]), _ANY.repeated()]
            inside = [_ANY, _ANY.repeated()]
            tokens += optional([*inside, _SLASH] if i == 0 else [_SLASH, *inside])
            need_slash = i > 0
            continue
        if need_slash:
            tokens.append(_SLASH)
        tokens += [_NO_SLASH, _NO_SLASH.repeated()] if segment == "*" else _glob_tokens(segment)
        need_slash = True
    # A pattern without a slash at the end names a file, or a folder with everything in it.
    return [*tokens, *optional([_SLASH, _ANY.repeated()])]


_GLOB_TOKEN = late(
    r"(?s)\\(?P<escaped>.)|(?P<star>\*)|(?P<one>\?)|\[(?P<set>(?:!|(?!!))(?:\]|(?!\]))[^\]]*)\]|(?P<other>.)"
)
_GLOB_TOKEN_WITHOUT_SETS = late(r"(?s)\\(?P<escaped>.)|(?P<star>\*)|(?P<one>\?)|(?P<other>.)(?P<set>)??")
"""For text without any `]`, which each `[` would search for again."""


def _glob_tokens(segment: str) -> list[Token]:
    if re.search(r"(?<!\\)(?:\\\\)*\\$", segment):
        raise ValueError("it ends with a backslash")
    glob_token = _GLOB_TOKEN if "]" in segment else _GLOB_TOKEN_WITHOUT_SETS
    return [_token(found) for found in glob_token.finditer(segment)]


def _token(found: re.Match[str]) -> Token:
    if found["star"]:
        return _NO_SLASH.repeated()
    if found["one"]:
        return _NO_SLASH
    if (chars := found["set"]) is not None:
        negated = "^" if chars.startswith("!") else ""
        chars = chars[1:] if negated else chars
        if not negated and chars.startswith("^"):
            chars = "\\^" + chars[1:].replace("\\", "\\\\")
        else:
            chars = chars.replace("\\", "\\\\")
        return Token(f"[{negated}{chars}]")
    return Token(re.escape(found["escaped"] or found["other"]))
