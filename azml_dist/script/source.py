"""A script and the modules of the code folder that it imports: parsed, with each name traced to its origin."""

from __future__ import annotations

import ast
import io
import os
import posixpath
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from azml_dist.script.passed import parameters, value_in
from azml_dist.words import late

MAX_FILE = 2_000_000
"""The largest file that is read, in bytes; anything larger is generated."""
MAX_TOTAL = 200_000_000
"""How many bytes of all files are searched for words."""
MAX_FILES = 2_000
MAX_PARSED = 60
"""How many modules are parsed: the script, those it imports, and what those import."""
_DEEPEST = 2

_TRANSPARENT = frozenset(["record", "no_grad", "inference_mode", "enable_grad", "hydra.main", "cache", "lru_cache"])
"""Decorators after which a call still runs what is written."""
_IGNORED = late(r"#\s*azml-dist:\s*ignore\[([\w\s,-]+)\]")


class Unread(NamedTuple):
    """A file that could not be read, and why."""

    path: str
    why: str
    line: int | None = None


def is_main_block(node: ast.AST) -> bool:
    """`if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


class Module:
    """A parsed file."""

    def __init__(self, path: str, text: str, tree: ast.Module) -> None:
        self.path, self.text, self.tree = path, text, tree

    @cached_property
    def names(self) -> dict[str, str]:
        """What each imported name means: `np` is `numpy`, `dist` is `torch.distributed`."""
        names: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.split(".")[0]
                    names[alias.asname or name] = name
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{base}.{alias.name}" if node.module else base + alias.name
        return names

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        """The top-level functions of the file whose calls run what is written: no decorator replaces them."""
        found = [node for node in self.tree.body if isinstance(node, ast.FunctionDef)]
        return {node.name: node for node in found if all(map(self._is_transparent, node.decorator_list))}

    def _is_transparent(self, decorator: ast.expr) -> bool:
        name = self.full_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
        return name in _TRANSPARENT or name.rpartition(".")[2] in _TRANSPARENT

    def assigned(self, name: str) -> list[ast.expr]:
        """What is assigned to a name, or to an attribute such as `self.saves`, anywhere in the file."""
        return self._assigned.get(name, [])

    def constant(self, name: str) -> Any:
        """The plain value of a name that gets only this one in the whole file; None if that is not known."""
        if name not in self._constants:
            return None
        try:
            return ast.literal_eval(self._constants[name])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None

    def only(self, name: str) -> ast.expr | None:
        """What is assigned to a name that gets only this one value in the whole file."""
        return self._constants.get(name)

    @cached_property
    def _constants(self) -> dict[str, ast.expr]:
        """What is assigned to each name that has no other meaning, unless the file changes names behind its back."""
        if re.search(r"\bexec\(|\bglobals\(|\bsetattr\(", self.text):
            return {}
        meanings: Counter[str] = Counter()
        for node in self.nodes:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                meanings[node.id] += 1
            elif isinstance(node, ast.arg):
                meanings[node.arg] += 1
        once = {name for name, count in meanings.items() if count == 1}
        return {name: values[0] for name, values in self._assigned.items() if name in once}

    @cached_property
    def _assigned(self) -> dict[str, list[ast.expr]]:
        found: dict[str, list[ast.expr]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for name, value in _pairs(target, node.value):
                        found.setdefault(ast.unparse(name), []).append(value)
        return found

    @cached_property
    def decorated(self) -> dict[str, list[ast.FunctionDef]]:
        """The functions with a decorator, such as `@property`, by their names."""
        found: dict[str, list[ast.FunctionDef]] = {}
        for one in self.nodes:
            if isinstance(one, ast.FunctionDef) and one.decorator_list:
                found.setdefault(one.name, []).append(one)
        return found

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node that contains each node."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the file; every rule looks at them, and walking takes longest."""
        return list(ast.walk(self.tree))

    @cached_property
    def calls(self) -> list[tuple[ast.Call, str]]:
        """Every call with the full name of the function, in line order."""
        calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        return [(call, self.full_name(call.func)) for call in sorted(calls, key=lambda c: (c.lineno, c.col_offset))]

    def full_name(self, node: ast.expr) -> str:
        """The full name of an expression, with imports resolved; empty if it is not a name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Call):
            parts.append("()")
        elif isinstance(node, ast.Name):
            parts.append(self.names.get(node.id, node.id))
        else:
            return ""
        return ".".join(reversed(parts))

    def above(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """The nodes around a node from the inside out, each with its child on the way to the node."""
        while parent := self.parents.get(node):
            yield parent, node
            node = parent

    def before(self, node: ast.AST) -> Iterator[ast.stmt]:
        """The statements ahead of a node, in the blocks around it within its function."""
        for parent, child in self.above(node):
            body = getattr(parent, "body", None)
            if isinstance(body, list) and child in body:
                yield from body[: body.index(child)]
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
                return

    def function_of(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The function that contains a node."""
        functions = (n for n, _ in self.above(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        return next(functions, None)

    def is_ignored(self, line: int, code: str) -> bool:
        """Whether a comment on that line, or on a line by itself before it, suppresses a finding."""
        lines = self.text.splitlines()
        for number in (line, line - 1):
            text = lines[number - 1] if 0 < number <= len(lines) else ""
            if number != line and not text.lstrip().startswith("#"):
                continue
            if (match := _IGNORED.search(text)) and code in {name.strip() for name in match[1].split(",")}:
                return True
        return False


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each name that an assignment sets, with its value; several get the parts of a tuple, or what a call returns."""
    if isinstance(target, ast.Name | ast.Attribute):
        yield target, value
    elif isinstance(target, ast.Tuple | ast.List) and not any(isinstance(one, ast.Starred) for one in target.elts):
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            for one, part in zip(target.elts, value.elts, strict=True):
                yield from _pairs(one, part)
        elif isinstance(value, ast.Call):
            yield from ((one, value) for one in target.elts if isinstance(one, ast.Name | ast.Attribute))


class Program:
    """A script with what it imports from the code folder; `words` searches every Python file there."""

    def __init__(self, entry: str, start: str, files: Mapping[str, str]) -> None:
        """`start` is the folder that imports are relative to: the script's own, or the working directory for `-m`."""
        self._files, self.start = files, start
        self.unread: list[Unread] = []
        self._parsed: dict[str, Module | None] = {}
        self.entry = self.module(entry)
        self.modules = [self.entry, *self._imported(self.entry)] if self.entry else []

    def module(self, path: str) -> Module | None:
        """A file of the code folder, parsed; None if that fails."""
        if path not in self._parsed:
            self._parsed[path] = self._parse(path)
        return self._parsed[path]

    def text(self, path: str) -> str | None:
        """The text of a file of the code folder; None if it is not there, or cannot be read."""
        return self._text(path) if path in self._files else None

    def find(self, name: str, importer: Module) -> str | None:
        """The file of a module such as `utils.env`, or `.env` in an import; None if it is not in the code folder."""
        base = self.start
        if name.startswith("."):
            base = posixpath.dirname(importer.path)
            name = name[1:]
            while name.startswith("."):
                base, name = posixpath.dirname(base), name[1:]
        for folder in dict.fromkeys([base, ""]):
            stem = posixpath.join(folder, name.replace(".", "/")).rstrip("/")
            for path in (f"{stem}.py", f"{stem}/__init__.py"):
                if path in self._files:
                    return path
        return None

    def has(self, top: str) -> bool:
        """Whether a module or folder with this name is anywhere in the code, whatever imports are relative to."""
        return top in self._tops

    @cached_property
    def _tops(self) -> set[str]:
        parts = (path.split("/") for path in self._files if path.endswith((".py", ".so", ".pyd", ".pyx")))
        return {part.split(".")[0] for names in parts for part in names}

    def function(self, name: str, importer: Module) -> tuple[Module, ast.FunctionDef] | None:
        """A function of this program by its full name, such as `utils.setup`."""
        if "." not in name:
            return (importer, importer.functions[name]) if name in importer.functions else None
        base, _, own = name.rpartition(".")
        path = self.find(base or ".", importer) if base.strip(".") else None
        module = self.module(path) if path else None
        return (module, module.functions[own]) if module and own in module.functions else None

    def is_unused(self, module: Module, node: ast.AST) -> bool:
        """Whether nothing of this program gets to a node: in a function or class that nothing names, or the main
        block of another file.

        A name that is only imported does not count.
        """
        above = list(module.above(node))
        if module is not self.entry and any(isinstance(one, ast.If) and is_main_block(one) for one, _ in above):
            return True
        outermost = above[-2][0] if len(above) > 1 else None
        if not isinstance(outermost, ast.FunctionDef | ast.ClassDef) or outermost.decorator_list:
            return False
        is_evaluated = isinstance(outermost, ast.ClassDef) and module.function_of(node) is None
        return not is_evaluated and outermost.name not in self._mentioned

    @cached_property
    def _mentioned(self) -> set[str]:
        """Every name that the program uses, and every plain text in it; of installed packages, no attributes."""
        found: set[str] = set()
        for module in self.modules:
            for node in module.nodes:
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    found.add(node.id)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, ast.ImportFrom):
                    found |= {alias.name for alias in node.names if alias.asname or alias.name == "*"}
                elif isinstance(node, ast.Attribute) and not self._is_of_a_package(module, node.value):
                    found.add(node.attr)
        return found

    def _is_of_a_package(self, module: Module, node: ast.expr) -> bool:
        name = module.full_name(node)
        is_imported = name.split(".")[0] in {one.split(".")[0] for one in module.names.values()}
        return is_imported and not name.startswith(".") and not self.has(name.split(".")[0])

    def callers(
        self, module: Module, function: ast.FunctionDef | ast.AsyncFunctionDef
    ) -> list[tuple[Module, ast.Call]]:
        """Where a function is called; for a method, wherever something with its name is called."""
        if function.name == "__init__":
            return self.makers(module, function)
        is_method = isinstance(module.parents.get(function), ast.ClassDef)
        if not is_method and (around := module.function_of(function)):
            names = ((call, call.func) for call in ast.walk(around) if isinstance(call, ast.Call))
            return [(module, call) for call, by in names if isinstance(by, ast.Name) and by.id == function.name]
        return [
            (other, call)
            for other in self.modules
            for call, name in other.calls
            if name.rpartition(".")[2] == function.name
            and (is_method or ((found := self.function(name, other)) is not None and found[1] is function))
        ]

    def makers(self, module: Module, method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[Module, ast.Call]]:
        """Where objects with a method are made; none for a function."""
        of = module.parents.get(method)
        if not isinstance(of, ast.ClassDef):
            return []
        return [(other, call) for other in self.modules for call, name in other.calls if name.split(".")[-1] == of.name]

    def mentions(
        self, module: Module, function: ast.FunctionDef | ast.AsyncFunctionDef
    ) -> list[tuple[Module, ast.AST]]:
        """Where a function is passed on by its name, such as to a thread."""
        return [
            (other, node)
            for other in self.modules
            for node in other.nodes
            if isinstance(node, ast.Name)
            and node.id == function.name
            and isinstance(node.ctx, ast.Load)
            and node is not getattr(other.parents.get(node), "func", None)
            and self.function(other.full_name(node), other) == (module, function)
        ]

    def given(self, module: Module, name: ast.Name) -> list[tuple[Module, ast.expr]] | None:
        """What callers pass for a parameter of a function; None if it is no parameter, or the calls are unknown."""
        function = module.function_of(name)
        if function is None or name.id not in parameters(function):
            return None
        calls = self.callers(module, function)
        values = [(other, value_in(call, function, name.id)) for other, call in calls]
        return [(other, value) for other, value in values if value] if all(value for _, value in values) else None

    def says(self, pattern: str) -> bool:
        """Whether any Python file of the code folder contains a match."""
        search = re.compile(pattern).search
        return any(search(text) for text in self._texts)

    def uses(self, pattern: str) -> bool:
        """Whether the script, or a module that it imports from the code folder, contains a match."""
        search = re.compile(pattern).search
        return any(search(module.text) for module in self.modules)

    @cached_property
    def is_whole(self) -> bool:
        """Whether `says` has searched everything."""
        return self._read_all[1]

    @property
    def _texts(self) -> list[str]:
        return self._read_all[0]

    @cached_property
    def _read_all(self) -> tuple[list[str], bool]:
        texts: list[str] = []
        total = 0
        paths = [path for path in self._files if path.endswith((".py", ".ipynb"))]
        for path in paths[:MAX_FILES]:
            if (text := self._text(path)) is None:
                continue
            total += len(text)
            if total > MAX_TOTAL:
                return texts, False
            texts.append(text)
        return texts, len(paths) <= MAX_FILES

    def _imported(self, module: Module) -> list[Module]:
        found: dict[str, Module] = {module.path: module}
        at = [module]
        for _ in range(_DEEPEST):
            below: list[Module] = []
            for one in at:
                for path in self._imports_of(one):
                    if path not in found and len(found) < MAX_PARSED and (inner := self.module(path)):
                        found[path] = inner
                        below.append(inner)
            at = below
        return list(found.values())[1:]

    def _imports_of(self, module: Module) -> Iterator[str]:
        for node in module.nodes:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                names = [base, *(f"{base}.{a.name}" if node.module else base + a.name for a in node.names)]
            for name in names:
                if name.strip(".") and (path := self.find(name, module)):
                    yield path

    def _parse(self, path: str) -> Module | None:
        text = self._text(path)
        if text is None:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Module(path, text, ast.parse(text, path))
        except SyntaxError as error:
            self.unread.append(Unread(path, f"{error.msg}, for the Python that runs azml_dist", error.lineno))
        except (ValueError, RecursionError, MemoryError) as error:
            self.unread.append(Unread(path, f"{type(error).__name__}: {error}"))
        return None

    def _text(self, path: str) -> str | None:
        source = self._files.get(path)
        if source is None:
            return None
        try:
            if os.path.getsize(source) > MAX_FILE:
                self._cannot(path, f"it is larger than {MAX_FILE // 1_000_000} MB")
                return None
            with open(source, "rb") as file:
                content = file.read()
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            return content.decode(encoding)
        except (OSError, SyntaxError, UnicodeDecodeError, LookupError) as error:
            self._cannot(path, str(error.strerror if isinstance(error, OSError) else "it is not UTF-8"))
            return None

    def _cannot(self, path: str, why: str) -> None:
        if not any(one.path == path for one in self.unread):
            self.unread.append(Unread(path, why))
