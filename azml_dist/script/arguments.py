"""Checks the arguments that a command passes against the argparse parser of its script, with argparse itself.

Nothing in the script runs: a parser with the same arguments is built from its source, and only if all of them are
plain values there.
"""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from azml_dist.notation.argv import UNKNOWN, Word
from azml_dist.script.source import Module, Program, is_main_block

if TYPE_CHECKING:
    import argparse

_PARSERS = frozenset(["argparse.ArgumentParser"])
_PLAIN_ACTIONS = frozenset(["store", "store_true", "store_false", "store_const", "append", "append_const", "count"])
_GROUPS = frozenset(["add_argument_group", "add_mutually_exclusive_group"])
_PARSE = ("parse_args", "parse_known_args")
_HARMLESS = frozenset([*_PARSE, "add_argument", "set_defaults", "print_help", "format_help", "error", *_GROUPS])
_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str}


class Refusal(NamedTuple):
    """The message with which argparse would exit, with code 2."""

    message: str
    parser: ast.Call
    module: Module


class Parser(NamedTuple):
    """The parser of a script, as far as its source shows."""

    made: ast.Call
    parsed: ast.Call
    """The call that parses the arguments."""
    module: Module
    parser: argparse.ArgumentParser
    target: str | None
    """The name to which the result is assigned."""
    takes_more: bool = False
    """Whether it leaves unknown arguments to others: `parse_known_args`."""


class _Refused(Exception):
    pass


@cache
def _quiet() -> type[argparse.ArgumentParser]:
    import argparse  # takes a millisecond, and many scripts have no parser

    class Quiet(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise _Refused(message)

        def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
            raise SystemExit

    return Quiet


def parser_of(program: Program) -> Parser | None:
    """The one parser of the whole command line; None if there are several, or if it is not fully known."""
    made_somewhere = [(module, call) for module in program.modules for call, name in module.calls if name in _PARSERS]
    found = [one for one in made_somewhere if not program.is_unused(*one)]
    if len(found) != 1:
        return None
    module, made = found[0]
    variable = _assigned(module, made)
    scope = module.function_of(made) or module.tree
    if variable is None or _goes_elsewhere(module, scope, {variable}):
        return None
    built = _built(module, scope, made, variable)
    parsed = next((c for c in _calls_of(scope, {variable}) if _method(c) in _PARSE), None)
    if built is None or parsed is None or parsed.args or parsed.keywords:
        return None
    takes_more = _method(parsed) == "parse_known_args"
    return Parser(made, parsed, module, built, _assigned(module, parsed, first=takes_more), takes_more)


def refusal(parser: Parser, words: Sequence[Word]) -> str | None:
    """argparse's error for the arguments; None if it accepts them, or if that is not known."""
    return _parse(parser, words)[1]


def values(parser: Parser, words: Sequence[Word]) -> dict[str, Any]:
    """The values that the script receives, as far as they are known before the start."""
    parsed = _parse(parser, words)[0]
    return {name: value for name, value in vars(parsed).items() if UNKNOWN not in str(value)} if parsed else {}


def _parse(parser: Parser, words: Sequence[Word]) -> tuple[argparse.Namespace | None, str | None]:
    if any(not word.single for word in words):
        return None, None  # an unquoted variable may become no word, or several
    texts = [word.text if word.known else _hidden(word.text) for word in words]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if parser.takes_more:
                return parser.parser.parse_known_args(texts)[0], None
            return parser.parser.parse_args(texts), None
    except _Refused as error:
        message = str(error)
        return None, None if UNKNOWN in message else message
    except (SystemExit, Exception):  # `--help`, or an unusual case in argparse: no finding
        return None, None


def _hidden(text: str) -> str:
    """A word with an unknown value; `--name=` stays readable."""
    name, equals, _ = text.partition("=")
    return f"{name}={UNKNOWN}" if equals and name.startswith("-") and "$" not in name else UNKNOWN


def _assigned(module: Module, call: ast.Call, *, first: bool = False) -> str | None:
    """The name to which the result of a call is assigned, or the first of its parts: `args, _ =` and `args = …[0]`."""
    statement = module.parents.get(call)
    if first and isinstance(statement, ast.Subscript):
        statement = module.parents.get(statement)
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if first and isinstance(target, ast.Tuple) and target.elts:
            target = target.elts[0]
        return target.id if isinstance(target, ast.Name) else None
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return None


def _calls_of(scope: ast.AST, variables: set[str]) -> list[ast.Call]:
    """The method calls on one of the variables."""
    calls = [node for node in ast.walk(scope) if isinstance(node, ast.Call)]
    own = [c for c in calls if isinstance(c.func, ast.Attribute) and _root(c.func.value) in variables]
    return sorted(own, key=lambda call: (call.lineno, call.col_offset))


def _root(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _goes_elsewhere(module: Module, scope: ast.AST, variables: set[str]) -> bool:
    """Whether other code may add arguments: the parser is passed on, returned, or accessed directly."""
    groups = {
        target
        for call in _calls_of(scope, variables)
        if _method(call) in _GROUPS and (target := _assigned(module, call))
    }
    for node in ast.walk(scope):
        if not (isinstance(node, ast.Name) and node.id in variables | groups and isinstance(node.ctx, ast.Load)):
            continue
        parent = module.parents.get(node)
        call = module.parents.get(parent) if parent else None
        if not (isinstance(parent, ast.Attribute) and isinstance(call, ast.Call) and call.func is parent):
            return True
        if parent.attr not in _HARMLESS:
            return True
    return False


def _built(module: Module, scope: ast.AST, made: ast.Call, variable: str) -> argparse.ArgumentParser | None:
    """An equal parser, with the arguments that the script adds; None if any of them is computed."""
    options = {keyword.arg: keyword.value for keyword in made.keywords}
    if None in options or options.keys() & {"parents", "prefix_chars", "fromfile_prefix_chars", "conflict_handler"}:
        return None
    settings = {}
    for name in ("add_help", "allow_abbrev"):
        if name in options:
            if not isinstance(options[name], ast.Constant):
                return None
            settings[name] = options[name].value  # type: ignore[attr-defined]
    parser = _quiet()(exit_on_error=True, **settings)
    named: dict[str, Any] = {variable: parser}
    for call in _calls_of(scope, {variable}):
        if _method(call) in _GROUPS:
            if (target := _assigned(module, call)) is None or not _is_plain_place(module, call, scope):
                return None
            named[target] = _group(parser, call)
    for call in _calls_of(scope, {*named}):
        to = named[_root(call.func.value) or ""] if isinstance(call.func, ast.Attribute) else parser
        if _method(call) == "add_argument" and (not _is_plain_place(module, call, scope) or not _added(to, call)):
            return None
    return parser


def _group(parser: argparse.ArgumentParser, call: ast.Call) -> Any:
    if _method(call) != "add_mutually_exclusive_group":
        return parser
    required = next((keyword.value for keyword in call.keywords if keyword.arg == "required"), None)
    return parser.add_mutually_exclusive_group(required=isinstance(required, ast.Constant) and bool(required.value))


def _is_plain_place(module: Module, call: ast.Call, scope: ast.AST) -> bool:
    """Whether the call always happens, and only once: there is no branch and no loop around it."""
    for parent, _ in module.above(call):
        if parent is scope:
            return True
        if not isinstance(parent, ast.Expr | ast.Assign | ast.With) and not is_main_block(parent):
            return False
    return True


def _added(parser: Any, call: ast.Call) -> bool:
    """Add an argument as the script does; returns whether that was possible."""
    from argparse import ArgumentError

    if not all(isinstance(arg, ast.Constant) and isinstance(arg.value, str) for arg in call.args):
        return False
    flags = [str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)]
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or not _option(options, keyword.arg, keyword.value):
            return False
    if options.get("type", str) is None:
        options.pop("choices", None)  # values that only the script's own type can create
    if options.get("action") in (None, "store", "append"):
        options["type"] = _type(options.get("type"))
        if "choices" in options:
            options["choices"] = _Choices(options["choices"])
    try:
        parser.add_argument(*flags, **options)
    except (TypeError, ValueError, ArgumentError):
        return False
    return True


def _option(options: dict[str, Any], name: str, value: ast.expr) -> bool:
    """Copy one keyword of `add_argument`; returns whether its value is known."""
    if name in ("help", "metavar", "deprecated"):
        return True
    if name == "action":
        if isinstance(value, ast.Attribute) and value.attr == "BooleanOptionalAction":
            from argparse import BooleanOptionalAction

            options["action"] = BooleanOptionalAction
            return True
        options["action"] = value.value if isinstance(value, ast.Constant) else None
        return options["action"] in _PLAIN_ACTIONS
    if name == "type":
        options["type"] = _TYPES.get(value.id) if isinstance(value, ast.Name) else None
        return True
    try:
        plain = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        if name in ("default", "const"):
            options[name] = UNKNOWN
        return name in ("default", "const", "choices")
    options[name] = plain
    return name in ("default", "const", "nargs", "required", "dest", "choices")


def _type(known: Any) -> Any:
    """A type that accepts unknown values unchanged."""

    def convert(text: str) -> Any:
        return text if known is None or UNKNOWN in text else known(text)

    convert.__name__ = getattr(known, "__name__", "value")
    return convert


class _Choices(list[Any]):
    """Choices that accept an unknown value."""

    def __init__(self, choices: Any) -> None:
        super().__init__(choices)

    def __contains__(self, value: object) -> bool:
        return UNKNOWN in str(value) or super().__contains__(value)
