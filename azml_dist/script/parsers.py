"""Builds the argparse parser of a script from its source: an equal one, or none if any part of it is computed.

A parser may be made in a function, get arguments in others, have parents, and have subcommands. What the source does
not say for certain ends in `UnknownParser`.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from typing import Any, NoReturn

from azml_dist.notation.argv import UNKNOWN
from azml_dist.script.passed import parameters, passed
from azml_dist.script.source import Module, Program, is_main_block

Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Module

_PARSER = "argparse.ArgumentParser"
_DEEPEST = 5
_PLAIN_ACTIONS = frozenset(
    ["store", "store_true", "store_false", "store_const", "append", "append_const", "count", "extend"]
)
_GROUPS = frozenset(["add_argument_group", "add_mutually_exclusive_group"])
_CHANGES_NOTHING = frozenset(
    ["parse_args", "parse_known_args", "print_help", "print_usage", "format_help", "format_usage", "error", "exit"]
)
_CONSTANTS = {"argparse.REMAINDER": "...", "argparse.ZERO_OR_MORE": "*", "argparse.ONE_OR_MORE": "+"}
_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str}


class UnknownParser(Exception):
    """The source does not say all of it."""


class Refused(Exception):
    """argparse refuses the arguments, with this message."""


class Quiet(argparse.ArgumentParser):
    """A parser that neither prints nor exits."""

    def error(self, message: str) -> NoReturn:
        raise Refused(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise SystemExit


class Builder:
    """Builds parsers, and remembers which calls in the source have made them."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.made: list[tuple[Module, ast.Call]] = []
        self._deep = 0

    def built(self, module: Module, node: ast.expr, scope: Scope) -> Quiet | None:
        """The parser that an expression stands for; None if it is not fully known."""
        try:
            return self._parser(module, node, scope)
        except (UnknownParser, Refused, TypeError, ValueError, AttributeError, argparse.ArgumentError):
            return None

    def _parser(self, module: Module, node: ast.expr, scope: Scope) -> Quiet:
        self._deep += 1
        if self._deep > _DEEPEST:
            raise UnknownParser
        try:
            if isinstance(node, ast.Name):
                return self._named(module, scope, node.id)
            if isinstance(node, ast.Call) and module.full_name(node.func) == _PARSER:
                return self._new(module, node, scope)
            if isinstance(node, ast.Call):
                return self._returned(module, node, scope)
            raise UnknownParser
        finally:
            self._deep -= 1

    def _named(self, module: Module, scope: Scope, name: str) -> Quiet:
        """The parser with a name, with everything that the scope of the name adds to it."""
        bound = list(_bindings(module, scope, name))
        if not isinstance(scope, ast.Module) and name in parameters(scope):
            raise UnknownParser
        if not bound and not isinstance(scope, ast.Module):
            scope = module.tree
            bound = list(_bindings(module, scope, name))
        value = _value_of(module, bound[0]) if bound else None
        if value is None or not _is_plain_place(module, bound[0], scope):
            raise UnknownParser
        if not all(self._is_passed_through(module, other, name) for other in bound[1:]):
            raise UnknownParser
        parser = self._parser(module, value, scope)
        self._follow(module, scope, name, parser, bound[0])
        return parser

    def _new(self, module: Module, call: ast.Call, scope: Scope) -> Quiet:
        self.made.append((module, call))
        return Quiet(**self._settings(module, call, scope))

    def _settings(self, module: Module, call: ast.Call, scope: Scope) -> dict[str, Any]:
        """What matters of how a parser is made."""
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if None in given or given.keys() & {"prefix_chars", "fromfile_prefix_chars", "conflict_handler"}:
            raise UnknownParser
        settings: dict[str, Any] = {}
        for name in given.keys() & {"add_help", "allow_abbrev"}:
            settings[str(name)] = _literal(given[name])
        if "parents" in given:
            parents = given["parents"]
            if not isinstance(parents, ast.List | ast.Tuple):
                raise UnknownParser
            settings["parents"] = [self._parser(module, parent, scope) for parent in parents.elts]
        return settings

    def _returned(self, module: Module, call: ast.Call, scope: Scope) -> Quiet:
        """The parser that a function of the program returns: it makes one, or passes on what it is given."""
        found = self._program.function(module.full_name(call.func), module)
        if found is None:
            raise UnknownParser
        other, function = found
        returns = [node.value for node in _own(function) if isinstance(node, ast.Return)]
        if len(returns) != 1 or returns[0] is None:
            raise UnknownParser
        value = returns[0]
        if isinstance(value, ast.Name) and (given := passed(call, function, value.id)):
            parser = self._parser(module, given, scope)
            self._follow(other, function, value.id, parser, None)
            return parser
        return self._parser(other, value, function)

    def _is_passed_through(self, module: Module, name: ast.Name, own: str) -> bool:
        """`parser = add_arguments(parser)`, if that function returns what it is given."""
        call = _value_of(module, name)
        found = self._program.function(module.full_name(call.func), module) if isinstance(call, ast.Call) else None
        if not isinstance(call, ast.Call) or found is None:
            return False
        returns = {ast.unparse(n.value) for n in _own(found[1]) if isinstance(n, ast.Return) and n.value}
        given = [passed(call, found[1], parameter) for parameter in returns]
        return len(given) == 1 and isinstance(given[0], ast.Name) and given[0].id == own

    def _follow(self, module: Module, scope: Scope, name: str, thing: Any, since: ast.Name | None) -> None:
        """Do what happens to a name to a parser or a group, until the name gets another meaning."""
        later = [one for one in _bindings(module, scope, name) if since is None or _at(one) > _at(since)]
        later = [one for one in later if not self._is_passed_through(module, one, name)]
        if any(not _is_plain_place(module, one, scope) for one in later):
            raise UnknownParser
        for node in _loads(scope, name):
            is_inside = module.function_of(node) is (None if isinstance(scope, ast.Module) else scope)
            if is_inside and since is not None and _at(node) < _at(since):
                continue
            if later and _at(node) > _at(later[0]):
                if not is_inside:
                    raise UnknownParser
                break
            self._use(module, scope, node, thing)

    def _use(self, module: Module, scope: Scope, node: ast.Name, thing: Any) -> None:
        """Do to a parser or a group what the source does to it in one place."""
        parent = module.parents.get(node)
        call = module.parents.get(parent) if parent else None
        if isinstance(parent, ast.Attribute) and isinstance(call, ast.Call) and call.func is parent:
            if parent.attr not in _CHANGES_NOTHING:
                if not _is_plain_place(module, call, scope):
                    raise UnknownParser
                self._method(module, scope, parent.attr, call, thing)
        elif isinstance(parent, ast.Call) and parent.func is not node:
            self._passed(module, scope, node, parent, thing)
        elif isinstance(parent, ast.keyword) and isinstance(call, ast.Call) and parent.arg != "parents":
            self._passed(module, scope, node, call, thing)
        elif not isinstance(parent, ast.Return) and not _is_parent(module, node):
            raise UnknownParser

    def _passed(self, module: Module, scope: Scope, node: ast.Name, call: ast.Call, thing: Any) -> None:
        """`add_arguments(parser)`: what that function does to its parameter."""
        name = module.full_name(call.func)
        if name == "argcomplete.autocomplete":
            return
        found = self._program.function(name, module)
        if found is None or not _is_plain_place(module, call, scope) or self._deep > _DEEPEST:
            raise UnknownParser
        other, function = found
        own = [parameter for parameter in parameters(function) if passed(call, function, parameter) is node]
        if len(own) != 1:
            raise UnknownParser
        self._deep += 1
        self._follow(other, function, own[0], thing, None)
        self._deep -= 1

    def _method(self, module: Module, scope: Scope, method: str, call: ast.Call, thing: Any) -> None:
        if method == "add_argument":
            _add(thing, module, call)
        elif method == "set_defaults":
            if any(keyword.arg is None for keyword in call.keywords):
                raise UnknownParser
            thing.set_defaults(**{str(k.arg): _literal(k.value, UNKNOWN) for k in call.keywords})
        elif method in _GROUPS or method in ("add_subparsers", "add_parser"):
            made = self._part(module, scope, method, call, thing)
            target = _target(module, call)
            if target is not None:
                self._follow(module, scope, target.id, made, target)
            elif not isinstance(module.parents.get(call), ast.Expr):
                raise UnknownParser
        else:
            raise UnknownParser

    def _part(self, module: Module, scope: Scope, method: str, call: ast.Call, thing: Any) -> Any:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if method == "add_argument_group":
            return thing.add_argument_group()
        if method == "add_mutually_exclusive_group":
            return thing.add_mutually_exclusive_group(required=_literal(given.get("required"), False))
        if method == "add_parser":
            if not call.args:
                raise UnknownParser
            aliases = {"aliases": _literal(given["aliases"])} if "aliases" in given else {}
            return thing.add_parser(_literal(call.args[0]), **aliases, **self._settings(module, call, scope))
        if not isinstance(thing, Quiet) or given.keys() - {"dest", "required", *_ONLY_SHOWN}:
            raise UnknownParser
        plain = {name: _literal(given[name]) for name in ("dest", "required") if name in given}
        return thing.add_subparsers(**plain)


_ONLY_SHOWN = frozenset(["help", "metavar", "title", "description", "deprecated", "prog"])


def _at(node: Any) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions and classes in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield child
            yield from _own(child)


def _bindings(module: Module, scope: Scope, name: str) -> Iterator[ast.Name]:
    """Where a scope gives a name its meaning, in line order."""
    found = [n for n in _own(scope) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)]
    yield from sorted(found, key=_at)


def _loads(scope: Scope, name: str) -> list[ast.Name]:
    """Where a name of a scope is used, in line order; functions that have a name like it are left out."""
    found: list[ast.Name] = []
    waiting: list[ast.AST] = [scope]
    while waiting:
        node = waiting.pop()
        is_other = node is not scope and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_other and _has_its_own(node, name):
            continue
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            found.append(node)
        waiting += ast.iter_child_nodes(node)
    return sorted(found, key=_at)


def _has_its_own(function: ast.AST, name: str) -> bool:
    return any(
        (isinstance(n, ast.arg) and n.arg == name)
        or (isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store))
        for n in ast.walk(function)
    )


def _value_of(module: Module, name: ast.Name) -> ast.expr | None:
    """What a plain assignment gives a name; None for every other way to give it a meaning."""
    statement = module.parents.get(name)
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return statement.value
    return statement.value if isinstance(statement, ast.AnnAssign) else None


def _target(module: Module, call: ast.Call) -> ast.Name | None:
    statement = module.parents.get(call)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
    return target if isinstance(target, ast.Name) else None


def _is_parent(module: Module, node: ast.Name) -> bool:
    """Whether it is in the `parents` of another parser."""
    above = [parent for parent, _ in module.above(node)][:2]
    return any(isinstance(one, ast.keyword) and one.arg == "parents" for one in above)


def _is_plain_place(module: Module, node: ast.AST, scope: Scope) -> bool:
    """Whether it always happens, and only once: there is no branch and no loop around it."""
    for parent, _ in module.above(node):
        if parent is scope:
            return True
        if not isinstance(parent, ast.Expr | ast.Tuple | ast.Assign | ast.AnnAssign | ast.With) and not is_main_block(
            parent
        ):
            return False
    return True


def _literal(node: ast.expr | None, otherwise: Any = UnknownParser) -> Any:
    try:
        if node is not None:
            return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if otherwise is UnknownParser:
        raise UnknownParser
    return otherwise


def _add(parser: Any, module: Module, call: ast.Call) -> None:
    """Add an argument as the script does."""
    if not all(isinstance(arg, ast.Constant) and isinstance(arg.value, str) for arg in call.args):
        raise UnknownParser
    flags = [str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)]
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise UnknownParser
        _set(options, keyword.arg, keyword.value, module)
    if options.get("type", str) is None:
        options.pop("choices", None)  # values that only the script's own type can create
    if options.get("action") in (None, "store", "append", "extend"):
        options["type"] = _type(options.get("type"))
        if "choices" in options:
            options["choices"] = _Choices(options["choices"])
    parser.add_argument(*flags, **options)


def _set(options: dict[str, Any], name: str, value: ast.expr, module: Module) -> None:
    """Copy one keyword of `add_argument`."""
    full = module.full_name(value)
    if name in ("help", "metavar", "deprecated"):
        return
    if name == "action":
        options["action"] = argparse.BooleanOptionalAction if full == "argparse.BooleanOptionalAction" else None
        if options["action"] is None and (action := _literal(value)) in _PLAIN_ACTIONS:
            options["action"] = action
        if options["action"] is None:
            raise UnknownParser
    elif name == "type":
        options["type"] = _TYPES.get(value.id) if isinstance(value, ast.Name) else None
    elif name in ("default", "const"):
        options[name] = _literal(value, UNKNOWN)
    elif name == "choices":
        if (choices := _several(module, value)) is not None:
            options["choices"] = choices
    elif name in ("nargs", "required", "dest"):
        options[name] = _CONSTANTS[full] if full in _CONSTANTS else _literal(value)
    else:
        raise UnknownParser


def _several(module: Module, node: ast.expr) -> Any:
    """Choices: plain ones, a constant of the file, or a `range`; None if they are not known."""
    if isinstance(node, ast.Name):
        return module.constant(node.id)
    if isinstance(node, ast.Call) and module.full_name(node.func) == "range":
        ends = [_literal(arg) for arg in node.args]
        return [*range(*ends)] if all(isinstance(end, int) and abs(end) < 1000 for end in ends) else None
    return _literal(node, None)


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
