"""The commands in a shell text, word by word, and what is known about each word before a shell runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

UNKNOWN = "\0"
"""Placeholder for a value that is known only when the run starts, such as the path of an input."""

_SEPARATORS = frozenset(";&|()\n")
_CONTROL = frozenset(["if", "for", "while", "until", "case", "function", "[", "[[", "test", "exit", "return", "trap"])
_TRANSPARENT = frozenset(["then", "do", "else", "elif", "!", "{", "}", "fi", "done", "esac", *_CONTROL])
_SEVERAL = re.compile(r"\$@|\$\{(?:@|\w+\[@\]).*\}", re.DOTALL)
"""What becomes any number of words even in quotes."""
_REDIRECTION = re.compile(r"\d*(?:>>|>\||>&|<&|<<<|<>|>|<|&>>|&>)")


class Word(NamedTuple):
    """One word of a command, without quotes."""

    text: str
    known: bool = True
    """Whether the text is final; otherwise it contains a variable or an unknown input."""
    single: bool = True
    """Whether it is certainly one word; an unquoted variable or wildcard may become none or several."""


class Command(NamedTuple):
    """A simple command: what is between `;`, `&&`, `|` and line ends."""

    words: tuple[Word, ...]
    certain: bool
    """Whether bash always reaches it: nothing before it branches, loops or exits."""
    depth: int = 0
    """How many subshells it is in: `( … )`."""


def commands(text: str) -> Iterator[Command]:
    """The simple commands of a text in order, without redirections, comments and here-documents."""
    certain, depth = True, 0
    for words, separator in _split(text):
        plain = [word.text for word in words]
        if _CONTROL & set(plain[:1]) or separator.startswith(("||", "()")):
            certain = False
        while words and words[0].known and words[0].text in _TRANSPARENT:
            words = words[1:]
        if words:
            yield Command(tuple(words), certain, depth)
        depth = max(0, depth + separator.count("(") - separator.count(")"))


def _split(text: str) -> Iterator[tuple[list[Word], str]]:
    """The words of each command, and the separator after it."""
    reader = _Reader(text)
    words: list[Word] = []
    while not reader.at_end:
        if separator := reader.separator():
            yield words, separator
            words = []
        elif reader.redirection():
            reader.blanks()
            if not reader.at_end and not reader.separator():
                reader.word()
        elif word := reader.word():
            words.append(word)
        reader.blanks()
    yield words, ""


class _Reader:
    """A position in a text that advances as the text is read."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text.replace("\\\n", " "), 0
        self.blanks()

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def blanks(self) -> None:
        while not self.at_end and self._text[self._at] in " \t\r":
            self._at += 1
        if not self.at_end and self._text[self._at] == "#":
            end = self._text.find("\n", self._at)
            self._at = end if end >= 0 else len(self._text)

    def separator(self) -> str:
        start = self._at
        if _REDIRECTION.match(self._text, self._at):
            return ""  # `&>` is not a separator
        while not self.at_end and self._text[self._at] in _SEPARATORS:
            self._at += 1
        return self._text[start : self._at]

    def redirection(self) -> bool:
        if match := _REDIRECTION.match(self._text, self._at):
            self._at = match.end()
            return True
        return False

    def word(self) -> Word:
        parts: list[str] = []
        known = single = True
        quote = ""
        while not self.at_end:
            char = self._text[self._at]
            if not quote and (char in " \t\r<>" or char in _SEPARATORS):
                break
            if char == "\\" and quote != "'":
                self._at += 1
                parts.append(self._text[self._at : self._at + 1])
            elif char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            elif char in "$`" and quote != "'":
                parts.append(self._substitution())
                known, single = False, single and bool(quote) and not _SEVERAL.fullmatch(parts[-1])
                continue
            else:
                known = known and char != UNKNOWN
                single = single and (bool(quote) or char not in "*?[{")
                parts.append(char)
            self._at += 1
        return Word("".join(parts), known, single)

    def _substitution(self) -> str:
        """A `$X`, `${X}`, `$(…)` or backquoted command, unchanged."""
        start, opener = self._at, self._text[self._at : self._at + 2]
        if opener[0] == "`":
            end = self._text.find("`", start + 1)
            self._at = end + 1 if end >= 0 else len(self._text)
        elif opener in ("$(", "${"):
            self._at = _closing(self._text, start + 1) + 1
        else:
            self._at += 1
            while not self.at_end and (self._text[self._at].isalnum() or self._text[self._at] in "_@*#?"):
                self._at += 1
        return self._text[start : self._at]


def _closing(text: str, opening: int) -> int:
    """Where the bracket that opens there is closed; the end of the text if it never is."""
    pair = {"(": ")", "{": "}"}
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == text[opening]:
            depth += 1
        elif text[at] == pair[text[opening]]:
            depth -= 1
            if not depth:
                return at
    return len(text)
