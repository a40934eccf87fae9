"""What a script always does: the statements that no branch, loop or exception can skip."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from azml_dist.script.source import Module, Program

_DEEPEST = 4
_EXITS = frozenset(["exit", "quit", "sys.exit", "os._exit", "os.abort"])
_LEAVE = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def certain_nodes(program: Program) -> set[ast.AST]:
    """The nodes that every run of the script evaluates, including those in functions that it calls."""
    walk = _Walk(program)
    if program.entry:
        walk.block(program.entry, program.entry.tree.body, 0)
    return walk.nodes


class _Walk:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._seen: set[ast.AST] = set()
        self.nodes: set[ast.AST] = set()

    def block(self, module: Module, body: Sequence[ast.stmt], deep: int) -> bool:
        """Go through statements in order; returns whether what follows them is certain too."""
        return all(self._statement(module, statement, deep) for statement in body)

    def _statement(self, module: Module, node: ast.stmt, deep: int) -> bool:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [one for one in (*node.args.defaults, *node.args.kw_defaults) if one]
            return all(self._expression(module, one, deep) for one in (*node.decorator_list, *defaults))
        if isinstance(node, ast.ClassDef):
            around = [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]
            return all(self._expression(module, one, deep) for one in around) and self.block(module, node.body, deep)
        if isinstance(node, ast.If):
            if _is_main(node.test) and module is self._program.entry:
                return self.block(module, node.body, deep)
            return self._expression(module, node.test, deep) and not _may_leave(module, node)
        if isinstance(node, ast.With | ast.AsyncWith):
            goes_on = all(self._expression(module, item.context_expr, deep) for item in node.items)
            if any("suppress" in ast.dump(item.context_expr) for item in node.items):
                return goes_on and not _may_leave(module, node)
            return goes_on and self.block(module, node.body, deep)
        if isinstance(node, ast.Try):
            if node.handlers:
                return not _may_leave(module, node)
            return self.block(module, node.body, deep) and self.block(module, node.finalbody, deep)
        if isinstance(node, ast.For | ast.AsyncFor):
            return self._expression(module, node.iter, deep) and not _may_leave(module, node, loop=True)
        if isinstance(node, ast.While | ast.Match):
            return not _may_leave(module, node, loop=True)
        return self._expression(module, node, deep) and not isinstance(node, _LEAVE)

    def _expression(self, module: Module, node: ast.AST, deep: int) -> bool:
        """Record what an expression certainly evaluates, and enter the functions that it calls."""
        for inner in _evaluated(node):
            self.nodes.add(inner)
            if isinstance(inner, ast.Call):
                name = module.full_name(inner.func)
                if name in _EXITS:
                    return False
                found = self._program.function(name, module)
                if found and deep < _DEEPEST and found[1] not in self._seen:
                    self._seen.add(found[1])
                    self.block(found[0], found[1].body, deep + 1)
                    if any(_exits(found[0], one) for one in ast.walk(found[1])):
                        return False
        return True


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is in it, except for what is evaluated later, only sometimes, or repeatedly."""
    if isinstance(node, ast.Lambda | ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp):
        return
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.BoolOp):
        children = [node.values[0]]
    elif isinstance(node, ast.IfExp):
        children = [node.test]
    for child in children:
        yield from _evaluated(child)
    yield node


def _is_main(test: ast.expr) -> bool:
    text = ast.dump(test)
    return isinstance(test, ast.Compare) and "'__name__'" in text and "'__main__'" in text and "Eq()" in text


def _may_leave(module: Module, node: ast.AST, *, loop: bool = False) -> bool:
    """Whether something in it ends the function or the program; `break` and `continue` only affect a loop."""
    leaving = (ast.Return, ast.Raise) if loop else _LEAVE
    return any(isinstance(inner, leaving) or _exits(module, inner) for inner in ast.walk(node))


def _exits(module: Module, node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and module.full_name(node.func) in _EXITS
