"""What the log of one process says about its end: causes, consequences, and what it did last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Literal

from azml_dist.verdict.ends import statements
from azml_dist.verdict.frames import by_frames, is_here, is_own
from azml_dist.verdict.hints import About
from azml_dist.verdict.known import Known
from azml_dist.verdict.observed import Cause, Heard, Loss
from azml_dist.verdict.scan import (
    FINGERPRINT,
    OF_ABORTS_AT_EXIT,
    OF_LAUNCHERS,
    OF_SEVERAL,
    OF_TRACEBACKS,
    without_digits,
)
from azml_dist.verdict.signatures import (
    EXCEPTIONS,
    FINISHED,
    NO_ANSWER,
    NOISE,
    OF_LINES,
    PROGRESS,
    WHOLE,
    Signature,
    compiled,
    may_be_in,
    words_of,
)
from azml_dist.verdict.streams import Stream
from azml_dist.verdict.tracebacks import Frame, Raised, Traceback, tracebacks
from azml_dist.verdict.unfinished import HINT, WORDS, frames_at_the_end, in_a_collective, is_vague
from azml_dist.verdict.verdict import Certainty, Evidence, Kind

_LAUNCHER = re.compile(r"torch/distributed/(?:launch|run)|accelerate/(?:commands/)?launch|deepspeed/launcher")
_WRAPPER = re.compile(r"azureml-setup[/\\]|context_manager_injector\.py")
_TIME = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[ T_](?P<time>\d\d:\d\d:\d\d(?:[.,]\d{1,6})?)"
    r"|[EWIF](?P<month>\d\d)(?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d(?:\.\d{1,6})?)"
)
_NO_START = re.compile(r"^(?:init_\w+|Py_Initialize)\b")
_OF_THE_SYSTEM = re.compile(r"^(?:OS|IO|Environment|BlockingIO|ChildProcess|Interrupted|Timeout|Connection)Error$")
"""Exceptions by which the system says no: the line that met it may be right."""
_OF_PYTHON = frozenset({"KeyError", "IndexError", "AttributeError", "NameError", "ZeroDivisionError"})
"""Exceptions that Python itself raises, in one line."""
_OF_VALUES = frozenset({"ValueError", "TypeError", "AssertionError", "NotImplementedError"})
"""Exceptions about values: what their further lines say of a peer or of a machine is a quotation."""
_OF_MACHINES = frozenset(
    {"gpu-out-of-memory", "gpu-hardware", "host-out-of-memory", "shared-memory", "disk-full", "killed", "crash"}
)
OF_COMMANDS = frozenset({"missing-file", "missing-module", "permission", "data-access", "bad-arguments", "user-code"})
"""What commands before the script may say, which fail without ending the process."""
_FEW_STEPS = 2
"""Steps that may follow the exception that ended a process, as other threads report them."""
_AFTER = 20
"""Lines that may follow the traceback of a process that failed."""
_BELOW = 15
"""How many lines to take after an exception whose message ends with a colon."""
_MANY = 64
"""How many lines that pass a gate to check."""
_LONG = 24
"""How many lines after such a line a multi-line pattern may match."""
_LAST, _KEPT = 60, 30
"""How many last lines of a rank may be about the whole run, and how many lines of its log to keep."""
_PRINT = re.compile(
    r"Rank (?P<rank>\d+) is running collective: CollectiveFingerPrint\("
    r"(?P<print>.{0,400}?TensorShape=\[[^\]]*\]|[^)]{0,400})"
)
_KERNEL_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_NEAR = 12
"""Lines before a failure that are kept."""
_OF_A_GRAPH = re.compile(r"^\{\{\w+ [^{}]*\}\} |(?: \[Op:\w+\])?(?: name: ?)?$")
"""What TensorFlow puts around a message: names of its own functions."""


def hear(stream: Stream, known: Known) -> Heard:
    """Extract everything that the log of one process says."""
    shared = stream.shared or stream.scan.has(OF_LAUNCHERS)
    found = tracebacks(stream.lines, stream.scan.lines_with(OF_TRACEBACKS))
    broken = frames_at_the_end(stream, known)
    if broken:
        found = [one for one in found if one.end < len(stream.lines)]
    causes = [] if not broken or in_a_collective(broken) else [_of_broken(stream, broken, known)]
    losses: list[Loss] = []
    confirmations: list[Loss] = []
    covered: set[int] = set()
    raised: list[tuple[Traceback, Cause | Loss]] = []
    failed_at = len(stream.lines)
    went_on = False
    for one in found:
        covered.update(range(one.begin, one.end))
        if one.at_the_end or _is_of_launchers(one) or _may_be_a_loss(stream, one):
            continue
        ended = shared or not _goes_on(stream, one)
        went_on = went_on or not ended
        failed_at = min(failed_at, one.begin) if ended else failed_at
        raised.append((one, _of_traceback(stream, one, known, ended=ended)))
    causes += [cause for cause in _caught(raised, shared=shared) if isinstance(cause, Cause)]
    losses += [loss for _, loss in raised if isinstance(loss, Loss)]
    of_servers = _of_servers(raised)
    for at, signature, match in _hits(stream):
        where = (stream.rank, stream.log, stream.numbers[at], stream.lines[at])
        said = Loss(*where, signature, match.groupdict(), said=match[0])
        if signature.role == "cascade" and at not in of_servers:
            losses.append(said)
        elif signature.role == "confirmation":
            confirmations.append(said)
            if signature.kind == "crash" and at not in covered:
                causes.append(replace(_of_line(stream, at, signature, match, known), strength=2))
        elif signature.role == "root" and at not in covered and (shared or not _works_on(stream.lines[at + 1 :])):
            failed_at = min(failed_at, at)
            causes.append(_weighed(_of_line(stream, at, signature, match, known), stream.lines[at + 1 :]))
    return Heard(
        stream.end(_KEPT),
        causes,
        losses,
        confirmations,
        statements([stream]),
        _of_the_run(stream),
        has_traceback=any(not one.at_the_end for one in found),
        went_on=went_on,
        aborted_at_exit=any(len(stream.lines) - at <= _LAST for at in stream.scan.lines_with(OF_ABORTS_AT_EXIT)),
        prints=_prints(stream),
        before=stream.lines[max(0, failed_at - _NEAR) : failed_at],
        kernel_count=_kernel_count(stream),
    )


def _of_servers(raised: Sequence[tuple[Traceback, Cause | Loss]]) -> set[int]:
    """Lines of tracebacks that speak of the connection to a server, and not of one to a peer."""
    of_servers = [one for one, said in raised if isinstance(said, Cause) and said.signature is NO_ANSWER]
    return {at for one in of_servers for at in range(one.begin, one.end)}


def _weighed(cause: Cause, after: Sequence[str]) -> Cause:
    """What a command says before the script counts little if the script then works, and less if more is written."""
    left = [line for line in after if not NOISE.search(line)] if cause.kind in OF_COMMANDS else []
    if not left:
        return cause
    likely = replace(cause, certainty="likely" if cause.certainty == "certain" else cause.certainty)
    return replace(likely, strength=1) if _steps(left) else likely


def _caught(raised: Sequence[tuple[Traceback, Cause | Loss]], *, shared: bool) -> Iterator[Cause | Loss]:
    """What was raised; of several exceptions of one process, only the last one can have ended it."""
    losses = [(one.begin, loss.signature.kind) for one, loss in raised if isinstance(loss, Loss)]
    before: set[object] = set()
    for one, cause in raised:
        if shared or isinstance(cause, Loss) or one.thread or one.of_a_child or one.fatal:
            yield cause
            continue
        later = [kind for begin, kind in losses if begin >= one.end]
        lost: Literal["", "gone", "late"] = "" if not later else "gone" if later[-1] == "unknown" else "late"
        yield replace(cause, again=cause.likeness in before, lost_later=lost)
        before.add(cause.likeness)


def _of_the_run(stream: Stream) -> list[tuple[Signature, re.Match[str], Evidence]]:
    first = 0 if stream.rank is None else len(stream.lines) - _LAST
    return [
        (signature, match, Evidence(None, stream.log, stream.numbers[at], stream.lines[at].strip()))
        for signature in _that_may_be(stream.scan.words, of_runs=True)
        for at in stream.scan.lines_with(words_of(signature))
        if at >= first and (match := compiled(signature.pattern).search(stream.lines[at]))
    ]


def _prints(stream: Stream) -> dict[int, str]:
    if not stream.scan.has([FINGERPRINT]):
        return {}
    found = list(_PRINT.finditer(stream.text))
    return {int(one["rank"]): one["print"] for one in reversed(found)}


def _kernel_count(stream: Stream) -> str | None:
    found = _KERNEL_COUNT.search(stream.text) if "memory." in stream.log else None
    return found[0] if found and int(found[1]) else None


def _hits(stream: Stream) -> list[tuple[int, Signature, re.Match[str]]]:
    """Lines that mean something by themselves, even outside exceptions."""
    found = []
    for signature in _that_may_be(stream.scan.words, of_runs=False):
        below = _LONG if "\\n" in signature.pattern else 0
        for at in stream.scan.lines_with(words_of(signature))[-_MANY:]:
            text = "\n".join(stream.lines[at : at + 1 + below])
            if match := compiled(signature.pattern).search(text):
                found.append((at + text.count("\n", 0, match.start()), signature, match))
    return sorted(found, key=lambda hit: hit[0])


@lru_cache(1024)
def _that_may_be(words: frozenset[str], *, of_runs: bool) -> list[Signature]:
    """The signatures of whole runs, or of lines, whose gate contains one of these words, in the order of the table."""
    table = WHOLE if of_runs else OF_LINES
    return [signature for signature in table if not words.isdisjoint(without_digits(words_of(signature)))]


def _is_of_launchers(one: Traceback) -> bool:
    """A traceback of torchrun or of Ray's driver says that a process failed, but not why."""
    name = one.last.name.rpartition(".")[2]
    if name == "CalledProcessError":
        return any(_LAUNCHER.search(frame.path) for frame in one.last.frames)
    return name in ("ChildFailedError", "SignalException") or (
        one.last.name.endswith("SystemExit") and len(one.chain) == 1
    )


def _may_be_a_loss(stream: Stream, one: Traceback) -> bool:
    """Whether the log ends before an exception in a collective says whether a peer was lost."""
    return (
        stream.cut
        and in_a_collective(one.root.frames)
        and is_vague(stream, one, _signature_of(stream, one, one.root)[0])
    )


def _goes_on(stream: Stream, one: Traceback) -> bool:
    """Whether a process continued its work after an exception."""
    if one.fatal:
        return False
    if one.last.named in stream.marked and not one.thread:
        return False  # torch writes its prefix when a process ends
    return _works_on(stream.lines[one.end :])


def _works_on(after: Sequence[str]) -> bool:
    left = [line for line in after if not NOISE.search(line)]
    return _steps(left) > _FEW_STEPS or len(left) > _AFTER


def _steps(lines: Sequence[str]) -> int:
    """How many lines speak of steps of the work."""
    return sum(1 for line in lines if PROGRESS.search(line))


def _of_traceback(stream: Stream, one: Traceback, known: Known, *, ended: bool) -> Cause | Loss:
    raised, place = _telling(one, known), _place(one, known)
    signature, match = _signature_of(stream, one, raised)
    if one.fatal:
        return _of_fatal(stream, one, place, _lines(stream, one))
    if (signature is None or signature.role != "root") and (said := by_frames(raised)):
        signature, match = said, compiled(said.pattern).search(raised.text)
    if signature and signature.role == "cascade" and match:
        return _of_lost_peer(stream, raised, signature, match, place)
    kind, certainty, blame, hint = _meaning(stream, one, raised, signature, match, known)
    strength = 1 if not ended else 2 if signature and signature.role == "confirmation" else 3
    cause = Cause(
        stream.rank,
        stream.log,
        kind,
        certainty,
        strength,
        _lines(stream, one),
        _short(raised.name),
        _OF_A_GRAPH.sub("", raised.message) or None,
        place if not signature or signature.place else None,
        hint,
        blame,
        signature,
        _when(stream, one.begin),
        stream.numbers[one.begin],
        one.last.named in stream.marked and not one.thread,
        one.logged,
        _steps(stream.lines[one.end :]) > _FEW_STEPS,
        any(PROGRESS.search(line) or FINISHED.search(line) for line in stream.lines[one.last.named + 1 :]),
        thread=one.thread,
    )
    # A thread that fails does not end its process, nor does what was caught; of several processes, it may be any.
    doubtful = one.thread or one.logged or strength == 1 or cause.speaks_of_a_peer
    doubtful = doubtful or is_vague(stream, one, signature) or stream.scan.has(OF_SEVERAL)
    return replace(cause, certainty="likely") if doubtful and certainty == "certain" else cause


def _telling(one: Traceback, known: Known) -> Raised:
    """What was raised first, or that into which the same function of a library turned it, if only this is known."""
    root = one.root
    if len(one.chain) > 1 and not by_frames(root) and not _recognized(root.text, root.name)[0]:
        places = {(frame.path, frame.function) for frame in root.frames if not is_own(frame.path, known)}
        for later in one.chain[1:]:
            at = later.frames[-1] if later.frames else None
            signature = _recognized(later.text, later.name)[0] if at and (at.path, at.function) in places else None
            if signature and signature.role == "root":
                return later
    return root


def _signature_of(
    stream: Stream, one: Traceback, raised: Raised
) -> tuple[Signature, re.Match[str]] | tuple[None, None]:
    """The signature of what was raised, or of what came of it where that says more."""
    # Messages of graphs and compilers come after an empty line, with frames in between.
    end = raised.end + _BELOW if stream.lines[raised.named].rstrip().endswith(":") else raised.end
    text = "\n".join(stream.lines[raised.named : end])
    found = _recognized(text if raised.message in text else f"{text}\n{raised.message}", raised.name)
    if found[0] is None or found[0].role != "confirmation":
        return found
    # What came of the cause may say what it means: `URLError` of a refused connection.
    rest = (_recognized(after.text, after.name) for after in one.chain[1:])
    return next((later for later in rest if later[0] and later[0].role == "root"), found)


def _of_lost_peer(
    stream: Stream, raised: Raised, signature: Signature, match: re.Match[str], place: Frame | None
) -> Loss:
    at = raised.named
    return Loss(
        stream.rank,
        stream.log,
        stream.numbers[at],
        stream.lines[at],
        signature,
        match.groupdict(),
        place,
        _short(raised.name),
        match[0],
    )


@lru_cache(256)  # many ranks say the same
def _recognized(message: str, name: str) -> tuple[Signature, re.Match[str]] | tuple[None, None]:
    """The first signature that matches the message of an exception."""
    # Further lines may be notes, or the text of another program: what Python itself raises says all in the first one.
    message = message.partition("\n")[0] if name in _OF_PYTHON else message
    for signature in EXCEPTIONS:
        if may_be_in(signature, message) and (match := compiled(signature.pattern).search(message)):
            quoted = name in _OF_VALUES and "\n" in message[: match.start()]
            if not (quoted and (signature.role == "cascade" or signature.kind in _OF_MACHINES)):
                return signature, match
    return None, None


def _meaning(
    stream: Stream,
    one: Traceback,
    raised: Raised,
    signature: Signature | None,
    match: re.Match[str] | None,
    known: Known,
) -> tuple[Kind, Certainty, str, str | None]:
    if signature and match:
        about = About(raised.text, stream.text[-20000:], known)
        return signature.kind, signature.certainty, signature.blame, hint_of(signature, match, about)
    frames = raised.frames
    if frames and not any(is_own(frame.path, known) for every in one.chain for frame in every.frames):
        if any(_WRAPPER.search(frame.path) for frame in frames):
            return (
                "exit-flake",
                "likely",
                "rank",
                "a wrapper of Azure ML failed, not your script: a newer SDK or image may help",
            )
        return "user-code", "likely", "rank", None
    own = bool(frames) and is_here(frames, known) and not _OF_THE_SYSTEM.match(raised.name)
    return "user-code", "certain" if own else "likely", "rank", None


def hint_of(signature: Signature, match: re.Match[str], about: About) -> str | None:
    """The hint, with the values of this failure."""
    hint = signature.hint
    if callable(hint):
        return hint(match, about)
    if hint is None or "{" not in hint:
        return hint
    values = {name: value or "" for name, value in match.groupdict().items()}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), hint)


def _of_broken(stream: Stream, frames: Sequence[Frame], known: Known) -> Cause:
    place = next((frame for frame in reversed(frames) if is_own(frame.path, known)), None)
    last = (stream.numbers[-1], stream.lines[-1].strip())
    return Cause(stream.rank, stream.log, "unknown", "unknown", 2, (last,), None, WORDS, place, HINT)


def _of_fatal(stream: Stream, one: Traceback, place: Frame | None, lines: tuple[tuple[int, str], ...]) -> Cause:
    if _NO_START.search(one.fatal or ""):
        return _of_no_start(stream, one, lines)
    return Cause(
        stream.rank,
        stream.log,
        "crash",
        "certain" if "egmentation" in (one.fatal or "") or "Bus" in (one.fatal or "") else "likely",
        3 if "Abort" not in (one.fatal or "") else 2,
        lines,
        None,
        f"Fatal Python error: {one.fatal}",
        place,
        "the process crashed in compiled code: the frame shows where Python called it",
        begins=stream.numbers[one.begin],
        uncaught=True,
    )


def _of_no_start(stream: Stream, one: Traceback, lines: tuple[tuple[int, str], ...]) -> Cause:
    """Python itself did not start: its own modules are missing."""
    return Cause(
        stream.rank,
        stream.log,
        "missing-module",
        "likely",
        3,
        lines,
        None,
        f"Fatal Python error: {one.fatal}",
        hint="Python does not find its own modules: `PYTHONHOME` or `PYTHONPATH` may be that of another Python",
        begins=stream.numbers[one.begin],
        uncaught=True,
    )


def _of_line(stream: Stream, at: int, signature: Signature, match: re.Match[str], known: Known) -> Cause:
    about = About(match[0], stream.text[-20000:], known)
    values = match.groupdict()
    message = " ".join((values.get("what") or stream.lines[at]).split())
    return Cause(
        stream.rank,
        stream.log,
        signature.kind,
        signature.certainty,
        3,
        ((stream.numbers[at], stream.lines[at].strip()),),
        None,
        message,
        None,
        hint_of(signature, match, about),
        signature.blame,
        signature,
        _when(stream, at),
        stream.numbers[at],
    )


def _place(one: Traceback, known: Known) -> Frame | None:
    """The innermost frame in the user's own code: of the cause, or else of a later exception."""
    for raised in one.chain:
        for frame in reversed(raised.frames):
            if is_own(frame.path, known):
                return frame
    return None


def _lines(stream: Stream, one: Traceback) -> tuple[tuple[int, str], ...]:
    indices = [one.root.named] + ([one.last.named] if len(one.chain) > 1 else [])
    return tuple((stream.numbers[at], stream.lines[at].strip()) for at in indices)


def _short(name: str) -> str | None:
    return name.rpartition(".")[2] or None


def _when(stream: Stream, at: int) -> float | None:
    """The time stamp of a line, or of one close to it."""
    for index in (at, at - 1, at + 1, at - 2, at - 3):
        if 0 <= index < len(stream.lines) and (found := _TIME.search(stream.lines[index])):
            return _seconds(found)
    return None


def _seconds(found: re.Match[str]) -> float | None:
    day = found["date"] or f"2000-{found['month']}-{found['day']}"
    clock = (found["time"] or found["clock"]).replace(",", ".")
    try:
        moment = datetime.strptime(f"{day} {clock.partition('.')[0]}", "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None
    # Times without a year are only compared with each other.
    return (moment - datetime(1970, 1, 1)).total_seconds() + float("0." + (clock.partition(".")[2] or "0"))
