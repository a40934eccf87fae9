"""Faults that tests inject: at the index of a request, or at requests that match a route or host.

emulator.inject(answer(429, retry_after=1), at=3)
emulator.inject(answer(503), route="jobs.put", times=2)
emulator.inject(reset_after(), route="jobs.put")
emulator.inject(delay(0.2), host="*.blob.*", times=None)
emulator.inject(odd(200, b"<html>", heard=True, unseen=3), route="jobs.put")
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from azml_dist.emulator.wire import Refusal, Reply, Request

_CODES = {401: "AuthenticationFailed", 403: "AuthorizationFailed", 429: "TooManyRequests", 503: "ServiceUnavailable"}
_STORAGE_CODES = {403: "AuthenticationFailed", 500: "InternalError", 503: "ServerBusy"}


class Kind(Enum):
    """What a fault does to its request."""

    DELAY = "delay"
    ANSWER = "answer"
    RESET_BEFORE = "reset before processing"
    RESET_AFTER = "reset after processing"
    ODD = "odd answer"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; made by `delay`, `answer`, `reset_before` and `reset_after`."""

    kind: Kind
    status: int = 503
    code: str | None = None
    message: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    body: bytes = b""
    """Of an odd answer."""
    heard: bool = True
    """Whether the service carries out the request, whatever it answers."""
    unseen: int = 0
    """How many lookups of a job that is being created find nothing yet."""

    def __str__(self) -> str:
        return {
            Kind.DELAY: f"delay {self.seconds} s",
            Kind.ANSWER: f"{self.status}",
            Kind.ODD: f"{self.status} {self.body[:20]!r}",
        }.get(self.kind, self.kind.value)

    def reply(self, *, storage: bool) -> Reply:
        """The answer to send instead of the service's."""
        if self.kind is Kind.ODD:
            return Reply(self.status, self.body, dict(self.headers))
        code = self.code or (_STORAGE_CODES if storage else _CODES).get(self.status, "InternalServerError")
        message = self.message or f"Injected fault {self.status}."
        refusal = Refusal(self.status, code, message, headers=dict(self.headers))
        return refusal.storage_reply() if storage else refusal.reply()


def delay(seconds: float) -> Fault:
    """The request is answered correctly, but later."""
    return Fault(Kind.DELAY, seconds=seconds)


def answer(
    status: int, *, code: str | None = None, message: str | None = None, retry_after: float | None = None
) -> Fault:
    """The service answers with this status and does nothing."""
    headers = () if retry_after is None else (("Retry-After", f"{retry_after:g}"),)
    return Fault(Kind.ANSWER, status=status, code=code, message=message, headers=headers)


def reset_before() -> Fault:
    """The connection is reset before the service did anything."""
    return Fault(Kind.RESET_BEFORE)


def reset_after() -> Fault:
    """The service carries out the request, and the connection is reset before the answer."""
    return Fault(Kind.RESET_AFTER)


def odd(status: int, body: bytes = b"", *, heard: bool, unseen: int = 0, **headers: str) -> Fault:
    """An answer from a gateway or proxy instead of the service, which may still be working, or have finished."""
    kind = "application/json" if body[:1] in (b"{", b"[") else "text/html"
    given = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Fault(Kind.ODD, status=status, headers=tuple(given.items()), body=body, heard=heard, unseen=unseen)


@dataclass
class _Rule:
    fault: Fault
    at: int | None
    route: str | None
    host: str | None
    left: int | None

    def matches(self, request: Request) -> bool:
        return (
            self.left != 0
            and (self.at is None or request.index == self.at)
            and (self.route is None or fnmatchcase(request.route or "", self.route))
            and (self.host is None or fnmatchcase(request.host, self.host))
        )


@dataclass
class Faults:
    """The faults that are still pending."""

    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault, *, at: int | None, route: str | None, host: str | None, times: int | None) -> None:
        """Add a fault; `times` None means forever."""
        if at is None and route is None and host is None:
            raise ValueError("a fault needs a place: at=, route= or host=")
        with self._lock:
            self._rules.append(_Rule(fault, at, route, host, times))

    def take(self, request: Request) -> Fault | None:
        """The fault for this request, used up by it."""
        with self._lock:
            for rule in self._rules:
                if rule.matches(request):
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.fault
        return None

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._rules.clear()
