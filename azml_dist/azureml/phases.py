"""The phases of a run, such as `Queued` and `Running`, and how long each lasts.

The service records when a run was created, started and ended. Other changes are observed here, by whoever waits, some
seconds late.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from azml_dist.azureml.described import Details
from azml_dist.azureml.stamps import seconds_of
from azml_dist.status import RunStatus
from azml_dist.words import duration

WAITING = frozenset(
    {RunStatus.NOT_STARTED, RunStatus.QUEUED, RunStatus.PROVISIONING, RunStatus.PREPARING, RunStatus.STARTING}
)
"""States of a run whose processes have not started."""
_SHORT = 1.0
"""Seconds of a phase that is not worth telling about once it is over."""


class Span(NamedTuple):
    """A phase, and how long it has lasted."""

    name: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.name} {duration(self.seconds)}"


class Phases:
    """What is known about the phases of one run."""

    def __init__(self, submitted: float | None = None) -> None:
        """`submitted`: when this process submitted the run, in seconds since 1970; None if it did not."""
        self._submitted = submitted
        self._seen: list[tuple[RunStatus, float | None]] = []
        """Each state and since when; None for one that is older than this observation."""
        self._started: float | None = None
        self._ended: float | None = None

    def saw(self, status: RunStatus, details: Details | None = None) -> bool:
        """Notes a state, and what the service recorded; returns whether it is another state than before."""
        if details:
            self._started = seconds_of(details.started_at) or self._started
            self._ended = seconds_of(details.ended_at) or self._ended
        if self._seen and self._seen[-1][0] == status:
            return False
        self._seen.append((status, time.time() if self._seen else self._submitted))
        return True

    @property
    def lacks_times(self) -> bool:
        """Whether the service may know more: when the run began, or when it ended."""
        now = self.now
        if now is None or now in WAITING:
            return False
        return self._ended is None if now.is_final else self._started is None

    @property
    def since(self) -> float | None:
        """Since when the run has been in its state, if that is known."""
        return self._timed()[-1][1] if self._seen else None

    @property
    def now(self) -> RunStatus | None:
        return self._seen[-1][0] if self._seen else None

    def age(self, details: Details) -> str:
        """Such as "for 3 min", "took 3 min" or, if no more is known, "submitted 3 min ago"."""
        self.saw(details.status, details)
        status, now = details.status, time.time()
        started, ended = seconds_of(details.started_at), seconds_of(details.ended_at)
        if status.is_final:
            return f"took {duration(ended - started)}" if started and ended else ""
        since = started if status == RunStatus.RUNNING and started else self.since
        if since:
            return f"for {duration(now - since)}"
        created = seconds_of(details.created_at)
        return f"submitted {duration(now - created)} ago" if created else ""

    def line(self) -> str:
        """The present phase and the earlier ones: `running 4 min (queued 12 min, preparing 3 min)`."""
        *past, now = self._observed()
        has_age = self.since and not (self.now and self.now.is_final)
        return f"{now if has_age else now.name}{_in_brackets(past)}"

    def change(self) -> str:
        """The same without the age of a phase that has just begun."""
        *past, now = self._observed()
        return f"{now.name}{_in_brackets(past)}"

    def _observed(self) -> list[Span]:
        now = time.time()
        timed = self._timed()
        ends = [since or now for _, since in timed[1:]]
        spans = [
            Span(in_words(status), max(0.0, end - (since or end)))
            for (status, since), end in zip(timed, [*ends, now], strict=True)
        ]
        return [*(span for span in spans[:-1] if span.seconds >= _SHORT), spans[-1]]

    def _timed(self) -> list[tuple[RunStatus, float | None]]:
        """The observed states with the service's own times of the start and of the end, where it has said them."""
        timed = list(self._seen)
        if self._started:
            states = [status for status, _ in timed]
            late = (i for i, status in enumerate(states) if status not in (*WAITING, RunStatus.UNKNOWN))
            at = states.index(RunStatus.RUNNING) if RunStatus.RUNNING in states else next(late, None)
            if at is not None:
                is_seen, noticed = states[at] == RunStatus.RUNNING, timed[at][1]
                timed[at : at + is_seen] = [(RunStatus.RUNNING, _within(timed[:at], self._started, noticed))]
        status, noticed = timed[-1]
        if status.is_final and self._ended:
            timed[-1] = status, _within(timed[:-1], self._ended, noticed)
        return timed

    def spans(self, details: Details) -> list[Span]:
        """All phases: as observed since the submission, else as the service recorded them."""
        self.saw(details.status, details)
        if self._submitted and not details.status.is_final:
            return self._observed()
        created, started, ended = map(seconds_of, (details.created_at, details.started_at, details.ended_at))
        now = time.time()
        is_over = details.status.is_final
        waited_until = started or ended or (None if is_over else now)
        ran_until = ended or (None if is_over else now)
        return [
            Span(name, max(0.0, end - begin))
            for name, begin, end in (("waiting", created, waited_until), ("running", started, ran_until))
            if begin and end
        ]


def _within(before: list[tuple[RunStatus, float | None]], recorded: float, noticed: float | None) -> float:
    """When a state began: no later than it was noticed, and not before the earlier ones, whatever the clocks say."""
    earliest = max((since for _, since in before if since), default=recorded)
    return max(earliest, min(recorded, noticed or recorded))


def in_words(status: RunStatus) -> str:
    """`not started` for `NotStarted`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(status)).lower()


def _in_brackets(past: list[Span]) -> str:
    return f" ({', '.join(map(str, past))})" if past else ""
