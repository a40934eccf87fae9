"""The thread that starts the members of a sweep or pipeline, watches them, and writes their common state."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from azml_dist.errors import DistError, RunFailed
from azml_dist.local.groups.group import Group, Starter
from azml_dist.local.run import LocalRun
from azml_dist.local.state import MEMBERS_PAUSE, MemberState, RunFolder, RunState
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azml_dist.local.supervision import Supervision


class Driver(threading.Thread):
    """Starts members, watches them, and writes the state. Nothing else writes it."""

    def __init__(
        self,
        group: Group,
        executor: Starter,
        folder: RunFolder,
        state: RunState,
        lock: int,
        supervision: Supervision | None,
    ) -> None:
        super().__init__(name=f"azml_dist {state.name}", daemon=True)
        self._group, self._executor, self._folder, self._state, self._lock = group, executor, folder, state, lock
        self._supervision = supervision
        self._running: dict[str, tuple[MemberState, LocalRun]] = {}
        self._deadline = time.monotonic() + group.timeout if group.timeout else None

    def run(self) -> None:
        try:
            stopped = self._drive()
            ending = (RunStatus.CANCELED, stopped) if stopped else None
        except BaseException as error:
            message = str(error) if isinstance(error, DistError) else f"{type(error).__name__}: {error}"
            ending = (RunStatus.FAILED, message)
        try:
            if ending:
                # Not final yet: a final state tells those who wait for it that the processes are gone.
                self._state.status = RunStatus.CANCEL_REQUESTED
                self._stop_all(ending[1])
                self._state.status, self._state.error = ending
                self._state.exit_code = 1
            if self._supervision:
                self._supervision.end()
            self._state.ended_at = time.time()
            self._folder.write(self._state)
        finally:
            os.close(self._lock)

    def _drive(self) -> str | None:
        """Why it was stopped; None if all members ended by themselves."""
        while True:
            self._collect()
            if reason := self._reason_to_stop():
                return reason
            started = self._start_some()
            if not self._running and not started:
                self._group.conclude(self._state)
                return None
            time.sleep(MEMBERS_PAUSE)

    def _start_some(self) -> bool:
        """Whether any member was started, or failed to start."""
        tried = False
        while len(self._running) < self._group.at_a_time:
            found = next(self._group.ready(self._state), None)
            if found is None or self._reason_to_stop():
                break
            tried = True
            member, job = found
            member.started_at = time.time()
            try:
                ahead, self._supervision = self._supervision, None
                run = self._executor.submit(job, supervision=ahead)
            except DistError as error:
                member.status, member.error, member.exit_code = RunStatus.FAILED, str(error.problems[0]), 1
                member.ended_at = time.time()
            else:
                member.status = RunStatus.RUNNING
                self._running[member.name] = member, run
            self._folder.write(self._state)
        return tried

    def _collect(self) -> None:
        for member, run in list(self._running.values()):
            state = run.state()
            if state.is_final():
                self._end(member, run, state)
            elif member.status == RunStatus.RUNNING and (reason := self._group.look(member, run)):
                member.status, member.error = RunStatus.CANCEL_REQUESTED, reason
                run.cancel(reason=reason)
                self._folder.write(self._state)

    def _end(self, member: MemberState, run: LocalRun, state: RunState) -> None:
        del self._running[member.name]
        with suppress(RunFailed):
            run.wait()
        member.status, member.exit_code, member.failed_rank = state.status, state.exit_code, state.failed_rank
        member.error, member.ended_at = member.error or state.error, state.ended_at
        self._state.findings += [f for f in state.findings if f not in self._state.findings]
        self._group.ended(self._state, member, run)
        self._folder.write(self._state)

    def _reason_to_stop(self) -> str | None:
        if (request := self._folder.cancel_request()) is not None:
            return request.reason
        if self._deadline and time.monotonic() > self._deadline:
            return f"cancelled after its timeout of {self._group.timeout:g} s"
        return None

    def _stop_all(self, reason: str) -> None:
        while self._running:
            request = self._folder.cancel_request()
            for _, run in self._running.values():
                run.kill(reason=reason) if request and request.kill else run.cancel(reason=reason)
            self._collect()
            time.sleep(MEMBERS_PAUSE)
