"""Which part of the package may know which: every import counts, at the top of a file, in a function, or for types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "azml_dist"
LAYERS = [
    {"words", "version", "vmsizes", "regular", "runtime", "status", "configured", "emulator"},
    {"errors", "columns"},
    {"show", "home"},
    {"health", "latest", "contents"},
    {"notation", "verdict"},
    {"model"},
    {"listed", "page"},
    {"script"},
    {"plan", "files", "sdk", "runs"},
    {"job", "check"},
    {"sweep", "pipeline", "search_space"},
    {"as_job"},
    {"local", "azureml"},
    {"overview"},
    {"api", "probe"},
    {"", "cli"},  # "" is azml_dist/__init__.py
]
"""From the ground up. A part knows those of lower layers, and none beside it: `local` knows nothing of `azureml`."""
LAYER = {part: level for level, parts in enumerate(LAYERS) for part in parts}
IN_FUNCTIONS = (
    "__init__",
    "api",
    "as_job",
    "job",
    "model/parts",
    "plan/plan",
    "runs/run",
    "local/",
    "azureml/executor",
    "azureml/workspace",
    "cli/",
)
"""Where a function may import, downwards too, so that the rest starts fast."""
MOST = 45
"""How many imports may be in functions. A command of `cli/` imports what its own body needs, and is not counted."""


@cache
def modules() -> dict[str, Path]:
    return {f.relative_to(PACKAGE).with_suffix("").as_posix(): f for f in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """The modules of the package that a file names, and whether it does so in a function."""
    return tuple(_imports(ast.parse(modules()[module].read_text(encoding="utf-8"))))


def _imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inner = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE.name:
                    yield "/".join(alias.name.split(".")[1:]), id(node) in inner
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            base = "/".join(str(node.module).split(".")[1:])
            for alias in node.names:
                below = f"{base}/{alias.name}".lstrip("/")
                is_module = (PACKAGE / f"{below}.py").is_file() or (PACKAGE / below).is_dir()
                yield below if is_module else base, id(node) in inner


def part(module: str) -> str:
    return module.removesuffix("__init__").strip("/").split("/")[0]


def test_every_part_has_a_layer() -> None:
    assert {part(module) for module in modules()} == set(LAYER)


def test_every_import_points_down() -> None:
    up = [
        f"{module} -> {name or '__init__'}"
        for module in modules()
        for name, _ in imports(module)
        if part(module) != part(name) and LAYER[part(module)] <= LAYER[part(name)]
    ]
    assert not up


def test_no_two_files_need_each_other() -> None:
    left = {module: {name for name, _ in imports(module)} & modules().keys() for module in modules()}
    while free := [module for module, needs in left.items() if not needs & left.keys() - {module}]:
        for module in free:
            del left[module]
    assert not left


def test_functions_import_only_where_that_saves_a_start() -> None:
    inside = [module for module in modules() for _, in_function in imports(module) if in_function]

    assert not [module for module in inside if not module.startswith(IN_FUNCTIONS)]
    assert sum(not module.startswith("cli/") for module in inside) <= MOST
