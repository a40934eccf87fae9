"""How processes ended: signals, exit codes, and what they say of the cause."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from azml_dist.verdict.case import ABORT, KILL, WORDS, Case, evidence_of
from azml_dist.verdict.ends import by_signal, signal_name
from azml_dist.verdict.heard import hint_of
from azml_dist.verdict.hints import About
from azml_dist.verdict.known import Ended
from azml_dist.verdict.observed import Heard
from azml_dist.verdict.signatures import EXCEPTIONS, LINES, compiled, may_be_in
from azml_dist.verdict.verdict import Evidence, Verdict
from azml_dist.words import late

NO_WORDS = "no traceback was found: see its last lines"
"""The hint where nothing is known but an exit code."""
_FATAL = {4, 7, 8, 11}
"""SIGILL, SIGBUS, SIGFPE, SIGSEGV: caused by the process itself."""
_NOT_OURS = "azml_dist did not send this signal"
_FAULTHANDLER = "set `PYTHONFAULTHANDLER=1` in `environment_variables` to see where"
_EMPTY_PS = (
    'without parameter servers, TF_CONFIG has `"ps":[]`, which crashes TensorFlow 2.13 and later: remove it before'
    " you create the strategy, as `samples/tensorflow_multiworker/train.py` does"
)
_WHAT = late(r"^ +what\(\): +(\S.*)")
"""What `std::terminate` writes of an exception."""
_LIMITS = {
    24: "it exceeded the limit of CPU time: check `ulimit -t`",
    25: "it exceeded the limit of file size: check `ulimit -f`",
}
"""Hints for signals with which the kernel enforces a limit: SIGXCPU, SIGXFSZ."""


def of_fatal_signals(case: Case, ends: Mapping[int, Ended] | None = None) -> Verdict | None:
    ends = case.ends if ends is None else ends
    dead = {rank: end for rank, end in ends.items() if by_signal(end) in _FATAL and not end.stopped}
    nameless = [one for one in case.stated if one.rank is None and by_signal(one.ended) in _FATAL]
    aborted = {} if dead else _aborted(case, ends)
    if not dead and not aborted and not nameless:
        return None
    if not dead and aborted:
        return of_an_abort(case, aborted)
    rank = case.first(list(dead))
    number = by_signal(dead[rank] if rank is not None else next(iter(dead.values())) if dead else nameless[0].ended)
    bus = number == 7
    shm = bus and any(said.signature.kind == "shared-memory" for one in case.heard for said in one.confirmations)
    ended = None if rank is None else case.known.ends.get(rank)
    seen = ended is not None and ended.signal is not None
    return case.make(
        "shared-memory" if shm else "crash",
        "certain" if seen and not bus else "likely",
        rank,
        sorted(dead),
        message=f"ended by {signal_name(number or 0)}",
        hint=_of_a_bus_error(case) if bus else _of_a_tensorflow_worker(case, rank) or _FAULTHANDLER,
        evidence=[*case.stated_of(rank, number), *case.last_lines([rank] if rank is not None else sorted(dead))],
    )


def _of_a_bus_error(case: Case) -> str:
    if case.known.here:
        return "`/dev/shm`, or the disk of a file that was mapped, may be full: check `df`"
    return "the shared memory of the container may be too small: raise `shm_size` under `resources`"


def _of_a_tensorflow_worker(case: Case, rank: int | None) -> str | None:
    """The hint for TensorFlow's silent crash in jobs with only workers."""
    tasks = [one.stream.log for one in case.heard if "std_log_node_" in one.stream.log]
    own = any(one.rank == rank and one.stream.log.endswith("_worker.txt") for one in case.heard)
    return _EMPTY_PS if own and not any(log.endswith("_ps.txt") for log in tasks) else None


def _aborted(case: Case, ends: Mapping[int, Ended]) -> dict[int, Ended]:
    """Ranks that were aborted, but not because they had lost or awaited a peer."""
    return {
        rank: end for rank, end in ends.items() if by_signal(end) == ABORT and not end.stopped and rank not in case.lost
    }


def of_an_abort(case: Case, aborted: dict[int, Ended]) -> Verdict:
    rank = case.first(list(aborted))
    heard = [one for one in case.heard if one.rank in aborted]
    others = [r for r in case.ends if r not in aborted and case.failed(r) and not case.is_victim(case.ends[r])]
    flake = heard and all(one.aborted_at_exit and not one.has_traceback for one in heard) and not others
    return case.make(
        "exit-flake" if flake else "crash",
        "likely",
        rank,
        sorted(aborted),
        message=WORDS["exit-flake"] if flake else ": ".join(filter(None, ("ended by SIGABRT", _thrown(heard)))),
        hint="delete the model, then call `destroy_process_group()`, before the script ends" if flake else None,
        evidence=case.last_lines(sorted(aborted)),
    )


def _thrown(heard: Iterable[Heard]) -> str | None:
    """What the C++ exception said that nobody caught, and which aborted a process."""
    said = [found[1] for one in heard for line in one.stream.lines if (found := _WHAT.match(line))]
    return said[-1] if said else None


def of_kills(case: Case, ends: Mapping[int, Ended] | None = None) -> Verdict | None:
    ends = case.ends if ends is None else ends
    killed = {r: end for r, end in ends.items() if by_signal(end) == KILL and not case.is_victim(end)}
    nameless = [one for one in case.stated if one.rank is None and by_signal(one.ended) == KILL]
    if not killed and not nameless:
        return _of_other_signals(case, ends) or _of_stops(case)
    rank = case.first(list(killed))
    pressure = [said for one in case.heard for said in one.confirmations if said.signature.kind == "host-out-of-memory"]
    seen = rank is not None and rank in case.seen and case.known.out_of_memory_kills == 0
    return case.make(
        "host-out-of-memory" if pressure else "killed",
        "certain" if seen and not pressure else "likely",
        rank,
        sorted(killed),
        message="ended by SIGKILL",
        hint=_of_who_kills(case, seen=seen),
        evidence=[
            *case.stated_of(rank, KILL),
            *(Evidence(said.rank, said.log, said.line, said.text) for said in pressure[:2]),
            *case.last_lines([rank] if rank is not None else []),
        ],
    )


def _of_who_kills(case: Case, *, seen: bool) -> str:
    """Who may have sent SIGKILL; `seen` if the kernel's count shows that it killed no process."""
    if seen:
        return "it was not the kernel's out-of-memory killer: another program or a user sent the signal"
    if case.known.here:
        return f"{_NOT_OURS}; the kernel's out-of-memory killer may have: check `dmesg`"
    return "memory may have run out, but nothing here proves it: check `dmesg` or the memory of the node"


def _of_other_signals(case: Case, ends: Mapping[int, Ended]) -> Verdict | None:
    """A process not stopped by the run was ended by a signal that programs and users send: SIGTERM, SIGXCPU."""
    seen = {r: e for r, e in ends.items() if r in case.seen and e.signal and not e.stopped}
    # What is said to be the first was not stopped because of another one.
    first = {one.rank: one.ended for one in case.stated if one.first and one.rank is not None and one.ended.signal}
    seen |= {rank: end for rank, end in first.items() if rank in ends}
    killed = {rank: end for rank, end in seen.items() if end.signal not in (*_FATAL, ABORT, KILL)}
    if not killed:
        return _of_signals_as_codes(case, ends)
    rank = case.first(list(killed))
    number = killed[rank if rank is not None else min(killed)].signal or 0
    return case.make(
        "killed",
        "certain" if rank in case.seen else "likely",
        rank,
        sorted(killed),
        message=f"ended by {signal_name(number)}",
        hint=_LIMITS.get(number) or (_NOT_OURS if case.known.here else None),
        evidence=case.last_lines([rank] if rank is not None else sorted(killed)[:3]),
    )


def _of_signals_as_codes(case: Case, ends: Mapping[int, Ended]) -> Verdict | None:
    """An exit code with which shells, and scripts that handle a signal, say which one it was: 143 is SIGTERM."""
    told = {r: by_signal(e) or 0 for r, e in ends.items() if r in case.seen and e.exit_code and not e.stopped}
    told = {r: number for r, number in told.items() if number and number not in (*_FATAL, ABORT, KILL)}
    rank = case.first(list(told))
    if rank is None or rank in case.lost:
        return None
    code, name = ends[rank].exit_code, signal_name(told[rank])
    return case.make(
        "killed",
        "likely",
        rank,
        sorted(told),
        message=f"exit code {code}, which stands for {name}",
        hint=_LIMITS.get(told[rank]) or f"a program of this rank got {name}; {_NOT_OURS}" if case.known.here else None,
        evidence=case.last_lines([rank]),
    )


def _of_stops(case: Case) -> Verdict | None:
    """The launcher was told to stop; by whom is unknown."""
    found = [one for one in case.said if one[0].kind == "killed"]
    return case.whole(*found[0]) if found else None


def of_codes(case: Case, ends: Mapping[int, Ended] | None = None) -> Verdict | None:
    ends = case.ends if ends is None else ends
    lost = case.lost
    failed = {r: e for r, e in ends.items() if (e.exit_code or 0) and not by_signal(e) and not e.stopped}
    own = {rank: end for rank, end in failed.items() if rank not in lost}
    nameless = [one for one in case.stated if one.rank is None and one.ended.exit_code and not by_signal(one.ended)]
    if not own and nameless and not case.ends and not lost:
        own_words = [evidence_of(one) for one in nameless[:3]]
        message = f"a process ended with exit code {nameless[0].ended.exit_code}"
        return case.make("exit-code", "likely", None, [], message=message, evidence=own_words)
    if not own:
        return None
    rank = case.first(list(own))
    end = own[rank] if rank is not None else next(iter(own.values()))
    last = case.last_lines([rank] if rank is not None else sorted(own)[:3])
    raised = any(cause.exception for cause in case.every_cause if cause.rank == rank)
    hint = {126: "the program is not executable", 127: "the program was not found"}.get(end.exit_code or 0)
    if end.exit_code == 124 and re.search(r"\btimeout\b", case.known.command or ""):
        hint = "`timeout` in the command ends a program with this code when its time is over"
    if any("MPI_ABORT" in one.text for one in case.stated_of(rank, None)):
        hint = "it called `MPI_Abort`, which ends all ranks: see its last lines"
    hint = hint or _hint_of_words(case, last)
    return case.make(
        "exit-code",
        "certain" if case.known.status and rank in case.seen and len(own) == 1 and not raised else "likely",
        rank,
        sorted(own),
        message=_exit_code(end.exit_code or 0),
        hint=hint or NO_WORDS,
        evidence=[*case.stated_of(rank, None), *last],
    )


def _hint_of_words(case: Case, last: Sequence[Evidence]) -> str | None:
    """The hint for a known message that a process ended with, as in `sys.exit("…")`."""
    for one in reversed(last):
        for signature in (*EXCEPTIONS, *LINES):
            if signature.role == "root" and may_be_in(signature, one.text):
                match = compiled(signature.pattern).search(one.text)
                if match and (hint := hint_of(signature, match, About(match[0], "", case.known))):
                    return hint
    return None


def _exit_code(code: int) -> str:
    """The exit code, with the value that a script may have passed: the system keeps one byte of a negative code."""
    return f"exit code {code}" + (f" ({code - 256} as a byte)" if code > 128 + 64 else "")
