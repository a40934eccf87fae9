"""Lost peers and timeouts: which rank was late, and which was silent."""

from __future__ import annotations

import re
from collections.abc import Sequence

from azml_dist.verdict.case import WORDS, Case
from azml_dist.verdict.ends import LEFT_MPI
from azml_dist.verdict.frames import relative
from azml_dist.verdict.observed import Cause, Loss
from azml_dist.verdict.signatures import PROGRESS
from azml_dist.verdict.verdict import Evidence, Kind, Verdict

_INTERRUPTED = re.compile(r"KeyboardInterrupt")
_LATE = ("collective-timeout", "rendezvous")
"""Kinds of losses of ranks that waited for another one."""
_OF_AN_ERROR = re.compile(
    r"(?i)^(?!.*\b(?:warn(?:ing)?|info|debug)\b).*\b(?:errors?(?!\W{0,3}\d)|fatal|invalid|missing|must|cannot|can't"
    r"|could not|failed|failure|not found|usage|abort\w*)\b"
)
"""Words of a last line with which a script may have ended itself."""
_WARNING = re.compile(r"(?:^|[\s:])\[?W\d{4} |\bWARN(?:ING)?\b")
"""The level of a line that ends no process."""
_GONE = "it ended while other ranks still had to exchange data with it"
_PERHAPS_GONE = "it may have ended well, while other ranks still had to exchange data with it"


def of_timeouts(case: Case) -> Verdict | None:
    late = [loss for one in case.heard for loss in one.losses if loss.signature.kind in _LATE]
    waiting = [
        said for one in case.heard for said in one.confirmations if said.signature.kind in ("rendezvous", "hang")
    ]
    if not late:
        return _of_waiting(case, waiting) if waiting else None
    reporters = {loss.rank for loss in late}
    # A rank that only dumps its state because another rank asked for it has not lost a peer.
    lost = {loss.rank for one in case.heard for loss in one.losses if "dump signal" not in loss.text}
    odd = _odd(late) or _pointed_at(late, reporters) or _silent(case, lost) or _only_left(case, reporters)
    hint = next((loss.signature.hint for loss in late if isinstance(loss.signature.hint, str)), None)
    died = [cause for cause in case.every_cause if cause.thread and odd == [cause.rank]][:1]
    hint = next((_of_a_thread(case, cause) for cause in died), hint)
    shown = list({(loss.rank, loss.log): loss for loss in reversed(late)}.values())[::-1]
    at_the_start = all(loss.signature.kind == "rendezvous" for loss in late)
    kind: Kind = "rendezvous" if at_the_start else "collective-timeout"
    return case.make(
        kind,
        "likely",
        min(odd, default=None),
        sorted(odd),
        message=WORDS[kind] if odd else "ranks waited in a collective until the timeout",
        hint=hint
        or "compare what the ranks do before this collective: branches, numbers of batches, slow work on one rank",
        evidence=[
            *(Evidence(one.rank, one.log, number, text) for one in died for number, text in one.lines),
            *case.last_lines(sorted(odd)[:3]),
            *(Evidence(loss.rank, loss.log, loss.line, loss.text) for loss in shown[:6]),
        ],
    )


def _of_a_thread(case: Case, cause: Cause) -> str:
    """What a thread had raised of the rank that is late."""
    said = ": ".join(filter(None, (cause.exception, cause.message)))
    place = f" ({relative(cause.place.path, case.known)}:{cause.place.line})" if cause.place else ""
    return f"a thread of rank {cause.rank} had failed, for which it may have waited: {said}{place}"


def _of_waiting(case: Case, waiting: Sequence[Loss]) -> Verdict:
    complaining = {said.rank for said in waiting}
    first = waiting[0].signature
    alone = [rank for rank in complaining if rank is not None] if first.blame == "rank-if-alone" else []
    pointed = _pointed_at(waiting, complaining) or (alone if len(alone) == 1 else [])
    return case.make(
        first.kind,
        "likely",
        pointed[0] if len(pointed) == 1 else None,
        pointed,
        message=waiting[0].text,
        hint=first.hint if isinstance(first.hint, str) else None,
        evidence=list({said.rank: Evidence(said.rank, said.log, said.line, said.text) for said in waiting}.values()),
    )


def _odd(late: Sequence[Loss]) -> list[int]:
    """Ranks whose watchdog waits in another collective than most."""
    where: dict[int, tuple[int, str, str]] = {}
    for loss in late:
        values = loss.values
        if loss.rank is not None and values.get("seq"):
            said = (int(values["seq"] or 0), values.get("op") or "", values.get("numel") or "")
            where.setdefault(loss.rank, said)
    groups: dict[tuple[int, str, str], list[int]] = {}
    for rank, said in where.items():
        groups.setdefault(said, []).append(rank)
    if len(groups) < 2:
        return []
    if len({said[0] for said in groups}) > 1:
        return groups[min(groups)]  # a rank in an earlier collective has not reached the later one
    sizes = sorted(groups.values(), key=len)
    return sizes[0] if len(sizes[0]) < len(sizes[1]) else []


def _pointed_at(said: Sequence[Loss], complaining: set[int | None]) -> list[int]:
    named = [loss.values.get("peers") or loss.values.get("peer") or "" for loss in said]
    peers = {int(digits) for one in named for digits in re.findall(r"(?<![\w.])\d{1,7}(?=[:, ]|$)", one)}
    return sorted(peers - {rank for rank in complaining if rank is not None})


def _silent(case: Case, reporters: set[int | None]) -> list[int]:
    """Ranks with logs that do not mention a timeout while others do."""
    silent = [one.rank for one in case.heard if one.rank is not None and one.rank not in reporters]
    return sorted(set(silent)) if len(silent) == 1 or 0 < len(silent) < len(reporters) else []


def _only_left(case: Case, reporters: set[int | None]) -> list[int]:
    """The one rank that did not wait until a timeout, and only noticed that the others had gone."""
    left = {loss.rank for one in case.heard for loss in one.losses if loss.rank is not None} - reporters
    return sorted(left) if len(left) == 1 and len(reporters) > 1 else []


def of_an_improper_end(case: Case) -> Verdict | None:
    """A rank for which mpirun ended the run, as it left without `MPI_Finalize`; its exit code may be 0."""
    told = next((one for one in case.stated if one.rank is not None and LEFT_MPI in one.text), None)
    if told is None or told.rank is None:
        return None
    return case.make(
        "collective-mismatch",
        "likely",
        told.rank,
        [told.rank],
        message="it ended without `MPI_Finalize` while other ranks were still running, so mpirun stopped them",
        hint="let every rank reach the end of the script: `os._exit` leaves the others alone",
        evidence=[*case.last_lines([told.rank]), Evidence(told.rank, told.log, told.line, told.text)],
    )


def _is_warning(loss: Loss) -> bool:
    return bool(_WARNING.search(loss.text))


def of_losses(case: Case) -> Verdict | None:
    losses = [loss for one in case.heard for loss in one.losses]
    if not losses or (case.known.status is None and not case.stated and all(map(_is_warning, losses))):
        return None  # where only logs are known, warnings may be those of a run that ended well
    if all(_INTERRUPTED.search(loss.text) for loss in losses):
        evidence = [Evidence(loss.rank, loss.log, loss.line, loss.text) for loss in losses[:2]]
        return case.make("canceled", "likely", None, [], message="it was interrupted (Ctrl-C)", evidence=evidence)
    if all(loss.values.get("actor") for loss in losses):
        return _of_actors(case, losses)
    lost = {loss.rank for loss in losses}
    early = [r for r in case.ranks if r not in lost and (e := case.seen.get(r)) and e.well]
    early = early or [h.rank for h in case.heard if h.rank is not None and h.rank not in lost and h.finished]
    silent = [rank for rank in case.ranks if rank not in lost]
    if not early and len(silent) == 1 and any(one.first and one.rank in lost for one in case.stated):
        early = silent  # the first that failed is said to be another: this one had ended well, or is there still
    evidence = [Evidence(loss.rank, loss.log, loss.line, loss.text) for loss in losses[:4]]
    if early and len(early) < len(case.ranks):
        return case.make(
            "collective-mismatch",
            "likely",
            early[0] if len(early) == 1 else None,
            early,
            message=_GONE if all(rank in case.seen for rank in early) else _PERHAPS_GONE,
            hint="all ranks must do the same number of steps: compare the lengths of their data",
            evidence=[*case.last_lines(early[:2]), *evidence],
        )
    lead = silent[0] if len(silent) == 1 and len(case.ranks) > 1 else None
    if lead is not None and lead not in case.seen and case.was_left:
        last = case.last_lines([lead])
        told = None if any(one.has_traceback for one in case.heard if one.rank == lead) else _last_words(last)
        hint = "see its last lines: `sys.exit` leaves a text at most; SIGKILL, a crash and `os._exit` leave nothing"
        return case.make(
            "exit-code" if told else "killed",
            "likely",
            lead,
            [lead],
            message="it ended without a traceback, and the others lost their connection to it",
            hint=f"its last line is `{told}`, with which `sys.exit` may have ended it" if told else hint,
            evidence=[*last, *evidence],
        )
    who = f"rank {lead} may have ended first, without a traceback" if lead is not None else "no log says why"
    return case.make(
        "unknown",
        "unknown",
        lead,
        [],
        message=f"ranks lost a peer; {who}",
        hint="find the rank whose log ends first, and how its process ended",
        evidence=[*evidence, *(case.last_lines([lead]) if lead is not None else [])],
    )


def _last_words(last: Sequence[Evidence]) -> str | None:
    """The last line, if a script may have ended itself with it."""
    text = last[-1].text if last else ""
    return text if _OF_AN_ERROR.search(text) and not PROGRESS.search(text) else None


def _of_actors(case: Case, losses: Sequence[Loss]) -> Verdict:
    """An actor of Ray is no rank: it may have run on any node."""
    where = next((loss.values for loss in losses if loss.values.get("pid")), None)
    which = f"process {where['pid']} on {where['ip']}" if where else "its process"
    return case.make(
        "unknown",
        "unknown",
        None,
        [],
        message="an actor of Ray died, and no log says why",
        hint=f"{which} has a log of its own on its node, in `/tmp/ray/session_latest/logs`; memory may have run out",
        evidence=[Evidence(loss.rank, loss.log, loss.line, loss.text) for loss in losses[:4]],
    )
