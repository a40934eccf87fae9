"""Finds the Python script that a command starts: its folder, its arguments and its launcher."""

from __future__ import annotations

import os.path
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from azml_dist.notation import argv
from azml_dist.notation.argv import Command, Word
from azml_dist.regular import kind_of
from azml_dist.words import late

MAX_SHELL_SCRIPT = 200_000
"""The longest shell script that is read, in characters."""
_DEEPEST = 3
"""How deep shell scripts may call each other."""

_PYTHON = late(r"(?:.*/)?python[\d.]*t?$")
_ASSIGNMENT = late(r"(\w+)=")
_SHELLS = frozenset(["bash", "sh", "source", ".", "dash", "zsh"])
_LAUNCHERS = frozenset(["torchrun", "deepspeed", "accelerate", "mpirun", "mpiexec", "horovodrun", "orterun"])
_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torch.distributed.launch",
    "torch.distributed.launcher": "torchrun",
    "accelerate.commands.launch": "accelerate",
    "deepspeed.launcher.runner": "deepspeed",
}
_WRAPPERS = frozenset(
    [
        *("exec", "env", "nohup", "time", "command", "sudo", "numactl", "timeout", "stdbuf", "nice", "ionice"),
        *("xvfb-run", "uv", "poetry", "conda", "pipenv", "micromamba", "mamba", "pixi", "hatch", "pdm", "rye"),
        *("catchsegv", "nsys", "ncu", "taskset"),
    ]
)
_WITH_VALUE = frozenset(["-X", "-W", "--check-hash-based-pycs"])
"""Options of the interpreter that use the next word as their value."""
_OF_UV_WITH_VALUE = frozenset(
    [
        *("--with", "--with-editable", "--with-requirements", "--python", "-p", "--extra", "--group", "--only-group"),
        *(
            "--no-group",
            "--package",
            "--project",
            "--directory",
            "--env-file",
            "--index",
            "--index-url",
            "--refresh-package",
        ),
        *("--default-index", "--extra-index-url", "--find-links", "-f", "--cache-dir", "--config-file", "--no-extra"),
    ]
)


class Entry(NamedTuple):
    """A Python script that a command starts."""

    path: str
    """The path of the script inside the code folder, with `/`; it may not exist."""
    arguments: tuple[Word, ...]
    launcher: str | None
    """`torchrun`, `deepspeed`, `accelerate`, `mpirun`, …; None if Python is started directly."""
    certain: bool
    """Whether the command always reaches it."""
    set: frozenset[str]
    """The variables that the command sets, or may set, before it."""
    plain: bool
    """Whether the command does nothing but start this script."""
    fetches: bool = False
    """Whether something in the command may create it before it starts."""
    is_module: bool = False
    """Whether it is started with `-m`: imports are then relative to the working directory."""
    folder: str = ""
    """The working directory, inside the code folder."""
    root: str | None = None
    """For `-m`: the folder in PYTHONPATH that has the module, if it is not the working directory."""


def entries(command: str, files: Mapping[str, str]) -> list[Entry]:
    """Every script that a command starts; `files` maps each file of the code to its local path."""
    reader = _Reader(files)
    found = list(reader.read(command, "", ()))
    alone = len(found) == 1 and reader.count == 1
    return [
        entry._replace(plain=alone, fetches=_is_fetched(entry, command), set=frozenset(reader.set)) for entry in found
    ]


def with_windows_lines(command: str, files: Mapping[str, str]) -> list[str]:
    """The shell scripts that a command starts whose lines end as on Windows."""
    reader = _Reader(files)
    for _ in reader.read(command, "", ()):
        pass
    return reader.with_windows_lines


def _is_fetched(entry: Entry, command: str) -> bool:
    """Whether something in the command may create the script before it starts."""
    before, name, _ = command.partition(posixpath.basename(entry.path))
    return bool(_FETCHES.search(before if name else command))


_FETCHES = late(
    r"\b(?:git|unzip|tar|wget|curl|cp|mv|ln|rsync|azcopy|aws|gsutil|gcloud|az|cat|tee|sed|jupytext|nbconvert|papermill|make"
    r"|patch|7z|gunzip|hf|huggingface-cli|dvc|protoc|oras|scp)\b|>"
)


class _Reader:
    """Reads a command, and the shell scripts that it starts."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self.set: set[str] = set()
        self._paths: list[str] = []
        """The folders in PYTHONPATH, as far as the command sets it."""
        self.count = 0
        """How many simple commands it has read."""
        self.with_windows_lines: list[str] = []

    def read(self, text: str, folder: str | None, arguments: Sequence[Word], deep: int = 0) -> Iterator[Entry]:
        self.set |= set(re.findall(r"\b([A-Z_][A-Z0-9_]*)=", text))
        back: list[str | None] = []
        outside: list[str | None] = []
        has_functions = re.search(r"\w\s*\(\)\s*\{|\bfunction\s", text) is not None
        for command in argv.commands(text):
            self.count += 1
            while len(outside) < command.depth:
                outside.append(folder)
            while len(outside) > command.depth:
                folder = outside.pop()
            words = [*command.words] if has_functions else _given(command.words, arguments)
            while words and (match := _ASSIGNMENT.match(words[0].text)):
                self.set.add(match[1])
                self._look_also_in(words[0].text)
                words = words[1:]
            for word in words[1:] if words and words[0].text == "export" else ():
                self._look_also_in(word.text)
            if not words:
                continue
            if words[0].text in ("cd", "pushd", "popd"):
                folder = _changed(folder, words, back)
                continue
            if folder is None or _starts_elsewhere(words):
                continue
            if inner := _shell_text(words):
                self.count -= 1
                if deep < _DEEPEST:
                    for entry in self.read(inner, folder, (), deep + 1):
                        yield entry._replace(certain=entry.certain and command.certain)
                continue
            if script := self._shell_script(words, folder):
                if script[0] not in self._files:
                    yield Entry(script[0], tuple(script[1]), None, command.certain, frozenset(), False, folder=folder)
                elif deep < _DEEPEST and (inner := self._text(script[0])):
                    for entry in self.read(inner, folder, script[1], deep + 1):
                        yield entry._replace(certain=entry.certain and command.certain)
            elif found := self._python(words, folder, Command(tuple(words), command.certain)):
                yield found

    def _look_also_in(self, assignment: str) -> None:
        """Note the folders of the code in `PYTHONPATH=src:$PYTHONPATH`."""
        name, _, value = assignment.partition("=")
        if name == "PYTHONPATH":
            folders = (re.sub(r"^(?:\$PWD|\$\{PWD\}|\$\(pwd\)|`pwd`)(?:/|$)", "./", one) for one in value.split(":"))
            self._paths += [one for one in folders if one and "$" not in one]

    def _shell_script(self, words: Sequence[Word], folder: str) -> tuple[str, Sequence[Word]] | None:
        """The shell script that a command starts, whether it is there or not, and its arguments."""
        rest = [*words]
        while rest and rest[0].text in _WRAPPERS:
            rest = rest[1:]
        if rest and rest[0].text.rsplit("/", 1)[-1] in _SHELLS:
            rest = rest[1:]
            while rest and rest[0].text.startswith("-"):
                if "c" in rest[0].text[1:]:
                    return None
                rest = rest[1:]
        elif not rest or not rest[0].text.endswith(".sh"):
            return None
        path = _joined(folder, rest[0]) if rest else None
        return (path, rest[1:]) if path and (path in self._files or path.endswith(".sh")) else None

    def _text(self, path: str) -> str | None:
        source = self._files[path]
        if kind_of(source) != "file" or os.path.getsize(source) > MAX_SHELL_SCRIPT:
            return None
        try:
            with open(source, encoding="utf-8", newline="") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            return None
        self.with_windows_lines += [path] if "\r\n" in text else []
        return text.replace("\r\n", "\n")

    def _python(self, words: Sequence[Word], folder: str, command: Command) -> Entry | None:
        """The script that a command starts, by Python itself or through launchers."""
        launcher: str | None = None
        at = _program(words)
        if at is None and words[0].text.startswith(("./", "../")) and words[0].text.endswith(".py"):
            return self._entry(words, folder, None, command.certain)
        if at is None:
            return self._of_uv(words, folder, command.certain)
        name = words[at].text.rsplit("/", 1)[-1]
        rest = words[at + 1 :]
        if name in _LAUNCHERS:
            launcher = name
            if inner := _program(rest, _PYTHON):
                return (found := self._python(rest[inner:], folder, command)) and found._replace(launcher=launcher)
            if rest and (inner == 0):
                return (found := self._python(rest, folder, command)) and found._replace(launcher=launcher)
            return self._started(rest, folder, launcher, command.certain)
        i = 0
        while i < len(rest) and rest[i].text.startswith("-"):
            if rest[i].text == "-m" and i + 1 < len(rest):
                module = rest[i + 1].text
                if module in _MODULES:
                    return self._started(rest[i + 2 :], folder, _MODULES[module], command.certain)
                return self._module(module, rest[i + 2 :], folder, None, command.certain)
            if rest[i].text in ("-c", "-", "-h", "-V", "--version", "--help"):
                return None
            i += 2 if rest[i].text in _WITH_VALUE else 1
        return self._entry(rest[i:], folder, None, command.certain)

    def _of_uv(self, words: Sequence[Word], folder: str, certain: bool) -> Entry | None:
        """The script of `uv run train.py` and `uv run -m pkg.train`."""
        if [word.text for word in words[:2]] != ["uv", "run"]:
            return None
        rest = [*words[2:]]
        while rest and rest[0].text.startswith("-") and rest[0].text not in ("-m", "--module"):
            rest = rest[2:] if rest[0].text in _OF_UV_WITH_VALUE else rest[1:]
        is_script = bool(rest) and (rest[0].text.endswith(".py") or rest[0].text in ("-m", "--module"))
        return self._started(rest, folder, None, certain) if is_script else None

    def _started(self, words: Sequence[Word], folder: str, launcher: str | None, certain: bool) -> Entry | None:
        """The script among the words after a launcher; the launcher's own options come first."""
        for i, word in enumerate(words):
            if word.text in ("-m", "--module") and i + 1 < len(words):
                following = next((j for j in range(i + 1, len(words)) if not words[j].text.startswith("-")), i + 1)
                return self._module(words[following].text, words[following + 1 :], folder, launcher, certain)
            if not word.text.startswith("-") and (word.text.endswith(".py") or self._starts_by_folder(folder, word)):
                return self._entry(words[i:], folder, launcher, certain)
        return None

    def _starts_by_folder(self, folder: str, word: Word) -> bool:
        """Whether a word is a folder of the code that Python starts: one with a `__main__.py`."""
        path = _joined(folder, word)
        return path is not None and posixpath.join(path, "__main__.py") in self._files

    def _module(
        self, name: str, arguments: Sequence[Word], folder: str, launcher: str | None, certain: bool
    ) -> Entry | None:
        file = name.replace(".", "/")
        missing = Entry(
            posixpath.join(folder, f"{file}.py"), tuple(arguments), launcher, certain, frozenset(), False, False, True
        )._replace(folder=folder)
        for root in (folder, *(posixpath.normpath(posixpath.join(folder, one)) for one in self._paths)):
            start = "" if root == "." else root
            places = [posixpath.join(start, f"{file}.py"), posixpath.join(start, file, "__main__.py")]
            for path in reversed(places) if self._is_package(posixpath.join(start, file)) else places:
                if path in self._files:
                    return missing._replace(path=path, root=start)
        if self._is_package(package := posixpath.join(folder, file)):
            return missing._replace(path=f"{package}/__main__.py")
        # None that is installed is a package of the code.
        is_own = "." in name and self._is_package(posixpath.join(folder, name.split(".")[0]))
        return missing if is_own else None

    def _is_folder(self, path: str) -> bool:
        return any(one.startswith(f"{path}/") for one in self._files)

    def _is_package(self, folder: str) -> bool:
        return f"{folder}/__init__.py" in self._files

    def _entry(self, words: Sequence[Word], folder: str, launcher: str | None, certain: bool) -> Entry | None:
        if not words or not words[0].known:
            return None
        path = _joined(folder, words[0])
        if path is not None and (not path or self._is_folder(path)):
            path = posixpath.join(path, "__main__.py")
        elif not path or (not words[0].text.endswith(".py") and path in self._files):
            return None  # such as an archive, which is not read here
        return Entry(path, tuple(words[1:]), launcher, certain, frozenset(), False, False, False, folder)


def _shell_text(words: Sequence[Word]) -> str | None:
    """The text that `bash -c TEXT` runs, if it is known; an unknown input in it stays unknown."""
    rest = [*words]
    while rest and rest[0].text in _WRAPPERS:
        rest = rest[1:]
    if not rest or rest[0].text.rsplit("/", 1)[-1] not in _SHELLS - {"source", "."}:
        return None
    options = list(takewhile(lambda word: word.text[:1] in ("-", "+") or word.text == "pipefail", rest[1:]))
    if not options or not any(re.fullmatch(r"-\w*c", word.text) for word in options):
        return None
    following = rest[1 + len(options) :]
    is_whole = len(following) == 1 and following[0].single and (following[0].known or "$" not in following[0].text)
    return following[0].text if is_whole else None


def _program(words: Sequence[Word], pattern: re.Pattern[str] | None = None) -> int | None:
    """Which word is Python or a launcher as the program; behind wrappers, it may be any of the first words."""
    wrapped = pattern is not None
    for i, word in enumerate(words):
        name = word.text.rsplit("/", 1)[-1]
        if _PYTHON.match(word.text) or (name in _LAUNCHERS and pattern is None):
            return i
        if not wrapped and name not in _WRAPPERS:
            return None
        wrapped = True
        if word.text.endswith(".py"):
            return None
    return None


def _joined(folder: str | None, word: Word) -> str | None:
    """A path inside the code folder; None if it is unknown or outside."""
    if folder is None or not word.known or not word.single:
        return None
    path = posixpath.normpath(posixpath.join(folder, word.text))
    return None if path.startswith(("/", "..")) else "" if path == "." else path


def _starts_elsewhere(words: Sequence[Word]) -> bool:
    """Whether a wrapper changes the working directory: `env -C src`, `uv run --directory src`."""
    if words[0].text not in _WRAPPERS:
        return False
    before = takewhile(lambda word: not (_PYTHON.match(word.text) or word.text.endswith((".py", ".sh"))), words)
    return any(re.match(r"-C|--(?:chdir|directory|cwd)\b", word.text) for word in before)


def _changed(folder: str | None, words: Sequence[Word], back: list[str | None]) -> str | None:
    """The working directory after `cd`, `pushd` or `popd`, if known; `back` has those to which `popd` goes back."""
    if words[0].text == "popd":
        return back.pop() if back else None
    back += [folder] if words[0].text == "pushd" else []
    return _joined(folder, words[1]) if len(words) == 2 and words[1].text != "-" else None


def _given(words: Sequence[Word], arguments: Sequence[Word]) -> list[Word]:
    """The words of a command in a shell script, with `$1` and `"$@"` replaced by the arguments of the script."""
    given: list[Word] = []
    for word in words:
        if word.text in ("$@", "$*", "${@}"):
            given += arguments
        elif match := re.fullmatch(r"\$\{?(\d)\}?", word.text):
            number = int(match[1])
            given.append(arguments[number - 1] if 0 < number <= len(arguments) else word)
        else:
            given.append(word)
    return given


def quoted(words: Sequence[Word]) -> str:
    """Words as a person would type them."""
    return " ".join(word.text if not word.known else shlex.quote(word.text) for word in words)
