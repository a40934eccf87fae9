"""Why a run on Azure ML failed: the service's error and the ends of all logs, given to the judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from typing import NamedTuple

from azml_dist.azureml.described import Details, Submitted
from azml_dist.azureml.dumps import Dump
from azml_dist.azureml.ends import LogEnds, Whose
from azml_dist.azureml.judged import Cancelled
from azml_dist.azureml.logs import parse
from azml_dist.azureml.ranges import Ranges
from azml_dist.errors import DistError
from azml_dist.status import RunStatus
from azml_dist.verdict.dumps import OF_A_HANG, Left, with_hang
from azml_dist.verdict.folder import wanted, whose
from azml_dist.verdict.hidden import hide
from azml_dist.verdict.judge import judge, known_in_part
from azml_dist.verdict.known import Known
from azml_dist.verdict.verdict import Verdict
from azml_dist.words import plural

_FEW = 64
"""Logs to read that are not those of ranks."""
_ROLE = "your login needs the role Storage Blob Data Reader on the storage account of the workspace"


class Asked(NamedTuple):
    """A run that has ended."""

    job: Submitted
    details: Details
    renewed: Callable[[], Details]
    """Fetch the details again, since addresses of logs expire."""
    ranges: Ranges
    secrets: Sequence[str] = ()
    """Values that must not be shown, apart from those that the job's record gives away by their names."""
    dumps: Callable[[], Iterable[Dump]] = tuple
    """Download what its ranks left when a collective timed out."""
    cancelled: Cancelled | None = None
    """Why this machine cancelled it."""


class Why(NamedTuple):
    """Why it failed."""

    verdict: Verdict | None
    unread: str | None = None
    """Which logs could not be read, if any; the hint of the verdict says so, too."""


def why(asked: Asked) -> Why:
    """Why it failed, according to the service and the logs."""
    job, details = asked.job, asked.details
    nodes = {source.rank: source.node_rank for source in job.sources}
    logs, left = _logs(asked), Left(len(job.sources))
    known = Known(
        left.listen(logs),
        said=details.said,
        status=details.status,
        nodes=nodes,
        command=job.command,
        environment=job.environment,
        secrets=[*job.secrets, *asked.secrets],
    )
    try:
        verdict = judge(known)
        unread = _unread(logs)
    except DistError as error:  # such as no login for the storage
        verdict, unread = judge(replace(known, logs=())), (error.problems[0].message, error.hint)
    if verdict is None:
        return Why(None)
    if verdict.kind == "canceled" and asked.cancelled:
        text = hide(asked.cancelled.why, known.secrets)
        verdict = replace(verdict, message=text, summary=text)
    if verdict.kind in OF_A_HANG:
        _take_dumps(asked, left)
        verdict = with_hang(verdict, left, nodes)
    for why_not, hint in filter(None, [unread, *left.problems]):
        verdict = known_in_part(verdict, why_not, hint)
    lines = [replace(one, line=logs.number(one.log, one.line)) for one in verdict.evidence]
    return Why(replace(verdict, evidence=lines, hint=_with_what_is_here(verdict)), unread and unread[0])


def _with_what_is_here(verdict: Verdict) -> str | None:
    """The hint; of a missing module that this machine has, also what it comes from here."""
    found = (
        re.search(r"No module named '([\w.]+)'", verdict.message or "") if verdict.kind == "missing-module" else None
    )
    for package in packages_distributions().get(found[1].partition(".")[0], ()) if found else ():
        return f"{verdict.hint}; here it comes from {package} {version(package)}"
    return verdict.hint


def _take_dumps(asked: Asked, left: Left) -> None:
    try:
        for dump in asked.dumps():
            left.take_dump(dump.path, dump.rank, dump.data)
    except DistError as error:  # such as no login for the storage
        left.unread.append(error)


def _logs(asked: Asked) -> LogEnds:
    first = [asked.details.logs]

    def addresses() -> Mapping[str, str]:
        return first.pop() if first else asked.renewed().logs

    if asked.details.status == RunStatus.CANCELED:  # no log says who cancelled a run
        return LogEnds(asked.ranges, {}, addresses)
    told = {path: Whose(*one) for path, one in whose(wanted(asked.details.logs)).items()}
    named = {path: name.source for path in told if (name := parse(path, asked.job.world))}
    # The job says how many workers come before its parameter servers; the log names do not.
    found = {path: Whose(named[path].rank, named[path].node_rank) if path in named else told[path] for path in told}
    others = [path for path, one in found.items() if one.rank is None]
    return LogEnds(asked.ranges, {path: found[path] for path in found if path not in set(others[_FEW:])}, addresses)


def _unread(logs: LogEnds) -> tuple[str, str | None] | None:
    """Says that some logs could not be read, and what helps."""
    if not logs.unread:
        return None
    path, status = next(iter(logs.unread.items()))
    which = path if len(logs.unread) == 1 else f"{plural(len(logs.unread), 'log')} such as {path}"
    how = f"the storage answers {status}" if status else "the connection to the storage fails"
    return f"{which} cannot be read: {how}", _ROLE if status in (401, 403) else "try again"
