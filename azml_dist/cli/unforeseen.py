"""Unexpected errors: one line and a hint for the user, and the traceback in a file for a bug report."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from azml_dist.errors import DistError
from azml_dist.home import own_folder
from azml_dist.version import __version__

_SECRET = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "CONNECTION", "SIGNATURE", "SAS", "AUTH", "COOKIE")
_SHORTEST_SECRET = 6


def foreseen(error: BaseException, command: str) -> DistError:
    """The error as a message for people."""
    told = _what_happened(error)
    report = _write_report(error, command)
    if isinstance(error, OSError) and error.strerror:
        hint = "check its permissions and the free disk space" if error.filename else "check `ulimit -a`"
        return DistError(told, hint=f"{hint}; {report}")
    if isinstance(error, MemoryError):
        return DistError(told, hint=f"close other programs, or use less data; {report}")
    return DistError(f"bug in azml_dist: {told}", hint=f"please report it; {report}")


def _what_happened(error: BaseException) -> str:
    """The error on one line, with its place in the package."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        return f"{where}: {error.strerror}" if where else error.strerror
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error that cannot even be printed
        text = ""
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return ": ".join(filter(None, (type(error).__name__, text))) + _place(error)


def _place(error: BaseException) -> str:
    package = str(Path(__file__).resolve().parent.parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(package)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _write_report(error: BaseException, command: str) -> str:
    """Write the traceback to a file, and return a sentence that names it."""
    text = _without_secrets(
        f"{command}\nazml-dist {__version__}, Python {platform.python_version()}, {platform.platform()}\n\n"
        + "".join(traceback.format_exception(error))
    )
    name = f"azml-dist-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(text.encode(errors="backslashreplace"))
        except (OSError, ValueError):
            continue
        return f"the traceback is in {folder / name}"
    return "the traceback could not be saved"


def _folders() -> list[Path]:
    folders = []
    with suppress(DistError):
        folders.append(own_folder() / "errors")
    with suppress(OSError):
        folders.append(Path(tempfile.gettempdir()))
    return folders


def _without_secrets(text: str) -> str:
    """The text without the values of variables that look like secrets, in case the error quotes one."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and any(word in name.upper() for word in _SECRET):
            text = text.replace(value, f"<{name}>")
    return text


def typed_command() -> str:
    """The command that was called, without its arguments: they may contain secrets."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return " ".join(["azml-dist", *words])
