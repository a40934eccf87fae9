"""Reads the logs of several runs at the same time, each in a thread, into one stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

_HELD = 64
"""How many pieces wait at most: then the threads wait, and memory stays small."""
_LOOK = 0.2
"""Seconds until a thread that waits for room looks whether anybody still reads."""


class Together:
    """What several sources yield, in the order in which it arrives. A source that yields nothing yields empty bytes."""

    def __init__(self) -> None:
        self._arrived: queue.Queue[bytes | BaseException | None] = queue.Queue(_HELD)
        """None is the end of a source."""
        self._stop = threading.Event()
        self.open = 0
        """How many sources have not ended."""

    def begin(self, source: Iterable[bytes]) -> None:
        """Read this one too."""
        self.open += 1
        threading.Thread(target=self._read, args=(source,), name="azml_dist", daemon=True).start()

    def take(self, seconds: float) -> Iterator[bytes]:
        """What arrives within so many seconds, or until a source has ended; raises what a source raises."""
        until = time.monotonic() + seconds
        while self.open and (left := until - time.monotonic()) > 0:
            try:
                found = self._arrived.get(timeout=min(left, _LOOK))
            except queue.Empty:
                yield b""
                continue
            if isinstance(found, BaseException):
                raise found
            if found is None:
                self.open -= 1
                return
            yield found

    def end(self) -> None:
        """Nobody reads any more."""
        self._stop.set()

    def _read(self, source: Iterable[bytes]) -> None:
        try:
            for piece in source:
                if self._stop.is_set():
                    return
                if piece:
                    self._put(piece)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, piece: bytes | BaseException | None) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._arrived.put(piece, timeout=_LOOK)
                return
