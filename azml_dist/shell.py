"""What the shell will make of a command: how each expression in it is quoted, and which launchers it starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

Quoting = Literal["", '"', "'"]

_EXPRESSION = re.compile(r"\$\{\{\s*(\w+)\.(\w+)\s*\}\}")
_UNSAFE = re.compile(r"[\s;&|<>()$`\"'\\*?\[\]{}]")
_UNSAFE_IN_DOUBLE = re.compile(r"\$(?=[\w({*@#?$!-])|[`\"]|\\(?=[$`\"\\\n]|$)")
_ASSIGNMENT = re.compile(r"\w+=")
_SEPARATORS = ";&|()\n"
_BEFORE_COMMENT = " \t\n;&|()"
_TRANSPARENT = frozenset(["exec", "env", "nohup", "time", "command", "then", "do", "else", "!", "{", "sudo"])
_MPI = frozenset(["mpirun", "mpiexec", "horovodrun", "orterun"])
_PER_NODE = frozenset(["torchrun", "deepspeed"])
_TORCH_MODULES = frozenset(["torch.distributed.run", "torch.distributed.launch", "torch.distributed.launcher"])

_MAY_LAUNCH = re.compile("|".join(sorted([*_MPI, *_PER_NODE, "accelerate", r"torch\W*distributed"])))
"""Without one of these words a command need not be taken apart."""


class Placeholder(NamedTuple):
    """An expression in a command, and the quotes it stands in: none, `"` or `'`."""

    kind: str
    name: str
    quoting: Quoting


class Launcher(NamedTuple):
    """A program in a command that starts further processes of the same world."""

    text: str
    is_mpi: bool
    words: tuple[str, ...] = ()
    """The whole command that starts it, without its quotes."""

    def option(self, *names: str) -> str | None:
        """The value of an option, under any of its names; None where it is not given."""
        for word, following in pairwise((*self.words, "")):
            name, equals, value = word.partition("=")
            if name in names:
                return value if equals else following
        return None


def placeholders(command: str) -> Iterator[Placeholder]:
    """Every `${{kind.name}}` of a command with the quotes around it, those in `$(…)` inside quotes included."""
    stack: list[str] = []  # what is open: a quote, or the ")" or "`" that ends a command inside a command
    i = 0
    while i < len(command):
        char, top = command[i], stack[-1] if stack else ""
        if char == "#" and top not in ("'", '"') and (i == 0 or command[i - 1] in _BEFORE_COMMENT):
            i = (command.find("\n", i) + 1) or len(command)
            continue
        if match := _EXPRESSION.match(command, i):
            yield Placeholder(match[1], match[2], '"' if top == '"' else "'" if top == "'" else "")
            i = match.end()
            continue
        if char == "\\" and top != "'":
            # Before an expression it escapes one character of the value, whichever that will be.
            i += not _EXPRESSION.match(command, i + 1)
        elif char == top:
            stack.pop()
        elif top == "'":
            pass
        elif command.startswith("$(", i):
            stack.append(")")
            i += 1
        elif char in '"`' or (char == "'" and top != '"') or (char == "(" and top == ")"):
            stack.append(")" if char == "(" else char)
        i += 1


def broken_by(value: str, quoting: str) -> str | None:
    """Why a text does not arrive as one argument when it stands for an expression in such quotes; None if it does."""
    if quoting == "'":
        return "it has a ' in it, and stands in single quotes" if "'" in value else None
    if quoting == '"':
        found = _UNSAFE_IN_DOUBLE.search(value)
        return f"double quotes do not protect a {found[0]}" if found else None
    if not value:
        return "it is empty, and the argument would vanish"
    if value[0] in "#~":
        return f"it begins with a {value[0]}"
    found = _UNSAFE.search(value)
    return f"it has {_NAMES.get(found[0], 'a ' + found[0])} in it, and stands without quotes" if found else None


_NAMES = {" ": "a space", "\n": "a line break", "\t": "a tab", "\r": "a carriage return"}


def launchers(command: str) -> Iterator[Launcher]:
    """The launchers that a command starts: where a command stands, not in an argument or a file's name."""
    if not _MAY_LAUNCH.search(command):
        return
    for words in _simple_commands(command):
        rest = words
        while rest and (rest[0] in _TRANSPARENT or _ASSIGNMENT.match(rest[0])):
            rest = rest[1:]
        if rest and (found := _launcher(rest)):
            yield found._replace(words=tuple(rest))


def _launcher(words: list[str]) -> Launcher | None:
    program = words[0].rsplit("/", 1)[-1]
    second = words[1] if len(words) > 1 else ""
    if program in _MPI:
        return Launcher(program, True)
    if program in _PER_NODE:
        return Launcher(program, False)
    if program == "accelerate" and second == "launch":
        return Launcher("accelerate launch", False)
    if re.fullmatch(r"python[\d.]*", program):
        module = next((b for a, b in pairwise(words) if a == "-m"), "")
        script = next((i for i, word in enumerate(words[1:], 1) if not word.startswith("-")), len(words))
        at = words.index("-m") if "-m" in words else len(words)
        if at < script and (module in _TORCH_MODULES or module == "accelerate.commands.launch"):
            return Launcher(f"{program} -m {module}", False)
    return None


def _simple_commands(command: str) -> Iterator[list[str]]:
    """The words of each command between `;`, `&&`, `|` and line ends, without their quotes."""
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=_SEPARATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    try:
        for token in lexer:
            if token and set(token) <= set(_SEPARATORS):
                yield words
                words = []
            else:
                words.append(token)
    except ValueError:
        pass  # a quote that is not closed, or a here-document: bash will say so, or has its own way with it
    yield words
