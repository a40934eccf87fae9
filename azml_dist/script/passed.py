"""What a call passes to the parameters of a function."""

from __future__ import annotations

import ast

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters(function: Function) -> list[str]:
    """The names of its parameters, without those of `*args` and `**options`."""
    return [one.arg for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def passed(call: ast.Call, function: Function, parameter: str) -> ast.expr | None:
    """What a call gives for a parameter; None if it leaves it out, or if that is not known."""
    if not is_plain(call):
        return None
    places = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    places = places[1:] if places[:1] in (["self"], ["cls"]) else places
    by_place = dict(zip(places, call.args, strict=False))
    by_name = {keyword.arg: keyword.value for keyword in call.keywords}
    return by_place.get(parameter) or by_name.get(parameter)


def value_in(call: ast.Call, function: Function, parameter: str) -> ast.expr | None:
    """What a parameter has in a call: what is passed, else the default; None if that is not known."""
    return passed(call, function, parameter) or (_defaults(function).get(parameter) if is_plain(call) else None)


def is_plain(call: ast.Call) -> bool:
    """Whether it names each of its arguments: no `*args`, no `**options`."""
    starred = any(isinstance(arg, ast.Starred) for arg in call.args)
    return not starred and all(keyword.arg for keyword in call.keywords)


def _defaults(function: Function) -> dict[str, ast.expr]:
    by_place = [*function.args.posonlyargs, *function.args.args]
    last = by_place[len(by_place) - len(function.args.defaults) :]
    found = {one.arg: value for one, value in zip(last, function.args.defaults, strict=True)}
    named = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return found | {one.arg: value for one, value in named if value}
