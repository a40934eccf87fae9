"""A `Job` object from a Python file: `path/to/file.py:NAME`."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from azml_dist.errors import DistError, JobError
from azml_dist.job import Job
from azml_dist.model import nearest


def load_python_job(path: str, name: str) -> Job:
    """The job that a Python file calls NAME. The file is run, with its folder on `sys.path`."""
    module = _run(path)
    if not name.isidentifier():
        raise JobError(f"{name!r} is not a name in {path}", hint=_jobs_in(module, path))
    if not hasattr(module, name):
        raise JobError(f"{path} has no `{name}`", hint=nearest(name, _names(module)) or _jobs_in(module, path))
    job = getattr(module, name)
    if not isinstance(job, Job):
        raise JobError(f"`{name}` in {path} is of type {type(job).__name__}, not a Job", hint=_jobs_in(module, path))
    return job


def _run(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        raise JobError(f"there is no file {path}" if not file.is_dir() else f"{path} is a folder")
    name = f"azml_dist_job_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise JobError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.parent.resolve())
    sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script that parses arguments ends so
        raise _failed(path, error) from error
    finally:
        sys.modules.pop(name, None)
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _failed(path: str, error: BaseException) -> JobError:
    if isinstance(error, DistError):
        at = f"{path}:{_line_in(path, error)}"
        return JobError.of(p._replace(where=f"{at}: {p.where}" if p.where else at) for p in error.problems)
    if isinstance(error, SyntaxError) and error.filename:
        return JobError(f"it is not Python: {error.msg}", where=f"{error.filename}:{error.lineno}")
    text = " ".join(str(error).split())
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    hint = 'put what only a script does under `if __name__ == "__main__":`' if isinstance(error, SystemExit) else None
    return JobError(f"it stops while it is read: {message}", hint=hint, where=f"{path}:{_line_in(path, error)}")


def _line_in(path: str, error: BaseException) -> int:
    """The last line of the file itself that the error came through."""
    wanted = os.path.realpath(path)
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 1 for f in reversed(frames) if os.path.realpath(f.filename) == wanted), 1)


def _names(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("__")]


def _jobs_in(module: ModuleType, path: str) -> str:
    jobs = [name for name, value in vars(module).items() if isinstance(value, Job)]
    return "its jobs: " + ", ".join(f"`{path}:{name}`" for name in jobs) if jobs else "no variable of it is a Job"
