"""What a run reads, writes and gets, from its `plan.json` and its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from azml_dist.page.sheet import Output, Pairs
from azml_dist.regular import read_regular
from azml_dist.verdict.hidden import hide, secret_values
from azml_dist.words import plural, size_text

_PLAN = 64_000_000
_MOST = 200
"""How many files of an output are listed."""
_WALKED = 20_000
_LONGEST = 400


def plan_of(folder: Path) -> dict[str, Any]:
    """`plan.json`; empty if it cannot be read."""
    try:
        found = json.loads(read_regular(folder / "plan.json", _PLAN))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def mapping(value: Any, *names: str) -> dict[str, Any]:
    """A part of a plan; empty if it is not there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def environments(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """The variables of each process."""
    processes = plan.get("processes")
    found = [mapping(one, "env") for one in processes] if isinstance(processes, list) else []
    return [{name: value for name, value in one.items() if isinstance(value, str)} for one in found]


def secrets_of(found: Sequence[Mapping[str, str]]) -> list[str]:
    """Values of variables that must not be shown."""
    return list(dict.fromkeys(value for one in found for value in secret_values(one)))


def variables(found: Sequence[Mapping[str, str]], secrets: Sequence[str]) -> list[tuple[str, str]]:
    """Each variable with its value; if the processes have several values, some of them."""
    names = dict.fromkeys(name for one in found for name in one)
    return [(name, _value([one.get(name) for one in found], secrets)) for name in names]


def _value(values: Sequence[str | None], secrets: Sequence[str]) -> str:
    different = list(dict.fromkeys(values))
    shown = [_short("not set" if one is None else one, secrets) for one in different[:8]]
    more = f", and {plural(len(different) - 8, 'more value')}" if len(different) > 8 else ""
    return ", ".join(shown) + more if len(different) > 1 else shown[0]


def _short(text: str, secrets: Sequence[str]) -> str:
    found = "***" if text in secrets else hide(text, secrets)
    return found if len(found) <= _LONGEST else f"{found[:_LONGEST]}…"


def inputs(plan: Mapping[str, Any], environment: Mapping[str, str], secrets: Sequence[str]) -> Pairs:
    """Each input: its value, or where its data is on this machine."""
    found = []
    for name, one in mapping(plan, "request", "properties", "inputs").items():
        value = one.get("value") if isinstance(one, dict) else None
        given = value if value is not None else one.get("uri") if isinstance(one, dict) else None
        here = environment.get(f"AZURE_ML_INPUT_{name}")
        words = " ← ".join(str(part) for part in dict.fromkeys((here, given)) if part is not None)
        found.append((name, _short(words or "no value", secrets)))
    return found


def outputs(paths: Mapping[str, Path]) -> list[Output]:
    """The files of each output."""
    found = []
    for name, path in paths.items():
        files = list(_walk(path))
        listed = [
            {"name": file.relative_to(path).as_posix() or file.name, "href": address_of(file), "size": size_text(size)}
            for file, size in files[:_MOST]
        ]
        told = f"{plural(len(files), 'file')}, {size_text(sum(size for _, size in files))}" if files else "no files"
        told += f"; the first {_MOST} are listed" if len(files) > _MOST else ""
        found.append(Output(name, str(path), address_of(path), told, listed))
    return found


def address_of(path: Path) -> str:
    """The address of a file for a browser."""
    return Path(os.path.abspath(path)).as_uri()


def _walk(path: Path) -> Iterator[tuple[Path, int]]:
    """The files below a folder, without links; at most as many as are counted."""
    if path.is_file() and not path.is_symlink():
        yield path, path.stat().st_size
        return
    left = _WALKED
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            left -= 1
            if left < 0:
                return
            try:
                if not file.is_symlink() and file.is_file():
                    yield file, file.stat().st_size
            except OSError:
                continue
