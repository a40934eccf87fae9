"""What Azure ML knows of one run: its record, its run history, and the addresses of what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.described import Details, Submitted
from azml_dist.azureml.errors import translated
from azml_dist.azureml.judged import Cancelled, note_cancelled, noted_cancelled
from azml_dist.azureml.logs import LogName, World, parse
from azml_dist.azureml.ranges import STORAGE_SCOPE, Ranges
from azml_dist.azureml.runview import say_that_it_may_be_over
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import AuthError, NotFound, SubmitError
from azml_dist.notation.expressions import OF_RUN
from azml_dist.plan.world import SERVICE, Service
from azml_dist.runs.logs import Source
from azml_dist.runs.run import pauses
from azml_dist.status import RunStatus

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

T = TypeVar("T")

LOOKS = (0.5, 10.0)
"""Seconds between two polls of a run that is waited for."""
_PATIENCE = 600.0
"""Seconds without a connection that are tolerated while a run is followed: a train, a sleeping laptop."""


class RunRecord:
    """Asks the service about one run, each time again, except for what never changes."""

    def __init__(self, workspace: Workspace, name: str, service: Service | None = None) -> None:
        self.workspace = workspace
        self.name = name
        self.service = service or SERVICE
        self._path = quote(name, safe="")
        self._unchanged: tuple[RunStatus, float] | None = None
        """A status that may be final, and since when it has not changed."""
        self._cancelled: Cancelled | None = None

    @property
    def url(self) -> str:
        """Its page in Azure ML studio."""
        return self.workspace.studio_url(self.name)

    def job(self) -> Submitted:
        """The job's record, with its status now; raises `NotFound` if the workspace has no such run."""
        with translated(f"find run {self.name}", self.workspace):
            return Submitted.of(self.job_answer())

    def details(self) -> Details:
        """The run in run history, with its status and its logs now."""
        with translated(f"find run {self.name}", self.workspace):
            return Details.of(self.details_answer())

    def job_answer(self) -> Answer:
        """The job's record as the service sends it."""
        return self.workspace.arm.read(f"jobs/{self._path}")

    def details_answer(self) -> Answer:
        """The run in run history as the service sends it."""
        return self.workspace.history.read(f"runs/{self._path}/details")

    @cached_property
    def submitted(self) -> Submitted:
        """The job's record, requested only once: for what never changes."""
        return self.job()

    @property
    def world(self) -> World:
        """How many nodes it has, and how many processes on each."""
        return self.submitted.world

    @cached_property
    def sources(self) -> list[Source]:
        """All its processes, ordered by rank."""
        return self.submitted.sources

    def log_names(self, details: Details, ranks: frozenset[int] | None = None) -> dict[LogName, str]:
        """The address of each log of these ranks, or of all, ordered by rank and attempt."""
        known = len(self.sources)
        found = ((parse(path, self.world), url) for path, url in details.logs.items())
        named = sorted(((name, url) for name, url in found if name), key=lambda pair: (pair[0].source, pair[0].attempt))
        return {
            name: url
            for name, url in named
            if name.source.rank < known and (ranks is None or name.source.rank in ranks)
        }

    def outputs(self, job: Submitted) -> dict[str, str]:
        """The address of each named output; for an output without a path, the documented default."""
        if job.reuses and job.reuses != self.name:
            earlier = RunRecord(self.workspace, job.reuses, self.service)
            return earlier.outputs(earlier.job()._replace(reuses=None))
        known = self._registered(job) if job.is_pipeline else self._registered_of_step(job)
        return {name: self._address(name, uri or known.get(name)) for name, uri in job.outputs.items()}

    def artifacts(self, job: Submitted) -> str:
        """The address of its logs, and of what its processes write to `./outputs` and `./logs`."""
        return job.artifacts or f"azureml://datastores/workspaceartifactstore/paths/ExperimentRun/dcid.{self.name}"

    def _registered(self, job: Submitted) -> dict[str, str]:
        """The outputs of a pipeline from run history, which has each under the name of the step that wrote it."""
        with translated(f"find the outputs of run {self.name}", self.workspace):
            outputs = self.workspace.history.read(f"runs/{self._path}").object("outputs")
            assets = {
                name: output.text("assetId")
                for name, output in outputs.each_object()
                if name in job.outputs and not (output.text("type") or "").endswith("Model")  # models are no data
            }
            if not (wanted := [asset for asset in assets.values() if asset]):
                return {}
            asked = self.workspace.data.call("POST", "dataversion/batchGetResolvedUris", body={"values": wanted})
            found = Answer(asked).object("values")
            resolved = {name: found.object(asset).text("uri") for name, asset in assets.items() if asset}
            return {name: uri for name, uri in resolved.items() if uri}

    def _registered_of_step(self, job: Submitted) -> dict[str, str]:
        """The same for a step or trial, if its record lacks an address: it may have the default one."""
        if job.is_member and not all(job.outputs.values()):
            with suppress(SubmitError):
                return self._registered(job)
        return {}

    def _address(self, output: str, uri: str | None) -> str:
        template = uri or "azureml://datastores/${{default_datastore}}/paths/azureml/${{name}}/${{output_name}}/"
        values = {
            "name": lambda: self.name,
            "output_name": lambda: output,
            "default_datastore": self._default_datastore,
        }
        return OF_RUN.sub(lambda m: values[m[1]](), template)

    def _default_datastore(self) -> str:
        with translated("find the default datastore", self.workspace):
            stores = self.workspace.arm.read("datastores", query={"isDefault": "true"}).objects("value", needed=True)
            if not stores:
                raise BrokenAnswerError("the workspace has none")
            return stores[0].needed("name")

    def ranges(self) -> Ranges:
        """Reads parts of its files in Azure's storage."""
        return Ranges(self.storage_token, self.workspace.cloud)

    def storage_token(self) -> AccessToken:
        """The token of this login with which the storage lets its logs be read."""
        with translated(f"read the logs of run {self.name}", self.workspace):
            return self.workspace.credential.get_token(STORAGE_SCOPE)

    def cancel(self, why: Cancelled) -> None:
        """Ask the service to stop the run, if it has not ended. The service does not record `why`, so this does."""
        job = self.job()
        if job.status.is_final:
            return
        with translated(f"cancel run {self.name}", self.workspace):
            self.workspace.arm.call("POST", f"jobs/{self._path}/cancel")
        self._cancelled = self._noted(job) or why
        if job.created_at:
            note_cancelled(self.workspace.arm_id, self.name, job.created_at, self._cancelled)

    @property
    def cancelled(self) -> Cancelled | None:
        """Why it was cancelled from this machine, if it was."""
        return self._cancelled or self._noted(self.submitted)

    def _noted(self, job: Submitted) -> Cancelled | None:
        created = job.created_at
        return self._cancelled or (noted_cancelled(self.workspace.arm_id, self.name, created) if created else None)

    def is_over(self, status: RunStatus) -> bool:
        """Whether a run has ended, or has had a possibly final status for long enough."""
        now = time.monotonic()
        if not status.may_be_final:
            self._unchanged = None
            return status.is_final
        if self._unchanged is None or self._unchanged[0] != status:
            self._unchanged = status, now
            say_that_it_may_be_over(self.name, status, self.service.final_when_unchanged)
        return now - self._unchanged[1] >= self.service.final_when_unchanged


def patiently(ask: Callable[[], T], deadline: float = float("inf")) -> T:
    """The result of `ask`, repeated for minutes if the connection is lost.

    Raises `TimeoutError` if it is still lost at the deadline.
    """
    give_up = time.monotonic() + _PATIENCE
    looks = pauses(*LOOKS)
    while True:
        try:
            return ask()
        except (AuthError, NotFound):
            raise
        except SubmitError as error:
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"{error.problems[0].message}, until the timeout") from error
            if now > give_up:
                raise
        time.sleep(max(0, min(next(looks), deadline - time.monotonic())))
