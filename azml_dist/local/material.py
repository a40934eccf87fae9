"""What a local run has for its bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from azml_dist.errors import DistError, JobError
from azml_dist.local.merged import log_of_attempt
from azml_dist.local.state import RunState
from azml_dist.notation.document import read_yaml
from azml_dist.regular import NO_LINK, open_regular
from azml_dist.runs.material import Material
from azml_dist.verdict.folder import ends_of_logs
from azml_dist.verdict.hidden import secret_values
from azml_dist.verdict.known import Log

_MOST = 16_000_000
_PROCESSES = 64
"""How many processes of a plan are in a bundle: their variables differ only in their ranks."""
_OTHERS = 64
"""How many logs that are not those of ranks."""


def material(folder: Path, state: RunState, stacks: Callable[[], object]) -> Material:
    """The plan, the state, the job and the logs of a local run; `stacks` looks at its processes."""
    plan, notes = _plan(folder), list[str]()
    taken, secrets = _secrets_of(plan)
    unknown = [name for name in taken if name not in os.environ]
    documents = {"plan.json": _abbreviated(plan, notes), "run.json": state.to_dict(), "stacks.txt": _text_of(stacks)}
    with suppress(JobError):
        documents["job.yml"] = dict(read_yaml(str(folder / "job.yml")).data)
    return Material(
        {name: value for name, value in documents.items() if value},
        logs=_logs(folder, state),
        secrets=[*secrets, *(os.environ[name] for name in taken if name in os.environ)],
        unknown=unknown,
        notes=notes,
        attempt=state.retry,
    )


def _logs(folder: Path, state: RunState) -> Iterator[Log]:
    first = state.first_logs
    ranks = [(process.rank, process.node_rank) for process in state.processes]
    attempts = [
        {log_of_attempt(log, attempt): one for log, one in zip(first, ranks, strict=True)}
        for attempt in range(state.retry + 1)
    ]
    others = [f"system_logs/{name}" for name in _names(folder / "system_logs")[:_OTHERS]]
    yield from ends_of_logs(folder, attempts, others)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in os.scandir(folder) if one.is_file(follow_symlinks=False))
    except OSError:
        return []


def _plan(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(folder / "plan.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(file: Path) -> bytes:
    with open(open_regular(file, NO_LINK), "rb") as opened:
        return opened.read(_MOST)


def _secrets_of(plan: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The variables that the job takes from its caller, and the values of others that are secret by their names."""
    try:
        properties = plan["request"]["properties"]
        variables = {name: text for name, text in properties["environmentVariables"].items() if isinstance(text, str)}
        given = properties.get("inputs") or {}
        inputs = {name: one["value"] for name, one in given.items() if isinstance(one.get("value"), str)}
    except (LookupError, TypeError, AttributeError):
        return [], []
    # Variables that the job takes from the caller are in angle brackets there.
    taken = [name for name, text in variables.items() if text.startswith("<")]
    own = {name: text for name, text in variables.items() if name not in taken}
    return taken, [*secret_values(own), *secret_values(inputs)]


def _abbreviated(plan: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    processes = plan.get("processes")
    if isinstance(processes, list) and len(processes) > _PROCESSES:
        notes.append(f"plan.json has the first {_PROCESSES} of {len(processes):,} processes")
        return {**plan, "processes": processes[:_PROCESSES]}
    return plan


def _text_of(ask: Callable[[], object]) -> str | None:
    """Where the processes are, or were when the run hung; None if that is not known."""
    with suppress(DistError):
        return str(ask())
    return None
