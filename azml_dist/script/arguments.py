"""Checks the arguments that a command passes against the argparse parser of its script, with argparse itself.

Nothing in the script runs: a parser with the same arguments is built from its source, and only if all of them are
plain values there.
"""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.notation.argv import UNKNOWN, Word
from azml_dist.script.parsers import Builder, Refused
from azml_dist.script.passed import value_in
from azml_dist.script.source import Module, Program

if TYPE_CHECKING:
    import argparse


class Parser(NamedTuple):
    """The parser of a script, as far as its source shows."""

    made: ast.Call
    parsed: ast.Call
    """The call that parses the arguments."""
    module: Module
    """The file that makes it."""
    parser: argparse.ArgumentParser
    takes_more: bool = False
    """Whether it leaves unknown arguments to others: `parse_known_args`."""


def parser_of(program: Program) -> Parser | None:
    """The one parser of the whole command line; None if there are several, or if it is not fully known."""
    made = {call for _, call in _calls(program, "argparse.ArgumentParser")}
    if not made:
        return None
    parses = [one for one in _calls(program, ".parse_args", ".parse_known_args") if _is_method(program, *one)]
    if len({ast.unparse(call.func) for _, call in parses}) != 1:
        return None
    module, parsed = parses[0]
    if not all(_takes_the_line(program, *one) for one in parses) or not isinstance(parsed.func, ast.Attribute):
        return None
    builder = Builder(program)
    parser = builder.built(module, parsed.func.value, module.function_of(parsed) or module.tree)
    if parser is None or made != {call for _, call in builder.made}:
        return None
    where, first = builder.made[0]
    return Parser(first, parsed, where, parser, parsed.func.attr == "parse_known_args")


def _calls(program: Program, *names: str) -> list[tuple[Module, ast.Call]]:
    """The calls of functions with these names, or of methods if the name starts with a dot, that are ever reached."""
    found = [(module, call, name) for module in program.modules for call, name in module.calls]
    named = [(module, call) for module, call, name in found if name in names or f".{name.rpartition('.')[2]}" in names]
    return [one for one in named if not program.is_unused(*one)]


def _is_method(program: Program, module: Module, call: ast.Call) -> bool:
    """Whether it is not a function of the program: `utils.parse_args()`."""
    return isinstance(call.func, ast.Attribute) and program.function(module.full_name(call.func), module) is None


def _takes_the_line(program: Program, module: Module, call: ast.Call) -> bool:
    """Whether a call parses the whole command line."""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "args")]
    if len(given) < len(call.args) + len(call.keywords) or len(given) > 1:
        return False
    return not given or _is_the_line(program, module, given[0])


def _is_the_line(program: Program, module: Module, node: ast.expr, deep: int = 3) -> bool:
    """Whether it is `sys.argv[1:]`, None, or a parameter that is one of these in every call of the function."""
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Subscript):
        return module.full_name(node.value) == "sys.argv" and ast.unparse(node.slice) == "1:"
    function = module.function_of(node)
    if not isinstance(node, ast.Name) or not isinstance(function, ast.FunctionDef) or not deep:
        return False
    if module.functions.get(function.name) is not function or module.assigned(node.id):
        return False
    values = [(other, value_in(call, function, node.id)) for other, call in program.callers(module, function)]
    return bool(values) and all(value and _is_the_line(program, other, value, deep - 1) for other, value in values)


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
    except Refused as error:
        return None, _known_part(str(error))
    except (SystemExit, Exception):  # `--help`, or an unusual case in argparse: no finding
        return None, None


def _known_part(message: str) -> str | None:
    """What holds of a message whatever the unknown values are: an option is unknown whatever follows it."""
    if UNKNOWN not in message:
        return message
    start, colon, words = message.partition(": ")
    options = [word.partition("=")[0] if UNKNOWN in word else word for word in words.split() if word.startswith("--")]
    return f"{start}{colon}{' '.join(options)}" if start == "unrecognized arguments" and options else None


def _hidden(text: str) -> str:
    """A word with an unknown value; `--name=` stays readable."""
    name, equals, _ = text.partition("=")
    return f"{name}={UNKNOWN}" if equals and name.startswith("-") and "$" not in name else UNKNOWN


def options(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser, and of its subcommands."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if action.nargs == "A...":
            found += [option for one in dict(action.choices or {}).values() for option in options(one)]
    return found
