"""What happens at submission: code uploaded once, environments looked up once, then one request for each job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from azml_dist.azureml.arm import ATTEMPTS
from azml_dist.azureml.code import code_id
from azml_dist.azureml.command import to_command
from azml_dist.azureml.environment import environment_id
from azml_dist.azureml.errors import translated
from azml_dist.azureml.existing import differences
from azml_dist.azureml.git import asked_once
from azml_dist.azureml.inputs import with_uploaded_inputs
from azml_dist.azureml.parallel import each
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import JobError, SubmitError
from azml_dist.inputs import refuse_open_inputs
from azml_dist.job import Job
from azml_dist.plan import LaunchPlan
from azml_dist.runs import new_name, own_variables

if TYPE_CHECKING:
    from azml_dist.azureml.run import AzureRun
    from azml_dist.sweep import Sweep

R = TypeVar("R")

AT_A_TIME = 8
"""Jobs that are sent at the same time."""
_LOOK_UPS = 16
"""How often a job is asked for whose answer was lost; for a minute at most, as all that is tried again."""
_PATIENCE = 0.6
"""Seconds that Ctrl-C waits for requests on their way, to know what they made."""


class _Order(NamedTuple):
    plan: LaunchPlan
    is_named: bool
    """By the job itself: a run of that name may be there."""
    variables: dict[str, str]
    """The caller's own variables. Not for printing."""
    sweep: Sweep | None = None
    """Of which the plan is that of one trial."""

    @property
    def name(self) -> str:
        return str(self.plan.job.name)

    @property
    def request(self) -> dict[str, Any]:
        """What is going to be sent, as far as that is known."""
        body: dict[str, Any] = (self.sweep.plan() if self.sweep else self.plan).request["properties"]
        return body

    def as_azure(self, job: Job, *, environment: str, code: str) -> Any:
        """What azure-ai-ml's client takes; `job` is the plan's, its data uploaded."""
        if self.sweep:
            from azml_dist.azureml.sweep import to_azure

            return to_azure(self.sweep.with_(job=job), environment=environment, code=code)
        return to_command(job, environment=environment, code=code)


class Submission:
    """One call of `submit`, of one job or of many."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._stop = threading.Event()
        self._codes: _Once[str] = _Once()
        self._environments: _Once[str] = _Once()
        self._made: dict[str, bool | None] = {}
        """Whether there is a job now, by name; None while its request is on its way."""

    def submit(self, jobs: Sequence[Job | Sweep]) -> list[AzureRun | SubmitError]:
        """A run or an error for each job, in order."""
        from azml_dist.azureml.run import AzureRun

        orders = [_order(job) for job in jobs]
        _refuse_twins(orders)
        if not orders:
            return []
        with translated(f"submit job {orders[0].name}" if len(orders) == 1 else f"submit {len(orders)} jobs"):
            # Before there are threads: importing azure-ai-ml in several of them ends in a deadlock, and a login that
            # fails is said once.
            _ = self._workspace.client
            self._workspace.arm.log_in()
        try:
            with asked_once() if len(orders) > 1 else nullcontext():
                found = dict(each(self._submit, orders, at_a_time=AT_A_TIME, stop=self._stop))
        except BaseException:
            self._stop.set()
            self._take_back()
            raise
        return [found[i] or AzureRun(self._workspace, order.name) for i, order in enumerate(orders)]

    def _submit(self, order: _Order) -> SubmitError | None:
        job, name = order.plan.job, order.name
        try:
            with translated(f"submit job {name}", self._workspace, tuple(filter(None, order.variables.values()))):
                code = self._codes.get(job.code or "", lambda: self._code(order.plan))
                environment = self._environments.get(repr(job.environment), lambda: self._environment(job))
                if not (order.is_named and self._is_there(order, code)):
                    job = with_uploaded_inputs(self._workspace, job, self._stop)
                    self._send(order, order.as_azure(job, environment=environment, code=code))
        except SubmitError as error:
            self._made.setdefault(name, False)
            return error
        return None

    def _send(self, order: _Order, command: Any) -> None:
        """Exactly one job, or an error and none: a lost answer is found out by asking for the job."""
        if self._stop.is_set():
            return
        self._made[order.name] = None
        try:
            # Validated already, by `Job` and its plan; azure-ai-ml's own takes two thirds of the time.
            self._workspace.client.jobs.create_or_update(command, skip_validation=True)
        except Exception as error:
            if not (_may_have_been_heard(error) and self._was_made(order.name)):
                self._made[order.name] = False
                raise
        self._made[order.name] = True
        if self._stop.is_set():
            self._cancel(order.name)

    def _is_there(self, order: _Order, code: str) -> bool:
        """Whether a run of the job's own name is there, and is this very job; says so."""
        found = self._find(order.name)
        if found is None:
            return False
        if changed := differences(order.request, found, code):
            raise SubmitError(
                f"there is a run {order.name} already, whose {', '.join(changed)} differs",
                hint="give the job another `name`, or none, and each run gets its own",
            )
        status = found.get("status", "there")
        _note(f"run {order.name} was submitted before and is {status}; nothing new was started")
        return True

    def _was_made(self, name: str) -> bool:
        """Whether there is a job of which no answer came. Where Azure does not say so, there is to be none."""
        try:
            return self._find(name, attempts=_LOOK_UPS) is not None
        except Exception as error:
            is_canceled = self._cancel(name)
            if is_canceled is None:
                return False
            if is_canceled:
                self._made[name] = False
            raise _lost(name, is_canceled) from error

    def _find(self, name: str, attempts: int = ATTEMPTS) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._workspace.arm.call("GET", f"jobs/{name}", stop=self._stop, attempts=attempts)
        except Exception as error:
            if _says_there_is_none(error):
                return None
            raise
        return dict(found["properties"])

    def _code(self, plan: LaunchPlan) -> str:
        if plan.code.root:
            return code_id(self._workspace, plan.code, self._stop)
        reference = (plan.job.code or "").removeprefix("azureml:")
        name, colon, version = reference.partition(":")
        is_named = colon and "/" not in reference
        return f"{self._workspace.arm_id}/codes/{name}/versions/{version}" if is_named else reference

    def _environment(self, job: Job) -> str:
        return environment_id(self._workspace, job.environment, self._stop)

    def _take_back(self) -> None:
        """After Ctrl-C: no job stays, and those are named of which that is not known."""
        end = time.monotonic() + _PATIENCE
        while None in self._made.values() and time.monotonic() < end:
            time.sleep(0.02)
        made = [name for name, is_made in self._made.items() if is_made]
        gone = {made[i]: ok for i, ok in each(self._cancel, made, at_a_time=AT_A_TIME, stop=threading.Event())}
        for name, is_made in self._made.items():
            if is_made and gone[name]:
                _note(f"job {name} was made, and is canceled again")
            elif is_made is not False:
                _note(f"job {name} may have been made: `azml-dist cancel {name}` ends it")

    def _cancel(self, name: str) -> bool | None:
        """Whether the job is canceled now; None if there is none, False if that is not known."""
        timeout = 1 if self._stop.is_set() else 10
        try:
            self._workspace.arm.call("POST", f"jobs/{name}/cancel", stop=self._stop, timeout=timeout)
        except Exception as error:
            return None if _says_there_is_none(error) else False
        return True


class _Once(Generic[R]):
    """What several jobs need is made by the first that asks; the others wait for it, or for its error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._made: dict[str, R] = {}
        self._failed: dict[str, Exception] = {}

    def get(self, key: str, make: Callable[[], R]) -> R:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key in self._failed:
                raise self._failed[key]
            if key not in self._made:
                try:
                    self._made[key] = make()
                except Exception as error:
                    self._failed[key] = error
                    raise
            return self._made[key]


def _order(what: Job | Sweep) -> _Order:
    job = what if isinstance(what, Job) else what.job
    if (job.compute or "").lower() == "local":
        # azure-ai-ml would run it in Docker on this machine, with a record of it in the workspace.
        raise JobError(
            "the compute `local` is this machine",
            hint='`azml-dist run`, or `submit(job, on="local")`; for Azure ML name a cluster: `--set compute=NAME`',
            where="compute",
        )
    refuse_open_inputs(job)
    named = job.with_(name=job.name or new_name(job, random_bytes=5))
    sweep = None if isinstance(what, Job) else what.with_(job=named)
    return _Order(named.plan(), job.name is not None, own_variables(job), sweep)


def _lost(name: str, is_canceled: bool) -> SubmitError:
    message = f"the answer about job {name} was lost, and Azure cannot be asked whether there is one now"
    if is_canceled:
        return SubmitError(f"{message}; it was made, and is canceled again", hint="submit it again")
    hint = f"if it was made, `azml-dist cancel {name}` ends it; submitted again with this `name`, it is found or made"
    return SubmitError(message, hint=hint)


def _refuse_twins(orders: Sequence[_Order]) -> None:
    names = [order.name for order in orders]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise JobError(
            f"two jobs of the list are named {twin}",
            hint="give each its own `name`, or none, and each run gets its own",
            where="name",
        )


def _may_have_been_heard(error: Exception) -> bool:
    """Whether a request that failed may have done its work all the same."""
    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

    if isinstance(error, HttpResponseError) and error.status_code:
        return bool(error.status_code >= 500 or error.status_code == 408)
    return isinstance(error, ServiceRequestError | ServiceResponseError | HttpResponseError)


def _says_there_is_none(error: Exception) -> bool:
    """Whether an error is the answer that there is no such job; it may be the workspace that is not there."""
    return getattr(error, "status_code", None) == 404 and "MachineLearningServices/workspaces/" not in str(error)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
