"""Runs scripts that hang and scripts that are slow, and holds what the watch says against the truth."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from azml_dist import Job, Local, RunFailed
from azml_dist.local.run import LocalRun
from azml_dist.local.watch.taking import hang_of, still_for
from azml_dist.verdict.verdict import Verdict
from hangscore.cases import ALIVE, HANGS, Case

STALL_AFTER = 4.0
"""Seconds of a hang until the watch speaks; half of it for runs that are slow."""
LATE = 3.0
"""Seconds after which an answer counts as late."""
_PATIENCE = 150
_AT_A_TIME = 2


class Result(NamedTuple):
    """A case, and the first thing that was said of it."""

    case: Case
    launcher: str
    verdict: Verdict | None
    after: float
    """Seconds for which nothing had moved."""
    status: str

    @property
    def ranks_right(self) -> bool:
        if self.case.odd is None or self.verdict is None:
            return self.case.odd is None and self.verdict is None and self.status == "Completed"
        return tuple(self.verdict.ranks) == self.case.odd

    @property
    def right(self) -> bool:
        """The rank and the line."""
        if self.case.odd is None or self.verdict is None:
            return self.ranks_right
        return self.ranks_right and (self.verdict.file, self.verdict.line) == ("train.py", self.case.line)

    @property
    def in_time(self) -> bool:
        return self.verdict is not None and self.after <= STALL_AFTER + LATE

    @property
    def wrong_certain(self) -> bool:
        return self.verdict is not None and self.verdict.certainty == "certain" and not self.right


def every() -> list[tuple[Case, str]]:
    """All cases, each under all its launchers."""
    return [(case, launcher) for case in [*HANGS, *ALIVE] for launcher in case.launchers]


def run(case: Case, launcher: str, folder: Path) -> Result:
    """Start it, and wait until the watch speaks, or until the run ends."""
    code = folder / "code"
    code.mkdir(parents=True)
    (code / "train.py").write_text(case.script)
    options: dict[str, Any] = {"launcher": launcher} if launcher in ("torchrun", "direct") else {}
    options["stall_after"] = STALL_AFTER if case.odd is not None else STALL_AFTER / 2
    started = Local(root=folder / "runs", grace=1, **options).submit(_job(case, code))
    try:
        verdict, after = _first_word(started)
        return Result(case, launcher, verdict, after, started.status)
    finally:
        started.kill()
        with contextlib.suppress(RunFailed, TimeoutError):
            started.wait(60)


def _job(case: Case, code: Path) -> Job:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""} if "tensorflow" in case.launchers else {}
    return Job(
        command="python train.py",
        code=str(code),
        node_count=case.nodes,
        distribution=case.distribution,
        environment_variables=quiet,
    )


def _first_word(run: LocalRun) -> tuple[Verdict | None, float]:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and not run.state().is_final():
        if verdict := hang_of(run.folder):
            return verdict, still_for(run.folder)
        time.sleep(0.1)
    return None, 0.0


def results(
    chosen: Sequence[tuple[Case, str]], root: Path, seen: Callable[[Result], object] = lambda _: None
) -> list[Result]:
    """All of these, some at a time, in their order."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        waiting = [pool.submit(run, case, launcher, root / str(at)) for at, (case, launcher) in enumerate(chosen)]
        found = []
        for one in waiting:
            found.append(one.result())
            seen(found[-1])
        return found


def wrong(results: Sequence[Result]) -> Iterator[str]:
    """Each answer that is not right, with what was said."""
    for one in results:
        if one.right and (one.in_time or one.case.odd is None):
            continue
        said = one.verdict
        got = f"{said.certainty} {said.ranks} {said.file}:{said.line} {said.summary}" if said else "nothing"
        truth = f"{list(one.case.odd)} train.py:{one.case.line}" if one.case.odd is not None else "nothing"
        name = f"{one.case.group}, {one.case.name}, {one.launcher}"
        yield f"{name}: {truth}, got {got} after {one.after} s ({one.status})"


def table(results: Sequence[Result]) -> Iterator[str]:
    """The score by group, as lines of Markdown."""
    yield "| scripts | runs | rank right | rank and line right | within 3 s | wrong and certain |"
    yield "|---|---|---|---|---|---|"
    for group in dict.fromkeys(one.case.group for one in results if one.case.odd is not None):
        yield _row(group, [one for one in results if one.case.group == group])
    yield _row("**all that hang**", [one for one in results if one.case.odd is not None])
    slow = [one for one in results if one.case.odd is None]
    silent, certain = sum(one.right for one in slow), sum(one.wrong_certain for one in slow)
    yield f"| slow, but alive | {len(slow)} | silent: {silent} | | | {certain} |"


def _row(name: str, results: Sequence[Result]) -> str:
    count = len(results)
    right = [sum(one.ranks_right for one in results), sum(one.right for one in results)]
    right.append(sum(one.in_time for one in results))
    cells = [f"{n} ({100 * n / max(count, 1):.0f} %)" for n in right]
    return f"| {name} | {count} | {' | '.join(cells)} | {sum(one.wrong_certain for one in results)} |"


def into(page: str, lines: Sequence[str]) -> str:
    """The page of the documents with this score."""
    text = "\n".join(lines)
    return re.sub(
        r"(?<=<!-- score -->\n).*?(?=<!-- end of score -->)", lambda _: f"\n{text}\n\n", page, flags=re.DOTALL
    )
