"""Waits for one run: shows its phases, why it has not started, and cancels it once a limit is reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress

from azml_dist.azureml.cost import Meter
from azml_dist.azureml.described import Details
from azml_dist.azureml.judged import Cancelled
from azml_dist.azureml.phases import WAITING, Phases
from azml_dist.azureml.runlogs import RunLogs
from azml_dist.azureml.runrecord import LOOKS, RunRecord, patiently
from azml_dist.azureml.runview import say_that_it_costs_too_much, say_that_it_does_not_start
from azml_dist.azureml.stamps import seconds_of
from azml_dist.azureml.waiting import GivenUp, MaxWait, Reason, Waiting
from azml_dist.azureml.waitline import State, view_of
from azml_dist.errors import SubmitError
from azml_dist.runs.foot import Seen
from azml_dist.runs.notebook import InPlace, interruptible
from azml_dist.runs.run import pauses
from azml_dist.runs.screen import screen_in_use
from azml_dist.status import RunStatus


class RunWatch:
    """Looks at a run again and again, and remembers what was seen of it."""

    def __init__(self, record: RunRecord, logs: RunLogs, phases: Phases) -> None:
        self._record = record
        self._logs = logs
        self._phases = phases
        self._waiting = Waiting(record.workspace, record.name)
        self.given_up: GivenUp | None = None
        """Why it was cancelled here, if it had not started in time."""
        self.max_wait: MaxWait | None = None
        """How long it may take to start, if that was said when it was submitted."""
        self.meter: Meter | None = None
        """What it costs, and may cost, where that is known."""
        self.listen: Callable[[], None] = logs.listen
        """Asks what a terminal shows of the run while it is waited for."""

    @property
    def reason(self) -> Reason | None:
        """Why it has not started, as it was last found out."""
        return self._waiting.reason

    def until(
        self,
        is_enough: Callable[[RunStatus], bool],
        timeout: float | None = None,
        limits: Sequence[MaxWait] = (),
        tell: Callable[[str], None] | None = None,
        table: InPlace | None = None,
    ) -> RunStatus:
        """The first status that is enough; what happens until then is shown, in a notebook in its `table`."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        limits = [*([self.max_wait] if self.max_wait else []), *limits]
        looks = pauses(*LOOKS)
        view = view_of(tell, self.watching, in_notebook=table is not None)
        with interruptible(), ExitStack() as stack:
            stack.callback(view.end)
            while not is_enough(status := patiently(lambda: self._record.job().status, deadline)):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"run {self._record.name} is still {status} after {timeout:g} s")
                self.look_at(status)
                view.show(self._state)
                if table:
                    table.renew(now=True)
                if screen_in_use() and status == RunStatus.RUNNING:
                    self.listen()
                self._hold_the_ceiling(status)
                self._hold_the_start(status, limits)
                view.pause(min([next(looks), left, *(limit.left for limit in limits if limit.left > 0)]))
            self.look_at(status)
            view.show(self._state)
        if table:
            table.renew(now=True)
        return status

    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        """What the foot of a terminal shows of the run; what is known already, as this asks the service nothing."""

        def look() -> Seen:
            if not self._phases.now:
                return Seen(self._record.name, "asking Azure ML")
            reason = self.reason
            why = reason.wait.reason if reason else ""
            return Seen(self._record.name, self._phases.line(), "", self._logs.heard(ranks), note=why)

        return look

    def look_at(self, status: RunStatus, details: Details | None = None) -> None:
        """Note the phase, and ask why the run waits, if it does and it is time to."""
        if self._phases.saw(status, details) and details is None and self._phases.lacks_times:
            with suppress(SubmitError):  # a login without access to it sees when each state was noticed
                self._phases.saw(status, self._record.details())
        since = self._phases.since or (seconds_of(details.created_at) if details else None)
        self._waiting.look(status, since, lambda: self._record.submitted, details)

    def _state(self) -> State:
        """What is known of the run already, in words."""
        reason = self.reason
        why, key = (f": {reason.wait.reason}", reason.key) if reason else ("", "")
        change = self._phases.change()
        return State(self._record.name, self._phases.line() + why, f"{self._phases.now}: {key}", change + why)

    def _hold_the_start(self, status: RunStatus, limits: Sequence[MaxWait]) -> None:
        """Cancel the run once it has waited for as long as it may; never one that has started, and waits again."""
        over = min((limit.seconds for limit in limits if limit.left <= 0), default=None)
        if over is None or self.given_up or status not in WAITING:
            return
        details = patiently(self._record.details)
        if details.status in WAITING and not details.started_at:
            reason = self.reason
            self.given_up = GivenUp(over, details.status, reason and reason.wait)
            say_that_it_does_not_start(self._record.name, self.given_up)
            why = Cancelled(f"cancelled because {self.given_up}", self.given_up.lacked_nodes)
            patiently(lambda: self._record.cancel(why))

    def _hold_the_ceiling(self, status: RunStatus) -> None:
        """Cancel the run once it has cost as much as it may."""
        meter, billed = self.meter, self._record.service.billed
        if meter is None or meter.has_reached:
            return
        # The service is asked once when the run began: somebody may have begun to wait in the middle of it.
        is_new = status in billed and not meter.has_begun and meter.most is not None
        meter.saw(status, billed, self._record.details().started_at if is_new else None)
        if meter.is_over:
            meter.has_reached = True
            say_that_it_costs_too_much(self._record.name, meter)
            self._record.cancel(Cancelled(f"cancelled at its cost limit of {meter.limit} (estimated)"))
