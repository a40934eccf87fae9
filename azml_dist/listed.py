"""What a job's environment installs for Python, as far as its files say all of it.

Read are a conda file, and a Dockerfile over an image whose Python has no packages of interest. What a curated or
registered environment contains is not known here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

from yaml import YAMLError

from azml_dist.errors import JobError
from azml_dist.model.parts import Environment
from azml_dist.notation import argv
from azml_dist.notation.document import data_in
from azml_dist.regular import kind_of
from azml_dist.words import late

_MOST = 1_000_000
"""Bytes of a file of packages that is read."""
REQUIREMENT = late(r"\s*([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*(?:(==?)\s*([\w.+!]+))?")
_PLAIN_IMAGE = late(
    r"(?:mcr\.microsoft\.com/azureml/openmpi|(?:docker\.io/)?(?:library/)?(?:python|ubuntu|debian)[:@]"
    r"|(?:docker\.io/|nvcr\.io/)?nvidia/cuda[:@]|(?:docker\.io/)?continuumio/|mambaorg/|condaforge/)"
)
"""Images whose Python has nothing that a script imports (Dockerfiles: github.com/Azure/AzureML-Containers)."""
_PYTHON_IMAGE = late(r"(?:docker\.io/)?(?:library/)?python:(\d+\.\d+)")
_ASSIGNMENT = late(r"\w+=")
_FROM = late(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)")
_RUN = late(r"(?im)^\s*RUN\s+(.+)")
_INDEX = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")
_WITH_VALUE = frozenset([*_INDEX, "-c", "--constraint", "-t", "--target", "--prefix"])
_OF_CONDA_ALONE = frozenset(["python", "pip", "conda", "mamba", "uv"])
"""What conda installs besides the packages of Python."""


class Listed(NamedTuple):
    """What an environment installs."""

    requirements: tuple[str, ...]
    """For pip, as they are written."""
    conda: tuple[str, ...]
    """For conda, as they are written, without Python itself."""
    python: str | None
    """The version of Python, as `3.11`; None where nothing says it."""
    where: str
    """The name of the file that says so."""


class Unlisted(NamedTuple):
    """An environment whose packages are not all known, and why."""

    why: str


def listed(environment: object) -> Listed | Unlisted:
    """What an environment installs, or why that is not known."""
    if not isinstance(environment, Environment):
        return Unlisted("the packages of a registered environment are not known here")
    if isinstance(environment.conda_file, Mapping):
        return _of_conda(environment.conda_file, "conda_file")
    if environment.conda_file:
        path = Path(environment.conda_file)
        return _of_conda(_yaml(path), path.name)
    if environment.build:
        return _Docker(Path(environment.build.path), environment.build.dockerfile_path or "Dockerfile").listed()
    return Unlisted("the packages of a Docker image are not known here")


def _of_conda(data: Any, where: str) -> Listed | Unlisted:
    dependencies = data.get("dependencies") if isinstance(data, Mapping) else None
    if not isinstance(dependencies, list):
        return Unlisted(f"{where} has no list of dependencies")
    requirements: list[str] = []
    conda: list[str] = []
    for one in dependencies:
        if isinstance(one, str):
            conda.append(one.rpartition("::")[2].strip())
        elif isinstance(one, Mapping) and isinstance(pip := one.get("pip"), list):
            requirements += [str(line).strip() for line in pip]
    if odd := next((line for line in requirements if line.startswith("-")), None):
        return Unlisted(f"{where} has `{odd}`, and Azure ML sends that file alone")
    python = next((match[1] for one in conda if (match := _PYTHON.match(one))), None)
    return Listed(tuple(requirements), tuple(one for one in conda if _name(one) not in _OF_CONDA_ALONE), python, where)


_PYTHON = late(r"python\s*={1,2}\s*(\d+\.\d+)")


def _name(requirement: str) -> str:
    match = REQUIREMENT.match(requirement)
    return plain(match[1]) if match else ""


class _Docker:
    """Reads a Dockerfile and the files of requirements beside it."""

    def __init__(self, folder: Path, dockerfile: str) -> None:
        self._folder, self._dockerfile = folder, dockerfile
        self._requirements: list[str] = []
        self._conda: list[str] = []

    def listed(self) -> Listed | Unlisted:
        text = _text(self._folder / self._dockerfile)
        if text is None:
            return Unlisted(f"{self._dockerfile} cannot be read")
        images = _FROM.findall(text)
        arguments = dict(re.findall(r"(?im)^\s*ARG\s+(\w+)=(\S+)", text))
        image = re.sub(r"\$\{?(\w+)\}?", lambda m: arguments.get(m[1], m[0]), images[0]) if images else ""
        if len(images) != 1 or not _PLAIN_IMAGE.match(image.lower()):
            return Unlisted(f"{self._dockerfile} starts from {image or 'no image'}, whose packages are not known here")
        for run in _RUN.findall(re.sub(r"\\\s*\n", " ", text)):
            for command in argv.commands(run):
                if why := self._installs([word.text for word in command.words]):
                    return Unlisted(f"{self._dockerfile} {why}")
        python = next((match[1] for one in self._conda if (match := _PYTHON.match(one))), None)
        if found := _PYTHON_IMAGE.match(image):
            python = python or found[1]
        conda = tuple(one for one in self._conda if _name(one) not in _OF_CONDA_ALONE)
        return Listed(tuple(self._requirements), conda, python, self._dockerfile)

    def _installs(self, words: list[str]) -> str | None:
        """Take what a command installs for Python; why that is not known."""
        words = [*dropwhile(_ASSIGNMENT.match, words)]
        name = words[0].rsplit("/", 1)[-1] if words else ""
        if name in ("bash", "sh", "poetry"):
            return f"runs `{' '.join(words[:3])}`, which may install anything"
        if name in ("conda", "mamba", "micromamba"):
            if {"-f", "--file"} & {*words} or "env" in words[1:2]:
                return f"runs `{' '.join(words[:3])}` with a file"
            if {"create", "install"} & {*words}:
                self._conda += [word for word in words if "=" in word and not word.startswith("-")]
            return None
        if "install" in words and re.match(r"pip[\d.]*$|python[\d.]*$|uv$", name):
            return self._pip(words[words.index("install") + 1 :])
        return None

    def _pip(self, words: list[str]) -> str | None:
        rest = iter(words)
        for word in rest:
            name, _, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if name in ("-r", "--requirement"):
                if why := self._file(posixpath.basename(value or next(rest, ""))):
                    return why
            elif word.startswith("-"):
                if name in _WITH_VALUE and not value:
                    next(rest, None)
            elif word.startswith((".", "/")):
                return f"installs {word}, a package of its own"
            else:
                self._requirements.append(word)
        return None

    def _file(self, name: str) -> str | None:
        text = _text(self._folder / name)
        if text is None:
            return f"installs {name}, which cannot be read"
        for line in (line.partition("#")[0].strip() for line in text.splitlines()):
            if line.startswith(("-r", "--requirement", "-e", ".")):
                return f"installs {name}, which has `{line}`"
            if line and not line.startswith("-"):
                self._requirements.append(line)
        return None


def plain(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _yaml(path: Path) -> Any:
    text = _text(path)
    try:
        return data_in(text, path.name) if text else None
    except (YAMLError, JobError, ValueError):
        return None


def _text(path: Path) -> str | None:
    try:
        if kind_of(path) != "file" or path.stat().st_size > _MOST:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


class Pins:
    """The names that are listed, and the exact versions of those that have one."""

    def __init__(self, found: Listed) -> None:
        self.where = found.where
        matches = [match for one in (*found.conda, *found.requirements) if (match := REQUIREMENT.match(one))]
        self.versions: dict[str, str | None] = {plain(match[1]): match[4] if match[3] else None for match in matches}
        self.with_extras = frozenset(plain(match[1]) for match in matches if match[2])
        """Those that are listed with some of their extras, as `ray[default]`."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.versions)


def pins_of(environment: object) -> Pins | None:
    """The packages of an environment; None where not all of them are known."""
    found = listed(environment)
    return Pins(found) if isinstance(found, Listed) else None


def other_versions(environment: object) -> list[tuple[str, str, str]]:
    """Packages that are installed here in another version than the environment pins: name, here, there."""
    packages = pins_of(environment)
    if packages is None:
        return []
    import importlib.metadata  # takes 20 ms, for which a job without such an environment need not wait

    found: list[tuple[str, str, str]] = []
    for name, pinned in packages.versions.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if pinned and _public(here) != _public(pinned) and not here.startswith(f"{pinned}."):
            found.append((name, here, pinned))
    return found


def _public(version: str) -> str:
    """A version without its build, such as `+cpu`."""
    return version.partition("+")[0]
