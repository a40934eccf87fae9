"""What a probe found out about a workspace, in `~/.azml_dist/service.json`: plans and local runs go by it.

A file that is damaged, or that another version of azml_dist wrote, is never used and never overwritten silently: plans
go by the assumptions of `Service`, and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist.configured import configured_ids
from azml_dist.errors import DistError, Finding
from azml_dist.home import own_folder
from azml_dist.plan.processes import Processes
from azml_dist.plan.service import SERVICE, RankDigits, Service
from azml_dist.regular import read_regular

VERSION = 1
_LIMIT = 1 << 20
"""Bytes that the file may have."""


class Seen(NamedTuple):
    """What a probe observed."""

    value: Any
    on: str
    """The day."""


class Probed(NamedTuple):
    """What is kept of the probe of a workspace."""

    workspace: str
    """Its name."""
    facts: Mapping[str, Seen]
    """Fields of `Service` with what was observed, also where that is what we assume."""

    @property
    def service(self) -> Service:
        """Our assumptions, corrected by what was observed."""
        return replace(SERVICE, **{name: _KINDS[name].read(seen.value) for name, seen in self.facts.items()})

    @property
    def corrected(self) -> dict[str, Seen]:
        """What was observed to be different, by the field of `Service`."""
        return {name: seen for name, seen in self.facts.items() if seen.value != assumed(name)}


class UnusableError(DistError):
    """The file is damaged, or of another version."""


def service_file() -> Path:
    """Where it is. Raises `LaunchError` without a home."""
    return own_folder() / "service.json"


def key_of(ids: Mapping[str, str | None]) -> str:
    """A workspace as the file names it; Azure's names do not differ in case only."""
    return "/".join(str(ids[name]) for name in ("subscription_id", "resource_group", "name")).lower()


def service_here() -> Service:
    """What plans go by here: our assumptions, corrected by the last probe of the configured workspace."""
    found, _ = probed_here()
    return found.service if found else SERVICE


def probed_here() -> tuple[Probed | None, str | None]:
    """What is known of the configured workspace, or why the file that should say so cannot be used."""
    try:
        file = service_file()
        stat = file.stat()
    except (OSError, DistError):
        return None, None
    ids = configured_ids()
    if not all(ids.values()):
        return None, None
    try:
        return _read(file, stat.st_mtime_ns, stat.st_size).get(key_of(ids)), None
    except UnusableError as error:
        return None, str(error)


def read_all(file: Path) -> Mapping[str, Probed]:
    """What is known of every workspace; raises `UnusableError`."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UnusableError(f"cannot read {file}: {error.strerror}") from error
    return _read(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read(file: Path, changed: int, size: int) -> Mapping[str, Probed]:
    try:
        kept = json.loads(read_regular(file, _LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableError(f"{file} is damaged: {error}") from error
    if not isinstance(kept, dict) or not isinstance(kept.get("workspaces"), dict):
        raise UnusableError(f"{file} is damaged: it does not say what it knows of which workspace")
    if kept.get("version") != VERSION:
        raise UnusableError(f"{file} is of version {kept.get('version')!r}, and this azml_dist reads {VERSION}")
    return {key: _probed(file, key, one) for key, one in kept["workspaces"].items()}


def _probed(file: Path, key: str, one: Any) -> Probed:
    facts = one.get("facts") if isinstance(one, dict) else None
    if not isinstance(facts, dict) or not isinstance(one.get("workspace"), str):
        raise UnusableError(f"{file} is damaged: what it has of {key[:200]} is not the result of a probe")
    return Probed(one["workspace"], {name: _seen(file, name, seen) for name, seen in facts.items()})


def _seen(file: Path, name: str, seen: Any) -> Seen:
    value = seen.get("value") if isinstance(seen, dict) else seen
    is_dated = isinstance(seen, dict) and isinstance(seen.get("on"), str)
    if not is_dated or name not in _KINDS or not _KINDS[name].fits(value):
        raise UnusableError(f"{file} is damaged: `{name[:60]}` cannot be {json.dumps(value)[:60]}")
    return Seen(value, seen["on"])


def keep(key: str, found: Probed) -> Path:
    """Write down what a probe found, beside what is known of other workspaces; raises `UnusableError`, `OSError`."""
    file = service_file()
    kept = {**read_all(file), key: found}
    workspaces = {
        name: {"workspace": one.workspace, "facts": {field: seen._asdict() for field, seen in one.facts.items()}}
        for name, one in kept.items()
    }
    text = json.dumps({"version": VERSION, "workspaces": workspaces}, indent=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(prefix="service.json.", dir=file.parent)
    try:
        with open(handle, "w", encoding="utf-8") as out:
            out.write(text + "\n")
        os.replace(fresh, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    return file


def assumed(name: str) -> Any:
    """What we assume, as the file would have it."""
    value = getattr(SERVICE, name)
    if isinstance(value, RankDigits):
        return value.at_least
    return [*value] if isinstance(value, tuple) else value


class _Kind(NamedTuple):
    """What a fact looks like in the file, and how it is read."""

    fits: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


def _text(pattern: str) -> _Kind:
    return _Kind(lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)))


def _number(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _texts(pattern: str) -> _Kind:
    one = _text(pattern)
    return _Kind(lambda value: isinstance(value, list) and all(map(one.fits, value)), tuple)


_PORT = _Kind(_number(1, 65535))
_YES = _Kind(lambda value: isinstance(value, bool))
_KINDS: Mapping[str, _Kind] = {
    "node_log_width": _Kind(_number(1, 9)),
    "rank_log_width": _Kind(lambda value: value is None or _number(1, 9)(value), RankDigits),
    "process_name": _text(r"(?:[\w.-]|\{rank\}|\{local_rank\}|\{node_rank\}){1,100}"),
    "local_world_size": _YES,
    "tensorflow_port": _PORT,
    "tensorflow_first": _text("ps|worker"),
    "tensorflow_empty_ps": _YES,
    "serving_roles": _texts("ps"),
    "ray_port": _PORT,
    "logs_inputs": _YES,
    "batch_master_port": _PORT,
    "nccl_socket_ifname": _text(r"[\w.:^=,@-]{1,100}"),
    "master_of_one_node": _text(r"[\w.:-]{1,100}"),
    "task_index_variable": _text(r"\w{1,100}"),
    "unset": _texts(r"\w+/(?:one|several)/\w{1,100}"),
}
PROBED = tuple(_KINDS)
"""The fields of `Service` that a probe can observe."""
NOT_PROBED = tuple(one.name for one in fields(Service) if one.name not in _KINDS)


def probed_findings(processes: Processes) -> Iterator[Finding]:
    """Says what of a plan is not as we assume, but as a probe of the workspace found it."""
    found, trouble = probed_here()
    if trouble:
        yield Finding(
            "service-not-read",
            "warning",
            f"what a probe found out about the workspace is not used: {trouble}",
            "remove the file; `azml-dist probe CLUSTER` finds it out again",
        )
    if found is None or processes.service != found.service:
        return
    for name, seen in found.corrected.items():
        if changed := _changed(processes, name):
            other = f"found `{name}` to be {told(seen.value)}, not {told(assumed(name))}: this changes {changed}"
            yield Finding(
                "probed-service",
                "note",
                f"a probe of {found.workspace} on {seen.on} "
                f"{f'did not find {changed}: left out' if name == 'unset' else other}",
                "to plan without it, remove `~/.azml_dist/service.json`",
            )


def _changed(processes: Processes, name: str) -> str:
    """What a field of `Service` changes in a plan, in words; empty for nothing."""
    assumes = replace(processes, service=replace(processes.service, **{name: getattr(SERVICE, name)}))
    changed: dict[str, None] = {}
    for rank in (0, len(assumes) - 1):
        one, other = processes[rank], assumes[rank]
        names = {**other.env, **one.env}
        changed |= dict.fromkeys(f"`{key}`" for key in names if one.env.get(key) != other.env.get(key))
        changed |= {"the log of each process": None} if one.log != other.log else {}
    job = processes.job
    if name == "serving_roles" and processes[-1].role == "ps":
        changed["the end of the run"] = None
    if name == "logs_inputs" and any(not job.is_data(one) for one in job.inputs):
        changed["MLflow parameters"] = None
    return ", ".join(changed)


def told(value: Any) -> str:
    """A fact in words."""
    if value is None:
        return "the digits of the largest rank"
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
