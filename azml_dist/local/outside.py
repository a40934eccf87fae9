"""Modules outside the snapshot, which a local run finds but Azure ML does not have.

A local run uses the packages of this machine. With an editable install, their modules may be in the job's own source
tree: a module that the snapshot leaves out can be imported locally, but is missing on Azure ML.
"""

from __future__ import annotations

import ast
import os
import re
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from azml_dist.plan.snapshot import Snapshot
from azml_dist.words import late

_MARKS_OF_A_PROJECT = (".git", "pyproject.toml", "setup.py", "setup.cfg")
_MAPPING = r"(?m)^MAPPING\b[^=\n]*= (\{.*\})$"
"""Modules and their paths, in the file that setuptools writes for an editable install."""
_IMPORTS = rb"(?m)^[ \t]*(?:import[ \t]+([\w., \t]+)|from[ \t]+(\w[\w.]*)[ \t]+import\b)"
_BY_NAME = rb"""(?m)(?:import_module|__import__)\(\s*["'](\w+)|^\s*-?\s*_target_:\s*["']?(\w+)\."""
_RUN_AS_MODULE = late(r"(?:^|\s)-m\s+(\w+)")
_SCRIPT = late(r"[\w./-]+\.py\b")
_INSTALLS_ITSELF = r"\bpip3?\s+install\b[^;&|\n]*\s(?:-e\b|--editable\b|\.(?:[/\[]\S*)?(?:\s|$))"
"""Few runs need these patterns, so they are not compiled at the start of each."""
_MAX_SIZE = 1 << 20


class _Module(NamedTuple):
    name: str
    path: Path
    brought_by: str


def modules_from_outside(
    code: Snapshot, command: str, variables: Mapping[str, str | None], python: str, python_path: str | None
) -> list[str]:
    """Findings about modules that the code imports from its source tree but that are not in the snapshot.

    `variables` are those of the job; `python_path` is the caller's `PYTHONPATH` if the run keeps it.
    """
    if not code.files or not code.root or re.search(_INSTALLS_ITSELF, command):
        return []
    root = Path(code.root).resolve()
    tree = next((p for p in (root, *root.parents) if any((p / mark).exists() for mark in _MARKS_OF_A_PROJECT)), root)
    found = {module.name: module for module in _modules(python, python_path, root, tree)}
    if not found:
        return []
    files = {file.path: file.source for file in code.files}
    on_path = _folders_on_path(files, command, (variables.get("PYTHONPATH") or "").split(os.pathsep))
    imported = _imported(files, command, found.keys(), on_path)
    return [_told(found[name], root, files) for name in sorted(imported)]


def _told(module: _Module, root: Path, files: Mapping[str, str]) -> str:
    told = f"`{module.name}` comes from {module.path} (through {module.brought_by}), not from the snapshot"
    inside = os.path.relpath(module.path, root).replace(os.sep, "/")
    if any(path == inside or path.startswith(f"{inside}/") for path in files):
        folder = os.path.dirname(inside) or "."
        return (
            f"{told}'s {inside}, which is not on Python's path: add `PYTHONPATH: {folder}` to `environment_variables`"
        )
    return f"{told}: on Azure ML it exists only if the environment installs it; upload it with the code, or install it"


def _modules(python: str, python_path: str | None, root: Path, tree: Path) -> Iterator[_Module]:
    """Modules of the source tree that Python finds without the snapshot."""

    def is_near(place: Path) -> bool:
        return place.is_relative_to(tree) or root.is_relative_to(place)

    for place, brought_by in _places(python, python_path):
        if is_near(place):
            yield from _in_folder(place, brought_by)
    for folder in _site_folders(python):
        for finder in folder.glob("__editable__*_finder.py"):
            for name, path in _mapping(finder).items():
                if is_near(Path(path)):
                    yield _Module(name, Path(path), "an editable install")


def _places(python: str, python_path: str | None) -> Iterator[tuple[Path, str]]:
    """Folders on Python's path other than those of packages."""
    for entry in filter(None, (python_path or "").split(os.pathsep)):
        yield Path(entry).resolve(), "PYTHONPATH"
    for folder in _site_folders(python):
        for file in folder.glob("*.pth"):
            for line in _text(file).splitlines():
                path = folder / line.strip()
                if line.strip() and not line.startswith(("#", "import ", "import\t")) and path.is_dir():
                    is_editable = "editable" in file.name or file.name == "easy-install.pth"
                    yield path.resolve(), "an editable install" if is_editable else file.name


def _site_folders(python: str) -> list[Path]:
    """The package folders of a Python."""
    if os.path.abspath(python) == os.path.abspath(sys.executable):
        return [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    return sorted(Path(os.path.abspath(python)).parent.parent.glob("lib/python3*/*-packages"))


def _in_folder(folder: Path, brought_by: str) -> Iterator[_Module]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name, extension = os.path.splitext(entry.name)
        if name.isidentifier() and (extension == ".py" or (not extension and entry.is_dir())):
            yield _Module(name, folder / entry.name, brought_by)


def _mapping(finder: Path) -> dict[str, str]:
    try:
        found: object = ast.literal_eval(match[1]) if (match := re.search(_MAPPING, _text(finder))) else {}
    except (SyntaxError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {str(name): str(path) for name, path in entries if "." not in str(name)}


def _folders_on_path(files: Mapping[str, str], command: str, python_path: Iterable[str]) -> set[str]:
    """Folders of the snapshot on Python's path: the script's, the working directory, and the job's `PYTHONPATH`."""
    scripts = {os.path.normpath(word) for word in _SCRIPT.findall(command)} & files.keys()
    folders = {os.path.dirname(script) for script in scripts}
    if not scripts or re.search(r"\s-[cm]\s", command):
        folders.add("")
    return folders | {os.path.normpath(entry).removeprefix(".") for entry in python_path if entry}


def _imported(files: Mapping[str, str], command: str, names: Iterable[str], on_path: set[str]) -> set[str]:
    """The names that the command or a file imports, and that Python does not find in the snapshot."""
    names = set(names)
    inside = {os.path.split(name) for path in files for name in _and_its_folders(path.removesuffix(".py"))}
    found = {name for name in _RUN_AS_MODULE.findall(command) if name in names}
    missing = {name for name in found if not any((folder, name) in inside for folder in on_path)}
    for path, source in files.items():
        if path.endswith((".py", ".yaml", ".yml", ".sh")):
            here = {*on_path, os.path.dirname(path)}
            asked = _asked_for(path, source) & names
            missing |= {name for name in asked if not any((folder, name) in inside for folder in here)}
    return missing


def _and_its_folders(path: str) -> Iterator[str]:
    while path:
        yield path
        path = os.path.dirname(path)


def _asked_for(path: str, source: str) -> set[str]:
    """Top-level names of the modules that a file imports, directly or by name."""
    try:
        with open(source, "rb") as file:
            text = file.read(_MAX_SIZE)
    except OSError:
        return set()
    names = {name for match in re.finditer(_BY_NAME, text) for name in match.groups() if name}
    if path.endswith(".py"):
        for match in re.finditer(_IMPORTS, text):
            for name in (match[1] or match[2]).split(b","):
                names.add(name.split(b".")[0].split()[0] if name.split() else b"")
    else:
        names |= {name.encode() for name in _RUN_AS_MODULE.findall(text.decode(errors="replace"))}
    return {name.decode() for name in names if name}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
