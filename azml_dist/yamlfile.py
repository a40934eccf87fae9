"""Reads YAML as azure-ai-ml does (PyYAML's safe loader, YAML 1.1), and remembers on which line each value stands.

Duplicate keys, recursion and aliases that explode are errors here; PyYAML takes the last key, and all the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.constructor import ConstructorError
from yaml.events import CollectionEndEvent, CollectionStartEvent
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from azml_dist.errors import JobError, Problem
from azml_dist.model import shown

MAX_BYTES = 4_000_000
"""A job is a page; what is larger is another file."""
MAX_VALUES = 100_000
"""Values after all aliases are followed."""
MAX_DEPTH = 100
_TEXT = "tag:yaml.org,2002:str"
_PAGE = 1 << 16
_INDENT = re.compile(r"^[ \t?:-]*", re.MULTILINE)


class Document(NamedTuple):
    """A YAML file as Python values, with the line of each and the text of each scalar, by path."""

    file: str
    data: dict[str, Any]
    lines: dict[tuple[str, ...], int]
    texts: dict[tuple[str, ...], str]

    def where(self, path: tuple[str, ...]) -> str:
        """`job.yml:7: resources.instance_count`; the line of what holds it, where it has none itself."""
        held = path
        while held and held not in self.lines:
            held = held[:-1]
        line = self.lines.get(held, 1)
        return f"{self.file}:{line}: {'.'.join(path)}" if path else f"{self.file}:{line}"

    def under(self, path: tuple[str, ...]) -> Document:
        """The mapping at a path as a document of its own, whose lines are those of the file."""
        inner: Any = self.data
        for part in path:
            inner = inner[part]
        lines = {p[len(path) :]: line for p, line in self.lines.items() if p[: len(path)] == path}
        texts = {p[len(path) :]: text for p, text in self.texts.items() if p[: len(path)] == path}
        return Document(self.file, inner, lines, texts)


class Part(Document):
    """Values from several places, of one file or of more, as one mapping that knows where each of them stands."""

    places: dict[str, tuple[Document, tuple[str, ...]]]

    @classmethod
    def of(cls, file: str, values: dict[str, tuple[Any, Document, tuple[str, ...]]]) -> Part:
        """From the values by name: each with the document and the path that it comes from."""
        texts = {
            (name, *path[len(at) :]): text
            for name, (_, document, at) in values.items()
            for path, text in document.texts.items()
            if path[: len(at)] == at
        }
        part = cls(file, {name: value for name, (value, _, _) in values.items()}, {}, texts)
        part.places = {name: (document, at) for name, (_, document, at) in values.items()}
        return part

    def where(self, path: tuple[str, ...]) -> str:
        if not path or path[0] not in self.places:
            return super().where(path)
        document, at = self.places[path[0]]
        return document.where((*at, *path[1:]))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, which tries its patterns once on a word instead of each time it stands somewhere."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0] and len(value) < 100:
            return _tag_of(value)
        return super().resolve(kind, value, implicit)


@lru_cache(maxsize=4096)
def _tag_of(word: str) -> str:
    """What YAML takes a word without quotes for: a text, a number, a date, …"""
    resolver: Any = Resolver()
    return str(resolver.resolve(ScalarNode, word, (True, False)))


def read_yaml(path: str, what: str = "job") -> Document:
    """The mapping in a YAML file; a `JobError` for anything else."""
    text = _text_of(path, what)
    loader = _Loader(text)
    try:
        if _may_be_deep(text):
            _check_depth(path, yaml.parse(text, _Loader))
        node = loader.get_single_node()
        return _document(path, node, loader, what)
    except yaml.MarkedYAMLError as error:
        raise _malformed(path, text, error) from None
    except yaml.YAMLError as error:
        raise JobError(f"it is not YAML: {_first_line(error)}", where=path) from None
    finally:
        loader.dispose()


def parse_value(text: str) -> Any:
    """A single value as YAML reads it: `8`, `0.1`, `true`, `[a, b]`, or the text itself."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def _text_of(path: str, what: str) -> str:
    file = Path(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_PAGE)
            if len(raw) == _PAGE:
                raw += stream.read(MAX_BYTES + 1 - _PAGE)
    except IsADirectoryError:
        inside = sorted(p.name for p in file.glob("*.y*ml"))[:3]
        hint = f"it holds {', '.join(inside)}" if inside else None
        raise JobError(f"{path} is a folder, not a {what} file", hint=hint) from None
    except FileNotFoundError:
        raise JobError(f"there is no file {path}", hint=_similar(file)) from None
    except (OSError, ValueError) as error:
        raise JobError(f"{shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise JobError(f"{path} is too large for a {what}: over {MAX_BYTES // 1_000_000} MB")
    if b"\0" in raw:
        raise JobError(f"{path} is a binary file, not a {what} in YAML")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise JobError(
            f"byte {raw[error.start]:#x} is not UTF-8", hint="save it as UTF-8", where=f"{path}:{line}"
        ) from None


def _similar(file: Path) -> str | None:
    from difflib import get_close_matches

    try:
        names = [p.name for p in file.parent.iterdir()]
    except OSError:
        return None
    close = get_close_matches(file.name, names, n=1, cutoff=0.75)
    return f"there is {file.parent / close[0]}" if close else None


def _may_be_deep(text: str) -> bool:
    # A nested value needs a bracket, or stands further to the right: a look that costs nothing beside parsing.
    brackets = text.count("[") + text.count("{")
    return brackets + 2 * max(map(len, _INDENT.findall(text)), default=0) > MAX_DEPTH


def _check_depth(path: str, events: Iterable[Any]) -> None:
    # libyaml builds nested nodes by recursion in C, and a deep file would end the whole process.
    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise JobError("its values are nested too deeply", where=f"{path}:{event.start_mark.line + 1}")


def _malformed(path: str, text: str, error: Any) -> JobError:
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}" if mark else path
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    hint = None
    if "\t" in line[: len(line) - len(line.lstrip())]:
        hint = "YAML indents with spaces, not with tabs"
    elif "mapping values are not allowed" in problem:
        hint = "a text with `: ` in it needs quotes; check the indentation too"
    return JobError(f"it is not YAML: {problem}", hint=hint, where=where)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _document(path: str, node: Any, loader: Any, what: str) -> Document:
    if node is None:
        raise JobError(f"it is empty; a {what} was expected", where=path)
    if node.id != "mapping":
        kind = "list" if node.id == "sequence" else "single value"
        raise JobError(f"it holds a {kind}, not a {what}'s fields", where=f"{path}:{node.start_mark.line + 1}")
    reading = _Reading(path, loader)
    data = reading.value(node, ())
    if reading.duplicates:
        raise JobError.of(reading.duplicates)
    return Document(path, data, reading.lines, reading.texts)


class _Reading:
    """Values from nodes. Aliases are followed, so what they multiply to is counted."""

    def __init__(self, file: str, loader: Any) -> None:
        self.file, self.loader = file, loader
        self.lines: dict[tuple[str, ...], int] = {}
        self.texts: dict[tuple[str, ...], str] = {}
        self.duplicates: list[Problem] = []
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: Any, path: tuple[str, ...]) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise JobError(f"its aliases multiply to over {MAX_VALUES:,} values", where=self.file)
        if id(node) in self._open:
            raise JobError("an alias stands inside the value it stands for", where=self._at(node, path))
        if len(path) > MAX_DEPTH:  # by aliases, that is; the file itself has been checked
            raise JobError("its values are nested too deeply", where=self.file)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.id == "scalar":
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            if node.id == "sequence":
                return [self.value(item, (*path, str(i))) for i, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: ScalarNode, path: tuple[str, ...]) -> Any:
        self.texts[path] = node.value
        if node.tag == _TEXT:
            return str(node.value)
        try:
            value = self.loader.construct_object(node, deep=True)
        except ValueError as error:
            raise JobError(f"{node.value!r} is not possible: {error}", where=self._at(node, path)) from None
        except ConstructorError:
            message = f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} means nothing in a job"
            raise JobError(message, hint="write the value itself", where=self._at(node, path)) from None
        return value

    def _mapping(self, node: Any, path: tuple[str, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                bases = value_node.value if value_node.id == "sequence" else [value_node]
                for base in bases:  # the first one wins
                    merged = {**self._base(base, path), **merged}
                continue
            key, line = self._key(key_node, path), key_node.start_mark.line + 1
            here = (*path, key)
            if key in mapping:
                message = f"`{key}` stands here twice; the first one is on line {first_line[key]}"
                self.duplicates.append(Problem(message, "keep one of them", self._at(key_node, here)))
                continue
            first_line[key] = self.lines[here] = line
            mapping[key] = self.value(value_node, here)
        return {**merged, **mapping}

    def _base(self, node: Any, path: tuple[str, ...]) -> dict[str, Any]:
        base = self.value(node, path)
        if not isinstance(base, dict):
            raise JobError("`<<` takes a mapping", where=self._at(node, path))
        return base

    def _key(self, node: Any, path: tuple[str, ...]) -> str:
        if node.id != "scalar":
            raise JobError("a key is a single value here", where=self._at(node, path))
        # YAML 1.1 reads `on`, `yes`, `1` as values; as a key only the text makes sense.
        return str(node.value)

    def _at(self, node: Any, path: tuple[str, ...]) -> str:
        where = f"{self.file}:{node.start_mark.line + 1}"
        return f"{where}: {'.'.join(path)}" if path else where
