"""Where in a script a rule must stay silent: where something is tested before it gets there, such as the rank."""

from __future__ import annotations

import ast
from collections.abc import Callable

from azml_dist.script.look import Look
from azml_dist.script.source import Module
from azml_dist.words import late

_OF_A_RANK = late(
    r"(?i)rank|main_process|is_main|is_local_main|master|is_chief|is_primary|_zero\b|should_save|is_first|is_leader"
    r"|is_root|gpu|process_index|device_id|worker_id|proc(?:ess)?_?id\b|coordinat|is_host\b|is_head|is_writer"
)
_DECIDES = late(r"==|!=|>|<|\bnot\b|\bin\b|\bis_|else (?:None|False)")
"""A value that follows from a rank and is then tested: `rank == 0`, `open(…) if rank == 0 else None`."""
_TESTS = ast.If | ast.IfExp | ast.While

Asks = Callable[[Module, ast.AST], bool]
"""Whether the function that contains a node tests something before it."""


def is_for_one_rank(look: Look, module: Module, node: ast.AST) -> bool:
    """Whether the rank is tested before the node is reached: around it, before it, or where its function is called."""
    return is_guarded(look, module, node, lambda one, inner: _asks(look, one, inner))


def is_guarded(look: Look, module: Module, node: ast.AST, asks: Asks, deep: int = 3) -> bool:
    """Whether something is tested on every path to a node, in its function or in those that call it; or not known."""
    if asks(module, node):
        return True
    function = module.function_of(node)
    if function is None:
        return False
    if not deep:
        return True  # callers of callers of callers: not known
    if any(_has_a_rank(look, module, decorator) for decorator in function.decorator_list):
        return True
    places = [*look.program.callers(module, function), *look.program.mentions(module, function)]
    if not places and module.function_of(function):
        places = [(module, function)]  # what an inner function is passed to is not known
    made = look.program.makers(module, function)
    return any(each and all(is_guarded(look, *one, asks, deep - 1) for one in each) for each in (places, made))


def _has_a_rank(look: Look, module: Module, decorator: ast.expr) -> bool:
    """Whether a decorator of the code tests a rank."""
    name = module.full_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
    found = look.program.function(name, module)
    return found is not None and bool(_OF_A_RANK.search(ast.unparse(found[1])))


def _asks(look: Look, module: Module, node: ast.AST) -> bool:
    if _asks_for_a_rank(module, node) or _is_passed_to_one_rank(look, module, node):
        return True
    around = [
        parent.test for parent, child in module.above(node) if isinstance(parent, _TESTS) and child is not parent.test
    ]
    before = [one.test for one in module.before(node) if isinstance(one, ast.If) and _leaves(module, one)]
    tests = (*around, *before)
    return any(_follows_from_a_rank(look, module, test) or stems_from_a_rank(look, module, test) for test in tests)


_KEEPS = late(r"(?:\b(?:int|bool|str|getenv|Path|join|abspath)|\.(?:format|get|joinpath|resolve))$")
"""Functions whose value depends only on their arguments."""
_MOST = 500
"""How many parts of a value are looked at."""


def stems_from_a_rank(look: Look, module: Module, node: ast.AST, seen: set[ast.AST] | None = None) -> bool:
    """Whether a rank is in a value, whatever its names: by assignments, properties, and what functions return."""
    seen = set() if seen is None else seen
    if node in seen or len(seen) > _MOST:
        return False
    seen.add(node)
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        known = _sources(look, module, node, name)
        return bool(_OF_A_RANK.search(name)) or any(stems_from_a_rank(look, *one, seen) for one in known)
    if isinstance(node, ast.Call):
        text = ast.unparse(node.func)
        if _OF_A_RANK.search(text):
            return True
        if found := look.program.function(module.full_name(node.func), module):
            return any(stems_from_a_rank(look, found[0], one, seen) for one in _returned(found[1]))
        parts = [node.func, *node.args] if _KEEPS.search(text) else []
        return any(stems_from_a_rank(look, module, one, seen) for one in parts)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value in ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK")
    return any(stems_from_a_rank(look, module, one, seen) for one in ast.iter_child_nodes(node))


def _sources(look: Look, module: Module, node: ast.Name | ast.Attribute, name: str) -> list[tuple[Module, ast.expr]]:
    """What a name gets; for an attribute, also what any `self` gets by that name, and what such a property returns."""
    found = (
        origins(look, module, node)
        if isinstance(node, ast.Name)
        else [(module, value) for value in module.assigned(ast.unparse(node))]
    )
    for other in look.program.modules if isinstance(node, ast.Attribute) else ():
        found += [(other, value) for value in other.assigned(f"self.{name}")]
        found += [(other, value) for one in other.decorated.get(name, ()) for value in _returned(one)]
    return found


def _returned(function: ast.AST) -> list[ast.expr]:
    return [one.value for one in ast.walk(function) if isinstance(one, ast.Return) and one.value]


def _is_passed_to_one_rank(look: Look, module: Module, node: ast.AST) -> bool:
    """Whether a function, or a lambda around the node, is passed to one that tests a rank: `on_rank_0(dump, data)`."""
    is_a_function = isinstance(node, ast.Name)
    for parent, child in module.above(node):
        if is_a_function and isinstance(parent, ast.Call) and child is not parent.func:
            name = module.full_name(parent.func)
            found = look.program.function(name, module)
            tests = [one.test for one in ast.walk(found[1]) if isinstance(one, _TESTS)] if found else []
            if _OF_A_RANK.search(name) or any(is_about_a_rank(found[0], test) for test in tests if found):
                return True
        if isinstance(parent, ast.stmt):
            return False
        is_a_function = is_a_function or isinstance(parent, ast.Lambda)
    return False


def _follows_from_a_rank(look: Look, module: Module, test: ast.expr) -> bool:
    """Whether a test depends on a rank: by its names, by what they were given, or by what the callers pass."""
    if is_about_a_rank(module, test) or any(_is_of_a_rank(look, *one) for one in origins(look, module, test)):
        return True
    return any(
        _is_set_on_one_rank(module, ast.unparse(n)) for n in ast.walk(test) if isinstance(n, ast.Name | ast.Attribute)
    )


def _is_set_on_one_rank(module: Module, name: str) -> bool:
    """`writer = None`, and then `if rank == 0: writer = …`."""
    values = module.assigned(name)
    some = [value for value in values if not isinstance(value, ast.Constant) or value.value not in (None, False)]
    return 0 < len(some) < len(values) and all(_asks_for_a_rank(module, value) for value in some)


def _is_of_a_rank(look: Look, module: Module, value: ast.expr, deep: int = 2) -> bool:
    if isinstance(value, ast.Call):
        return _is_for_others(look, module, value)
    text = ast.unparse(value)
    if _OF_A_RANK.search(text) and (_DECIDES.search(text) or not any(isinstance(n, ast.Call) for n in ast.walk(value))):
        return True
    return deep > 0 and any(_is_of_a_rank(look, *one, deep - 1) for one in origins(look, module, value))


def _is_for_others(look: Look, module: Module, call: ast.Call) -> bool:
    """Whether it calls a function that most ranks leave early: `if rank != 0: return None`."""
    found = look.program.function(module.full_name(call.func), module)
    return found is not None and any(_leaves_other_ranks(found[0], one) for one in ast.walk(found[1]))


def origins(look: Look, module: Module, node: ast.expr) -> list[tuple[Module, ast.expr]]:
    """What the names in an expression get: by assignments in the file, or as parameters from the calls."""
    found: list[tuple[Module, ast.expr]] = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name | ast.Attribute):
            found += [(module, value) for value in module.assigned(ast.unparse(inner))]
        if isinstance(inner, ast.Name):
            found += look.program.given(module, inner) or []
    return found


def _asks_for_a_rank(module: Module, node: ast.AST) -> bool:
    function = module.function_of(node)
    words = [function.name, *map(ast.unparse, function.decorator_list)] if function else []
    if any(map(_OF_A_RANK.search, words)):
        return True
    for parent, child in module.above(node):
        test = parent.test if isinstance(parent, ast.If | ast.IfExp | ast.While) else None
        test = parent.subject if isinstance(parent, ast.Match) else test
        if test is not None and child is not test and is_about_a_rank(module, test):
            return True
        if isinstance(parent, ast.With) and any(_OF_A_RANK.search(ast.unparse(i.context_expr)) for i in parent.items):
            return True
        if isinstance(parent, ast.BoolOp) and _OF_A_RANK.search(ast.unparse(parent)):
            return True
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            break
    return any(_leaves_other_ranks(module, statement) for statement in module.before(node))


def is_about_a_rank(module: Module, test: ast.expr) -> bool:
    """Whether a test has a rank in it, or a name whose value follows from one."""
    if _OF_A_RANK.search(ast.unparse(test)):
        return True
    names = (ast.unparse(node) for node in ast.walk(test) if isinstance(node, ast.Name | ast.Attribute))
    values = (ast.unparse(value) for name in names for value in module.assigned(name))
    return any(_OF_A_RANK.search(value) and _DECIDES.search(value) for value in values)


def _leaves_other_ranks(module: Module, node: ast.AST) -> bool:
    """`if rank != 0: return` and similar tests."""
    return isinstance(node, ast.If) and is_about_a_rank(module, node.test) and _leaves(module, node)


def _leaves(module: Module, node: ast.If) -> bool:
    leaving = ast.Return | ast.Continue | ast.Raise
    return any(isinstance(inner, leaving) or exits(module, inner) for inner in ast.walk(node))


def is_always(module: Module, node: ast.AST) -> bool:
    """Whether each call of its function gets to a node: no branch is around it, and none before it may leave."""
    branches = ast.If | ast.IfExp | ast.BoolOp | ast.While | ast.Try | ast.match_case
    for parent, _ in module.above(node):
        if isinstance(parent, branches):
            return False
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            break
    leaving = ast.Return | ast.Raise
    return not any(isinstance(n, leaving) for statement in module.before(node) for n in ast.walk(statement))


def exits(module: Module, node: ast.AST) -> bool:
    """Whether it ends the program."""
    return isinstance(node, ast.Call) and module.full_name(node.func) in ("exit", "quit", "sys.exit", "os._exit")
