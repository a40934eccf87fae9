"""Which lines of a log have a word that means something: looked for once, for all that is known, in like lines once.

The lines of a training script differ in their figures, and those of its ranks too. Without digits most of them are the
same line, which has to be looked at only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import compress

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
FRAMES = ('"frames"', '"lineno"', "'lineno'")
STREAM = '"stream"'
OF_RECORDS = (TRACEBACK, STREAM, *FRAMES)
"""Words of structured logs that a traceback may be in."""
OF_LAUNCHERS = ("ChildFailedError", "mpirun detected", "mpirun noticed", "Sending process ", "exit with status code")
"""Words that say that a launcher wrote to the log."""
OF_SEVERAL = ("Setting OMP_NUM_THREADS environment variable for each process",)
"""Words with which torchrun begins if it starts several processes, which then write to the same log."""
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
OF_ABORTS_AT_EXIT = ("terminate called without an active exception", "driver shutting down")

_DIGITS = b"0123456789"
_REMEMBERED, _SHORT = 50_000, 400
"""How many lines to remember, with and without words, and of how many bytes at most."""


class Scan:
    """The lines that have any of the words, in one log."""

    def __init__(self, lines: Sequence[str]) -> None:
        bare = "\n".join(lines).encode(errors="replace").translate(None, _DIGITS).split(b"\n")
        found = _telling(set(bare))
        self.words = frozenset[str]().union(*found.values())
        """All that are there, without digits."""
        self._lines: dict[str, list[int]] = {word: [] for word in self.words}
        for at in compress(range(len(bare)), map(found.__contains__, bare)):
            for word in found[bare[at]]:
                self._lines[word].append(at)

    def has(self, words: Iterable[str]) -> bool:
        """Whether any line has one of the words; digits do not count."""
        return not self.words.isdisjoint(without_digits(tuple(words)))

    def lines_with(self, words: Iterable[str]) -> list[int]:
        """Where they are, in their order."""
        wanted = self.words.intersection(without_digits(tuple(words)))
        return sorted({at for word in wanted for at in self._lines[word]})


_boring: set[bytes] = set()
_known: dict[bytes, frozenset[str]] = {}


def _telling(lines: set[bytes]) -> dict[bytes, frozenset[str]]:
    """Of these lines, those that have a word, and their words."""
    rest = lines - _boring
    new = rest - _known.keys()
    found = {line: _known[line] for line in rest - new}
    if new:
        text = b"\n".join(new)
        tokens = b" ".join(set(text.split()))
        present = [
            (word, sought)
            for word, sought, parts in _sought()
            if all(part in tokens for part in parts) and sought in text
        ]
        looked = {line: has for line in new if (has := frozenset(word for word, sought in present if sought in line))}
        _remember(new, looked)
        found |= looked
    return found


def _remember(lines: set[bytes], telling: Mapping[bytes, frozenset[str]]) -> None:
    if len(_boring) + len(_known) > _REMEMBERED:
        _boring.clear()
        _known.clear()
    for line in lines:
        if len(line) > _SHORT:
            continue
        if has := telling.get(line):
            _known[line] = has
        else:
            _boring.add(line)


@cache
def _sought() -> list[tuple[str, bytes, list[bytes]]]:
    """All words without digits, as text, as bytes, and in parts without spaces: few of these are in a text at all."""
    gates = [word for signature in (*OF_LINES, *WHOLE) for word in signature.gate.split("|")]
    others = [
        *OF_PREFIXES,
        *OF_TRACEBACKS,
        *OF_RECORDS,
        *OF_LAUNCHERS,
        *OF_SEVERAL,
        *OF_ENDS,
        *OF_SHELLS,
        *OF_ABORTS_AT_EXIT,
    ]
    words = sorted(without_digits((*gates, *others, FINGERPRINT)))
    return [(word, word.encode(), word.encode().split()) for word in words]


@cache
def without_digits(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset("".join(letter for letter in word if not "0" <= letter <= "9") for word in words)
