"""Loads an object from a Python file: `path/to/file.py:NAME`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from azml_dist.errors import DistError, JobError
from azml_dist.words import found_instead, nearest


def python_name(ref: str) -> tuple[str, str] | None:
    """The file and the name in `path/to/file.py:NAME`; None for any other reference."""
    path, colon, name = ref.rpartition(":")
    if colon and path.endswith(".py"):
        return path, name
    if ref.endswith(".py"):
        raise JobError(
            f"{ref}: which job in this file?", hint=f"write `{ref}:NAME`, where NAME is a variable in the file"
        )
    return None


def load_python_object(path: str, name: str, is_job: Callable[[Any], bool]) -> Any:
    """The object that a Python file calls NAME. Runs the file, with its folder on `sys.path`.

    `is_job` decides which names to suggest if there is no such name.
    """
    module = _run(path)
    jobs = [name for name, value in vars(module).items() if is_job(value)]
    names = ", ".join(f"`{path}:{name}`" for name in jobs)
    known = f"its jobs: {names}" if jobs else "none of its variables is a job"
    if not name.isidentifier():
        raise JobError(f"{name!r} is not a valid name in {path}", hint=known)
    try:
        found = getattr(module, name)
    except AttributeError:
        raise JobError(f"{path} has no `{name}`", hint=nearest(name, _names(module)) or known) from None
    except Exception as error:  # from a `__getattr__` in the file
        raise _failed(path, error) from error
    if not is_job(found):
        raise JobError(f"`{name}` in {path} is of type {type(found).__name__}, not a job", hint=known)
    return found


def _run(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        if file.is_dir():
            raise JobError(f"{path} is a folder", hint="use a Python file in it: `FOLDER/FILE.py:NAME`")
        raise JobError(f"there is no file {path}", hint=found_instead(path))
    name = f"azml_dist_job_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise JobError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.parent.resolve())
    sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses and pickle look up their module there
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it would be uploaded with the code
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script that parses arguments ends that way
        raise _failed(path, error) from error
    finally:
        sys.dont_write_bytecode = writes_none
        sys.modules.pop(name, None)
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _failed(path: str, error: BaseException) -> JobError:
    if isinstance(error, DistError):
        at = f"{path}:{_line_in(path, error)}"
        return JobError.of(p._replace(where=f"{at}: {p.where}" if p.where else at) for p in error.problems)
    if isinstance(error, SyntaxError) and error.filename:
        hint = f"`{sys.executable} {error.filename}` shows where"
        return JobError(f"it is not valid Python: {error.msg}", hint=hint, where=f"{error.filename}:{error.lineno}")
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception class of the user, with a `__str__` that fails
        text = ""
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    where = f"{path}:{_line_in(path, error)}"
    return JobError(f"it fails when loaded: {message}", hint=_way_on(path, error), where=where)


def _way_on(path: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return 'put the code that only runs as a script under `if __name__ == "__main__":`'
    if isinstance(error, ModuleNotFoundError):
        return (
            f"install it for {sys.executable}, which loads the file, or import it only where the file runs as a script"
        )
    return f"`{sys.executable} {path}` shows the whole traceback"


def _line_in(path: str, error: BaseException) -> int:
    """The last line in the file itself through which the error passed."""
    import traceback  # half a millisecond, only for files with an error

    wanted = os.path.realpath(path)
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 1 for f in reversed(frames) if os.path.realpath(f.filename) == wanted), 1)


def _names(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("__")]
