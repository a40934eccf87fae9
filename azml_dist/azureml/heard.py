"""What the ranks of a run on Azure ML wrote last, as far as it has been read."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from azml_dist.runs.bars import last_text
from azml_dist.runs.foot import RankLine
from azml_dist.runs.logs import Source

_END = 4096
"""Enough bytes of the end of a log for the last line that anyone reads."""


class Heard:
    """The last line of each rank, and when it was read: Azure ML does not tell when it was written."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[str, float]] = {}

    def hear(self, rank: int, data: bytes) -> None:
        """Some more of the log of a rank, or its end."""
        text = last_text(data[-_END:])
        if text is not None and self._last.get(rank, ("", 0.0))[0] != text:
            self._last[rank] = text, time.monotonic()

    def lines(self, sources: Sequence[Source], ranks: Collection[int] | None) -> list[RankLine]:
        """The last line of each rank; none at all before the first."""
        wanted = [source for source in sources if ranks is None or source.rank in ranks]
        return [self._line(source) for source in wanted] if self._last else []

    def _line(self, source: Source) -> RankLine:
        text, at = self._last.get(source.rank, (None, None))
        return RankLine((source.rank,), text, None if at is None else time.monotonic() - at, "", source)
