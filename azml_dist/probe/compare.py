"""Compares the environment that processes have on Azure ML with the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from azml_dist.plan.plan import LaunchPlan
from azml_dist.probe.reports import Report

_OPEN = re.compile(r"\0([^\0]*)\0|<([^<>]*)>")
"""What a plan does not know yet."""
_ONLY_KEYS = ("AZUREML_CR_COMPUTE_CONTEXT",)
"""JSON of which only the names were seen: its values are the machine's own."""
_ALSO = re.compile(r"NCCL_\w+|OMP_NUM_THREADS|UCX_\w+|(LOCAL|GROUP|ROLE)_\w+|(CUDA|NVIDIA)_VISIBLE_DEVICES")
"""Variables whose values say something about every job, and nothing about this one."""


class Rank(NamedTuple):
    """A process: what it said, and its place in the plan."""

    rank: int
    report: Report


class Difference(NamedTuple):
    """A variable that is not as planned, in some ranks."""

    variable: str
    ranks: Sequence[int]
    planned: str | None
    """Of the first of these ranks; None: not at all."""
    seen: str | None


def differences(plan: LaunchPlan, ranks: Sequence[Rank]) -> list[Difference]:
    """What is not as planned."""
    marked = plan.at(plan.place.with_marks_as("\0{}\0"))
    bound: dict[str, str] = {}
    found: dict[str, list[tuple[int, str | None, str | None]]] = {}
    for one in ranks:
        env, names = one.report.env, one.report.names
        planned = marked.processes[one.rank].env
        for name, value in planned.items():
            if name in names:
                continue  # it is there, and was not printed
            seen = env.get(name)
            if seen is None or not _fits(name, value, seen, bound):
                found.setdefault(name, []).append((one.rank, _readable(value), seen))
    return [Difference(name, [rank for rank, *_ in rows], rows[0][1], rows[0][2]) for name, rows in found.items()]


def more(plan: LaunchPlan, ranks: Sequence[Rank]) -> dict[str, str | None]:
    """Variables that the processes have and the plan has not; with a value only where it is the same in all of them,
    and says nothing about this job."""
    planned = {name for one in ranks for name in plan.processes[one.rank].env}
    found: dict[str, str | None] = {}
    for one in ranks:
        for name in (*one.report.env, *one.report.names):
            if name not in planned:
                values = {other.report.env.get(name) for other in ranks}
                found[name] = values.pop() if len(values) == 1 and _ALSO.fullmatch(name) else None
    return dict(sorted(found.items()))


def _fits(name: str, planned: str, seen: str, bound: dict[str, str]) -> bool:
    if planned.startswith("{") and (structure := _structure(planned)) is not None:
        return _same(structure, _structure(seen), bound, only_keys=name in _ONLY_KEYS)
    return _matches(planned, seen, bound)


def _structure(text: str) -> Any:
    try:
        return json.loads(text.replace("\0", "\\u0000"))
    except ValueError:
        return None


def _same(planned: Any, seen: Any, bound: dict[str, str], *, only_keys: bool) -> bool:
    if isinstance(planned, dict):
        if not isinstance(seen, dict) or (planned.keys() - seen.keys()):
            return False
        return all(_same(planned[key], seen[key], bound, only_keys=only_keys) for key in planned)
    if only_keys:
        return True
    if isinstance(planned, list):
        if not isinstance(seen, list) or len(planned) != len(seen):
            return False
        return all(_same(*pair, bound, only_keys=False) for pair in zip(planned, seen, strict=True))
    return _matches(str(planned), str(seen), bound)


def _matches(planned: str, seen: str, bound: dict[str, str]) -> bool:
    """Whether a value is as planned, where whatever was still open is the same everywhere."""
    pieces = _OPEN.split(planned)
    literal, opened = pieces[::3], [first or second for first, second in zip(pieces[1::3], pieces[2::3], strict=True)]
    pattern = re.escape(literal[0]) + "".join(f"(.*?){re.escape(text)}" for text in literal[1:])
    match = re.fullmatch(pattern, seen, re.IGNORECASE | re.DOTALL)
    if match is None:
        return False
    return all(bound.setdefault(name, value) == value for name, value in zip(opened, match.groups(), strict=True))


def _readable(planned: str) -> str:
    return re.sub(r"(?:\0|\\u0000)([^\0\\]*)(?:\0|\\u0000)", r"<\1>", planned)


def missing_everywhere(plan: LaunchPlan, ranks: Sequence[Rank]) -> Iterator[str]:
    """Variables that the plan has for every process that reported, and none of them has."""
    if not ranks:
        return
    envs: list[Mapping[str, str]] = [plan.processes[one.rank].env for one in ranks]
    for name in envs[0]:
        is_planned = all(name in env for env in envs)
        if is_planned and not any(name in one.report.env or name in one.report.names for one in ranks):
            yield name
