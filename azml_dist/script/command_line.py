"""What LightningCLI gives its Trainer: from the command, the configuration files that it names, and defaults."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from azml_dist.errors import JobError
from azml_dist.notation.argv import Word
from azml_dist.notation.document import data_in, parse_value
from azml_dist.script.look import Look
from azml_dist.script.source import Module

_COUNTS = ("num_nodes", "devices", "strategy", "accelerator")
_UNKNOWN = object()
_SUBCOMMANDS = frozenset(["fit", "validate", "test", "predict"])

_Made = tuple[Module, ast.Call, dict[str | None, ast.expr]]


def trainers_of_the_command(look: Look) -> Iterator[_Made]:
    """Each LightningCLI of the script, and the arguments of its Trainer."""
    own = dict(_own_kinds(look))
    for module in look.program.modules:
        for call, name in module.calls:
            last = name.rpartition(".")[2]
            is_theirs = last == "LightningCLI" and name.startswith(("lightning.", "pytorch_lightning."))
            if not is_theirs and (last not in own or "trainer" in own[last]):
                continue
            if (given := _given(look, call)) is not None:
                yield module, call, {key: _as_code(value) for key, value in given.items()}


def _own_kinds(look: Look) -> Iterator[tuple[str, str]]:
    """Classes of the code that are a LightningCLI, with their text, which may change the Trainer."""
    for module in look.program.modules:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base).endswith("LightningCLI") for base in node.bases
            ):
                yield node.name, ast.unparse(node)


def _given(look: Look, call: ast.Call) -> dict[str, Any] | None:
    """The counts that are given, some of which may be unknown; None if that cannot be said."""
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    if None in options or options.keys() & {"trainer_class", "args"} or len(call.args) > 2:
        return None
    if re.search(r"default_config_files|default_env", " ".join(map(ast.unparse, options.values()))):
        return None
    defaults = look.value(options["trainer_defaults"]) if "trainer_defaults" in options else {}
    if not isinstance(defaults, Mapping):
        return None
    given = {key: value for key, value in defaults.items() if key in _COUNTS}
    return given if _read(look, look.entry.arguments, given) else None


def _read(look: Look, words: Sequence[Word], given: dict[str, Any]) -> bool:
    """Take what the words of the command say, in their order; whether they can be read at all."""
    command = next((word.text for word in words if word.text in _SUBCOMMANDS), None)
    is_before = command is not None
    rest = [*words]
    while rest:
        word = rest.pop(0)
        is_before = is_before and word.text != command
        name, equals, value = word.text.partition("=")
        if not word.single or name in ("--trainer", "--print_config", "--help", "-h") or name.endswith("+"):
            return False
        if name not in ("--config", "-c") and not name.startswith("--trainer."):
            continue
        if not equals and not rest:
            return False
        whole = word if equals else rest.pop(0)
        text = value if equals else whole.text
        if name in ("--config", "-c"):
            given.update(_of_file(look, text, command if is_before else None) if whole.known else _nothing())
        elif (key := name.removeprefix("--trainer.")) in _COUNTS:
            given[key] = parse_value(text) if whole.known else _UNKNOWN
    return True


def _nothing() -> dict[str, Any]:
    return dict.fromkeys(_COUNTS, _UNKNOWN)


def _of_file(look: Look, path: str, command: str | None) -> dict[str, Any]:
    """What a configuration file gives the Trainer; one before the subcommand has a part for it."""
    text = look.program.text(posixpath.normpath(posixpath.join(look.entry.folder, path)))
    try:
        found = data_in(text, "configuration") if text is not None else None
    except (yaml.YAMLError, JobError):
        found = None
    for name in (command, "trainer") if command else ("trainer",):
        if not isinstance(found, Mapping):
            return _nothing()
        found = found.get(name) or {}
    if not isinstance(found, Mapping):
        return _nothing()
    return {key: value for key, value in found.items() if key in _COUNTS}


def _as_code(value: Any) -> ast.expr:
    """A value as it would be in the script; a name without a meaning if it is not known."""
    try:
        return ast.parse(repr(value), mode="eval").body
    except SyntaxError:
        return ast.Name("unknown", ast.Load())
