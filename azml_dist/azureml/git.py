"""What azure-ai-ml notes of the git repository in each job: asked for once for many jobs, not five times for each."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ANSWERS = {
    "AZUREML_GIT_REPOSITORY_URI": ("ls-remote", "--get-url"),
    "AZUREML_GIT_BRANCH": ("symbolic-ref", "--short", "HEAD"),
    "AZUREML_GIT_COMMIT": ("rev-parse", "HEAD"),
}
"""By the variable that azure-ai-ml looks at before it asks git (azure-ai-ml 1.35, `get_git_properties`)."""
_DIRTY = "AZUREML_GIT_DIRTY"
_lock = threading.Lock()
_before: list[dict[str, str | None]] = []
"""For each submission that goes on, the variables that it set, and what they were."""


@contextmanager
def asked_once() -> Iterator[None]:
    """Within it, azure-ai-ml finds in the environment what it would ask git for, and notes the very same."""
    with _lock:
        found = {name: value for name, value in _answers().items() if not os.environ.get(name)}
        before = {name: os.environ.get(name) for name in found}
        _before.append(before)
        os.environ.update(found)
    try:
        yield
    finally:
        with _lock:
            _before.remove(before)
            _restore(before)


def _restore(before: dict[str, str | None]) -> None:
    if _before:  # another submission counts on them, and restores them at its end
        for name, value in before.items():
            _before[-1].setdefault(name, value)
        return
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _answers() -> dict[str, str]:
    if (_git("rev-parse", "--is-inside-work-tree") or "").strip() != "true":
        return {}
    found = {name: (_git(*command) or "").strip() for name, command in _ANSWERS.items()}
    if (changes := _git("status", "--porcelain", ".")) is not None:
        found[_DIRTY] = str(bool(changes))
    return {name: value for name, value in found.items() if value}


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.check_output(["git", *arguments], stderr=subprocess.DEVNULL, text=True)
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return None
