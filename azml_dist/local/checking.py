"""Checks that this package wrote a `run.json`: another program may have changed it, or it may be some other tool's.

Everything that commands do with a run relies on it: ranks are list indices, logs are files in its folder.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

_LATEST = 253_402_300_799
"""The end of the year 9999; Python has no later dates."""
_MOST = 2**31
_DEEPEST = 20

_Kinds = Mapping[str, tuple[type, ...]]
_NONE = type(None)
_TEXT, _TEXT_OR_NONE, _NUMBER, _TIME = (str,), (str, _NONE), (int, _NONE), (int, float, _NONE)

_PROCESS: _Kinds = {
    "rank": (int,),
    "node_rank": (int,),
    "local_rank": (int,),
    "log": _TEXT,
    "role": _TEXT,
    "serves": (bool,),
    "exit_code": _NUMBER,
    "signal": _NUMBER,
    "stopped": (bool,),
    "pid": _NUMBER,
    "noticed": _NUMBER,
    "quiet": _TIME,
    "unheard": (bool,),
    "started_at": _TIME,
    "ended_at": _TIME,
}
_ENDED: _Kinds = {
    "status": _TEXT,
    "exit_code": _NUMBER,
    "failed_rank": _NUMBER,
    "error": _TEXT_OR_NONE,
    "started_at": _TIME,
    "ended_at": _TIME,
}
_ATTEMPT: _Kinds = {**_ENDED, "processes": (list,)}
_MEMBER: _Kinds = {**_ENDED, "label": _TEXT, "name": _TEXT, "values": (dict,), "metric": (int, float, _NONE)}
_FAULT: _Kinds = {
    **dict.fromkeys(("spec", "what", "when"), _TEXT),
    **dict.fromkeys(("rank", "node", "attempt", "pid", "step"), _NUMBER),
    **dict.fromkeys(("trigger", "note"), _TEXT_OR_NONE),
    "at": (int, float, _NONE),
    "ended": (list,),
}
_RUN: _Kinds = {
    **_ATTEMPT,
    "name": _TEXT,
    "folder": _TEXT,
    "hint": _TEXT_OR_NONE,
    "retry": (int,),
    "earlier": (list,),
    "out_of_memory_kills": _NUMBER,
    "launcher": _TEXT_OR_NONE,
    "starting": _TEXT_OR_NONE,
    "launcher_version": _TEXT_OR_NONE,
    "world": (dict,),
    "display_name": _TEXT_OR_NONE,
    "created_at": _TIME,
    "faults": (list,),
    "against": (dict, _NONE),
    "step_pattern": _TEXT_OR_NONE,
    "findings": (list,),
    "services": (list,),
    "kind": _TEXT_OR_NONE,
    "trials": (list,),
    "steps": (list,),
    "details": (dict,),
    "parent": _TEXT_OR_NONE,
    "file": _TEXT_OR_NONE,
    "script": _TEXT_OR_NONE,
    "from": (dict, _NONE),
    "python": _TEXT_OR_NONE,
}
_LISTED: _Kinds = {
    **{name: _RUN[name] for name in ("status", "error", "created_at", "started_at", "ended_at", "world")},
    **dict.fromkeys(("kind", "parent", "file", "script", "python"), _TEXT_OR_NONE),
    **dict.fromkeys(("trials", "steps"), (list, _NONE)),
}
_ORIGIN: _Kinds = {
    "name": _TEXT,
    "workspace": _TEXT_OR_NONE,
    "attempt": (int,),
    "snapshot": _TEXT_OR_NONE,
    "status": _TEXT,
    "verdict": (dict, _NONE),
    "changed": (list,),
}
_SERVICE: _Kinds = dict.fromkeys(("name", "type", "url"), _TEXT)
_WORLD: _Kinds = {
    "distribution": _TEXT_OR_NONE,
    "node_count": (int,),
    "process_count_per_node": (int,),
    "world_size": (int,),
}
_DETAILS: _Kinds = dict.fromkeys(("best", "primary_metric", "goal", "sampling"), _TEXT_OR_NONE)


def check_run(data: Any) -> None:
    """Raise a `ValueError` that says which value of a `run.json` is wrong."""
    _check(data, _RUN, "")
    _check_processes(data["processes"], "processes")
    for i, attempt in enumerate(data.get("earlier", [])):
        _check(attempt, _ATTEMPT, f"earlier.{i}")
        _check_processes(attempt["processes"], f"earlier.{i}.processes")
    for i, fault in enumerate(data.get("faults", [])):
        _check(fault, _FAULT, f"faults.{i}")
        if not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in fault.get("ended", [])):
            raise ValueError(f"faults.{i} ended something that is no rank")
    if data.get("step_pattern") is not None:
        try:
            re.compile(data["step_pattern"])
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError("step_pattern is no regular expression") from error
    if data.get("against") is not None:
        _check_against(data["against"])
    if data.get("from") is not None:
        _check(data["from"], _ORIGIN, "from")
        if data["from"].keys() != _ORIGIN.keys():
            raise ValueError("`from` is incomplete")
        if not all(isinstance(name, str) for name in data["from"]["changed"]):
            raise ValueError("`from` has a changed field that is not a string")
        _check_depth(data["from"], "from")
    for kind in ("trials", "steps"):
        for i, member in enumerate(data.get(kind, [])):
            _check_member(member, f"{kind}.{i}")
    if not all(isinstance(finding, str) for finding in data.get("findings", [])):
        raise ValueError("findings are not strings")
    for i, service in enumerate(data.get("services", [])):
        _check(service, _SERVICE, f"services.{i}")
    _check_world(data.get("world", {}))
    _check_details(data.get("details", {}))
    failed = data.get("failed_rank")
    # In a sweep or a pipeline, it is a rank of the member that failed, which has its own processes.
    if failed is not None and not data.get("kind") and not 0 <= failed < len(data["processes"]):
        raise ValueError(f"failed_rank is {failed}, but there is no such rank")


def check_summary(data: Any) -> None:
    """The same for no more than what a list shows."""
    for name, allowed in _LISTED.items():
        if not isinstance(data.get(name), allowed):
            raise ValueError(f"{name} has the wrong type")
    for name in ("created_at", "started_at", "ended_at"):
        _check_number(data[name] or 0, name, True)
    if data["world"]:
        _check_world(data["world"])


def _check_against(against: dict[str, Any]) -> None:
    metrics = against.get("metrics")
    if not isinstance(against.get("run"), str) or not isinstance(metrics, dict):
        raise ValueError("against is incomplete")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in metrics.values()):
        raise ValueError("against has a metric that is no number")


def _check(data: Any, kinds: _Kinds, where: str) -> None:
    """Check the type of each known value."""
    if not isinstance(data, dict):
        raise ValueError(f"{where or 'it'} is not a mapping")
    for name, value in data.items():
        allowed = kinds.get(name)
        if allowed is None:
            continue
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"{f'{where}.' if where else ''}{name} has the wrong type")
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(value, name, name.endswith("_at"))


def _check_number(value: float, name: str, is_time: bool) -> None:
    if is_time:
        if not 0 <= value <= _LATEST:
            raise ValueError(f"{name} is not a time")
    elif name != "metric" and not (math.isfinite(value) and -_MOST <= value <= _MOST):
        raise ValueError(f"{name} is out of range")


def _check_processes(processes: list[Any], where: str) -> None:
    for i, process in enumerate(processes):
        _check(process, _PROCESS, where)
        if process.get("rank") != i or process.get("node_rank", -1) < 0 or process.get("local_rank", -1) < 0:
            raise ValueError(f"{where}.{i} has a rank that differs from its position")
        if not _stays_inside(process.get("log", "")):
            raise ValueError(f"{where}.{i} has a log outside the run's folder")


def _stays_inside(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return bool(path) and "\0" not in path and not os.path.isabs(path) and ".." not in parts


def _check_member(member: Any, where: str) -> None:
    _check(member, _MEMBER, where)
    if not is_plain_name(member.get("name", "").strip()) or not member.get("label", "").strip():
        raise ValueError(f"the name of {where} is not valid")
    _check_depth(member.get("values"), where)


def is_plain_name(name: str) -> bool:
    """Whether a text names something inside a folder."""
    return name not in ("", ".", "..") and not set("/\\\0") & set(name) and len(os.fsencode(name)) <= 255


def _check_world(world: dict[str, Any]) -> None:
    _check(world, _WORLD, "world")
    if world and world.keys() != _WORLD.keys():
        raise ValueError("`world` is incomplete")


def _check_details(details: dict[str, Any]) -> None:
    _check(details, _DETAILS, "details")
    if "primary_metric" in details and not details.keys() >= {*_DETAILS, "seed"}:
        raise ValueError("`details` is incomplete")
    _check_depth(details, "details")


def _check_depth(value: Any, where: str, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, where, depth + 1)
