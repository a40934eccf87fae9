"""How processes ended, according to what launchers and shells wrote to the logs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from azml_dist.verdict.known import Ended
from azml_dist.verdict.scan import OF_ENDS, OF_SHELLS
from azml_dist.verdict.streams import Stream

_AGENT = re.compile(r"failed \(exitcode: (?P<code>-?\d+)\) local_rank: (?P<local>\d+) \(pid: (?P<pid>\d+)\)")
_RANK = re.compile(r"^\s*rank\s*: (?P<rank>\d+) \(local_rank: \d+\)")
_CODE = re.compile(r"^\s*exitcode\s*: (?P<code>-?\d+) \(pid: (?P<pid>\d+)\)")
_SHELL = re.compile(
    r"^(?:\S*(?:bash|sh): line \d+:\s+\d+ |\S+: line \d+: +\d+ |\[\d+\]\s+\d+ )?"
    r"(?P<what>Killed|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception)"
    r"(?: *\(core dumped\))?(?:\s+\S.*)?$"
)
_SIGNALS = {
    "Killed": 9,
    "Segmentation fault": 11,
    "Aborted": 6,
    "Bus error": 7,
    "Illegal instruction": 4,
    "Floating point exception": 8,
}
LEFT_MPI = "has exited due to process rank"
"""What mpirun says of a process that ended without `MPI_Finalize`."""
_OTHERS = (
    re.compile(r"Process name: \[\[\d+,\d+\],(?P<rank>\d+)\](?:\n|\s)+Exit code:\s+(?P<code>\d+)"),
    re.compile(r"noticed that process rank (?P<rank>\d+) .{0,120}exited on signal (?P<signal>\d+)"),
    re.compile(
        r"MPI_ABORT was invoked on rank (?P<rank>\d+) in communicator MPI_COMM_WORLD"
        r"(?:\n.{0,200}){0,2}?\n?\s*(?:with e|E)rrorcode:? (?P<code>\d+)"
    ),
    re.compile(rf"{LEFT_MPI} (?P<rank>\d+) with PID \d+ on\s+node \S+\s+exiting\s+improperly"),
    re.compile(r"^Process (?P<rank>\d+) exit with status code (?P<byte>\d+)", re.MULTILINE),
    re.compile(r"exits with return code = (?P<code>-?\d+)"),
    re.compile(r"CalledProcessError: Command .{0,2000} returned non-zero exit status (?P<code>\d+)"),
    re.compile(r"died with <Signals\.(?P<name>SIG\w+): (?P<signal>\d+)>"),
    re.compile(r"process (?P<local>\d+) terminated with signal (?P<name>SIG\w+)"),
    re.compile(r"process (?P<local>\d+) terminated with exit code (?P<code>\d+)"),
)
_MPIRUN = ("Process name", "noticed that process rank", LEFT_MPI)
"""Words of mpirun about the first process that ended badly."""


VICTIM = re.compile(r"(?i)terminated by the runtime|exited with code -2\b")
"""What the service says about processes that it stopped because another one had failed. From public logs."""
_BLAMED = re.compile(
    r"(?i)(?:std_log_process_|std_log_node_(?=\d{1,7}_worker)|process '?(?:rank|worker)[ _]?|rank[ _])(\d{1,7})"
    r"|std_log\.txt"  # the log of the only process
)
_EXIT_CODE = re.compile(r"exited with (?:status )?code (?!-2\b)(-?\d{1,9})")


class Statement(NamedTuple):
    """What a launcher says about a process."""

    rank: int | None
    ended: Ended
    log: str
    line: int | None
    text: str
    first: bool = False
    """The launcher says that it was the first, which is what it noticed on its own node."""
    child: bool = False
    """The launcher only knows its number among the processes that one rank started, which is no rank."""


def statements(streams: Iterable[Stream]) -> list[Statement]:
    """Everything that launchers and shells say about ends, in order."""
    return [one for stream in streams for one in (*_of_launchers(stream), *_of_shells(stream))]


def of_the_service(message: str) -> list[Statement]:
    """How processes ended, according to the service; if it names only one that it did not stop, that was the first."""
    told = blamed(message)
    everywhere = _EXIT_CODE.search(message) if len(told) == 1 else None
    codes = {rank: _EXIT_CODE.search(said) or everywhere for rank, said in told.items()}
    return [
        Statement(rank, _of_the_service(int(code[1])), "", None, message.strip(), first=len(told) == 1)
        for rank, code in codes.items()
        if code
    ]


def blamed(message: str) -> dict[int, str]:
    """The ranks that, according to the service, failed and were not stopped, with its message about each."""
    named = list(_BLAMED.finditer(message))
    told: dict[int, str] = {}
    for found, after in zip_longest(named, named[1:]):
        said = message[found.end() : after.start() if after else None]
        if not VICTIM.search(said):
            told.setdefault(int(found[1] or 0), said)
    return told


def by_signal(ended: Ended) -> int | None:
    """The signal that ended a process, even if a shell or a launcher turned it into an exit code."""
    if ended.signal:
        return ended.signal
    code = ended.exit_code or 0
    return code - 128 if 128 < code <= 128 + 31 else None


def signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _of_launchers(stream: Stream) -> Iterator[Statement]:
    if not stream.scan.has(OF_ENDS):
        return
    text = stream.text
    yield from _of_agents(stream)
    for pattern in _OTHERS:
        for found in pattern.finditer(text):
            values = found.groupdict()
            code = values.get("code") or values.get("byte")
            number = values.get("signal") or (_number(values["name"]) if values.get("name") else None)
            rank = values.get("rank") or values.get("local")
            at = text.count("\n", 0, found.start())
            yield Statement(
                int(rank) if rank else None,
                _ended(int(code) if code else None, int(number) if number else None),
                stream.log,
                stream.numbers[at],
                stream.lines[at],
                child=values.get("local") is not None,
                first=found[0].startswith(_MPIRUN),
            )


def _of_agents(stream: Stream) -> Iterator[Statement]:
    """torchelastic's summary: for each failed process its rank, then its exit code."""
    rank: int | None = None
    root, told = False, set()
    for at, line in enumerate(stream.lines):
        if "Root Cause" in line:
            root = True
        elif found := _RANK.match(line):
            rank = int(found["rank"])
        elif (found := _CODE.match(line)) and rank is not None:
            told.add(found["pid"])
            yield Statement(rank, _ended(int(found["code"]), None), stream.log, stream.numbers[at], line.strip(), root)
    for at, line in enumerate(stream.lines):
        if "exitcode:" in line and (found := _AGENT.search(line)) and found["pid"] not in told:
            # This is the local rank; the global rank is known only if the logs are from one node.
            yield Statement(None, _ended(int(found["code"]), None), stream.log, stream.numbers[at], line.strip())


def _of_the_service(code: int) -> Ended:
    return Ended(signal=-code) if code < 0 else Ended(code)


def _of_shells(stream: Stream) -> Iterator[Statement]:
    for at in stream.scan.lines_with(OF_SHELLS):
        line = stream.lines[at]
        if found := _SHELL.match(line):
            ended = Ended(signal=_SIGNALS[found["what"]])
            yield Statement(stream.rank, ended, stream.log, stream.numbers[at], line.strip())


def of_a_launcher(ended: Ended) -> Ended:
    """The exit code meant by a launcher that turns a negative code into a byte: 247 is -9."""
    number = 256 - (ended.exit_code or 0)
    return replace(ended, exit_code=None, signal=number) if number in (4, 6, 7, 8, 9, 11, 15) else ended


def _ended(code: int | None, number: int | None) -> Ended:
    if number is None and code is not None and code < 0:
        return Ended(signal=-code)
    if number is None:
        return of_a_launcher(Ended(code))
    return Ended(exit_code=None if number else code, signal=number)


def _number(name: str) -> int | None:
    return signal.Signals[name].value if name in signal.Signals.__members__ else None
