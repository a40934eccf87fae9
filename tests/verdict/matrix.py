"""Scores the verdict with failures that are made on purpose: here, and with the logs that Azure ML keeps of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist import Job, Local, Mpi, Output, PyTorch, RunFailed, TensorFlow
from azml_dist.local.run import LocalRun
from azml_dist.local.state import RunFolder, RunState
from azml_dist.verdict.folder import read_logs
from azml_dist.verdict.judge import judge
from azml_dist.verdict.verdict import Verdict
from verdict.injections import HERE, Case

_GROUP = Path("/sys/fs/cgroup/memory")
RANKS, KINDS = 0.97, 0.92
"""The bar: how many of the ranks and of the kinds are right."""
_PATIENCE = 180
_THERE = "/mnt/azureml/cr/j/0f1e2d3c4b5a/exe/wd"
_AT_A_TIME = 2


class Result(NamedTuple):
    """A case, and what was said of it."""

    case: Case
    here: Verdict | None
    there: Verdict | None
    """From the logs that Azure ML keeps."""
    place: tuple[str, int] | None
    """Where it failed."""
    told: str
    """What the run says of its end."""
    contradiction: str | None
    folder: Path
    """What it left: `code`, `runs` and `azure`."""
    service: str
    """What the service says."""


class Judged(NamedTuple):
    """What an answer is worth."""

    rank: bool
    kind: bool
    wrong_certain: bool
    not_known: bool
    """It says that it does not know, which is right where nobody can."""


class Score(NamedTuple):
    """How many of the cases are right."""

    cases: int
    ranks: int
    kinds: int
    wrong_certain: int
    not_known: int


def run(case: Case, folder: Path) -> Result:
    """Make a failure, and have both verdicts on it."""
    code = folder / "code"
    code.mkdir(parents=True)
    files = {"train.py": case.script, **case.injection.files}
    for name, text in files.items():
        (code / name).write_text(text)
    place = next(
        (
            (name, number)
            for name, text in files.items()
            for number, line in enumerate(text.splitlines(), 1)
            if line.endswith(HERE)
        ),
        None,
    )
    ended = _limited(case, folder) if case.injection.memory else _run(case, folder)
    state = ended.state()
    here = ended.verdict()
    service = as_azure(state, ended.folder, folder / "azure")
    there = judge(read_logs(folder / "azure").known)
    return Result(case, here, there, place, state.error or "", _contradiction(state, here), folder, service)


def _run(case: Case, folder: Path) -> LocalRun:
    options: dict[str, Any] = {"launcher": case.launcher} if case.launcher in ("torchrun", "direct") else {}
    options |= case.injection.options
    where = Local(root=folder / "runs", grace=2, **options)
    run = where.submit(job_of(case, folder))
    with contextlib.suppress(RunFailed):
        run.wait(_PATIENCE)
    return run


def job_of(case: Case, folder: Path) -> Job:
    """The job of a case, whose code is in that folder."""
    how: PyTorch | Mpi | TensorFlow = PyTorch(process_count_per_node=case.each)
    if case.launcher == "mpirun":
        how = Mpi(process_count_per_node=case.each)
    if case.launcher == "tensorflow":
        how = TensorFlow(worker_count=case.nodes)
    return Job(
        command=f"{case.injection.command} ${{{{outputs.up}}}}",
        code=str(folder / "code"),
        node_count=case.nodes,
        distribution=how,
        outputs={"up": Output()},
        environment="azureml:torch:1",
        compute="gpu-cluster",
    )


def can_limit_memory() -> bool:
    """Whether this user may make control groups here."""
    return os.access(_GROUP, os.W_OK) and (_GROUP / "memory.limit_in_bytes").exists()


def _limited(case: Case, folder: Path) -> LocalRun:
    """In a control group that may use so much memory."""
    group = _GROUP / f"azml-dist-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(case.injection.memory))
        job_of(case, folder).dump(folder / "job.yml")
        command = [
            sys.executable,
            "-m",
            "azml_dist.cli",
            "run",
            "job.yml",
            "--launcher",
            "direct",
            "--root",
            "runs",
            "--json",
        ]
        inside = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        done = subprocess.run(
            ["sh", "-c", inside, "sh", *command], cwd=folder, capture_output=True, text=True, timeout=_PATIENCE
        )
        return LocalRun(RunFolder(json.loads(done.stdout)["folder"]))
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return


def as_azure(state: RunState, run: Path, folder: Path) -> str:
    """What Azure ML keeps of such a run: a log for each process, and its own error, which has no times and one name.

    Its words are those seen; that they name the process whose end the service noticed first is inferred.
    """
    (folder / "user_logs").mkdir(parents=True)
    for log in sorted((run / "user_logs").iterdir()):
        (folder / "user_logs" / log.name).write_text(_as_there(log, run))
    message = _service_message(state, run)
    error = {"error": {"error": {"code": "UserError", "message": message}}} if message else {}
    details: dict[str, Any] = {"status": state.status, **error}
    (folder / "details.json").write_text(json.dumps(details))
    return message


def _as_there(log: Path, run: Path) -> str:
    """A log with the working directory of a job there."""
    return re.sub(rf"{re.escape(str(run))}/nodes/\d+/", f"{_THERE}/", log.read_text(errors="replace"))


def _service_message(state: RunState, run: Path) -> str:
    """The service's words for the process that failed first by itself; none where no process did."""
    failed = [p for p in state.processes if not p.stopped and (p.exit_code or p.signal)]
    if state.status != "Failed" or not failed:
        return ""
    first = min(failed, key=lambda p: (p.noticed or 0, p.rank))
    tail = "\n".join(_as_there(run / first.log, run).splitlines()[-20:])
    code = first.exit_code if first.signal is None else -first.signal
    return (
        f"Execution failed. User process 'bash' exited with status code {code}. "
        f"Please check log file '{first.log}' for error details. Error: {tail}"
    )


def held_against(verdict: Verdict | None, result: Result, *, order: bool) -> Judged:
    """What a verdict is worth; `order` where the order between the ranks was seen."""
    truth = result.case.truth
    if verdict is None:
        return Judged(False, False, False, False)
    not_known = verdict.certainty == "unknown" or (verdict.rank is None and None not in truth.ranks)
    if not_known and not order and truth.only_order_tells:
        return Judged(True, True, False, True)
    rank, kind = verdict.rank in truth.ranks, verdict.kind in truth.kinds
    wrong = not rank or not kind or not truth.may_be_certain
    if verdict.exception and truth.exception:
        wrong = wrong or verdict.exception != truth.exception
    if verdict.file and result.place:
        wrong = wrong or (verdict.file, verdict.line) != result.place
    return Judged(rank, kind, wrong and verdict.certainty == "certain", not_known)


def _contradiction(state: RunState, verdict: Verdict | None) -> str | None:
    """Where what a run says of its end, and the verdict on it, name different ranks that failed."""
    if verdict is None or verdict.rank is None or verdict.rank == state.failed_rank or state.status != "Failed":
        return None
    blamed = state.processes[verdict.rank]
    ended_badly = not blamed.stopped and (blamed.exit_code or blamed.signal)
    return f"failed_rank {state.failed_rank}, verdict {verdict.rank}" if ended_badly else None


def results(cases: Sequence[Case], root: Path, seen: Callable[[Result], object] = lambda _: None) -> list[Result]:
    """All cases, some at a time, in their order."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        waiting = [pool.submit(run, case, root / case.id) for case in cases]
        found = []
        for one in waiting:
            found.append(one.result())
            seen(found[-1])
        return found


def score(results: Sequence[Result], *, here: bool) -> Score:
    judged = [held_against(one.here if here else one.there, one, order=here) for one in results]
    return Score(
        len(judged),
        sum(one.rank for one in judged),
        sum(one.kind for one in judged),
        sum(one.wrong_certain for one in judged),
        sum(one.not_known for one in judged),
    )


def wrong(results: Sequence[Result]) -> Iterator[str]:
    """The answers that are not right, each with what was said."""
    for one in results:
        for where, verdict in (("here", one.here), ("azure", one.there)):
            judged = held_against(verdict, one, order=where == "here")
            if judged.rank and judged.kind and not judged.wrong_certain:
                continue
            marks = "".join(
                mark
                for mark, bad in (("R", not judged.rank), ("K", not judged.kind), ("C", judged.wrong_certain))
                if bad
            )
            got = f"{verdict.kind}/{verdict.rank}/{verdict.certainty}: {verdict.summary}" if verdict else "no verdict"
            truth = f"{'|'.join(one.case.truth.kinds)}/{one.case.truth.ranks}"
            yield f"{marks:3} {where:5} {one.case.id}: {truth}, got {got} [{one.told}]"
        if one.contradiction:
            yield f"!   {one.case.id}: {one.contradiction}"


def table(results: Sequence[Result]) -> Iterator[str]:
    """The score by launcher and by kind of failure, as lines of Markdown."""
    answer = "rank right | kind right | wrong and certain"
    yield f"| failures | cases | here: {answer} | with Azure's logs: {answer} | not known |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for launcher in ("torchrun", "direct", "mpirun", "tensorflow"):
        yield _row(f"under {launcher}", [one for one in results if one.case.launcher == launcher])
    for group in dict.fromkeys(one.case.group for one in results):
        yield _row(group, [one for one in results if one.case.group == group])
    yield _row("**all**", results)


def _row(name: str, results: Sequence[Result]) -> str:
    here, there = score(results, here=True), score(results, here=False)
    cells: list[object] = [name, here.cases]
    for one in (here, there):
        cells += [f"{count} ({100 * count / one.cases:.0f} %)" for count in (one.ranks, one.kinds)]
        cells.append(one.wrong_certain)
    return "| " + " | ".join(map(str, [*cells, there.not_known])) + " |"
