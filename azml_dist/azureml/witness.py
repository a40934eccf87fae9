"""Records Azure's answer to each attempt at a request, including azure-core's own retries."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

_watched = threading.local()


class Outcome(Enum):
    """What is known about a request after an attempt has ended."""

    UNSENT = "never sent"
    REFUSED = "refused"
    DONE = "done"
    UNKNOWN = "unknown"


@contextmanager
def outcomes_of(job: str) -> Iterator[list[Outcome]]:
    """The outcomes of this thread's attempts to create the job with this name, as they arrive."""
    found: list[Outcome] = []
    _watched.job, _watched.outcomes = job, found
    try:
        yield found
    finally:
        del _watched.job, _watched.outcomes


def witness() -> Any:
    """A policy for azure-ai-ml's pipelines, between their retries and the network."""
    from azure.core.pipeline.policies import HTTPPolicy

    class Witness(HTTPPolicy):  # type: ignore[misc]  # azure-core is not imported by the type checker
        def send(self, request: Any) -> Any:
            job = getattr(_watched, "job", None)
            if job is None or not _makes(request.http_request, job):
                return self.next.send(request)
            try:
                response = self.next.send(request)
            except Exception as error:
                _watched.outcomes.append(outcome_of(error))
                raise
            _watched.outcomes.append(_outcome(response.http_response, job))
            return response

    return Witness()


def outcome_of(error: Exception) -> Outcome:
    """What is known about a request that ended with an error."""
    if _was_never_sent(error):
        return Outcome.UNSENT
    response = getattr(error, "response", None)
    if response is not None:
        return Outcome.REFUSED if _is_refusal(response.status_code, _text(response)) else Outcome.UNKNOWN
    # azure-ai-ml raises its own errors before it sends anything.
    return Outcome.UNSENT if type(error).__module__.startswith("azure.ai.ml") else Outcome.UNKNOWN


def same_name(found: Any, job: str) -> bool:
    """Whether the service means the same job; its names are case-insensitive."""
    return isinstance(found, str) and found.lower() == job.lower()


def _makes(request: Any, job: str) -> bool:
    return bool(request.method == "PUT" and urlsplit(request.url).path.endswith(f"/jobs/{job}"))


def _outcome(response: Any, job: str) -> Outcome:
    status, body = response.status_code, _text(response)
    if _is_refusal(status, body):
        return Outcome.REFUSED
    found = _object(body)
    is_there = status in (200, 201) and same_name(found.get("name"), job) and isinstance(found.get("properties"), dict)
    return Outcome.DONE if is_there else Outcome.UNKNOWN


def _is_refusal(status: int | None, body: str) -> bool:
    """Whether an answer is a refusal by the service itself, which then has done nothing.

    A gateway's 4xx, with HTML or no body, is not; nor is 408, since the request may still be carried out.
    """
    if status is None or not 400 <= status < 500 or status == 408:
        return False
    return isinstance(_object(body).get("error"), dict)


def _was_never_sent(error: BaseException) -> bool:
    """Whether a connection failed before the request could be sent.

    urllib3's `ProxyError` is no proof: it is also raised if a tunnel breaks after the request was sent.
    """
    from requests.exceptions import ConnectTimeout
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    kinds = (ConnectTimeout, ConnectTimeoutError, NewConnectionError)
    words = ("CERTIFICATE_VERIFY_FAILED", "Tunnel connection failed")
    return any(isinstance(one, kinds) or any(word in str(one) for word in words) for one in _causes(error))


def _text(response: Any) -> str:
    try:
        text = response.text
        return str(text() if callable(text) else text)
    except Exception:  # cut off, or not in the encoding that its header names
        return ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error with its wrapped errors and causes, which azure-core, requests and urllib3 store in different places."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, getattr(one, "inner_exception", None), getattr(one, "reason", None)]
            waiting += [one.__cause__, one.__context__]
