"""The handle of a local run: it knows the run's folder, and nothing that is not in there."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from azml_dist.errors import DistError, NotFound, RunFailed
from azml_dist.local.merged import Reader
from azml_dist.local.state import FAILED, RunFolder, RunState
from azml_dist.local.supervision import Supervision
from azml_dist.logs import Labeller, Logs, Source, as_text, whole_lines
from azml_dist.runs import Run, RunStatus

_TAIL_LINES = 20
_POLL = (0.005, 0.02)
"""Seconds between two looks at a run: at first, and at most while nothing happens."""

children: set[LocalRun] = set()
"""Runs that this process launched and has not waited for."""


class LocalRun(Run):
    """A run on this machine, launched by this process or by another."""

    def __init__(self, folder: RunFolder, supervision: Supervision | None = None) -> None:
        self._folder = folder
        self._supervision = supervision
        self.name = folder.path.name
        if supervision:
            children.add(self)

    @classmethod
    def find(cls, name: str, root: str | Path | None = None) -> LocalRun | None:
        """The run of that name, or in that folder; in `root`, or else wherever runs were put."""
        if os.sep in name and (Path(name) / "run.json").exists():
            return _handle(RunFolder(Path(name).resolve()))
        if os.path.basename(name) == name:
            for folder in _roots(root):
                if (folder / name / "run.json").exists():
                    return _handle(RunFolder(folder / name))
        return None

    @classmethod
    def all(cls, root: str | Path | None = None) -> list[LocalRun]:
        """Every run in `root`, or else wherever runs were put; the newest last."""
        created = []
        for file in (file for folder in _roots(root) if folder.is_dir() for file in folder.glob("*/run.json")):
            with suppress(NotFound):  # some other tool's file of that name
                created.append((RunFolder(file.parent).read().created_at, file.parent))
        return [_handle(RunFolder(folder)) for _, folder in sorted(created)]

    @property
    def folder(self) -> Path:
        """Where everything of the run is."""
        return self._folder.path

    def state(self) -> RunState:
        """The run as it is now: what `run.json` says."""
        return self._folder.read()

    @property
    def status(self) -> RunStatus:
        return RunStatus(self.state().status)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    @property
    def outputs(self) -> Mapping[str, Path]:
        folder = self.folder / "outputs"
        return {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}

    def wait(self, timeout: float | None = None) -> LocalRun:
        deadline = None if timeout is None else time.monotonic() + timeout
        pauses = _pauses()
        while not (state := self.state()).is_final():
            if deadline and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.name} is still {state.status} after {timeout:g} s")
            time.sleep(next(pauses))
        self._let_go()
        if state.status != RunStatus.COMPLETED:
            raise self._failure(state)
        return self

    def logs(
        self, rank: int | None = None, *, node: int | None = None, follow: bool = False, tail: int | None = None
    ) -> Logs:
        ranks = self.ranks(rank, node)
        return Logs(lambda: as_text(self.chunks(ranks, label=rank is None, follow=follow, tail=tail)))

    def ranks(self, rank: int | None = None, node: int | None = None) -> frozenset[int]:
        """The ranks that are meant; `NotFound` if the run has none of them."""
        processes = self.state().processes
        ranks = [p.rank for p in processes if rank in (None, p.rank) and node in (None, p.node_rank)]
        if not ranks:
            which = " of ".join(f"{k} {v}" for k, v in (("rank", rank), ("node", node)) if v is not None)
            last = processes[-1]
            raise NotFound(
                f"run {self.name} has no {which}", hint=f"its last is rank {last.rank}, on node {last.node_rank}"
            )
        return frozenset(ranks)

    def chunks(
        self,
        ranks: frozenset[int] | None = None,
        *,
        label: bool = True,
        colour: bool = False,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[bytes]:
        """Whole lines as the ranks wrote them, in the order in which they arrived, each behind its label.

        With `tail` only the last ones of those that are there; with `follow` then all that come, to the run's end.
        """
        state = self.state()
        reader = Reader(self.folder, state.first_logs, ranks)
        sources = [Source(p.rank, p.node_rank, "ps" if p.serves else "") for p in state.processes]
        labeller = Labeller(sources, colour=colour) if label else Labeller.of_none(sources)
        pauses = _pauses()
        try:
            if tail is not None:
                yield b"".join(deque(whole_lines(map(labeller.label, reader.read())), maxlen=tail))
            while True:
                # Asked before the read: what a run writes before its end is there when it has ended.
                ended = not follow or self.state().is_final()
                for piece in reader.read():
                    pauses = _pauses()
                    yield labeller.label(piece)
                if ended:
                    yield labeller.end()
                    return
                time.sleep(next(pauses))
        finally:
            reader.close()

    def cancel(self) -> None:
        if not self.state().is_final():
            self._folder.request_cancel()

    def kill(self) -> None:
        """Cancel without giving the processes time to end by themselves."""
        if not self.state().is_final():
            self._folder.request_cancel(kill=True)

    def download(self, folder: str | Path) -> Path:
        target = Path(folder)
        for name in ("outputs", "artifacts", "user_logs"):
            if (self.folder / name).is_dir():
                for source in sorted((self.folder / name).rglob("*")):
                    copy = target / source.relative_to(self.folder)
                    if source.is_dir():
                        copy.mkdir(parents=True, exist_ok=True)
                    elif not copy.exists():
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(source, copy)
        return target

    def metrics(self) -> dict[str, float]:
        return {name: values[-1] for name, values in self.metric_histories().items()}

    def metric_histories(self) -> dict[str, list[float]]:
        found = {}
        for folder in (self.folder / "mlruns").glob("*/*/metrics"):
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                # Each line: time in ms, value, step. One without its end is still being written.
                lines = (line.split() for line in file.read_text().splitlines(keepends=True) if line.endswith("\n"))
                if values := [float(line[1]) for line in lines if len(line) > 1]:
                    found[file.relative_to(folder).as_posix()] = values
        return found

    def describe(self) -> dict[str, Any]:
        return self.state().to_dict()

    def __str__(self) -> str:
        from azml_dist.render import run_text

        return run_text(self.state())

    def __repr__(self) -> str:
        return f"<LocalRun {self.name}: {self.status}>"

    def _repr_html_(self) -> str:
        from azml_dist.render import run_html

        return run_html(self.state())

    def _failure(self, state: RunState) -> RunFailed:
        tail = ""
        if state.failed_rank is not None:
            log = self.folder / state.processes[state.failed_rank].log
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]) if log.exists() else ""
        verb = "failed" if state.status == FAILED else "was canceled"
        return RunFailed(
            f"run {self.name} {verb}: {state.error}",
            run=self,
            failed_rank=state.failed_rank,
            exit_codes={p.rank: p.exit_code for p in state.processes},
            log_tail=tail,
            hint=state.hint,
        )

    def _let_go(self) -> None:
        """The run has ended: its supervisor, a child of this process, may end too."""
        children.discard(self)
        if self._supervision:
            self._supervision.end()
            self._supervision = None


def _handle(folder: RunFolder) -> LocalRun:
    with suppress(NotFound):
        if folder.read().kind:
            from azml_dist.local.group import GroupRun

            return GroupRun(folder)
    return LocalRun(folder)


@atexit.register
def _wait_for_children() -> None:
    """A script that ends without `wait()` waits here: what it launched would end with it, half done."""
    for run in list(children):
        try:
            try:
                if not run.state().is_final():
                    print(f"waiting for run {run.name}; Ctrl-C ends it", file=sys.stderr)
                run.wait()
            except KeyboardInterrupt:
                run.cancel()
                run.wait()
        except DistError as failure:  # noqa: PERF203 (a run that failed keeps no other from being waited for)
            # RunFailed, or NotFound of a run whose folder somebody has removed.
            print(f"error: {failure.problems[0].message}", file=sys.stderr)


def _pauses() -> Iterator[float]:
    pause, longest = _POLL
    while True:
        yield pause
        pause = min(pause * 1.3, longest)


def _roots(root: str | Path | None) -> list[Path]:
    from azml_dist.local.executor import known_roots

    return [Path(root)] if root else [Path(r) for r in known_roots()]
