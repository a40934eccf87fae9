"""The emulator's own routes, beside the service: knobs, faults, and the life of jobs, for tests in any language.

curl -H "Authorization: Bearer $AZML_EMULATOR_TOKEN" $AZML_EMULATOR_URL/emulator/knobs
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Protocol

from azml_dist.emulator.faults import Fault, answer, delay, reset_after, reset_before
from azml_dist.emulator.jobs import Job, JobRoutes
from azml_dist.emulator.knobs import KnobError, Knobs
from azml_dist.emulator.routing import Host, Route, route
from azml_dist.emulator.schedule import Schedule
from azml_dist.emulator.wire import Json, Refusal, Reply, Request


class Controlled(Protocol):
    """What these routes need of the emulator."""

    knobs: Knobs
    schedule: Schedule
    jobs: JobRoutes
    problems: list[str]
    requests: list[Request]

    @property
    def routes(self) -> Sequence[Route]: ...
    def job(self, name: str) -> Job: ...
    def preempt(self, name: str) -> bool: ...
    def inject(self, fault: Fault, *, route: str | None = None, times: int | None = 1) -> None: ...
    def clear_faults(self) -> None: ...


_FAULTS = {"reset-before": reset_before, "reset-after": reset_after}
_FIELDS = ("fault", "route", "times", "retry_after", "code", "message")


def fault_of(said: Json) -> tuple[Fault, str, int | None]:
    """A fault as JSON says it: what, where, and how often. Raises `KnobError`."""
    unknown = [name for name in said if name not in _FIELDS]
    if unknown or "fault" not in said:
        raise KnobError(f"a fault has the fields {', '.join(_FIELDS)}; not {', '.join(unknown) or 'none'}")
    kind, times = str(said["fault"]), said.get("times", 1)
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise KnobError(f"`times` is a whole number from 1, or null for always; not {times!r}")
    where = str(said.get("route", "*"))
    if kind in _FAULTS:
        return _FAULTS[kind](), where, times
    if found := re.fullmatch(r"delay=(\d+(?:\.\d+)?)", kind):
        return delay(float(found[1])), where, times
    if re.fullmatch(r"[45]\d\d", kind):
        retry = said.get("retry_after")
        fault = answer(int(kind), code=said.get("code"), message=said.get("message"), retry_after=retry)
        return fault, where, times
    raise KnobError(f"there is no fault `{kind}`: 400 to 599, reset-before, reset-after, or delay=SECONDS")


def known_route(where: str, routes: Iterable[Route]) -> str:
    """The pattern of a route, if one matches it; otherwise the fault would never come. Raises `KnobError`."""
    names = [one.name for one in routes]
    if where.startswith("blobs") or any(fnmatchcase(name, where) for name in names):
        return where
    near = get_close_matches(where, names, n=1)
    maybe = f", did you mean `{near[0]}`?" if near else "; docs/emulator-routes.md lists them, such as `jobs.put`"
    raise KnobError(f"there is no route `{where}`{maybe}")


def fault_in(text: str) -> tuple[Fault, str, int | None]:
    """A fault of the command line, such as `429:route=jobs.*,times=3,retry_after=1`."""
    kind, _, rest = text.partition(":")
    said: Json = {"fault": kind}
    for pair in filter(None, rest.split(",")):
        name, _, value = pair.partition("=")
        said[name] = None if value == "always" else _number(value)
    return fault_of(said)


def _number(text: str) -> str | int | float:
    found = re.fullmatch(r"\d+(\.\d+)?", text)
    return text if not found else float(text) if found[1] else int(text)


class ControlRoutes:
    """Answers to who controls the emulator."""

    def __init__(self, emulator: Controlled) -> None:
        self._emulator = emulator

    @route("emulator.state", "GET", Host.SELF, "/emulator")
    def state(self, request: Request) -> Reply:
        """Jobs with their states, and what the emulator did not know."""
        jobs = {name: job.status for name, job in self._emulator.jobs.jobs.items()}
        return Reply(body={"jobs": jobs, "problems": self._emulator.problems, "requests": len(self._emulator.requests)})

    @route("emulator.knobs", "GET", Host.SELF, "/emulator/knobs")
    def knobs(self, request: Request) -> Reply:
        """All knobs."""
        return Reply(body=self._emulator.knobs.told())

    @route("emulator.knobs.patch", "PATCH", Host.SELF, "/emulator/knobs")
    def set_knobs(self, request: Request) -> Reply:
        """Set knobs: all that are sent, or none if one is wrong."""
        sent, knobs = request.json(), self._emulator.knobs
        before = knobs.told()
        try:
            for name, value in sent.items():
                knobs.set(name, value)
        except KnobError as error:
            for name in sent:
                if name in before:
                    knobs.set(name, before[name])
            raise Refusal(400, "BadKnob", str(error)) from error
        self._emulator.schedule.look()
        return self.knobs(request)

    @route("emulator.faults", "POST", Host.SELF, "/emulator/faults")
    def fault(self, request: Request) -> Reply:
        """Put a fault in the way of requests."""
        try:
            fault, where, times = fault_of(request.json())
            known_route(where, self._emulator.routes)
        except KnobError as error:
            raise Refusal(400, "BadFault", str(error)) from error
        self._emulator.inject(fault, route=where, times=times)
        return Reply(201, body={"fault": str(fault), "route": where, "times": times})

    @route("emulator.faults.delete", "DELETE", Host.SELF, "/emulator/faults")
    def no_faults(self, request: Request) -> Reply:
        """No more faults."""
        self._emulator.clear_faults()
        return Reply(204)

    @route("emulator.preempt", "POST", Host.SELF, "/emulator/jobs/{name}/preempt")
    def preempt(self, request: Request, name: str) -> Reply:
        """Take a job's nodes away."""
        job = self._emulator.job(name)
        if not self._emulator.preempt(name):
            raise Refusal(409, "NotRunning", f"Job {name} is {job.status}: it has no nodes.")
        return Reply(202)

    @route("emulator.advance", "POST", Host.SELF, "/emulator/jobs/{name}/advance")
    def advance(self, request: Request, name: str) -> Reply:
        """Move a job that does not run by itself: `{"status": "Failed", "error": "..."}`."""
        sent: dict[str, Any] = request.json()
        if not isinstance(sent.get("status"), str):
            raise Refusal(400, "BadStatus", "say which: `status`")
        job = self._emulator.job(name)
        job.advance(sent["status"], error=sent.get("error"))
        return Reply(body={"name": name, "status": job.status})
