"""How long files and functions are: `make check` prints it, so that what grows is seen while it is small."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "azml_dist"
LONG = 50
"""Lines of a function that is worth a second look."""


class Shape(NamedTuple):
    """Where the longest file and the longest function are, and how many functions are long."""

    longest_file: tuple[int, str]
    longest_function: tuple[int, str]
    functions: int
    long: int

    def __str__(self) -> str:
        (lines, file), (length, function) = self.longest_file, self.longest_function
        share = 100 * self.long / self.functions
        return (
            f"longest file: {file}, {lines} lines; longest function: {function}, {length} lines; "
            f"{self.long} of {self.functions:,} functions ({share:.1f} %) have more than {LONG}"
        )


def measured(package: Path = PACKAGE) -> Shape:
    """The shape of all code in a folder."""
    files, functions = [], []
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        name = file.relative_to(package).as_posix()
        files.append((text.count("\n"), name))
        functions += [
            ((node.end_lineno or 0) - node.lineno + 1, f"{name}:{node.name}")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return Shape(max(files), max(functions), len(functions), sum(length > LONG for length, _ in functions))


if __name__ == "__main__":
    print(measured())
