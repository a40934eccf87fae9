"""What azure-ai-ml records about the git repository in each job: without secrets, and looked up once for many jobs."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ANSWERS = {
    "AZUREML_GIT_REPOSITORY_URI": ("ls-remote", "--get-url"),
    "AZUREML_GIT_BRANCH": ("symbolic-ref", "--short", "HEAD"),
    "AZUREML_GIT_COMMIT": ("rev-parse", "HEAD"),
}
"""By the variable that azure-ai-ml reads before it asks git (azure-ai-ml 1.35, `get_git_properties`)."""
_DIRTY = "AZUREML_GIT_DIRTY"
_ADDRESSES = ("AZUREML_GIT_REPOSITORY_URI", "AZUREML_GIT_BUILD_URI")
"""Variables that may contain a secret, whoever set them."""
_TOKEN = re.compile(r"gh[a-z]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_\w{16,}|ATBB\w{16,}|\b[a-z2-7]{52}\b")
"""Documented formats of personal access tokens: GitHub, GitLab, Hugging Face, Bitbucket, Azure DevOps."""
_lock = threading.Lock()
_before: list[dict[str, str | None]] = []
"""For each running submission, the variables that it set, and their old values."""


@contextmanager
def asked_once() -> Iterator[None]:
    """In this block, azure-ai-ml finds in the environment what it would ask git for, and records the same.

    The exception is secrets: azure-ai-ml would record nothing about a remote with a token before the host, and
    everything about any other, including `?token=…` or `oauth2:…@host:path`.
    """
    with _lock:
        found = {name: value for name, value in _answers().items() if not os.environ.get(name)}
        given = {name: os.environ[name] for name in _ADDRESSES if os.environ.get(name)}
        found = {
            name: without_secrets(value) if name in _ADDRESSES else value for name, value in (found | given).items()
        }
        before = {name: os.environ.get(name) for name in found}
        _before.append(before)
        os.environ.update(found)
    try:
        yield
    finally:
        with _lock:
            _before.remove(before)
            _restore(before)


def without_secrets(address: str) -> str:
    """The address of a repository without credentials: tokens, passwords, queries, path parameters.

    Only the user name of ssh stays, such as `git@`, since it gives no access by itself.
    """
    address = _TOKEN.sub("***", re.split(r"[?#;]", address, maxsplit=1)[0])
    if address.startswith("ext::"):  # a command, which may contain anything
        return "ext::"
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
        if ":" not in address:  # a folder
            return address
    before, _, place = rest.rpartition("@")
    # `git@host:path` is ssh, too. People who mean https sometimes write `oauth2:TOKEN@host:path`.
    is_ssh = "ssh" in scheme if separator else ":" not in before
    user = before.partition(":")[0]
    name = f"{user}@" if is_ssh and re.fullmatch(r"[A-Za-z][\w.-]*", user) else ""
    return f"{scheme}{separator}{name}{place}"


def _restore(before: dict[str, str | None]) -> None:
    if _before:  # another submission relies on them, and restores them when it ends
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
