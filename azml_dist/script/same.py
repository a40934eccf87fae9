"""Whether a path is the same on all ranks."""

from __future__ import annotations

import ast
import re

from azml_dist.script.guards import origins, stems_from_a_rank
from azml_dist.script.look import NAMES_OF_ARGUMENTS, Look
from azml_dist.script.source import Module
from azml_dist.words import late

_OF_A_PROCESS = late(
    r"(?i)rank|get_process|pid\b|\bgpu|worker|uuid|temp_?file|mk[ds]temp|TemporaryDir|host|node|time|\bnow\b|random"
)
_COUNTER = late(r"(?i)(?:\w+_)?(?:epochs?|steps?|iter|iteration|it|ep|fold)")
_PATHS = late(r"(?:path\.(?:join|abspath|expanduser|realpath|normpath)|\bPath|\bstr|\.format|\.joinpath|\.resolve)$")


def names_a_rank(look: Look, module: Module, node: ast.expr, deep: int = 3) -> bool:
    """Whether a path has a rank in it, or in what its names get."""
    text = ast.unparse(node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            text += "".join(re.findall(rf"^\s*{re.escape(inner.id)}\s*=.*$", module.text, re.MULTILINE))
    if re.search(r"(?i)rank|get_process|pid|\bgpu|worker|uuid|temp_?file|mk[ds]temp|TemporaryDir", text):
        return True
    if stems_from_a_rank(look, module, node):
        return True
    return deep > 0 and any(names_a_rank(look, *one, deep - 1) for one in origins(look, module, node))


def is_the_same(look: Look, module: Module, node: ast.expr, deep: int = 6) -> bool:
    """Whether everything in a path is known to be the same on all ranks."""
    if not deep or _OF_A_PROCESS.search(ast.unparse(node)) or stems_from_a_rank(look, module, node):
        return False
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Name):
        return _is_name_the_same(look, module, node, deep)
    if isinstance(node, ast.Attribute):
        return _is_attribute_the_same(look, module, node, deep)
    return (parts := _parts(node)) is not None and all(is_the_same(look, module, part, deep - 1) for part in parts)


def _parts(node: ast.expr) -> list[ast.expr] | None:
    """What an expression is made of; None if it is not one that makes a path."""
    if isinstance(node, ast.JoinedStr):
        return [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Add | ast.Mod):
        return [node.left, node.right]
    if isinstance(node, ast.Tuple):
        return node.elts
    if isinstance(node, ast.Subscript):
        return [] if re.fullmatch(r"(?:os\.)?environ\[['\"]AZURE_ML_OUTPUT_\w+['\"]\]", ast.unparse(node)) else None
    if isinstance(node, ast.Call) and not node.keywords and _PATHS.search(ast.unparse(node.func)):
        of = [node.func.value] if isinstance(node.func, ast.Attribute) and node.func.attr in _OF_AN_OBJECT else []
        return [*of, *node.args]
    return None


_OF_AN_OBJECT = ("format", "joinpath", "resolve")


def _is_kept(module: Module, name: ast.Name) -> bool:
    """Whether its function leaves a parameter as it is."""
    function = module.function_of(name) or module.tree
    stores = (one for one in ast.walk(function) if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load))
    return all(one.id != name.id for one in stores)


def _is_attribute_the_same(look: Look, module: Module, node: ast.Attribute, deep: int) -> bool:
    text, values = ast.unparse(node), module.assigned(ast.unparse(node))
    is_argument = isinstance(node.value, ast.Name) and node.value.id in NAMES_OF_ARGUMENTS
    if not values:
        return is_argument
    others = [value for value in values if text not in ast.unparse(value)]  # not `args.out = Path(args.out)`
    kept = (value for value in values if value not in others)
    if any(_OF_A_PROCESS.search(ast.unparse(value)) for value in kept):
        return False
    return (is_argument or bool(others)) and all(is_the_same(look, module, value, deep - 1) for value in others)


def _is_name_the_same(look: Look, module: Module, name: ast.Name, deep: int) -> bool:
    if only := module.only(name.id):
        return is_the_same(look, module, only, deep - 1)
    if (given := look.program.given(module, name)) is not None:
        return bool(given) and _is_kept(module, name) and all(is_the_same(look, *one, deep - 1) for one in given)
    return bool(_COUNTER.fullmatch(name.id))
