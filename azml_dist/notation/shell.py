"""How the shell will read a command: how each expression is quoted, and which launchers it starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile, pairwise
from typing import Literal, NamedTuple

from azml_dist.notation.expressions import KIND_AND_NAME
from azml_dist.words import late

Quoting = Literal["", '"', "'"]

_UNSAFE = late(r"[\s;&|<>()$`\"'\\*?\[\]{}]")
_UNSAFE_IN_DOUBLE = r"\$(?=[\w({*@#?$!-])|[`\"]|\\(?=[$`\"\\\n]|$)"
_ASSIGNMENT = late(r"\w+=")
_SEPARATORS = ";&|()\n"
_BEFORE_COMMENT = " \t\n;&|()"
_TRANSPARENT = frozenset(["exec", "env", "nohup", "time", "command", "then", "do", "else", "!", "{", "sudo"])
_WRAPPERS = frozenset(["timeout", "nice", "ionice", "stdbuf", "numactl", "setsid", "taskset"])
_OF_WRAPPERS = late(r"-.*|\d[\d.,-]*[smhd]?|0x[\da-fA-F]+|(?:SIG)?[A-Z]{3,4}|all")
"""Their options, and the figures, signals and nodes that belong to these."""
_SHELLS = frozenset(["bash", "sh", "dash", "zsh"])
_NESTED = 3
"""How many shells in shells to look into."""
_MPI = frozenset(["mpirun", "mpiexec", "horovodrun", "orterun"])
_PER_NODE = frozenset(["torchrun", "deepspeed"])
_TORCH_MODULES = frozenset(["torch.distributed.run", "torch.distributed.launch", "torch.distributed.launcher"])

_MAY_LAUNCH = late("|".join(sorted([*_MPI, *_PER_NODE, "accelerate", r"torch\W*distributed"])))
"""A command without any of these words needs no further parsing."""


class Placeholder(NamedTuple):
    """An expression in a command, and the quotes around it: none, `"` or `'`."""

    kind: str
    name: str
    quoting: Quoting


class Launcher(NamedTuple):
    """A program in a command that starts more processes of the same run."""

    text: str
    is_mpi: bool
    words: tuple[str, ...] = ()
    """The words of the whole command that starts it, without quotes."""

    def option(self, *names: str) -> str | None:
        """The value of an option, under any of its names; None if it is absent."""
        for word, following in pairwise((*self.words, "")):
            name, equals, value = word.partition("=")
            if name in names:
                return value if equals else following
        return None


def placeholders(command: str) -> Iterator[Placeholder]:
    """Every `${{kind.name}}` in a command with the quotes around it, including those of `$(…)` inside quotes."""
    stack: list[str] = []  # what is open: a quote, or the ")" or "`" that will end a command inside a command
    i = 0
    while i < len(command):
        char, top = command[i], stack[-1] if stack else ""
        if char == "#" and top not in ("'", '"') and (i == 0 or command[i - 1] in _BEFORE_COMMENT):
            i = (command.find("\n", i) + 1) or len(command)
            continue
        if match := KIND_AND_NAME.match(command, i):
            yield Placeholder(match[1], match[2], '"' if top == '"' else "'" if top == "'" else "")
            i = match.end()
            continue
        if char == "\\" and top != "'":
            # Before an expression, it would escape the first character of the value.
            i += not KIND_AND_NAME.match(command, i + 1)
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
    """Why a value would not arrive as one argument in place of an expression in such quotes; None if it would."""
    if quoting == "'":
        return "it contains a ' and is in single quotes" if "'" in value else None
    if quoting == '"':
        found = re.search(_UNSAFE_IN_DOUBLE, value)
        return f"double quotes do not protect a {found[0]}" if found else None
    if not value:
        return "it is empty, so the argument would vanish"
    if value[0] in "#~":
        return f"it starts with a {value[0]}"
    found = _UNSAFE.search(value)
    return f"it contains {_NAMES.get(found[0], 'a ' + found[0])} and is not in quotes" if found else None


_NAMES = {" ": "a space", "\n": "a line break", "\t": "a tab", "\r": "a carriage return"}


class Line(NamedTuple):
    """A line of a command as bash reads it: together with the lines that continue it."""

    number: int
    """The number of its first line, from 1."""
    text: str

    @property
    def may_fail(self) -> bool:
        """Whether it can fail without anything that handles the failure."""
        word = self.text.split(maxsplit=1)[0]
        only_writes = word == "cat" and "<<" in self.text
        harmless = word in _HARMLESS or only_writes or _FUNCTION.match(self.text) or _ASSIGNMENT.match(word)
        return not harmless and "||" not in self.text and not self.text.endswith("&")

    @property
    def stops_at_failures(self) -> bool:
        """Whether bash stops at the first failure from here on, or another program takes over."""
        return bool(re.match(_SET_E, self.text)) or self.text.startswith(("exec ", "trap "))

    @property
    def commands(self) -> list[Line]:
        """Those that `;` separates; a line with a loop, a condition or a group counts as one."""
        if ";" not in self.text or _COMPOUND.search(self.text):
            return [self]
        found, text = [], ""
        for part in self.text.split(";"):
            text += f";{part}" if text else part
            if _open_quote(text, "") or text.endswith("\\"):
                continue
            found.append(Line(self.number, text.strip()))
            text = ""
        return [*(one for one in found if one.text), *([Line(self.number, text.strip())] if text.strip() else [])]

    @property
    def into_tee(self) -> str | None:
        """The command with a script whose output goes to `tee`, which hides how it ended."""
        found = re.fullmatch(r"(?:.*&&)?([^|&]*?(?:2>&1\s*)?)\|&?\s*tee\s[^|;]*", self.text, re.DOTALL)
        return found[1].strip() if found and script_in(found[1]) else None


_FUNCTION = late(r"(?:function\s+)?[\w-]+\s*\(\)\s*\{.*\}$")
_SET_E = r"set\s+(?:\S+\s+)*(?:-[a-z]*e[a-z]*|-o\s+errexit)\b|set\s+-[a-z]*o\s+errexit\b"
_HARMLESS = frozenset(
    [
        *("echo", "printf", "export", "set", "unset", "env", "printenv", "ls", "pwd", "date", "nvidia-smi", ":"),
        *(
            "exit",
            "return",
            "break",
            "continue",
            "true",
            "sleep",
            "ulimit",
            "which",
            "df",
            "free",
            "hostname",
            "wait",
            "function",
            "{",
            "}",
            "(",
            ")",
        ),
        *("if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac"),
    ]
)
_CONTINUES = late(r"(?:(?:&&|\|\|?)\s*|\\)$")
_COMPOUND = late(r"(?:^|[;&|]\s*)(?:if|for|while|until|case|select|function)\s|[({`]|;;")
_HERE_DOCUMENT = late(r"<<-?\s*['\"]?(\w+)['\"]?")


def lines(command: str) -> Iterator[Line]:
    """The lines of a command, each with those that continue it, but without comments and here-documents."""
    start, text, quote, end = 0, "", "", ""
    for number, raw in enumerate(command.split("\n"), 1):
        if end:
            end = "" if raw.strip() == end else end
            continue
        if not text and (not raw.strip() or raw.lstrip().startswith("#")):
            continue
        start = start if text else number
        text += f" {raw.strip()}" if text else raw.strip()
        quote = _open_quote(raw, quote)
        if quote or _CONTINUES.search(raw):
            text = text.removesuffix("\\").rstrip()
            continue
        if found := _HERE_DOCUMENT.search(raw):
            end = found[1]
        yield Line(start, text)
        text = ""
    if text:
        yield Line(start, text)


def _open_quote(line: str, quote: str) -> str:
    """The quote that is open at the end of a line; `quote` was open at its start."""
    i = 0
    while i < len(line):
        char = line[i]
        if char == "\\" and quote != "'":
            i += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and char == "#" and (i == 0 or line[i - 1] in _BEFORE_COMMENT):
            break
        i += 1
    return quote


def launchers(command: str, nested: int = _NESTED) -> Iterator[Launcher]:
    """The launchers that a command starts: only program names count, not arguments or file names."""
    if not _MAY_LAUNCH.search(command):
        return
    for words in programs(command, nested):
        if found := _launcher(words):
            yield found._replace(words=tuple(words))


def programs(command: str, nested: int = _NESTED) -> Iterator[list[str]]:
    """The words of each program that a command starts, those in `bash -c "…"` included."""
    for words in _simple_commands(command):
        rest = _program(words)
        if rest:
            yield rest
        if nested and rest and (text := _of_shell(rest)):
            yield from programs(text, nested - 1)


def _program(words: list[str]) -> list[str]:
    """A command from its program on, without what only changes how it starts: `A=1 timeout 60 torchrun ...`."""
    while words:
        if words[0] in _WRAPPERS:
            words = [*dropwhile(_OF_WRAPPERS.fullmatch, words[1:])]
        elif words[0] in _TRANSPARENT or _ASSIGNMENT.match(words[0]):
            words = words[1:]
        else:
            break
    return words


def _of_shell(words: list[str]) -> str | None:
    """What `bash -c` and the like run."""
    if words[0].rsplit("/", 1)[-1] not in _SHELLS:
        return None
    runs, rest = False, iter(words[1:])
    for word in rest:
        if not word.startswith(("-", "+")):
            return word if runs else None
        letters = "" if word.startswith("--") else word[1:]
        runs = runs or "c" in letters
        if letters.endswith(("o", "O")):
            next(rest, None)  # `-euo pipefail`
    return None


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
    """The words of each command between `;`, `&&`, `|` and line ends, without quotes."""
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
        pass  # an unclosed quote, which bash will report, or a here-document, which it reads in its own way
    yield words


def script_in(command: str) -> str | None:
    """The script that a command seems to start: the first of Python or a shell, or module of Python, in it."""
    found = re.search(_SCRIPT, command)
    return found and (found["file"] or found["module"] or found["quoted"])


_SCRIPT = (
    r"""(?:^|[\s;&|("'=])(?:(?!\S*\bsetup\.py)(?P<file>[\w./+-]*\w\.(?:py|sh))(?=$|[\s;&|)"'])"""
    r"""|\b(?:python[\d.]*|torchrun|bash|sh)[ \t]+(?:-(?!\w*c\b)\S+[ \t]+)*"""
    r"""(?P<quote>["'])(?P<quoted>[^"'\n;&|]*\.(?:py|sh))(?P=quote)"""
    r"""|(?:-m|--module)\s+(?!(?:torch\.distributed|accelerate|pip|deepspeed|venv|debugpy)\b)(?P<module>[A-Za-z_][\w.]*))"""
)
"""A script in a command; in quotes, it may have spaces.

Launchers that are modules, and what installs packages, are not what a run is about.
"""
