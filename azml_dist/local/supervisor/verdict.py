"""The error of a failed run, from the same judge as `azml-dist why`: which rank, how it failed, what to do."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from azml_dist.local.launchers.starting import tail
from azml_dist.local.state import ProcessState, RunState
from azml_dist.verdict.exits import NO_WORDS
from azml_dist.verdict.folder import of_a_run
from azml_dist.verdict.judge import judge
from azml_dist.verdict.kept import keep
from azml_dist.verdict.verdict import Kind, Verdict

_OF_WAITING: frozenset[Kind] = frozenset({"collective-timeout", "collective-mismatch", "hang", "rendezvous"})
"""Kinds in which the rank to blame may not have failed: others waited for it."""
_WORDS = 1 << 16
"""How many bytes at the end of a log to search for a traceback."""


class Told(NamedTuple):
    """The rank that failed, with its error and hint."""

    rank: int
    exit_code: int
    error: str
    hint: str | None
    explained: bool
    """Whether it is certain which exception ended the rank."""


def told(run: RunState, folder: Path, environment: Mapping[str, str]) -> Told:
    """What to say of a run in which a process failed; `failed_rank` is the one whose end was noticed first.

    The values of the job's secrets are in `environment`.
    """
    verdict = _judged(run, folder, environment)
    process = _culprit(run, verdict)
    # It was stopped after its traceback: by itself it would have ended with Python's exit code.
    code = 1 if process.stopped else process.exit_code if process.signal is None else 128 + process.signal
    error = _how_it_ended(process, verdict)
    if verdict is None or not _by_itself(process, verdict):
        error += _bystanders(process, run.processes, folder)
    explained = verdict is not None and verdict.certainty == "certain" and verdict.exception is not None
    return Told(process.rank, code or 1, error, _hint(verdict), explained)


def _judged(run: RunState, folder: Path, environment: Mapping[str, str]) -> Verdict | None:
    try:
        if verdict := judge(of_a_run(folder, run.to_dict(), environment)):
            keep(verdict, folder, run.retry)
        return verdict
    except Exception:
        # How it ended is known nevertheless; what went wrong is in supervisor.txt.
        traceback.print_exc()
        return None


def _culprit(run: RunState, verdict: Verdict | None) -> ProcessState:
    """The process that the verdict blames, if it failed; else the first that did."""
    bad = [p for p in run.processes if p.exit_code != 0 and not (p.serves and p.stopped)]
    if verdict and verdict.certainty != "unknown":
        blamed = next((p for p in bad if p.rank == verdict.rank), None)
        if blamed and (not blamed.stopped or verdict.kind not in _OF_WAITING):
            return blamed
    return bad[0] if run.failed_rank is None else run.processes[run.failed_rank]


def _how_it_ended(process: ProcessState, verdict: Verdict | None) -> str:
    rank = f"rank {process.rank} ({process.role})" if process.serves else f"rank {process.rank}"
    if process.unheard:
        return f"the wrapper process of {rank} was killed (SIGKILL), and the rank with it"
    if process.stopped and verdict and verdict.rank == process.rank:
        said = ": ".join(filter(None, (verdict.exception, verdict.message)))
        return f"{rank} failed: {said}"
    if process.signal is None:
        return f"{rank} failed with exit code {process.exit_code}"
    known = set(signal.Signals)
    name = signal.Signals(process.signal).name if process.signal in known else str(process.signal)
    if verdict and verdict.kind == "exit-flake" and verdict.rank == process.rank:
        return f"{rank} was aborted ({name}) when its interpreter exited, after it had finished its work"
    return f"{rank} was ended by signal {process.signal} ({name})"


def _by_itself(process: ProcessState, verdict: Verdict) -> bool:
    """Whether a process failed for the cause of the verdict, maybe with others, and not since another one left."""
    is_one = process.rank in verdict.ranks and verdict.kind not in _OF_WAITING and verdict.certainty != "unknown"
    return is_one or verdict.rank == process.rank


def _hint(verdict: Verdict | None) -> str | None:
    return None if verdict is None or verdict.hint == NO_WORDS else verdict.hint


def _bystanders(process: ProcessState, processes: Iterable[ProcessState], folder: Path) -> str:
    """For a rank that lost a peer: the ranks that had ended successfully, and those that were still running."""
    others = [p for p in processes if p.rank != process.rank and not p.serves]
    ended = [p.rank for p in others if p.exit_code == 0 and not p.stopped]
    running = [p.rank for p in others if p.stopped and b"Traceback (most recent" not in tail(folder / p.log, _WORDS)]
    told = [f"{_ranks(ended)} had ended with exit code 0"] if ended else []
    told += [f"{_ranks(running)} {'was' if len(running) == 1 else 'were'} still running"] if running else []
    return f"; it lost or waited for another process: {', '.join(told)}" if told else ""


def _ranks(ranks: list[int]) -> str:
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks))}"
