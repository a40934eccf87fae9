"""Why a run on this machine failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from azml_dist.local.page.files import plan_of
from azml_dist.local.state import RunState
from azml_dist.local.watch.taking import HUNG, hang_of
from azml_dist.status import RunStatus
from azml_dist.verdict.folder import read_logs
from azml_dist.verdict.hang import AT_ITS_END
from azml_dist.verdict.judge import judge
from azml_dist.verdict.kept import kept
from azml_dist.verdict.known import Ended
from azml_dist.verdict.verdict import Verdict


def verdict_of(folder: Path, state: RunState) -> Verdict | None:
    """Why a run failed or hangs; None if it does neither."""
    hang = hang_of(folder)
    hang = hang and (_raised_before(hang, folder) or _on_purpose(hang, state))
    if not state.is_final():
        return hang
    found = kept(folder, state.retry) if state.status == RunStatus.FAILED else None
    found = found or judge(read_logs(folder).known)
    return hang if hang and (found is None or found.kind in HUNG) else found


def hidden_failure(folder: Path) -> Verdict | None:
    """Of a completed run: the exception that its logs show, if the command is one that hides failures."""
    findings = plan_of(folder).get("findings")
    codes = {one.get("code") for one in findings if isinstance(one, dict)} if isinstance(findings, list) else set()
    if not codes & {"unchecked-pipe", "unchecked-line"}:
        return None
    found = judge(replace(read_logs(folder).known, status=None, ends={}))
    return found if found and found.exception and found.certainty != "unknown" else None


def _raised_before(hang: Verdict, folder: Path) -> Verdict | None:
    """The verdict if a rank raised an exception, and MPI_Finalize or a thread of its own keeps it from ending."""
    ended = next((one for one in hang.evidence if AT_ITS_END in one.text or _ONLY_THREADS in one.text), None)
    if ended is None or ended.rank is None:
        return None
    rank = ended.rank
    others = sorted({*hang.ranks, *hang.followers} - {rank})
    ends = {rank: Ended(1)} | {other: Ended(stopped=True) for other in others}
    found = judge(replace(read_logs(folder).known, status=RunStatus.FAILED, error=None, ends=ends))
    if found is None or found.rank != rank or not found.exception:
        return None
    place = f" ({found.file}:{found.line})"
    return replace(
        found,
        kind=hang.kind,
        certainty="likely",  # a script may also have caught and printed it, and ended early for another reason
        summary=f"{found.summary.removesuffix(place)}; after that, {hang.summary}",
        hint="; ".join(filter(None, (found.hint, _MPI4PY if AT_ITS_END in ended.text else _DAEMON))),
        followers=others,
        evidence=[*found.evidence, *hang.evidence],
    )


_ONLY_THREADS = "_shutdown (threading.py"
"""Where the main thread of Python is that has ended, while others have not."""
_DAEMON = "after an exception, Python waits for the threads that the script has started: start them with `daemon=True`"
_MPI4PY = (
    "a rank that raises waits in MPI_Finalize for the others, and they wait for it: with"
    " `python -m mpi4py train.py`, an exception ends all ranks"
)


def _on_purpose(hang: Verdict, state: RunState) -> Verdict:
    """The verdict on a run that hangs, which says so if a fault stopped the rank."""
    specs = [
        fault.spec
        for fault in state.faults
        if fault.at is not None and fault.attempt == state.retry and fault.spec.startswith("stop:")
        if fault.rank is not None and fault.rank == hang.rank
    ]
    return replace(hang, summary=f"{hang.summary}, on purpose by the fault `{specs[0]}`") if specs else hang
