"""Where the script reads environment variables: by their names, or through names and functions for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from azml_dist.script.guards import exits, is_always
from azml_dist.script.look import Look
from azml_dist.script.passed import is_plain, parameters, value_in
from azml_dist.script.source import Module, is_main_block
from azml_dist.words import late


class Read(NamedTuple):
    """One place where the script reads a variable."""

    name: str
    module: Module
    node: ast.expr
    fails: bool
    """Whether it raises an error if the variable is not set."""
    default: bool


def reads(look: Look) -> Iterator[Read]:
    for module in look.program.modules:
        for node in module.nodes:
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                for name in _names(module, node.slice) if _has_environ(module, node.value) else ():
                    yield Read(name, module, node, True, False)
                if is_environ(module, node.value):
                    yield from _by_a_function(look, module, node)
            elif isinstance(node, ast.Call) and node.args and _gets(module, node.func):
                yield from (_get(module, node, name) for name in _names(module, node.args[0]))
        yield from _by_torch(look, module)


def is_environ(module: Module, node: ast.expr) -> bool:
    """Whether it is `os.environ`, or a name that only ever means it."""
    if module.full_name(node) == "os.environ":
        return True
    values = module.assigned(node.id) if isinstance(node, ast.Name) else []
    return bool(values) and all(module.full_name(value) == "os.environ" for value in values)


def _has_environ(module: Module, node: ast.expr) -> bool:
    """Whether it is `os.environ`, or a copy of it that nothing changes."""
    if is_environ(module, node) or _is_a_copy(module, node):
        return True
    values = module.assigned(node.id) if isinstance(node, ast.Name) else []
    if not values or not all(_is_a_copy(module, value) for value in values):
        return False
    name = ast.unparse(node)
    return not any(_changes(one, name) for one in module.nodes)


def _is_a_copy(module: Module, node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr == "copy":
        return is_environ(module, node.func.value)
    is_dict = module.full_name(node.func) == "dict" and len(node.args) == 1 and not node.keywords
    return is_dict and is_environ(module, node.args[0])


def _changes(node: ast.AST, name: str) -> bool:
    """Whether it puts something into the dictionary of that name."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        return ast.unparse(node.value) == name
    if isinstance(node, ast.AugAssign):
        return ast.unparse(node.target) == name
    return isinstance(node, ast.Call) and ast.unparse(node.func) in (f"{name}.update", f"{name}.setdefault")


def _gets(module: Module, function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and function.attr in ("get", "pop"):
        return _has_environ(module, function.value)
    return module.full_name(function) == "os.getenv"


def _names(module: Module, node: ast.expr) -> list[str]:
    """The names that a key stands for: a text, a constant, or each of those in `for key in ("RANK", "WORLD_SIZE")`."""
    if isinstance(node, ast.Name) and isinstance(name := module.constant(node.id), str):
        return [name]
    if isinstance(node, ast.Name):
        return [text for text in _walked(module, node) if isinstance(text, str)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _walked(module: Module, name: ast.Name) -> list[Any] | tuple[Any, ...]:
    """What a name goes through in the loop or comprehension around it."""
    for parent, _ in module.above(name):
        loops = [parent] if isinstance(parent, ast.For) else getattr(parent, "generators", ())
        for each in loops:
            if isinstance(each.target, ast.Name) and each.target.id == name.id:
                found = [] if getattr(each, "ifs", None) else _plain(module, each.iter)
                return found if isinstance(found, list | tuple) else []
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            break
    return []


def _plain(module: Module, node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return module.constant(node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _by_a_function(look: Look, module: Module, node: ast.Subscript) -> Iterator[Read]:
    """What the calls of `def env(name): return os.environ[name]` read."""
    function = module.function_of(node)
    if not isinstance(node.slice, ast.Name) or not isinstance(function, ast.FunctionDef):
        return
    name = node.slice.id
    is_given = name in parameters(function) and not module.assigned(name)
    if not is_given or module.functions.get(function.name) is not function:
        return
    if not is_always(module, node) or is_asked_for(module, node):
        return
    for other, call in look.program.callers(module, function):
        given = value_in(call, function, name)
        yield from (Read(one, other, call, True, False) for one in (_names(other, given) if given else ()))


_METHOD, _WORLD_SIZE, _RANK, _STORE = 1, 3, 4, 5
"""The places of the parameters of `init_process_group`."""


def _by_torch(look: Look, module: Module) -> Iterator[Read]:
    """The first variable that `init_process_group` reads and the job does not set."""
    for call, name in module.calls:
        if name != "torch.distributed.init_process_group" or not is_plain(call) or len(call.args) > _STORE:
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        method = given.get("init_method") or (call.args[_METHOD] if len(call.args) > _METHOD else None)
        if "store" in given or (method and look.value(method) not in ("env://", None)):
            continue
        is_unknown = method and look.value(method) is None and not _is_none(method)
        backend = given.get("backend") or (call.args[0] if call.args else None)
        if is_unknown or (backend and look.value(backend) not in ("nccl", "gloo", "cpu:gloo,cuda:nccl", "cuda:nccl")):
            continue
        own = {"rank": _RANK, "world_size": _WORLD_SIZE}
        needed = [one.upper() for one, place in own.items() if one not in given and len(call.args) <= place]
        unset = [one for one in (*needed, "MASTER_ADDR", "MASTER_PORT") if one not in look.known]
        if unset:
            yield Read(unset[0], module, call, True, False)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _get(module: Module, node: ast.Call, name: str) -> Read:
    """A read that returns None, or a default, if the variable is not set."""
    others = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
    default = bool(others) and not _is_none(others[0])
    if default:
        return Read(name, module, node, False, True)
    is_popped = isinstance(node.func, ast.Attribute) and node.func.attr == "pop" and not others
    if is_popped or _converts(module, module.parents.get(node)):
        return Read(name, module, node, True, False)
    if use := _converted(module, node):
        return Read(name, module, use, True, False)
    return Read(name, module, node, False, False)


def _converts(module: Module, node: ast.AST | None) -> bool:
    """Whether it is a call that takes no None."""
    return isinstance(node, ast.Call) and module.full_name(node.func) in ("int", "float", "json.loads")


def _converted(module: Module, node: ast.Call) -> ast.Call | None:
    """The `int(rank)` after `rank = os.environ.get("RANK")`, if nothing tests the value or replaces it."""
    parent = module.parents.get(node)
    targets = parent.targets if isinstance(parent, ast.Assign) else [getattr(parent, "target", None)]
    if not isinstance(parent, ast.Assign | ast.AnnAssign | ast.NamedExpr) or not isinstance(targets[0], ast.Name):
        return None
    name, scope = targets[0].id, module.function_of(node) or module.tree
    named = [one for one in ast.walk(scope) if isinstance(one, ast.Name) and one.id == name]
    read = [one for one in named if isinstance(one.ctx, ast.Load)]
    is_parameter = any(isinstance(one, ast.arg) and one.arg == name for one in ast.walk(scope))
    if len(targets) > 1 or len(named) != len(read) + 1 or is_parameter or any(_is_tested(module, one) for one in read):
        return None
    by = [use for one in read if isinstance(use := _user_of(module, one), ast.Call)]
    if any(not _converts(module, use) and module.full_name(use.func) != "print" for use in by):
        return None  # a function that may test it
    return min((use for use in by if _converts(module, use)), key=lambda use: use.lineno, default=None)


def _user_of(module: Module, name: ast.Name) -> ast.AST | None:
    parent = module.parents.get(name)
    return module.parents.get(parent) if isinstance(parent, ast.keyword) else parent


def _is_tested(module: Module, name: ast.Name) -> bool:
    """Whether a value decides something: `if rank`, `rank is None`, `assert rank`."""
    for parent, child in module.above(name):
        if _converts(module, parent) or isinstance(parent, ast.stmt):
            return isinstance(parent, ast.Assert | ast.Match) or child is getattr(parent, "test", None)
        if isinstance(parent, ast.Compare | ast.BoolOp | ast.UnaryOp) or child is getattr(parent, "test", None):
            return True
    return False


def is_asked_for(module: Module, node: ast.AST) -> bool:
    """Whether the script tests a variable, or expects an exception, before it gets there."""
    for parent, child in module.above(node):
        if (
            isinstance(parent, ast.If | ast.IfExp | ast.While)
            and child is not parent.test
            and not is_main_block(parent)
        ):
            return True
        if isinstance(parent, ast.BoolOp | ast.Assert | ast.match_case):
            return True
        if isinstance(parent, ast.With) and any("suppress" in ast.unparse(item.context_expr) for item in parent.items):
            return True
        if isinstance(parent, ast.Try) and parent.handlers and child in parent.body:
            return True
    return any(_leaves_if_unset(module, statement) for statement in module.before(node))


_ABOUT_THE_START = late(r"(?i)environ|getenv|launch|distrib|\bmpi|slurm|rank|single|world|backend|initialized")


def _leaves_if_unset(module: Module, node: ast.stmt) -> bool:
    """`if "RANK" not in os.environ: return 0` and similar tests, and a `try` whose handler leaves."""
    leaving: list[ast.AST] = []
    if isinstance(node, ast.If) and _ABOUT_THE_START.search(ast.unparse(node.test)):
        leaving = [node]
    elif isinstance(node, ast.Try) and any(_ABOUT_THE_START.search(ast.unparse(one)) for one in node.body):
        leaving = [*node.handlers]
    inner = (inner for one in leaving for inner in ast.walk(one))
    return any(isinstance(one, ast.Return | ast.Raise | ast.Continue) or exits(module, one) for one in inner)
