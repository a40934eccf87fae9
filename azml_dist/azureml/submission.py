"""Submits jobs: uploads code once, looks up environments once, then sends one request for each job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from azml_dist.azureml.arm import ATTEMPTS
from azml_dist.azureml.code import code_id
from azml_dist.azureml.environment import environment_id
from azml_dist.azureml.errors import translated
from azml_dist.azureml.existing import differences
from azml_dist.azureml.git import asked_once
from azml_dist.azureml.group import AzureGroup
from azml_dist.azureml.inputs import with_uploaded_inputs
from azml_dist.azureml.parallel import each
from azml_dist.azureml.run import AzureRun, KnownHere
from azml_dist.azureml.witness import Outcome, outcome_of, outcomes_of, same_name
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import AuthError, JobError, SubmitError
from azml_dist.job import Job
from azml_dist.model.given import own_variables, refuse_open_inputs
from azml_dist.model.job import JobFields
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.world import Service
from azml_dist.runs.run import new_name
from azml_dist.sdk.command import to_command
from azml_dist.sdk.sweep import to_azure

if TYPE_CHECKING:
    from azml_dist.plan.sweep import SweepPlan
    from azml_dist.sweep import Sweep

R = TypeVar("R")

AT_A_TIME = 8
"""How many jobs to send at the same time."""
LOOK_FOR = 60.0
"""Seconds to look for a job after an unclear answer. One job appeared 20 s after a gateway's 504."""
_LOOK_UPS = 20
"""How many times to look in that time."""
_GROWTH = 1.15
"""The factor by which each pause is longer than the one before."""
_A_LOOK = 10.0
"""The timeout in seconds of one look."""
_PATIENCE = 0.6
"""Seconds that Ctrl-C waits for running requests, to know which jobs they created."""


class _Order(NamedTuple):
    plan: LaunchPlan
    is_named: bool
    """The job sets the name, so a run with that name may exist."""
    variables: dict[str, str]
    """The caller's own variables. Never print them."""
    sweep: Sweep | None = None
    """The sweep; `plan` is that of one trial."""

    @property
    def name(self) -> str:
        return str(self.plan.job.name)

    @property
    def whole_plan(self) -> LaunchPlan | SweepPlan:
        return self.sweep.plan() if self.sweep else self.plan

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not appear in a message."""
        return tuple(filter(None, self.variables.values()))

    def known(self, *, is_new: bool) -> KnownHere:
        """What only whoever submitted it knows of the run."""
        code = self.plan.job.local_code
        return KnownHere(Path(code).resolve() if code else None, self.secrets, time.time() if is_new else None)

    @property
    def request(self) -> dict[str, Any]:
        """What will be sent, as far as it is known."""
        body: dict[str, Any] = (self.sweep.plan() if self.sweep else self.plan).request["properties"]
        return body

    def as_azure(self, job: JobFields, *, environment: str, code: str) -> Any:
        """The object for azure-ai-ml's client; `job` is the plan's job after its data was uploaded."""
        if self.sweep:
            return to_azure(self.sweep.with_(job=job), environment=environment, code=code)
        return to_command(job, environment=environment, code=code)


Gate: TypeAlias = Callable[[Sequence["LaunchPlan | SweepPlan"], threading.Event], Sequence[SubmitError | None]]
"""What looks at jobs before anything is uploaded: an error for each that is not to be submitted."""


class Submission:
    """One call of `submit`, for one job or many."""

    def __init__(self, workspace: Workspace, look_for: float = LOOK_FOR, service: Service | None = None) -> None:
        self._workspace = workspace
        self._service = service
        self._look_for_seconds = look_for
        self._stop = threading.Event()
        self._codes: _Once[str] = _Once()
        self._environments: _Once[str] = _Once()
        self._made: dict[str, bool | None] = {}
        """By name: whether the job exists now; None while its request is running."""

    def submit(self, jobs: Sequence[Job | Sweep], gate: Gate | None = None) -> list[AzureRun | SubmitError]:
        """A run or an error for each job, in order. What the gate refuses is not begun."""
        orders = [_order(job) for job in jobs]
        _refuse_twins(orders)
        if not orders:
            return []
        with translated(f"submit job {orders[0].name}" if len(orders) == 1 else f"submit {len(orders)} jobs"):
            # Before threads start: importing azure-ai-ml in several threads deadlocks, and a failed login is reported
            # only once.
            _ = self._workspace.client
            self._workspace.arm.log_in()
        try:
            refused = gate([order.whole_plan for order in orders], self._stop) if gate else [None] * len(orders)
            left = [i for i in range(len(orders)) if refused[i] is None]
            with asked_once():
                sent = each(self._submit, [orders[i] for i in left], at_a_time=AT_A_TIME, stop=self._stop)
                found = {left[i]: error for i, error in sent}
        except BaseException:
            self._stop.set()
            self._take_back()
            raise
        return [refused[i] or found[i] or self._run(order) for i, order in enumerate(orders)]

    def _run(self, order: _Order) -> AzureRun:
        known = order.known(is_new=bool(self._made.get(order.name)))
        kind = AzureGroup if order.sweep else AzureRun
        return kind(self._workspace, order.name, self._service, known)

    def _submit(self, order: _Order) -> SubmitError | None:
        job, name = order.plan.job, order.name
        try:
            with translated(f"submit job {name}", self._workspace, order.secrets):
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
        """Create exactly one job, or raise an error that says what is known about it.

        Only clear answers from Azure count: yes, or no to everything that was sent. After any other answer, look for
        the job, which may exist nevertheless.
        """
        if self._stop.is_set():
            return
        self._made[order.name] = None
        failure: Exception | None = None
        with outcomes_of(order.name) as outcomes:
            try:
                # `Job` and its plan have validated it already; azure-ai-ml's validation takes two thirds of the time.
                made = self._workspace.client.jobs.create_or_update(command, skip_validation=True)
                if not self._workspace.is_witnessed and same_name(made.name, order.name):
                    outcomes.append(Outcome.DONE)
            except Exception as error:
                failure = error
                if not self._workspace.is_witnessed:
                    outcomes.append(outcome_of(error))
        if not self._is_made(order, outcomes, failure):
            self._made[order.name] = False
            assert failure
            raise failure
        self._made[order.name] = True
        if self._stop.is_set():
            self._cancel(order.name)

    def _is_made(self, order: _Order, outcomes: Sequence[Outcome], failure: Exception | None) -> bool:
        """Whether the job exists now; raises if that is unknown."""
        if outcomes and outcomes[-1] is Outcome.DONE:
            return True
        if Outcome.UNKNOWN in outcomes or failure is None:
            self._look_for(order, failure)
            return True
        # A gateway may have sent the same request twice, and return the second answer.
        return _is_clash(failure) and self._is_there(order, self._codes.made(order.plan.job.code or ""), quiet=True)

    def _look_for(self, order: _Order, failure: Exception | None) -> None:
        """Return once the job exists. That it does not exist yet proves nothing."""
        name, seconds = order.name, self._look_for_seconds
        lost: Exception | None = None
        began = time.monotonic()
        for due in _looks(seconds):
            elapsed = time.monotonic() - began
            if elapsed > seconds + _A_LOOK or self._stop.wait(max(0.0, due - elapsed)):
                break
            try:
                if self._find(name, attempts=1, timeout=_A_LOOK):
                    return
                lost = None
            except Exception as error:
                lost = error
                if isinstance(error, AuthError) or getattr(error, "status_code", None) in (401, 403):
                    break
            if due == 0 and seconds:
                _note(f"no clear answer about job {name}: looking for it, for up to {seconds:g} s")
        if lost and self._cancel(name):
            self._made[name] = False
            raise SubmitError(
                f"{self._why(order, failure)}; it was created, and has been cancelled", hint="submit it again"
            ) from failure
        raise SubmitError(
            f"{self._why(order, failure)}; it is unknown whether the job was created: "
            + ("Azure gives no clear answer" if lost else f"it did not appear within {seconds:g} s"),
            hint=f"if it appears later, cancel it with `azml-dist cancel {name}`; you can safely submit again with "
            f"`name: {name}`, which finds or creates this one job",
        ) from failure

    def _why(self, order: _Order, failure: Exception | None) -> str:
        """How the request ended, in one line."""
        what = f"submit job {order.name}"
        try:
            with translated(what, self._workspace, order.secrets):
                if failure:
                    raise failure
        except SubmitError as error:
            return error.problems[0].message.rstrip(".")
        except Exception:  # azure-ai-ml failed on the answer
            pass
        return f"cannot {what}: the answer is not from Azure ML"

    def _is_there(self, order: _Order, code: str, *, quiet: bool = False) -> bool:
        """Whether a run with the job's own name exists and is the same job; says so."""
        found = self._find(order.name)
        if found is None:
            return False
        if changed := differences(order.request, found, code):
            raise SubmitError(
                f"run {order.name} already exists, and differs in its {', '.join(changed)}",
                hint="change the `name` of the job, or leave it out so that each run gets a new one",
            )
        if quiet:
            return True
        status = found.get("status", "there")
        _note(f"run {order.name} was submitted before and is {status}; nothing new was started")
        return True

    def _find(self, name: str, *, attempts: int = ATTEMPTS, timeout: float = 60) -> dict[str, Any] | None:
        """The job's properties; None if the service says that there is no such job."""
        arm = self._workspace.arm
        try:
            found = arm.call("GET", f"jobs/{name}", stop=self._stop, attempts=attempts, timeout=timeout)
        except Exception as error:
            if _says_there_is_none(error):
                return None
            raise
        properties = found.get("properties") if isinstance(found, dict) and same_name(found.get("name"), name) else None
        if not isinstance(properties, dict):
            raise SubmitError(f"the answer about job {name} is not from Azure ML")
        return properties

    def _code(self, plan: LaunchPlan) -> str:
        if plan.code.root:
            return code_id(self._workspace, plan.code, self._stop)
        reference = (plan.job.code or "").removeprefix("azureml:")
        name, colon, version = reference.partition(":")
        is_named = colon and "/" not in reference
        return f"{self._workspace.arm_id}/codes/{name}/versions/{version}" if is_named else reference

    def _environment(self, job: JobFields) -> str:
        return environment_id(self._workspace, job.environment, self._stop)

    def _take_back(self) -> None:
        """After Ctrl-C: cancel jobs that were created, and name those whose state is unknown."""
        end = time.monotonic() + _PATIENCE
        while None in self._made.values() and time.monotonic() < end:
            time.sleep(0.02)
        made = [name for name, is_made in self._made.items() if is_made]
        gone = {made[i]: ok for i, ok in each(self._cancel, made, at_a_time=AT_A_TIME, stop=threading.Event())}
        for name, is_made in self._made.items():
            if is_made and gone[name]:
                _note(f"job {name} was created, and has been cancelled")
            elif is_made is not False:
                _note(f"job {name} may have been created: cancel it with `azml-dist cancel {name}`")

    def _cancel(self, name: str) -> bool | None:
        """Whether the job has been cancelled; None if it does not exist, False if that is unknown."""
        timeout = 1 if self._stop.is_set() else 10
        try:
            self._workspace.arm.call("POST", f"jobs/{name}/cancel", stop=self._stop, timeout=timeout)
        except Exception as error:
            return None if _says_there_is_none(error) else False
        return True


class _Once(Generic[R]):
    """Creates what several jobs need: the first that asks creates it, the others wait for it or its error."""

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

    def made(self, key: str) -> R:
        """What has been created so far."""
        return self._made[key]


def _order(what: Job | Sweep) -> _Order:
    job = what if isinstance(what, Job) else what.job
    if (job.compute or "").lower() == "local":
        # azure-ai-ml would run it in Docker on this machine and record it in the workspace.
        raise JobError(
            "the compute `local` is this machine",
            hint='use `azml-dist run` or `submit(job, on="local")`; for Azure ML, name a cluster: `--set compute=NAME`',
            where="compute",
        )
    refuse_open_inputs(job)
    named = job.with_(name=job.name or new_name(job, random_bytes=5))
    sweep = None if isinstance(what, Job) else what.with_(job=named)
    return _Order(named.plan(), job.name is not None, own_variables(job), sweep)


def _refuse_twins(orders: Sequence[_Order]) -> None:
    names = [order.name for order in orders]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise JobError(
            f"two jobs in the list are named {twin}",
            hint="give each its own `name`, or leave it out so that each run gets a new one",
            where="name",
        )


def _looks(seconds: float) -> Iterator[float]:
    """When to look, in seconds from now: immediately, often at first, and a last time at the end."""
    return (seconds * (_GROWTH**look - 1) / (_GROWTH**_LOOK_UPS - 1) for look in range(_LOOK_UPS + 1))


def _is_clash(failure: Exception | None) -> bool:
    """Whether the service says that a job with this name exists."""
    status, text = getattr(failure, "status_code", None), str(failure)
    return status == 409 or (status == 400 and ("JobPropertyImmutable" in text or "already exists" in text))


def _says_there_is_none(error: Exception) -> bool:
    """Whether an error means that there is no such job, and not that the workspace does not exist."""
    return getattr(error, "status_code", None) == 404 and "MachineLearningServices/workspaces/" not in str(error)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
