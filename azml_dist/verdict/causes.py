"""What ranks say about themselves: the cause of each, and which came first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from azml_dist.verdict.case import KILL, STOPS, Case, known_rank, least, summary_of
from azml_dist.verdict.ends import by_signal
from azml_dist.verdict.exits import of_codes, of_fatal_signals, of_kills
from azml_dist.verdict.heard import OF_COMMANDS
from azml_dist.verdict.losses import of_timeouts
from azml_dist.verdict.observed import Cause
from azml_dist.verdict.verdict import Certainty, Evidence, Kind, Verdict

_CLOCKS = 1.0
"""Seconds by which the clocks of two nodes may differ."""
_DYING = 10.0
"""The longest time in seconds from a traceback to the end of its process; after more, the process had continued."""


class Causes:
    """The causes that the ranks of a case name, each held against how its process ended."""

    def __init__(self, case: Case) -> None:
        self._case = case

    @cached_property
    def all(self) -> list[Cause]:
        """All causes; the end of its rank limits how strong and certain each one is."""
        return [self._held_against_others_like_it(self._held_against_its_end(one)) for one in self._case.every_cause]

    def _held_against_others_like_it(self, cause: Cause) -> Cause:
        """An exception after which other ranks worked on, and this one too, has ended none of them."""
        if (
            cause.rank in self._case.seen
            or not cause.wrote_on
            or cause.uncaught
            or cause.likeness not in self._survived
        ):
            return cause
        return replace(cause, strength=1, certainty=least(cause.certainty, "likely"))

    @cached_property
    def _survived(self) -> set[object]:
        """What was raised on ranks that then worked on until they lost a peer."""
        return {cause.likeness for cause in self._case.every_cause if cause.wrote_on and cause.lost_later}

    def _held_against_its_end(self, cause: Cause) -> Cause:
        end = self._case.seen.get(known_rank(cause.rank))
        if end is None:
            return self._held_against_what_is_said(cause)
        if by_signal(end) == KILL and not end.stopped and _no_signal_follows(cause):
            return replace(cause, strength=1, certainty=least(cause.certainty, "likely"))
        if cause.lost_later:
            return self._held_against_the_others(cause)
        # A stopped process ends with a signal; if its traceback ended it, with 1.
        if cause.strength == 1 and cause.exception and end.exit_code == 1 and not (end.stopped or cause.worked_on):
            # Much may be written after it, by libraries that clean up: the process ended as after a traceback.
            return replace(cause, strength=3, certainty=least(cause.certainty, "likely"))
        if cause.strength < 2 or cause.uncaught or (cause.exception and end.exit_code == 1):
            return cause
        likely = replace(cause, certainty=least(cause.certainty, "likely"))
        if not end.stopped:
            # Python exits with 1 after a traceback: with another code, the script caught the exception.
            return likely if cause.exception and 1 < (end.exit_code or 0) <= 128 else cause
        if end.quiet > _DYING or ((cause.logged or cause.again) and self._case.failed_alone):
            # It caught the exception and continued, or waited: it was still running when another rank failed by itself.
            return replace(likely, strength=1)
        return cause if self._case.was_left else likely

    def _held_against_what_is_said(self, cause: Cause) -> Cause:
        """Where only the service or a launcher says how a rank ended, or which one was first."""
        likely = replace(cause, certainty=least(cause.certainty, "likely"))
        told = self._case.ends.get(known_rank(cause.rank))
        if told and by_signal(told) == KILL and _no_signal_follows(cause):
            return replace(likely, strength=1)
        if cause.lost_later:
            return self._held_against_the_others(cause)
        code = (told.exit_code or 0) if told and cause.exception else 0
        if cause.strength == 1 and code == 1 and not cause.worked_on:
            return replace(likely, strength=3)
        if 1 < code <= 128:
            return likely  # Python exits with 1 after a traceback: the script caught it
        if cause.wrote_on and code != 1 and not cause.uncaught:
            cause = likely  # the script may have caught the exception
        ranks = [] if cause.rank is None else [cause.rank]
        survived = cause.strength > 1 and (cause.logged or cause.again)
        caught = survived and (self._was_killed(cause) or self._case.a_silent_one_is_said_to_be_first(ranks))
        return replace(likely, strength=1) if caught else cause

    def _was_killed(self, cause: Cause) -> bool:
        """Whether a launcher that wrote to the same log, and names no rank, says that a process of it was killed."""
        return any(
            one.rank is None and one.log == cause.log and by_signal(one.ended) == KILL for one in self._case.stated
        )

    def _held_against_the_others(self, cause: Cause) -> Cause:
        """An exception before the loss of a peer counts little if there is a rank that has lost none."""
        lost = self._case.lost | {cause.rank}
        ends = self._case.ends
        # Whoever was stopped may have kept others waiting, but did not leave them.
        others = [
            rank
            for rank in self._case.ranks
            if rank not in lost
            and (cause.lost_later == "late" or rank not in ends or not self._case.is_victim(ends[rank]))
        ]
        likely = replace(cause, certainty=least(cause.certainty, "likely"))
        return replace(likely, strength=1) if others else likely

    def of_a_silent_end(self) -> Verdict | None:
        """A rank that failed silently before any message of another rank about itself."""
        best = self._best(3)
        began = [self._case.arrived(cause) for cause in best]
        said_why = {cause.rank for cause in self._case.every_cause}
        silent = {
            rank: end
            for rank, end in self._case.seen.items()
            if rank in self._case.failed_alone and rank not in said_why and end.noticed is not None
        }
        first = min((end.noticed for end in silent.values() if end.noticed is not None), default=None)
        if not best or first is None or any(at is None or at < first for at in began):
            return None
        found = of_fatal_signals(self._case, silent) or of_kills(self._case, silent) or of_codes(self._case, silent)
        return replace(found, certainty=least(found.certainty, "likely")) if found else None

    def of_strength(self, strength: int) -> Verdict | None:
        best = self._best(strength)
        if not best:
            return None
        groups: dict[tuple[str, str | None, str], list[Cause]] = {}
        for cause in best:
            groups.setdefault(cause.likeness, []).append(cause)
        kinds = {cause.kind for cause in best}
        if kinds == {"collective-mismatch"}:
            return self._of_mismatch(best)
        if len(groups) == 1:
            return self._of_group(best)
        own = [
            group
            for group in groups.values()
            if not all(cause.speaks_of_a_peer or (cause.logged and cause.wrote_on) for cause in group)
        ]
        first = own[0] if len(own) == 1 else self._earliest(own or list(groups.values()))
        if first:
            return self._of_group(first, at_most="likely")
        return self._of_several(best)

    def _best(self, strength: int) -> list[Cause]:
        """The cause of each rank that has one, lowest rank first."""
        by_rank: dict[tuple[int | None, str], list[Cause]] = {}
        for cause in self.all:
            if strength != 1 or self._may_have_failed(cause):
                by_rank.setdefault((cause.rank, cause.log if cause.rank is None else ""), []).append(cause)
        best = [_strongest(causes) for causes in by_rank.values()]
        chosen = [cause for cause in best if cause.strength == strength and (strength > 1 or cause.kind != "unknown")]
        if any(cause.rank is not None for cause in chosen):
            # A log of all ranks, or of the launcher, repeats what a rank writes to its own log.
            chosen = [cause for cause in chosen if cause.rank is not None]
        return sorted(chosen, key=lambda cause: -1 if cause.rank is None else cause.rank)

    def _may_have_failed(self, cause: Cause) -> bool:
        """Whether a process that continued after an exception failed, as far as is known."""
        if cause.rank is not None and cause.rank in self._case.ends:
            return self._case.failed(cause.rank)
        if cause.worked_on and self._case.known.status is None and not self._case.known.said:
            return False  # nothing says that it failed
        return not any(one.finished for one in self._case.heard if one.stream.log == cause.log)

    def _of_group(self, group: Sequence[Cause], at_most: Certainty = "certain") -> Verdict:
        ranks = sorted({cause.rank for cause in group if cause.rank is not None})
        cause = group[0]
        blames = cause.blame == "rank" or (cause.blame == "rank-if-alone" and len(ranks) < 2)
        rank = min(ranks, default=None) if blames else None
        certainty = least(cause.certainty, at_most)
        if rank is None and blames:
            told = self._case.of_the_launcher()
            rank, ranks, certainty = told, [] if told is None else [told], least(certainty, "likely")
        elif len(ranks) == 1 and (other := self._of_the_same_log(cause)) is not None:
            rank, ranks, certainty = other, [other], least(certainty, "likely")
        first = next((one.rank for one in self._case.stated if one.first and one.rank in ranks), None)
        if rank is not None and first is not None:
            rank = first
        if self._another_ended_first(ranks):
            certainty = least(certainty, "likely")
        late = self._who_then_waited(group, ranks)
        rank = rank if late is None else late
        last = self._last_words(cause) if len(group) == 1 else None
        said = f"the script may have caught this exception: its last line is `{last.text}`" if last else None
        waited = f"the others then waited for rank {late} in a collective" if late is not None else None
        evidence = [Evidence(one.rank, one.log, number, text) for one in group[:4] for number, text in one.lines]
        return self._case.make(
            cause.kind,
            certainty,
            rank,
            ranks,
            exception=cause.exception,
            message=cause.message,
            place=cause.place,
            hint="; ".join(filter(None, (cause.hint, said, waited))) or None,
            evidence=[*evidence, last] if last else evidence,
        )

    def _who_then_waited(self, group: Sequence[Cause], ranks: Sequence[int]) -> int | None:
        """Of ranks that have all lost a thread, the one in which the main thread waited, too: the others time out."""
        if len(ranks) < 2 or not all(cause.thread for cause in group):
            return None
        found = of_timeouts(self._case)
        return found.rank if found and found.rank in ranks else None

    def _last_words(self, cause: Cause) -> Evidence | None:
        """What a rank wrote after an exception that it had caught and logged, as `sys.exit` does with a text."""
        if not cause.logged or cause.rank is None:
            return None
        last = next((one for one in self._case.last_lines([cause.rank]) if one.log == cause.log), None)
        return last if last and (last.line or 0) > max(number for number, _ in cause.lines) else None

    def _another_ended_first(self, ranks: Sequence[int]) -> bool:
        """Whether these ranks were stopped while another rank failed without giving a reason."""
        seen = self._case.seen
        if self._case.a_silent_one_is_said_to_be_first(ranks):
            return True
        if not ranks or any(rank not in seen or self._case.failed(rank) for rank in ranks):
            return False
        said_why = {one.rank for one in self.all} | self._case.lost
        return any(self._case.failed(rank) for rank in seen if rank not in said_why)

    def _of_the_same_log(self, cause: Cause) -> int | None:
        """If a launcher wrote to the same log and names a rank without a log of its own, it was that rank."""
        told = [one for one in self._case.stated if one.log == cause.log and one.rank is not None]
        failed = {one.rank for one in told if by_signal(one.ended) not in STOPS}
        if len(failed) != 1 or failed & {one.rank for one in self._case.heard}:
            return None
        return next(iter(failed))

    def _earliest(self, groups: list[list[Cause]]) -> list[Cause] | None:
        """The causes that came first, if that can be known."""
        for when in (self._case.arrived, self._noticed):
            seen = [min((at for cause in group if (at := when(cause)) is not None), default=None) for group in groups]
            if all(one is not None for one in seen):
                return groups[seen.index(min(one for one in seen if one is not None))]
        times = [min((c.when for c in group if c.when is not None), default=None) for group in groups]
        if all(one is not None for one in times):
            known = sorted(one for one in times if one is not None)
            if known[1] - known[0] > _CLOCKS:
                return groups[times.index(known[0])]
        firsts = {one.rank for one in self._case.stated if one.first}
        told = [group for group in groups if firsts & {cause.rank for cause in group}]
        return told[0] if len(told) == 1 else None

    def _noticed(self, cause: Cause) -> float | None:
        end = self._case.ends.get(known_rank(cause.rank))
        return end.noticed if end else None

    def _of_several(self, best: Sequence[Cause]) -> Verdict:
        """Different causes on several ranks in an unknown order."""
        kinds = {cause.kind for cause in best}
        kind: Kind = best[0].kind if len(kinds) == 1 else "unknown"
        ranks = sorted({cause.rank for cause in best if cause.rank is not None})
        said = "; ".join(
            f"rank {c.rank}: {c.exception or c.kind}{f': {c.message}' if c.message else ''}" for c in best[:3]
        )
        return self._case.make(
            kind,
            "unknown" if kind == "unknown" else "likely",
            None,
            ranks,
            message=f"several ranks failed for different reasons: {said}",
            hint="it is unknown which came first: check them all",
            evidence=[Evidence(c.rank, c.log, number, text) for c in best[:6] for number, text in c.lines],
        )

    def _of_mismatch(self, best: Sequence[Cause]) -> Verdict:
        """Ranks in different collectives: blame the one that differs from most others."""
        prints: dict[int, str] = {}
        for one in self._case.heard:
            for rank, said in one.prints.items():
                prints.setdefault(rank, said)
        groups: dict[str, list[int]] = {}
        for rank, said in prints.items():
            groups.setdefault(said, []).append(rank)
        sizes = sorted(groups.values(), key=len)
        odd = sizes[0] if len(sizes) > 1 and len(sizes[0]) < len(sizes[-1]) else []
        lead = next((cause for cause in best if cause.rank in odd), best[0])
        verdict = self._of_group([lead, *(cause for cause in best if cause is not lead)])
        if not odd:
            return (
                replace(verdict, rank=None, node=None, summary=summary_of(verdict, None))
                if best[0].blame == "rank" and len(best) > 1
                else verdict
            )
        found = replace(verdict, rank=min(odd), ranks=sorted(odd), followers=self._case.followers(odd))
        return replace(found, summary=summary_of(found, min(odd)))


def _no_signal_follows(cause: Cause) -> bool:
    """Whether what it says ends no process with SIGKILL: the script caught it, or a command failed and it continued."""
    return not cause.uncaught and (cause.exception is not None or cause.kind in OF_COMMANDS)


def _strongest(causes: Sequence[Cause]) -> Cause:
    """Of several causes of one rank, the one that ended it, with the code place of another if it has none."""
    top = max(cause.strength for cause in causes)
    at_top = [cause for cause in causes if cause.strength == top]
    said = [cause for cause in at_top if cause.exception is None]
    raised = [cause for cause in at_top if cause.exception is not None]
    if raised and raised[-1].waited:
        # The thread that should have given it something has failed before.
        raised = [cause for cause in raised if cause.thread and cause.place] or raised
    certain = [cause for cause in raised if cause.certainty == "certain"]
    special = [c for c in said if c.kind in ("gpu-hardware", "shared-memory", "gpu-out-of-memory", "crash")]
    best = (special or certain[-1:] or raised[-1:] or said)[-1 if not special else 0]
    shows_place = best.signature is None or best.signature.place
    if best.place is None and shows_place:
        place = next((cause.place for cause in reversed(causes) if cause.place and cause.strength > 1), None)
        return replace(best, place=place)
    return best
