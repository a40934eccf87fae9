"""What is known of a run that is being judged, and how a verdict on it is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from azml_dist.verdict.ends import VICTIM, Statement, by_signal, of_a_launcher, of_the_service
from azml_dist.verdict.frames import relative
from azml_dist.verdict.heard import hear, hint_of
from azml_dist.verdict.hidden import hide
from azml_dist.verdict.hints import About
from azml_dist.verdict.known import Ended, Known, Log
from azml_dist.verdict.observed import Cause, Heard
from azml_dist.verdict.signatures import NOISE, WHOLE, Signature, compiled, may_be_in
from azml_dist.verdict.streams import Stream, streams
from azml_dist.verdict.tracebacks import Frame
from azml_dist.verdict.verdict import STOPPED, Certainty, Evidence, Kind, Verdict

STOPS = {1, 2, 15}
"""SIGHUP, SIGINT, SIGTERM: how a process is asked to stop."""
ABORT, KILL = 6, 9
"""SIGABRT and SIGKILL."""
_BUILD_LOG = re.compile(r"image_build|build_log", re.IGNORECASE)
_LINES_OF_A_BUILD = 3
_LONGEST = 400
_FEW, _WIDE = 4, 200
"""Lines before a failure that are shown, and how much of each."""
_SUMMARY = 200
"""How much of a message its summary has."""
EVIDENCE = 12
"""The most lines that a verdict shows as evidence."""
WORDS: dict[Kind, str] = {
    "preempted": "its nodes were evicted",
    "canceled": "it was cancelled",
    "timeout": "it reached its time limit",
    "unknown": "the reason is unknown",
    "hang": "it waited and did not continue",
    "image-build": "the image could not be built",
    "collective-timeout": "the other ranks waited for it in a collective until the timeout",
    "rendezvous": "the other ranks waited for it at the start until the timeout",
    "exit-flake": "it was aborted when its interpreter exited, after it had finished its work",
}


class Case:
    """A run that is being judged: what is known of it, and how a verdict on it is written."""

    def __init__(self, known: Known) -> None:
        self.known = known
        # One log at a time: what is extracted takes a fraction of the memory.
        self.heard: list[Heard] = []
        self._arrivals: dict[str, Mapping[int, int]] = {}
        """The order in which lines arrived, by log and line."""
        for log in known.logs:
            self.heard += [hear(self._of_this_world(one, log), known) for one in streams(log)]
            self._arrivals[log.name] = log.arrived
        said = of_the_service(known.said.message) if known.said else []
        several = len({one.rank for one in self.heard if one.rank is not None}) > 1
        self.stated = [one for heard in self.heard for one in heard.stated if not (one.child and several)]
        self.stated += [one for one in said if not known.nodes or one.rank in known.nodes]
        # Locally, the ends of the processes themselves were observed; elsewhere, only what launchers made of them.
        self.seen = known.ends if known.here else {rank: of_a_launcher(end) for rank, end in known.ends.items()}
        self.ranks = sorted({one.rank for one in self.heard if one.rank is not None} | set(known.ends))

    def _of_this_world(self, stream: Stream, log: Log) -> Stream:
        """A script may print anything, such as lines of a rank that this run does not have: they are its own."""
        is_foreign = self.known.nodes and stream.rank is not None and stream.rank not in self.known.nodes
        return replace(stream, rank=log.rank) if is_foreign else stream

    @cached_property
    def said(self) -> list[tuple[Signature, re.Match[str], Evidence]]:
        """Matches of signatures for whole runs, strongest first; the service's words come before logs."""
        said = self.known.said
        spoken = [said.message, *said.codes, *said.warnings] if said else []
        found = [
            (signature, match, Evidence(None, log, None, text.strip()))
            for log, text in (*(("", one) for one in spoken), ("run.json", self.known.error or ""))
            for signature in WHOLE
            if may_be_in(signature, text) and (match := compiled(signature.pattern).search(text))
        ]
        found += [one for heard in self.heard for one in sorted(heard.of_the_run, key=lambda hit: hit[2].line or 0)]
        return sorted(found, key=lambda one: one[0].role != "root")

    def whole(self, signature: Signature, match: re.Match[str], line: Evidence) -> Verdict:
        about = About(match[0], "", self.known)
        hint = hint_of(signature, match, about)
        more = [one for one in self.said if one[0].kind == signature.kind and one[2] != line]
        for other, found, _ in more:
            hint = hint_of(other, found, about) if other.role == "confirmation" and other.hint else hint
        confirmed = next((one[2].text for one in more if one[0].role == "confirmation"), None)
        evidence = [line, *(one[2] for one in more)]
        if signature.kind == "image-build" and confirmed is None:
            evidence += self._ends_of_build_logs
        message = confirmed or line.text
        return self.make(signature.kind, signature.certainty, None, [], message=message, hint=hint, evidence=evidence)

    @cached_property
    def _ends_of_build_logs(self) -> list[Evidence]:
        """The last lines of the log of an image build, which say why it failed if no known words do."""
        return [
            Evidence(None, one.stream.log, number, line.strip())
            for one in self.heard
            if _BUILD_LOG.search(one.stream.log)
            for number, line in [
                pair for pair in zip(one.stream.numbers, one.stream.lines, strict=True) if pair[1].strip()
            ][-_LINES_OF_A_BUILD:]
        ]

    @cached_property
    def every_cause(self) -> list[Cause]:
        """All causes, of ranks that are not known to have ended well."""
        return [
            cause
            for one in self.heard
            if not _BUILD_LOG.search(one.stream.log)
            for cause in one.causes
            if not (cause.rank is not None and (end := self.ends.get(cause.rank)) and end.well)
        ]

    @cached_property
    def failed_alone(self) -> set[int]:
        """Ranks that failed by themselves: they were not stopped, and do not mention a lost peer."""
        own = {cause.rank for cause in self.every_cause if cause.strength > 1}
        return {rank for rank in self.seen if self.failed(rank) and (rank in own or rank not in self.lost)}

    @cached_property
    def lost(self) -> set[int | None]:
        """Ranks that say that a peer is gone or did not arrive."""
        return {loss.rank for one in self.heard for loss in one.losses}

    @cached_property
    def was_left(self) -> bool:
        """Whether a rank noticed that a peer was gone, which says more than waiting for one."""
        return any(loss.signature.kind == "unknown" for one in self.heard for loss in one.losses)

    def arrived(self, cause: Cause) -> int | None:
        """When the first line of a cause arrived, in the order of all lines."""
        return None if cause.begins is None else self._arrivals.get(cause.log, {}).get(cause.begins)

    def a_silent_one_is_said_to_be_first(self, ranks: Sequence[int]) -> bool:
        """Whether the service or a launcher names another rank, which itself says nothing of why."""
        said_why = {one.rank for one in self.every_cause} | self.lost | set(ranks)
        return any(one.first and one.rank is not None and one.rank not in said_why for one in self.stated)

    @cached_property
    def ends(self) -> dict[int, Ended]:
        """How each rank ended, as observed, or else according to a launcher."""
        found: dict[int, Ended] = {}
        for one in self.stated:
            if one.rank is not None:
                found.setdefault(one.rank, one.ended)
        return {**found, **self.seen}

    def failed(self, rank: int) -> bool:
        end = self.ends.get(rank)
        return end is None or not (end.well or end.stopped)

    def is_victim(self, end: Ended) -> bool:
        said = self.known.said
        return end.stopped or bool(said and VICTIM.search(said.message)) or by_signal(end) in STOPS

    def make(
        self,
        kind: Kind,
        certainty: Certainty,
        rank: int | None,
        ranks: Sequence[int],
        *,
        evidence: Sequence[Evidence],
        exception: str | None = None,
        message: str | None = None,
        place: Frame | None = None,
        hint: str | None = None,
    ) -> Verdict:
        blamed = list(ranks) if ranks else [rank] if rank is not None else []
        followers = self.followers(blamed)
        verdict = Verdict(
            kind=kind,
            certainty=certainty,
            rank=rank,
            ranks=blamed,
            node=self._node(rank),
            exception=exception,
            message=self.shown(message),
            file=relative(place.path, self.known) if place else None,
            line=place.line if place else None,
            source=self.shown(place.source) if place else None,
            summary="",
            hint=self.shown(hint),
            followers=followers,
            before=tuple(self.shown(line) or "" for line in self._before(rank)),
            consequence=self.shown(self._consequence(followers)),
            evidence=[
                replace(one, text=self.shown(one.text) or "") for one in dict.fromkeys(evidence) if one.text.strip()
            ][:EVIDENCE],
        )
        return replace(verdict, summary=summary_of(verdict, rank))

    def shown(self, text: str | None) -> str | None:
        return hide(text, self.known.secrets)[:_LONGEST] if text else None

    def _before(self, rank: int | None) -> tuple[str, ...]:
        near = next((one.before for one in self.heard if rank is not None and one.rank == rank and one.before), ())
        return tuple(line[:_WIDE] for line in near if not NOISE.search(line))[-_FEW:]

    def _consequence(self, followers: Sequence[int]) -> str | None:
        lost = {loss.rank: loss.said for one in self.heard for loss in one.losses if loss.rank in set(followers)}
        most = Counter(lost.values()).most_common(1)
        if most:
            return " ".join(most[0][0].split())[:60]
        seen = [self.known.ends.get(rank) for rank in followers]
        return STOPPED if seen and all(end and end.stopped for end in seen) else None

    def _node(self, rank: int | None) -> int | None:
        if rank is None:
            return None
        own = next((one.stream.node for one in self.heard if one.rank == rank and one.stream.node is not None), None)
        return self.known.nodes.get(rank, own)

    def followers(self, blamed: Sequence[int]) -> list[int]:
        lost = {rank for rank in self.lost if rank is not None}
        ended = {rank for rank, end in self.ends.items() if not end.well}
        return sorted((lost | ended) - set(blamed))

    def first(self, ranks: Sequence[int]) -> int | None:
        """Which of them ended first, if that is known."""
        if len(ranks) < 2:
            return ranks[0] if ranks else None
        noticed = {r: e.noticed for r in ranks if (e := self.ends.get(r)) and e.noticed is not None}
        if len(noticed) == len(ranks):
            return min(noticed, key=lambda rank: (noticed[rank], rank))
        return next((one.rank for one in self.stated if one.rank in ranks and one.first), None)

    def of_the_launcher(self) -> int | None:
        """The rank that failed by itself, if launchers name only one."""
        told = {one.rank for one in self.stated if one.rank is not None and by_signal(one.ended) not in STOPS}
        first = {one.rank for one in self.stated if one.first and one.rank is not None}
        one = told if len(told) == 1 else first
        return next(iter(one)) if len(one) == 1 else None

    def stated_of(self, rank: int | None, number: int | None) -> list[Evidence]:
        return [
            evidence_of(one)
            for one in self.stated
            if one.rank == rank and (number is None or by_signal(one.ended) == number)
        ][:2]

    def last_lines(self, ranks: Iterable[int]) -> list[Evidence]:
        """The last meaningful line of each rank."""
        found = []
        for rank in ranks:
            for one in self.heard:
                stream = one.stream
                said = (
                    [at for at, line in enumerate(stream.lines) if not NOISE.search(line)] if one.rank == rank else []
                )
                if said:
                    found.append(Evidence(rank, stream.log, stream.numbers[said[-1]], stream.lines[said[-1]].strip()))
        return found


def least(one: Certainty, other: Certainty) -> Certainty:
    order: tuple[Certainty, ...] = ("unknown", "likely", "certain")
    return min(one, other, key=order.index)


def known_rank(rank: int | None) -> int:
    return -1 if rank is None else rank


def evidence_of(one: Statement) -> Evidence:
    return Evidence(one.rank, one.log, one.line, one.text)


def summary_of(verdict: Verdict, rank: int | None) -> str:
    ranks = verdict.ranks
    who = f"rank {rank}" if rank is not None else f"ranks {', '.join(map(str, ranks[:8]))}" if len(ranks) > 1 else ""
    if rank is not None and len(ranks) > 1:
        who += f" and {len(ranks) - 1} more" if rank in ranks else ""
    said = ": ".join(filter(None, (verdict.exception, verdict.message))) or WORDS.get(verdict.kind, verdict.kind)
    place = f" ({verdict.file}:{verdict.line})" if verdict.file else ""
    said = said if len(said) <= _SUMMARY else f"{said[: _SUMMARY - 1].rstrip()}…"
    return f"{who}: {said}{place}" if who else f"{said}{place}"
