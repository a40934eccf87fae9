"""The loop that a line is in, told by its source: whether a process that keeps waking there gets on, or only polls."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from azml_dist.regular import read_regular
from azml_dist.verdict.stacks import Frame

_MOST = 1 << 20


class Loop(NamedTuple):
    """The innermost loop around a line."""

    line: int
    gets_on: bool
    """It loops over something, or changes something. `while not os.path.exists(flag): sleep(1)` does neither: it wakes
    again and again, and waits for what may never come."""


def loop_around(frame: Frame, roots: Sequence[str]) -> Loop | None:
    """None where the line is in no loop, or its source cannot be read."""
    for root in ("", *roots):
        inside = [one for one in _loops(os.path.join(root, frame.file)) if one[0] <= frame.line <= one[1]]
        if inside:
            first, _, gets_on = max(inside)
            return Loop(first, gets_on)
    return None


@lru_cache(maxsize=64)
def _loops(path: str) -> list[tuple[int, int, bool]]:
    """The first and the last line of every loop in a file."""
    try:
        tree = ast.parse(read_regular(path, _MOST))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    loops = (one for one in ast.walk(tree) if isinstance(one, ast.For | ast.AsyncFor | ast.While))
    return [(one.lineno, one.end_lineno or one.lineno, _gets_on(one)) for one in loops]


def _gets_on(loop: ast.For | ast.AsyncFor | ast.While) -> bool:
    changes = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr, ast.For)
    return not isinstance(loop, ast.While) or any(isinstance(one, changes) for one in ast.walk(loop))
