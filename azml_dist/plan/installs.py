"""What the command installs or fetches, where several processes of a node would do it at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from azml_dist.errors import Finding
from azml_dist.notation import shell
from azml_dist.words import late, shorten

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields

_PIPS = late(r"(?:\S*/)?(?:pip[\d.]*|uv)")
_PYTHON = late(r"(?:\S*/)?python[\d.]*")
_INSTALLERS = {
    "conda": ("install", "create", "env"),
    "mamba": ("install", "create", "env"),
    "micromamba": ("install", "create"),
    "apt-get": ("install", "update", "upgrade"),
    "apt": ("install", "update", "upgrade"),
}
_IN_TURN = late(r"\bflock\b|(?:\[|\btest|\bcase|\(\()\s[^\n;]*RANK|RANK\S*\s*(?:==|!=|-eq|-ne|=~)")
"""What lets one process do it, or one after the other."""


_ELSEWHERE = late(r"\b(?:venv|virtualenv|activate)\b|(?:^|\s)(?:--target|--prefix|-t)[\s=]")
"""What is installed then is in a folder of its own."""


def of_installs(job: JobFields) -> Iterator[Finding]:
    """PyTorch and MPI jobs run the whole command in each process: see `docs/local-runs.md`."""
    count = job.process_count_per_node
    if type(job.distribution).__name__ not in ("PyTorch", "Mpi") or count < 2 or _IN_TURN.search(job.shell_command):
        return
    for words in shell.programs(job.shell_command):
        said = " ".join(words)
        if "RANK" in said:  # a folder for each
            continue
        if _installs(words):
            yield Finding(
                "installed-by-every-rank",
                "warning",
                f"the {count} processes of a node all run `{shorten(said)}` at the same time,"
                " and may break each other's packages",
                "put the packages into the environment, or install them in turn:"
                f" `flock /tmp/install.lock {words[0]} …`",
                "command",
            )
            return
        if _has_verb(_plain(words), {"git": ("clone",)}):
            yield Finding(
                "installed-by-every-rank",
                "warning",
                f"the {count} processes of a node all run `{shorten(said)}` at the same time,"
                " and the folder is new only to the first one",
                "upload it with the code, or let one process do it while the others wait",
                "command",
            )
            return


def installed_by(command: str) -> str | None:
    """The first part of a command that changes what is installed where it runs."""
    if _ELSEWHERE.search(command):
        return None
    return next((shorten(" ".join(words)) for words in shell.programs(command) if _installs(words)), None)


def _installs(words: Sequence[str]) -> bool:
    plain = _plain(words)
    if _PYTHON.fullmatch(words[0]) and words[1:3] in (["-m", "pip"], ["-m", "uv"]):
        plain = plain[1:]
    if "--dry-run" in words or not plain:
        return False
    if _PIPS.fullmatch(plain[0]):
        return "install" in plain[1:3] or plain[1:2] in (["sync"], ["add"])
    return _has_verb(plain, _INSTALLERS)


def _plain(words: Sequence[str]) -> list[str]:
    """A command without its options."""
    return [word for word in words if not word.startswith("-")]


def _has_verb(plain: Sequence[str], verbs: Mapping[str, Sequence[str]]) -> bool:
    """Whether a program is called with one of its verbs, which the value of an option may precede."""
    return bool(plain) and not {*plain[1:3]}.isdisjoint(verbs.get(plain[0].rpartition("/")[2], ()))
