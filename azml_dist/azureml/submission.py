"""What happens at submission: code uploaded once, environments looked up once, then one request for each job."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from azml_dist.azureml.code import code_id
from azml_dist.azureml.command import environment_entity, own_variables, to_command
from azml_dist.azureml.errors import translated
from azml_dist.azureml.parallel import each
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import SubmitError
from azml_dist.job import Job
from azml_dist.plan import LaunchPlan

R = TypeVar("R")

AT_A_TIME = 8
"""Jobs that are sent at the same time."""


class Submission:
    """One call of `submit`, of one job or of many."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._stop = threading.Event()
        self._codes = _Once[str]()
        self._environments = _Once[str]()
        self._begun: list[str] = []
        """Names of the jobs whose request is on its way, or answered."""

    def submit(self, jobs: Sequence[Job]) -> list[Any]:
        """A run or an error for each job, in order."""
        plans = [job.with_(name=job.name or new_name(job)).plan() for job in jobs]
        for plan in plans:
            own_variables(plan.job)
        with translated("reach the workspace", self._workspace):
            self._workspace.client  # noqa: B018 (the first use makes it; not in a thread)
        results: list[Any] = [None] * len(jobs)
        try:
            if len(plans) == 1:
                results[0] = self._submit(plans[0])
            else:
                for index, result in each(self._submit, plans, at_a_time=AT_A_TIME, stop=self._stop):
                    results[index] = result
        except BaseException:
            self._stop.set()
            self._cancel_all()
            raise
        return results

    def _submit(self, plan: LaunchPlan) -> Any:
        job = plan.job
        name = str(job.name)
        hidden = tuple(filter(None, own_variables(job).values()))
        try:
            with translated(f"submit job {name}", self._workspace, hidden):
                code = self._codes.get(plan.code.root or "", lambda: self._code(plan))
                environment = self._environments.get(repr(job.environment), lambda: self._environment(job))
                command = to_command(job, environment=environment, code=code)
                self._begun.append(name)
                # Validated already, by `Job` and its plan; azure-ai-ml's own takes two thirds of the time.
                self._workspace.client.jobs.create_or_update(command, skip_validation=True)
        except SubmitError as error:
            return error
        from azml_dist.azureml.run import AzureRun

        return AzureRun(self._workspace, name)

    def _code(self, plan: LaunchPlan) -> str:
        return code_id(self._workspace, plan.code, self._stop) if plan.code.root else ""

    def _environment(self, job: Job) -> str:
        """The environment's id, so that no job has to ask for it; a name with its version is one."""
        environments = self._workspace.client.environments
        if job.environment is None or isinstance(job.environment, str):
            reference = (job.environment or "").removeprefix("azureml:")
            name, at, label = reference.partition("@")
            if not at or "/" in reference:
                return job.environment or ""
            return str(environments.get(name, label=label).id)
        return str(environments.create_or_update(environment_entity(job.environment)).id)

    def _cancel_all(self) -> None:
        """After Ctrl-C: end what may have been started."""
        for name in self._begun:
            with contextlib.suppress(Exception):
                self._workspace.arm.call("POST", f"jobs/{name}/cancel", attempts=1, timeout=1)


class _Once(Generic[R]):
    """What several jobs need is made by the first that asks; the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._made: dict[str, R] = {}

    def get(self, key: str, make: Callable[[], R]) -> R:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


def new_name(job: Job) -> str:
    """A name for a run of a job, fixed before the first request: sent twice, it is still one job."""
    words = job.display_name or (Path(job.code_folder).resolve().name if job.code_folder else "") or "run"
    slug = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-").lower()[:40] or "run"
    return f"{slug}-{secrets.token_hex(5)}"
