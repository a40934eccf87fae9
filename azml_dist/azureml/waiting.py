"""Why a run on Azure ML has not started, according to the service, or else from what the workspace shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.described import Details, Submitted
from azml_dist.azureml.facts import Asked, Reader, Wanted
from azml_dist.azureml.phases import WAITING, in_words
from azml_dist.azureml.stamps import seconds_of
from azml_dist.check import quota
from azml_dist.check.facts import Compute, Facts, Holder, Missing, Unknown
from azml_dist.check.report import Row, Wait
from azml_dist.check.waits import Waits
from azml_dist.errors import SubmitError
from azml_dist.status import RunStatus
from azml_dist.words import duration

EVERY = 60.0
"""Seconds between two questions."""
LONG = 60.0
"""Seconds after which the reason is asked in other states than `Queued` too: without quota, a run stays `Preparing`."""
_TIMEOUT = 10.0
_BUILD_LOG = "image_build"
"""In the name of the log of an image build: `azureml-logs/20_image_build_log.txt`."""


class Place(Asked, Protocol):
    """The workspace, with its run history."""

    @property
    def history(self) -> Any: ...


class Reason(NamedTuple):
    """Why a run waits."""

    wait: Wait
    key: str
    """The same text without ages, which change all the time."""


class Waiting:
    """Asks why one run waits, no more often than once a minute."""

    def __init__(self, workspace: Place, name: str) -> None:
        self._workspace = workspace
        self._name = name
        self._asked: tuple[RunStatus, float] | None = None
        self.reason: Reason | None = None
        """The last answer, while the run is in the same state."""

    def look(
        self, status: RunStatus, since: float | None, job: Callable[[], Submitted], details: Details | None = None
    ) -> None:
        """A look at the run: asks if it is time to."""
        if self._asked and self._asked[0] != status:
            self._asked = self.reason = None
        if self._is_due(status, since):
            self._asked = status, time.monotonic()
            self.reason = self._ask(status, job, details)

    def _is_due(self, status: RunStatus, since: float | None) -> bool:
        if status not in WAITING:
            return False
        if self._asked:
            return time.monotonic() - self._asked[1] >= EVERY
        return status == RunStatus.QUEUED or (since is not None and time.time() - since >= LONG)

    def _ask(self, status: RunStatus, job: Callable[[], Submitted], details: Details | None) -> Reason | None:
        """Why the run waits now; None if nothing says it, or this login may not read it."""
        sources = (self._of_the_service, lambda: self._of_a_build(status, details), lambda: self._of_its_compute(job()))
        for source in sources:
            with suppress(BrokenAnswerError, SubmitError):
                if found := source():
                    return found
        return None

    def _of_the_service(self) -> Reason | None:
        """`queueingInfo` of the run history (azure-ai-ml, `Run`)."""
        said = self._read(self._name).object("queueingInfo")
        text = " ".join((said.text("message") or said.text("code") or "").split())
        return Reason(Wait(text, "service"), text) if text else None

    def _of_a_build(self, status: RunStatus, details: Details | None) -> Reason | None:
        """The log of an image build, as long as no node has written any log."""
        if status != RunStatus.PREPARING:
            return None
        names = details.logs if details else self._read(self._name, "/details").object("logFiles").fields
        build = next((name for name in names if _BUILD_LOG in name), None)
        if build is None or any(name.startswith(("user_logs/", "system_logs/")) for name in names):
            return None
        text = f"Azure ML is building the image of its environment, which takes minutes; see {build}"
        return Reason(Wait(text), text)

    def _of_its_compute(self, job: Submitted) -> Reason | None:
        if job.compute is None or job.is_group:
            return None
        nodes = job.world.node_count
        facts = Reader(self._workspace, threading.Event()).read(Wanted({job.compute: nodes}, for_a_wait=True))
        compute = facts.computes[job.compute]
        if isinstance(compute, Missing):
            gone = f"the workspace has no compute {job.compute} any more"
            return Reason(Wait(gone), gone)
        if not isinstance(compute, Compute):
            return None
        waits = Waits(self._name, nodes, compute, facts.holders[job.compute])
        waits = waits._replace(quota=_quota(waits, facts))
        key = waits.reason(time.time())
        if key is None:
            return None
        text = waits._replace(holders=self._with_starts(waits.holders)).reason(time.time()) or key
        return Reason(Wait(text), key)

    def _with_starts(self, holders: Sequence[Holder] | Unknown) -> Sequence[Holder] | Unknown:
        """The run with the most nodes, with its start."""
        if isinstance(holders, Unknown) or not holders:
            return holders
        most = next((one for one in holders if one.run != self._name), holders[0])
        started = seconds_of(self._read(most.run).text("startTimeUtc"))
        return [one._replace(started=started) if one is most else one for one in holders]

    def _read(self, run: str, more: str = "") -> Answer:
        """A run as the run history has it; nothing if that cannot be read."""
        try:
            path = f"runs/{quote(run, safe='')}{more}"
            return Answer(self._workspace.history.call("GET", path, attempts=1, timeout=_TIMEOUT))
        except Exception:  # an explanation is never worth an error
            return Answer({})


def _quota(waits: Waits, facts: Facts) -> Sequence[Row]:
    compute = waits.compute
    sizes, usages = facts.sizes.get(compute.location), facts.usages.get(compute.location)
    if not sizes or not usages or isinstance(sizes, Unknown) or isinstance(usages, Unknown):
        return ()
    size = sizes.get((compute.size or "").lower())
    return quota.rows(usages, size, is_spot=compute.is_spot, new_nodes=waits.new_nodes) if size else ()


class MaxWait:
    """How long a run may take to start."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._until - time.monotonic()


class GivenUp(NamedTuple):
    """A run that was cancelled because it had not started in time."""

    after: float
    state: RunStatus
    wait: Wait | None

    def __str__(self) -> str:
        after = f"it had not started after {duration(self.after)}"
        if self.wait:
            return f"{after}: {self.wait.reason}"
        return after if self.state == RunStatus.NOT_STARTED else f"{after} ({in_words(self.state)} until then)"

    @property
    def lacked_nodes(self) -> bool:
        """Whether nodes were missing, rather than an image or an answer."""
        return self.state == RunStatus.QUEUED
