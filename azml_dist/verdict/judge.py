"""Judges a run: which rank failed first and why, from what the ranks wrote and how they ended.

A lost peer is never the cause if another rank has a cause of its own. Messages of Python and frameworks count more than
how a process ended, and that counts more than which rank was silent. If the order between ranks would decide but is
unknown, the answer is "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from azml_dist.status import RunStatus
from azml_dist.verdict.case import ABORT, EVIDENCE, KILL, WORDS, Case, evidence_of, known_rank, least
from azml_dist.verdict.causes import Causes
from azml_dist.verdict.ends import by_signal
from azml_dist.verdict.exits import of_an_abort, of_codes, of_fatal_signals, of_kills
from azml_dist.verdict.known import Ended, Known
from azml_dist.verdict.losses import of_an_improper_end, of_losses, of_timeouts
from azml_dist.verdict.observed import Cause
from azml_dist.verdict.signatures import Signature
from azml_dist.verdict.unfinished import WORDS as UNFINISHED
from azml_dist.verdict.verdict import Certainty, Evidence, Kind, Verdict

_FIRST_OF_ALL = frozenset({"preempted", "image-build", "launcher"})
"""Kinds that decide if they are said about the whole run, whatever ranks say."""


def judge(known: Known) -> Verdict | None:
    """Why the run failed; None if it did not fail, as far as is known."""
    if known.status is RunStatus.COMPLETED:
        return None
    case = _Judge(Case(known))
    if known.ends and all(end.well for end in known.ends.values()):
        return case.of_what_stopped_it()
    return case.verdict()


def known_in_part(verdict: Verdict, why: str, hint: str | None) -> Verdict:
    """The verdict if some logs could not be read: the cause may be in them."""
    hints = "; ".join(filter(None, (verdict.hint, why, hint)))
    if verdict.kind == "unknown" and not verdict.ranks:
        said = f"unknown, because {why}"
        return replace(verdict, message=said, summary=said, hint=hint)
    return replace(verdict, certainty=least(verdict.certainty, "likely"), hint=hints)


class _Judge:
    """The order in which kinds of evidence count."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.causes = Causes(case)

    def verdict(self) -> Verdict | None:
        """The first answer, from the strongest kind of evidence to the weakest."""
        return self._of_a_rehearsal() or self._in_part(self._doubted(self._by_strength()))

    def _by_strength(self) -> Verdict | None:
        return (
            self._of_the_run(first=True)
            or self._of_memory()
            or self.causes.of_a_silent_end()
            or self.causes.of_strength(3)
            or self._of_the_run(first=False)
            or of_fatal_signals(self.case)
            or self.causes.of_strength(2)
            or self._of_a_quiet_fault()
            or of_timeouts(self.case)
            or of_kills(self.case)
            or of_codes(self.case)
            or of_an_improper_end(self.case)
            or of_losses(self.case)
            or self.causes.of_strength(1)
            or self._of_nothing()
        )

    def _in_part(self, found: Verdict | None) -> Verdict | None:
        """No rank is certain if the log of another one ends in a traceback: that one may have failed first."""
        if found is None or found.certainty != "certain" or found.rank is None:
            return found
        return self._likely(
            found, [c for c in self.case.every_cause if c.message == UNFINISHED and c.rank not in found.ranks]
        )

    def _doubted(self, found: Verdict | None) -> Verdict | None:
        """A silent end is not certain if a rank that was stopped has a traceback, or the killed one ends with one."""
        if found is None or found.certainty != "certain" or found.exception:
            return found
        others = [
            c
            for c in self.case.every_cause
            if c.strength > 1
            and (self._was_stopped(c) if c.rank not in found.ranks else c.exception and not c.wrote_on)
        ]
        return self._likely(found, others)

    def _likely(self, found: Verdict, others: Sequence[Cause]) -> Verdict:
        """The verdict if other causes make it doubtful."""
        if not others:
            return found
        shown = self.case.shown
        lines = [Evidence(c.rank, c.log, number, shown(text) or "") for c in others[:3] for number, text in c.lines]
        return replace(found, certainty="likely", evidence=[*found.evidence, *lines][:EVIDENCE])

    def _was_stopped(self, cause: Cause) -> bool:
        end = self.case.seen.get(known_rank(cause.rank))
        return end is not None and end.stopped

    def of_what_stopped_it(self) -> Verdict | None:
        """If every process ended successfully: whether the run was stopped nevertheless."""
        stopped = self._of_the_run(first=False)
        return stopped if stopped and stopped.kind in ("canceled", "preempted", "timeout") else None

    def _of_a_rehearsal(self) -> Verdict | None:
        """A rank that a fault ended, if it failed first."""
        failed = [rank for rank, end in self.case.known.ends.items() if not end.well and not end.stopped]
        ended = sorted(
            rank for rank in failed if rank in self.case.known.on_purpose and self.case.known.on_purpose[rank].ended
        )
        first = self.case.first(ended if set(failed) == set(ended) else failed)
        if first not in ended:
            return None
        kind: Kind = "killed" if self.case.known.ends[first].signal else "exit-code"
        return self._on_purpose(kind, "certain", first, ended)

    def _of_a_quiet_fault(self) -> Verdict | None:
        """A rank that a fault stopped, or ended as if its work were done: others may have waited for it."""
        quiet = [rank for rank, one in self.case.known.on_purpose.items() if not one.ended or self._ended_well(rank)]
        if len(quiet) != 1:
            return None
        kind: Kind = "exit-code" if self.case.known.on_purpose[quiet[0]].ended else "hang"
        return self._on_purpose(kind, "likely", quiet[0], [])

    def _ended_well(self, rank: int) -> bool:
        return (end := self.case.known.ends.get(rank)) is not None and end.well

    def _on_purpose(self, kind: Kind, certainty: Certainty, rank: int, ranks: Sequence[int]) -> Verdict:
        one = self.case.known.on_purpose[rank]
        code = self.case.known.ends[rank].exit_code if rank in self.case.known.ends else None
        did = f"{one.did} with exit code {code}" if one.did == "ended" else one.did
        message = f"{did} on purpose, by the fault `{one.spec}`"
        return self.case.make(
            kind,
            certainty,
            rank,
            ranks,
            message=message,
            evidence=[Evidence(rank, "run.json", None, f"fault {one.spec}")],
        )

    def _of_the_run(self, *, first: bool) -> Verdict | None:
        found = self.case.said
        if self.case.known.status is RunStatus.CANCELED and first:
            roots = [one for one in found if one[0].kind in ("timeout", "preempted")]
            if roots:
                return self.case.whole(*roots[0])
            message = self.case.known.error or WORDS["canceled"]
            return self.case.make("canceled", "certain", None, [], message=message, evidence=[])
        roots = [one for one in found if one[0].role == "root"]
        if first:
            roots = [one for one in roots if one[0].kind in _FIRST_OF_ALL or _is_of_the_service(one)]
        return self.case.whole(*roots[0]) if roots else None

    def _of_memory(self) -> Verdict | None:
        killed = [
            rank for rank, end in self.case.ends.items() if by_signal(end) == KILL and not self.case.is_victim(end)
        ]
        worker = [cause for cause in self.causes.all if cause.signature and cause.signature.kind == "killed"]
        proof = self._kernel_proof
        anyone = killed or worker or any(one.ended.signal == KILL for one in self.case.stated)
        if proof is None or not anyone:
            return None
        rank = killed[0] if len(killed) == 1 else worker[0].rank if worker and not killed else self.case.first(killed)
        place = worker[0].place if worker else None
        told = [one for one in self.case.stated if by_signal(one.ended) == KILL][:3]
        return self.case.make(
            "host-out-of-memory",
            "certain" if rank is not None else "likely",
            rank,
            sorted(killed) if rank is None else [rank],
            message="the kernel killed it because memory ran out",
            place=place,
            hint="use a VM size with more memory, fewer workers or processes per node, or load less data at a time",
            evidence=[proof, *(evidence_of(one) for one in told)],
        )

    @cached_property
    def _kernel_proof(self) -> Evidence | None:
        if self.case.known.out_of_memory_kills:
            count = self.case.known.out_of_memory_kills
            return Evidence(None, "memory.events", None, f"oom_kill {count}")
        for one in self.case.heard:
            if one.kernel_count:
                return Evidence(None, one.stream.log, None, one.kernel_count)
            for said in one.confirmations:
                if said.signature.kind == "host-out-of-memory" and said.signature.certainty == "certain":
                    return Evidence(None, said.log, said.line, said.text)
        return None

    def _of_nothing(self) -> Verdict | None:
        said = self.case.known.said
        if said and said.message:
            evidence = [Evidence(None, "", None, said.message)]
            return self.case.make("unknown", "unknown", None, [], message=said.message, evidence=evidence)
        aborted = [one for one in self.case.heard if one.aborted_at_exit and not one.has_traceback]
        if aborted:
            return of_an_abort(self.case, {one.rank: Ended(signal=ABORT) for one in aborted if one.rank is not None})
        if self.case.known.status is None and any(one.finished or one.went_on for one in self.case.heard):
            return None
        if self.case.known.status is None and not self.case.heard:
            return None
        return self.case.make(
            "unknown",
            "unknown",
            None,
            [],
            message="these logs do not show that the run failed, or why",
            hint=self._of_who_is_behind(),
            evidence=self.case.last_lines(self.case.ranks[:4]),
        )

    def _of_who_is_behind(self) -> str | None:
        """Of logs that just stop: which rank has come least far, by the steps that it says."""
        steps = {one.rank: one.step for one in self.case.heard if one.rank is not None and one.step is not None}
        if len(steps) < 2:
            return None
        least, *others = sorted(steps, key=lambda rank: steps[rank])
        if steps[least] == steps[others[0]]:
            return None
        return (
            f"rank {least} has come least far (step {steps[least]}; the next one {steps[others[0]]}): look there first"
        )


def _is_of_the_service(one: tuple[Signature, re.Match[str], Evidence]) -> bool:
    """Whether the service itself says what it could not do for the run."""
    signature, _, line = one
    return line.log == "" and signature.kind in ("data-access", "missing-file", "service")
