"""The logs of one run: all lines, new lines as they are written, or the last lines of each rank."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from azml_dist.azureml.described import Details
from azml_dist.azureml.heard import Heard
from azml_dist.azureml.logs import Follower, Line, LogName, by_attempt
from azml_dist.azureml.phases import Phases
from azml_dist.azureml.runrecord import RunRecord, patiently
from azml_dist.errors import AuthError, SubmitError
from azml_dist.runs.folding import labeller_of
from azml_dist.runs.foot import MOST, RankLine
from azml_dist.runs.logs import Piece, Reading, Source
from azml_dist.runs.run import pauses

LINE_BYTES = 1 << 12
"""The most bytes of a last line in a table."""
_POLL = (0.5, 2.0)
"""Seconds between two polls of a run while its logs are followed."""
_TICK = 0.25
"""Logs that become due within this many seconds are polled together."""
_SOON = 1.0
"""Seconds until new addresses are requested after a log could not be read."""
_TRIES = {True: 6, False: 40}
"""How many times to request the logs of an ended run if they are refused, and if the connection fails."""


class RunLogs:
    """Reads the logs of a run. Whoever follows them sees its phases too, so these are noted in `phases`."""

    def __init__(self, record: RunRecord, phases: Phases) -> None:
        self._record = record
        self._phases = phases
        self._heard = Heard()
        self._heard_of: Sequence[Source] = ()
        """The ranks whose lines are read."""

    def read(self, how: Reading) -> Iterator[bytes]:
        """Whole lines, each after its label; with `tail`, the last lines of each rank, as Azure ML does not record
        when lines were written.

        While there are no new lines, it yields nothing but empty bytes, so that whoever reads may stop.
        """
        if how.tail == 0 and not how.follow:
            return
        labeller = labeller_of(how, self._record.sources)
        self._heard_of = self._record.sources
        for line in self._lines(how.ranks, how.follow, how.tail):
            if line is None:
                yield labeller.ready()
                continue
            self._heard.hear(line.name.source.rank, line.data)
            yield labeller.label(Piece(line.name.source.rank, line.data, line.name.attempt))
        yield labeller.end()

    def tails(self, details: Details, ranks: Iterable[int], count: int, most: int) -> dict[int, str]:
        """The last lines of some ranks in their last attempts, without those that cannot be read."""
        log_names = self._record.log_names(details, frozenset(ranks))
        newest = {name.source.rank: (name, url) for name, url in log_names.items()}
        follower = self._follower()
        names = dict(newest.values())
        found: dict[int, bytes] = {}
        with suppress(SubmitError):
            follower.begin_at_the_tail(names, count, most)
            for line in follower.read(names, to_the_end=True):
                found[line.name.source.rank] = found.get(line.name.source.rank, b"") + line.data
        return {rank: text.decode(errors="replace").rstrip("\n") for rank, text in found.items()}

    def listen(self) -> None:
        """Read the last lines of as many ranks as the foot of a terminal shows."""
        with suppress(SubmitError):
            self._heard_of = self._record.sources[:MOST]
            shown = [source.rank for source in self._heard_of]
            for rank, text in self.tails(self._record.details(), shown, 1, LINE_BYTES).items():
                self._heard.hear(rank, text.encode())

    def heard(self, ranks: Collection[int] | None) -> list[RankLine]:
        """The last line of each of these ranks, or of all, as far as it was read: this asks the service nothing."""
        return self._heard.lines(self._heard_of, ranks)

    def _follower(self) -> Follower:
        return Follower(self._record.storage_token, self._record.workspace.cloud)

    def _lines(self, ranks: frozenset[int] | None, follow: bool, tail: int | None) -> Iterator[Line | None]:
        """Lines, and None while there are no new ones."""
        follower = self._follower()
        details = self._record.details()
        if tail is not None:
            *earlier, last = self._attempts(details, ranks)
            for group in earlier:
                follower.skip(group)
            follower.begin_at_the_tail(last, tail)
        looks, looks_at_the_end, tries = pauses(*_POLL), pauses(*_POLL), 0
        while True:
            self._phases.saw(details.status, details)
            follower.stale = False
            # Checked before reading: once the run has ended, everything that it wrote can be read.
            ended = not follow or self._record.is_over(details.status)
            yield from self._look(follower, self._attempts(details, ranks), 0 if ended else next(looks))
            if ended:
                tries += 1
                if self._has_all(follower, tries):
                    return
                time.sleep(next(looks_at_the_end))
            details = patiently(self._record.details)

    def _look(self, follower: Follower, attempts: list[dict[LogName, str]], seconds: float) -> Iterator[Line | None]:
        """New lines within so many seconds, after which logs may have new addresses; 0 reads everything that exists."""
        *earlier, last = attempts
        for group in earlier:
            yield from follower.read(group, to_the_end=True)
        until = time.monotonic() + seconds
        while True:
            yield from follower.read(last, to_the_end=not seconds)
            for line in follower.begun():
                self._heard.hear(line.name.source.rank, line.data)
            now = time.monotonic()
            if follower.stale:
                until = min(until, now + _SOON)
            if now >= until:
                return
            time.sleep(min(until - now, max(follower.next_look - now, _TICK)))
            yield None

    def _has_all(self, follower: Follower, tries: int) -> bool:
        """Whether all logs of an ended run were read; raises after enough attempts."""
        if not follower.stale:
            return True
        if tries != _TRIES[follower.refused is not None] and tries < max(_TRIES.values()):
            return False
        if follower.refused != 404:
            raise self._unreadable(follower.refused)
        return True  # 404: the log has a name, but nothing was ever written to it

    def _unreadable(self, refused: int | None) -> SubmitError:
        name, url = self._record.name, self._record.url
        if refused:
            hint = f"your login needs the role Storage Blob Data Reader, or use the run's page: {url}"
            return AuthError(f"not all logs of run {name} can be read: the storage answers {refused}", hint=hint)
        message = f"not all logs of run {name} can be read: the connection to the storage fails"
        return SubmitError(message, hint=f"try again; the run's page has them too: {url}")

    def _attempts(self, details: Details, ranks: frozenset[int] | None) -> list[dict[LogName, str]]:
        """The logs of each attempt, the last attempt last."""
        return by_attempt(self._record.log_names(details, ranks)) or [{}]
