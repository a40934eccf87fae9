"""The timeline of a run: when each rank started, wrote its first line, did its steps, failed or was stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from azml_dist.local.page.logs import LogFile, Written
from azml_dist.local.state import Attempt, ProcessState, RunState
from azml_dist.model.steps import STEP_PATTERN, shown_lines, step_number
from azml_dist.page.sheet import Bar, Moment, Rank
from azml_dist.regular import open_inside
from azml_dist.verdict.verdict import Verdict
from azml_dist.words import plural

MOST_RANKS = 1024
"""How many ranks a page draws."""
_LOOKED_AT = 12_000_000
"""How many bytes of all logs are searched for steps."""
_STEPS = 12_000
"""How many steps are drawn in all."""
_HINTS = (b"step", b"iter", b"epoch")
"""One of these is in a line that the usual pattern finds."""


def ranks(state: RunState, written: Written, now: float, failures: Mapping[int, float | None]) -> list[Rank]:
    """Each rank; `failures` are the ranks that failed by themselves, and when, if a line says so."""
    last = written.last_attempt
    shown = _shown(state, failures)
    most = max(4, _STEPS // max(1, len(shown)))
    budget = _LOOKED_AT // max(1, len(shown))
    pattern = re.compile(state.step_pattern or STEP_PATTERN)
    over = state.is_final()
    found = []
    for process in shown:
        log = last.get(process.rank)
        row = _rank(process, state, written, log, now, failures)
        if log and log.size:
            steps = list(_steps(written, log, pattern, budget, usual=state.step_pattern is None))
            row.steps = _evenly(steps, most)
        row.outcome = outcome(process, over)
        row.bars = [*_earlier(state, process.rank, written), *row.bars]
        found.append(row)
    return found


def _shown(state: RunState, failures: Mapping[int, float | None]) -> Sequence[ProcessState]:
    if len(state.processes) <= MOST_RANKS:
        return state.processes
    kept = {*list(failures)[: MOST_RANKS // 2], state.failed_rank}
    room = MOST_RANKS - len(kept)
    return [one for one in state.processes if one.rank in kept or one.rank < room][:MOST_RANKS]


def _rank(
    process: ProcessState,
    state: RunState,
    written: Written,
    log: LogFile | None,
    now: float,
    failures: Mapping[int, float | None],
) -> Rank:
    start, end = (_since(written, at) for at in (process.started_at, process.ended_at))
    first = written.seconds(written.arrivals.first(log.number)) if log else None
    is_failure = process.rank in failures
    return Rank(
        label=f"rank {process.rank}" + (f" ({process.role})" if process.serves else ""),
        ended=ending(process, state.is_final()),
        bars=list(_bars(process, start, first, end if end is not None else now, state.is_final())),
        start=start,
        first_line=first,
        last_line=written.seconds(written.arrivals.last(log.number)) if log else None,
        end=end,
        failed=(failures[process.rank] or end) if is_failure else None,
        quiet=process.quiet,
        rank=process.rank,
        node=process.node_rank,
        role=process.role,
    )


def _since(written: Written, at: float | None) -> float | None:
    return None if at is None else max(0.0, at - written.began)


def _bars(process: ProcessState, start: float | None, first: float | None, end: float, is_over: bool) -> Iterator[Bar]:
    if start is None:
        return
    kind = {"completed": "good", "failed": "bad", "stopped": "warn", "running": "live"}.get(outcome(process, is_over))
    if kind is None:
        return
    begin = end if first is None else min(first, end)
    if begin > start:
        yield Bar("start", start, begin)
    # A rank that wrote nothing gets its colour at its end.
    yield Bar(kind, begin if first is not None else max(start, end - (end - start) * 0.03), end)


def with_silence(row: Rank) -> list[Bar]:
    """The bars of a rank of a run that hangs: from its last line on, it was silent."""
    found = []
    for bar in row.bars:
        if row.last_line is None or bar.kind == "start" or not bar.begin <= row.last_line < bar.end:
            found.append(bar)
            continue
        found += [Bar(bar.kind, bar.begin, row.last_line), Bar("silent", row.last_line, bar.end)]
    return found


def _earlier(state: RunState, rank: int, written: Written) -> Iterator[Bar]:
    """The bars of a rank in earlier attempts."""
    for attempt in state.earlier:
        process = attempt.processes[rank] if rank < len(attempt.processes) else None
        if process is None or process.started_at is None:
            continue
        start, end = _since(written, process.started_at), _since(written, process.ended_at or attempt.ended_at)
        if start is not None and end is not None:
            yield from _bars(process, start, start, end, is_over=True)


def outcome(process: ProcessState, is_over: bool) -> str:
    """How a process went, as the page colours it."""
    if process.exit_code is None and process.signal is None:
        if process.stopped:
            return "stopped"
        return "never" if is_over else "running" if process.pid else "waiting"
    if process.stopped:
        return "stopped"
    return "completed" if process.exit_code == 0 else "failed"


def ending(process: ProcessState, is_over: bool) -> str:
    """How it ended, in words."""
    if process.exit_code is None and process.signal is None:
        return "never started" if is_over else "running" if process.pid else "not started yet"
    how = f"exit code {process.exit_code}" if process.signal is None else f"signal {process.signal}"
    return f"stopped ({how})" if process.stopped else how


def failures(state: RunState, written: Written, verdict: Verdict | None) -> dict[int, float | None]:
    """The ranks that failed by themselves; for each, when the line arrived that says so, if one does."""
    lines = {one.rank: one for one in reversed(verdict.evidence) if one.rank is not None} if verdict else {}
    logs = written.last_attempt
    found: dict[int, float | None] = {}
    for process in state.processes:
        if outcome(process, state.is_final()) != "failed":
            continue
        line, log = lines.get(process.rank), logs.get(process.rank)
        found[process.rank] = None
        if line and line.line and log and log.process.log == line.log:
            found[process.rank] = written.seconds(written.arrivals.of(log.number, _offset(written, log, line.line)))
    return found


def _offset(written: Written, log: LogFile, number: int) -> int | None:
    """Where a line begins."""
    try:
        with open(open_inside(written.folder, log.process.log), "rb") as file:
            offset = 0
            for _ in range(number - 1):
                offset += len(file.readline(_LOOKED_AT))
                if offset > _LOOKED_AT * 4:
                    return None
            return offset
    except OSError:
        return None


def _steps(
    written: Written, log: LogFile, pattern: re.Pattern[str], budget: int, *, usual: bool
) -> Iterator[tuple[float, int]]:
    try:
        with open(open_inside(written.folder, log.process.log), "rb") as file:
            for offset, line in _lines(file, log.size or 0, budget):
                if usual and not any(hint in line.lower() for hint in _HINTS):
                    continue
                matches = (match for shown in shown_lines(line)[-1:] if (match := pattern.search(shown)))
                for match in matches:
                    at = written.seconds(written.arrivals.of(log.number, offset))
                    if at is not None and (step := step_number(match)) is not None:
                        yield round(at, 3), step
    except OSError:
        return


def _lines(file: IO[bytes], size: int, budget: int) -> Iterator[tuple[int, bytes]]:
    """The lines at the beginning and at the end of a file, each with the byte at which it begins."""
    offset = 0
    while offset < min(size, budget // 2) and (line := file.readline(1 << 16)):
        yield offset, line
        offset += len(line)
    if offset >= size:
        return
    if size - budget // 2 > offset:
        offset = size - budget // 2
        file.seek(offset)
        offset += len(file.readline())
    while offset < size and (line := file.readline(1 << 16)):
        yield offset, line
        offset += len(line)


def _evenly(steps: list[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    if len(steps) <= most:
        return steps
    return [steps[place * (len(steps) - 1) // (most - 1)] for place in range(most)]


def moments(state: RunState, written: Written, rank: int | None, at: float | None) -> list[Moment]:
    """What is drawn across the timeline: the first failure, faults on purpose, further attempts."""
    found = [Moment("cut", at, f"rank {rank} failed")] if at is not None else []
    for number, attempt in enumerate(state.earlier, 2):
        found.append(Moment("fault", max(0.0, attempt.ended_at - written.began), f"attempt {number}"))
    for fault in state.faults:
        begun = _first_start(state, fault.attempt or 0)
        if fault.at is not None and begun is not None:
            found.append(Moment("fault", max(0.0, begun - written.began) + fault.at, f"fault: {fault.what}"))
    return found


def _first_start(state: RunState, number: int) -> float | None:
    attempts: list[Attempt | RunState] = [*state.earlier, state]
    if number >= len(attempts):
        return None
    return min((one.started_at for one in attempts[number].processes if one.started_at), default=None)


def in_words(rows: Sequence[Rank], first: int | None, failed: int) -> str | None:
    """Who was first, in one sentence."""
    by_rank = {row.rank: row for row in rows}
    one = by_rank.get(first) if first is not None else None
    if one is None or one.failed is None:
        return None
    words = f"Rank {first} failed first, at {one.failed:.2f} s"
    if failed > 1:
        words += f"; {plural(failed - 1, 'other rank')} failed after it"
    others = [row.end for row in rows if row is not one and row.end is not None]
    if others and max(others) >= one.failed:
        words += f". The last of the others ended {max(others) - one.failed:.2f} s later"
    return f"{words}."
