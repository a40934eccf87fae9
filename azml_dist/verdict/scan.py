"""Which lines of a log have a word that means something: looked for once, for all that is known, in like lines once.

The lines of a training script differ in their figures, and those of its ranks too. Without digits most of them are the
same line, which has to be looked at only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from azml_dist.verdict.signatures import OF_LINES, WHOLE

OF_PREFIXES = ("[rank", "[default", "<std", "pid=", "\x1b", "\r", ": Traceback ")
"""Words of lines that launchers or terminals have put something around."""
PREFIX = re.compile(
    r"\[rank(?P<torch>\d+)\]: ?|\[default(?P<local>\d+)\]: ?|\[1,(?P<mpi>\d+)\]<std(?:out|err)>: ?"
    r"|\((?:[\w.()]+ )?pid=(?P<ray>\d+)(?:, ip=[\d.a-f:]+)?\) |(?P<torch2>\d+): (?=Traceback |  File |\w*Error: )"
)
"""Prefixes that name the writer of a line: torch, torchrun's tee, mpirun's --tag-output, Ray and srun --label."""
TRACEBACK = "Traceback (most"
OF_TRACEBACKS = (TRACEBACK, 'File "', "Fatal Python error")
OF_LAUNCHERS = ("ChildFailedError", "mpirun detected", "mpirun noticed", "Sending process ", "exit with status code")
"""Words that say that a launcher wrote to the log."""
OF_ENDS = (
    "exitcode",
    "Exit code:",
    "exited on signal",
    "MPI_ABORT was invoked on rank",
    "exit with status",
    "return code",
    "died with",
    "terminated with",
    "non-zero exit status",
    "has exited due to process rank",
)
"""Words of launchers that say how a process ended."""
OF_SHELLS = ("Killed", "Segmentation fault", "Aborted", "Bus error", "Illegal instruction", "Floating point exception")
"""The same of shells."""
FINGERPRINT = "CollectiveFingerPrint"

_DIGITS = b"0123456789"
_BORING = 100_000
"""Lines that are remembered as having none of the words."""


class Scan:
    """The lines that have any of the words, in one log."""

    def __init__(self, lines: Sequence[str]) -> None:
        bare = "\n".join(lines).encode(errors="replace").translate(None, _DIGITS).split(b"\n")
        found = _telling(set(bare))
        self._found = {at: found[line] for at, line in enumerate(bare) if line in found} if found else {}
        self.words = frozenset[str]().union(*found.values())
        """All that are there, without digits."""

    def has(self, words: Iterable[str]) -> bool:
        """Whether any line has one of the words; digits do not count."""
        return not self.words.isdisjoint(without_digits(tuple(words)))

    def lines_with(self, words: Iterable[str]) -> list[int]:
        """Where they are, in their order."""
        wanted = self.words.intersection(without_digits(tuple(words)))
        return [at for at, has in self._found.items() if not wanted.isdisjoint(has)] if wanted else []


_boring: set[bytes] = set()


def _telling(lines: set[bytes]) -> dict[bytes, frozenset[str]]:
    """Of these lines, those that have a word, and their words."""
    new = lines - _boring
    text = b"\n".join(new)
    present = [(word, sought) for word, sought in _sought() if sought in text]
    found = {line: has for line in new if (has := frozenset(word for word, sought in present if sought in line))}
    if len(_boring) > _BORING:
        _boring.clear()
    _boring.update(new - found.keys())
    return found


@cache
def _sought() -> list[tuple[str, bytes]]:
    """All words, each without digits and as bytes."""
    gates = [word for signature in (*OF_LINES, *WHOLE) for word in signature.gate.split("|")]
    others = [*OF_PREFIXES, *OF_TRACEBACKS, *OF_LAUNCHERS, *OF_ENDS, *OF_SHELLS, FINGERPRINT]
    return [(word, word.encode()) for word in sorted(without_digits((*gates, *others)))]


@cache
def without_digits(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset("".join(letter for letter in word if not "0" <= letter <= "9") for word in words)
