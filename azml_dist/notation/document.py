"""Reads YAML as azure-ai-ml does (PyYAML's safe loader, YAML 1.1), and remembers the line of each value.

Duplicate keys, recursion and exploding aliases are errors here; PyYAML would use the last key, and all the memory.
"""

from __future__ import annotations

import codecs
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
from azml_dist.regular import is_waited_for, kind_of
from azml_dist.words import found_instead, shown, similar_file

MAX_BYTES = 4_000_000
"""A job fits on a page; anything larger is not a job file."""
MAX_VALUES = 100_000
"""How many values there may be once all aliases are followed."""
MAX_DEPTH = 100
_TEXT = "tag:yaml.org,2002:str"
_MOST_BITS, _MOST_DIGITS = 1024, 300
"""Of a whole number; anything longer is a string that lacks its quotes, such as a checksum."""
_QUOTES = "put it in quotes if it is a string"
_PAGE = 1 << 16
_INDENT = re.compile(r"^[ \t?:-]*", re.MULTILINE)


class Document(NamedTuple):
    """A YAML file as Python values, with the line of each value and the text of each scalar, by path."""

    file: str
    data: dict[str, Any]
    lines: dict[tuple[str, ...], int]
    texts: dict[tuple[str, ...], str]

    def where(self, path: tuple[str, ...]) -> str:
        """`job.yml:7: resources.instance_count`; a value without a line has that of the value around it."""
        held = path
        while held and held not in self.lines:
            held = held[:-1]
        line = self.lines.get(held, 1)
        return f"{self.file}:{line}: {'.'.join(path)}" if path else f"{self.file}:{line}"


class Part(Document):
    """Values from several places, in one or more files, as one mapping that knows where each of them is."""

    places: dict[str, tuple[Document, tuple[str, ...]]]

    @classmethod
    def of(cls, file: str, values: dict[str, tuple[Any, Document, tuple[str, ...]]]) -> Part:
        """Makes one from the values by name, each with the document and the path that it comes from."""
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
    """PyYAML's safe loader, but it tries its patterns on each word once, not each time the word appears."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0] and len(value) < 100:
            return _tag_of(value)
        return super().resolve(kind, value, implicit)

    def descend_resolver(self, *_: Any) -> None:
        """PyYAML follows each path for resolvers of paths, which nothing here has."""

    def ascend_resolver(self) -> None:
        """See `descend_resolver`."""


@lru_cache(maxsize=4096)
def _tag_of(word: str) -> str:
    """What a word without quotes is in YAML: a string, a number, a date, …"""
    resolver: Any = Resolver()
    return str(resolver.resolve(ScalarNode, word, (True, False)))


def read_yaml(path: str, what: str = "job") -> Document:
    """The mapping in a YAML file; raises `JobError` for anything else."""
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
        raise JobError(f"it is not valid YAML: {_first_line(error)}", where=path) from None
    finally:
        loader.dispose()


def data_in(text: str, what: str) -> Any:
    """What is in a YAML text, without its places; raises `yaml.YAMLError`, and `JobError` if it is too deep."""
    if _may_be_deep(text):
        _check_depth(what, yaml.parse(text, _Loader))
    return yaml.load(text, _Loader)


def parse_value(text: str) -> Any:
    """A single value as YAML reads it: `8`, `0.1`, `true`, `[a, b]`, or the string itself."""
    node = None
    try:
        if _may_be_deep(text):
            _check_depth("--set", yaml.parse(text, _Loader))
        node = (loader := _Loader(text)).get_single_node()
        return None if node is None else _Reading("--set", loader).value(node, ())
    except yaml.YAMLError:
        return text
    except JobError as error:
        if node is not None and node.id == "scalar":
            return text  # 2020-13-45 is not a date, but may well be a name
        raise JobError.of(problem._replace(where="--set") for problem in error.problems) from None


def _text_of(path: str, what: str) -> str:
    if is_waited_for(path):
        raise JobError(f"{path} is a {kind_of(path)}, not a {what} file", hint="write it to a file")
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_PAGE)
            if len(raw) == _PAGE:
                raw += stream.read(MAX_BYTES + 1 - _PAGE)
    except IsADirectoryError:
        inside = sorted(p.name for p in Path(path).glob("*.y*ml"))[:3]
        hint = f"it contains {', '.join(inside)}" if inside else "it contains no YAML file"
        raise JobError(f"{path} is a folder, not a {what} file", hint=hint) from None
    except FileNotFoundError:
        elsewhere = "`azml-dist plan FOLDER` lists the job files in a folder" if what == "job" else found_instead(path)
        raise JobError(f"there is no file {path or repr(path)}", hint=similar_file(path) or elsewhere) from None
    except (OSError, ValueError) as error:
        raise JobError(f"{shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise JobError(f"{path} is too large for a {what} file: more than {MAX_BYTES // 1_000_000} MB")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise JobError(f"{path} is UTF-16, as PowerShell's `>` writes it", hint="save it as UTF-8")
    if b"\0" in raw:
        raise JobError(f"{path} is a binary file, not a {what} in YAML", hint="give the name of a text file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise JobError(
            f"byte {raw[error.start]:#x} is not UTF-8", hint="save it as UTF-8", where=f"{path}:{line}"
        ) from None


def _may_be_deep(text: str) -> bool:
    # A nested value needs a bracket or an indentation; compared with parsing, this look costs nothing.
    brackets = text.count("[") + text.count("{")
    return brackets + 2 * max(map(len, _INDENT.findall(text)), default=0) > MAX_DEPTH


def _check_depth(path: str, events: Iterable[Any]) -> None:
    # libyaml builds nested nodes by recursion in C, and a deep file would crash the whole process.
    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise JobError("the values are nested too deeply", where=f"{path}:{event.start_mark.line + 1}")


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
        hint = "a string that contains `: ` needs quotes; also check the indentation"
    return JobError(f"it is not valid YAML: {problem}", hint=hint, where=where)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _document(path: str, node: Any, loader: Any, what: str) -> Document:
    if node is None:
        raise JobError(f"it is empty; a {what} was expected", where=path)
    if node.id != "mapping":
        kind = "list" if node.id == "sequence" else "single value"
        raise JobError(f"it contains a {kind}, not the fields of a {what}", where=f"{path}:{node.start_mark.line + 1}")
    reading = _Reading(path, loader)
    data = reading.value(node, ())
    if reading.duplicates:
        raise JobError.of(reading.duplicates)
    return Document(path, data, reading.lines, reading.texts)


class _Reading:
    """Values from nodes. Aliases are followed, so the values that they multiply to are counted."""

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
            raise JobError(f"the aliases multiply to more than {MAX_VALUES:,} values", where=self.file)
        if id(node) in self._open:
            raise JobError("an alias is inside the value that it refers to", where=self._at(node, path))
        if len(path) > MAX_DEPTH:  # through aliases; the file itself has been checked
            raise JobError("the values are nested too deeply", where=self.file)
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
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        try:
            value = self.loader.construct_object(node, deep=True)
        except ConstructorError:
            message = f"the tag {tag} has no meaning in a job"
            raise JobError(message, hint="write the value itself", where=self._at(node, path)) from None
        except ValueError as error:
            if tag == "!!int" and len(node.value) > _MOST_DIGITS:
                raise self._too_long(node, path) from None
            message = f"{shown(node.value)} is not a valid value: {error}"
            raise JobError(message, hint=_QUOTES, where=self._at(node, path)) from None
        except (LookupError, TypeError, AttributeError, ArithmeticError):
            # For `!!timestamp x` or `!!int ''`: PyYAML assumes that its patterns match.
            message = f"{shown(node.value)} is not a valid value: it is not of type {tag.removeprefix('!!')}"
            raise JobError(message, hint=_QUOTES, where=self._at(node, path)) from None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise self._too_long(node, path)
        return value

    def _too_long(self, node: ScalarNode, path: tuple[str, ...]) -> JobError:
        message = f"a number of {len(node.value):,} digits is too long"
        return JobError(message, hint=_QUOTES, where=self._at(node, path))

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
                message = f"`{key}` appears twice; the first one is on line {first_line[key]}"
                self.duplicates.append(Problem(message, "keep one of them", self._at(key_node, here)))
                continue
            first_line[key] = self.lines[here] = line
            mapping[key] = self.value(value_node, here)
        return {**merged, **mapping}

    def _base(self, node: Any, path: tuple[str, ...]) -> dict[str, Any]:
        base = self.value(node, path)
        if not isinstance(base, dict):
            raise JobError("`<<` needs a mapping", where=self._at(node, path))
        return base

    def _key(self, node: Any, path: tuple[str, ...]) -> str:
        if node.id != "scalar":
            raise JobError("a key must be a single value", where=self._at(node, path))
        # YAML 1.1 reads `on`, `yes`, `1` as values; as a key, only the text makes sense.
        return str(node.value)

    def _at(self, node: Any, path: tuple[str, ...]) -> str:
        where = f"{self.file}:{node.start_mark.line + 1}"
        return f"{where}: {'.'.join(path)}" if path else where
