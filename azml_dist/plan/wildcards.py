r"""Matches the patterns of an ignore file, in bounded time for any pattern.

A regular expression with many stars tries every way to divide a name among them: `*a*a*a*…` on a name of 200 `a` would
outlast the sun. Python's `re` matches patterns with few stars. With more, we walk along the name and track every
position in the pattern that may have been reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_FEW = 3
"""The most stars that are left to `re`; `*.py` has three, with those for the folders before and after it."""
_REMEMBERED = 10_000
"""How many steps a walk caches."""


class Token(NamedTuple):
    """A piece of a pattern: one character of a class, or any number of them."""

    chars: str
    """As a regular expression: `a`, `.`, `[^/]`."""
    is_repeated: bool = False
    skips: int = 0
    """How many tokens, starting here, may be skipped together."""

    def repeated(self) -> Token:
        """Any number of these characters, including none."""
        return self._replace(is_repeated=True)


def optional(tokens: Sequence[Token]) -> list[Token]:
    """Tokens that are present together, or not at all."""
    first, *others = tokens
    return [first._replace(skips=len(tokens)), *others]


def matcher(tokens: Sequence[Token]) -> Callable[[str], bool]:
    """A function that says whether the tokens match a whole path."""
    regex = re.compile(f"^{_regex(tokens)}$")
    if sum(token.is_repeated for token in tokens) <= _FEW:
        return lambda path: regex.match(path) is not None
    return _Walk(tokens).matches


def _regex(tokens: Sequence[Token]) -> str:
    text, i = "", 0
    while i < len(tokens):
        token = tokens[i]
        if token.skips:
            inside = [token._replace(skips=0), *tokens[i + 1 : i + token.skips]]
            text += f"(?:{_regex(inside)})?"
            i += token.skips
        else:
            text += token.chars + "*" * token.is_repeated
            i += 1
    return text


class _Walk:
    """All positions in a pattern at once, as the bits of a number; each step is computed when it is first taken."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._classes = [re.compile(token.chars) for token in tokens]
        self._steps: dict[tuple[int, str], int] = {}
        self._end = 1 << len(tokens)
        self._start = self._with_skips(1)

    def matches(self, path: str) -> bool:
        places, before_last = self._start, 0
        for char in path:
            before_last, places = places, self._step(places, char)
            if not places and not before_last:
                return False
        # `$` in a regular expression also matches before a final line break.
        return bool(self._end & (places | (before_last if path.endswith("\n") else 0)))

    def _step(self, places: int, char: str) -> int:
        known = self._steps.get((places, char))
        if known is not None:
            return known
        reached = 0
        for i, token in enumerate(self._tokens):
            if places >> i & 1 and self._classes[i].fullmatch(char):
                reached |= 1 << (i if token.is_repeated else i + 1)
        reached = self._with_skips(reached)
        if len(self._steps) >= _REMEMBERED:
            self._steps.clear()
        self._steps[places, char] = reached
        return reached

    def _with_skips(self, places: int) -> int:
        """The positions themselves, and those after the tokens that may be skipped."""
        for i, token in enumerate(self._tokens):
            if places >> i & 1:
                if token.is_repeated:
                    places |= 1 << (i + 1)
                if token.skips:
                    places |= 1 << (i + token.skips)
        return places
