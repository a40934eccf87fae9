"""Requests of Azure ML's documented REST API that azure-ai-ml has no public method for, and their retries."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from azml_dist.azureml.connections import transport

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

R = TypeVar("R")

API_VERSION = "2023-04-01"
ATTEMPTS = 5
PATIENCE = 60.0
"""Seconds after which nothing is tried again, whatever Retry-After says."""
_TRANSIENT = frozenset([408, 429, 500, 502, 503, 504])


class Arm:
    """Azure Resource Manager, at one workspace. Every request here may be sent twice without harm."""

    def __init__(
        self,
        credential: TokenCredential,
        endpoint: str,
        audience: str,
        arm_id: str,
        api_version: str | None = API_VERSION,
    ) -> None:
        self._endpoint = endpoint
        self._url = f"{endpoint}{arm_id}"
        self._query = {"api-version": api_version} if api_version else {}
        self._credential, self._scope = credential, f"{audience}/.default"
        self.host = urlsplit(endpoint).hostname or endpoint
        self._client = self._new_client()

    def log_in(self) -> None:
        """Get a token, or an error that says why there is none."""
        logger, quiet = logging.getLogger("azure.identity"), logging.NullHandler()
        # Where nobody has set up logging, Python would print azure-identity's page about every way it tried.
        logger.addHandler(quiet)
        try:
            self._credential.get_token(self._scope)
        finally:
            logger.removeHandler(quiet)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        stop: threading.Event | None = None,
        attempts: int = ATTEMPTS,
        timeout: float = 60,
    ) -> Any:
        """The JSON of the answer; raises azure-core's errors."""
        return retrying(lambda: self._send(method, path, body, query, timeout), stop=stop, attempts=attempts)

    def _send(self, method: str, path: str, body: Any, query: dict[str, str] | None, timeout: float) -> Any:
        from azure.core.rest import HttpRequest

        request = HttpRequest(method, f"{self._url}/{path}", params={**self._query, **(query or {})}, json=body)
        timeouts = {"connection_timeout": min(timeout, 10), "read_timeout": timeout}
        response = self._client.send_request(request, **timeouts)
        if response.status_code == 401:
            # The token may have been taken back before its time, and a client keeps its token: a new one asks anew.
            self._client = self._new_client()
            response = self._client.send_request(request, **timeouts)
        response.raise_for_status()
        return response.json() if response.content else None

    def _new_client(self) -> Any:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, ProxyPolicy, RequestIdPolicy

        policies = [
            RequestIdPolicy(),
            user_agent_policy(),
            ProxyPolicy(),
            BearerTokenCredentialPolicy(self._credential, self._scope),
        ]
        return PipelineClient(self._endpoint, policies=policies, transport=transport(self._endpoint))


def user_agent_policy() -> Any:
    """Says to Azure that requests are ours."""
    from azure.core.pipeline.policies import UserAgentPolicy

    from azml_dist import __version__

    return UserAgentPolicy(f"azml-dist/{__version__}")


def retrying(
    call: Callable[[], R],
    *,
    stop: threading.Event | None = None,
    attempts: int = ATTEMPTS,
) -> R:
    """What `call` returns in the end: it is made again where the service was busy or the connection broke."""
    stop = stop or threading.Event()
    end = time.monotonic() + PATIENCE
    for attempt in range(1, attempts):
        try:
            return call()
        except Exception as error:  # noqa: PERF203 (it may come of any attempt)
            pause = _pause(error, attempt)
            if pause is None or time.monotonic() + pause > end or stop.wait(pause):
                raise
    return call()


def retry_policy() -> Any:
    """The same patience for azure-ai-ml's own requests.

    azure-core's own would try ten times, and sleep for an hour where Azure asks for that.
    """
    from azure.core.pipeline.policies import RetryPolicy

    class Bounded(RetryPolicy):  # type: ignore[misc]  # azure-core is not imported by the type checker
        def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
            end = settings.setdefault("end", time.monotonic() + PATIENCE)
            in_time = time.monotonic() + (self.get_retry_after(response) or 0) < end
            return in_time and bool(super().is_retry(settings, response))

    return Bounded(retry_total=ATTEMPTS - 1, retry_backoff_factor=0.4, retry_backoff_max=10)


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait after an error; None where trying again does not help."""
    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

    backoff = min(0.2 * 2**attempt, 5) * random.uniform(0.8, 1.2)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return None if never_heals(error) else backoff
    if isinstance(error, HttpResponseError) and error.status_code in _TRANSIENT:
        asked = _retry_after(error)
        return backoff if asked is None else asked
    return None


def never_heals(error: BaseException) -> bool:
    """Whether a connection failed for a reason that stays: a certificate, a name that does not exist."""
    text = str(error).lower()
    return any(words in text for words in ("certificate", "name or service not known", "nodename nor servname"))


def _retry_after(error: Any) -> float | None:
    value = (error.response.headers.get("Retry-After") or "") if error.response is not None else ""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
