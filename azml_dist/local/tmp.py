"""How a job uses `/tmp`. On Azure ML, each node has its own, which is empty when a job starts."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from azml_dist.local.launchers.own_tmp import TMP, given_in_tmp
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.snapshot import Snapshot
from azml_dist.words import late, visible

if TYPE_CHECKING:
    from azml_dist.local.spec import OwnTmp

_USES = late(rb"(?<![\w./-])/tmp(?![\w.-])|\bgettempdir\(")
_PATHS = late(r"(?<![\w./-])/tmp/[^\s\"';&|)<>$`]+")
_SCRIPTS = (".py", ".sh", ".bash")
_MAX_SIZE = 1 << 20


def user_of_tmp(code: Snapshot, command: str) -> str | None:
    """What mentions `/tmp`: the command, or the first script that does."""
    return who_mentions(_USES, code, command)


def who_mentions(words: re.Pattern[bytes], code: Snapshot, command: str) -> str | None:
    """The command, or else the first script of the code, that contains the given words; None if there is none."""
    if words.search(command.encode()):
        return "the command"
    for file in code.files:
        if file.path.endswith(_SCRIPTS) and _mentions(file.source, words):
            return visible(file.path)
    return None


def own_tmp(plan: LaunchPlan, environment: dict[str, str], used_by: str | None, *paths: str) -> OwnTmp | None:
    """What is needed to give each node its own `/tmp`; None if nodes should share the machine's.

    Without root, the run would be in a user namespace, in which other users' files have no owner and `ssh` rejects its
    settings; so this is done only for jobs that use `/tmp`.
    """
    if sys.platform != "linux" or (os.geteuid() and not used_by):
        return None
    place, told = plan.place, {**environment, **plan.processes[0].env}
    here = [sys.executable, sys.prefix, sys.base_prefix, *sys.path, os.environ.get("PWD", "")]
    kept = given_in_tmp(told, [*paths, *here, *place.inputs.values(), *place.outputs.values()])
    return {"kept": kept, "used_by": used_by, "hidden": list(_hidden(plan.command, kept))}


def _hidden(command: str, kept: Collection[str]) -> Iterator[str]:
    """Findings about files that the command names but the run does not see."""
    for path in dict.fromkeys(_PATHS.findall(command)):
        if "/".join(path.split("/")[:3]) not in kept and os.path.lexists(path):
            yield (
                f"the run does not see {visible(path)} of this machine: each node has its own {TMP}, as on Azure ML;"
                " pass data as an input"
            )


def _mentions(source: str, words: re.Pattern[bytes]) -> bool:
    try:
        with open(source, "rb") as file:
            return bool(words.search(file.read(_MAX_SIZE)))
    except OSError:
        return False
