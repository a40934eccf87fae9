"""Requests to Azure ML's documented REST API for which azure-ai-ml has no public method, and their retries."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from azml_dist.azureml.answers import Answer, BrokenAnswerError, json_of
from azml_dist.azureml.connections import transport
from azml_dist.version import __version__

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

R = TypeVar("R")

API_VERSION = "2023-04-01"
ATTEMPTS = 5
BACKOFF = 0.4
"""Seconds before the second attempt; doubled before each further one."""
PATIENCE = 60.0
"""Seconds after which no request is retried, whatever Retry-After says."""
_REMEMBERED = 50
_TRANSIENT = frozenset([408, 429, 500, 502, 503, 504])


class Answered(NamedTuple):
    """A request that the service has answered, for Azure support."""

    method: str
    path: str
    status: int
    request_id: str | None
    date: str | None


class Arm:
    """Azure Resource Manager for one workspace. All requests are safe to repeat."""

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
        self.answered: deque[Answered] = deque(maxlen=_REMEMBERED)
        """The last requests, with the ids that the service gave them."""

    def log_in(self) -> str:
        """Get a token; raises an error that explains why there is none."""
        with _without_reports():
            token: str = self._credential.get_token(self._scope).token
        return token

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
        """The JSON of the answer; raises azure-core's errors, and `BrokenAnswerError` if it is not JSON.

        `path` is relative to the workspace, or to the resource manager if it starts with `/`.
        """
        with _without_reports():
            return retrying(lambda: self._send(method, path, body, query, timeout), stop=stop, attempts=attempts)

    def _send(self, method: str, path: str, body: Any, query: dict[str, str] | None, timeout: float) -> Any:
        from azure.core.rest import HttpRequest

        url = f"{self._endpoint}{path}" if path.startswith("/") else f"{self._url}/{path}".rstrip("/")
        request = HttpRequest(method, url, params={**self._query, **(query or {})}, json=body)
        timeouts = {"connection_timeout": min(timeout, 10), "read_timeout": timeout}
        response = self._client.send_request(request, **timeouts)
        if response.status_code == 401:
            # The token may have been revoked early, and a client caches its token: a new client gets a new one.
            self._client = self._new_client()
            response = self._client.send_request(request, **timeouts)
        self._remember(method, path, response)
        response.raise_for_status()
        if response.status_code >= 300:
            # Azure does not redirect these requests, and the login must not go to another host.
            raise BrokenAnswerError(f"is a redirect ({response.status_code})")
        return json_of(response.content, response.headers.get("Content-Type") or "")

    def _remember(self, method: str, path: str, response: Any) -> None:
        said = response.headers
        request_id = said.get("x-ms-correlation-request-id") or said.get("x-ms-request-id")
        self.answered.append(Answered(method, path, response.status_code, request_id, said.get("Date")))

    def read(self, path: str = "", *, query: dict[str, str] | None = None) -> Answer:
        """Get an object."""
        return Answer(self.call("GET", path, query=query))

    def read_all(self, path: str, most: int) -> list[Answer]:
        """The objects of a list from all its pages, in the service's order; at most so many."""
        found: list[Answer] = []
        for page in pages(lambda query: self.read(path, query=query), most):
            found += page.objects("value", needed=True)
            if len(found) >= most:
                break
        return found[:most]

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


def pages(ask: Callable[[dict[str, str]], Answer], most: int) -> Iterator[Answer]:
    """The pages of a list, each asked for with its query; they may be empty, and there may be endlessly many."""
    query: dict[str, str] = {}
    for _ in range(most):
        page = ask(query)
        yield page
        link = page.text("nextLink")
        if not link:
            return
        query = dict(parse_qsl(link.partition("?")[2]))  # its host is not contacted


def user_agent_policy() -> Any:
    """Identifies azml_dist in requests to Azure."""
    from azure.core.pipeline.policies import UserAgentPolicy

    return UserAgentPolicy(f"azml-dist/{__version__}")


def retrying(
    call: Callable[[], R],
    *,
    stop: threading.Event | None = None,
    attempts: int = ATTEMPTS,
) -> R:
    """The result of `call`, which is repeated if the service is busy or the connection breaks."""
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
    """The same retries for azure-ai-ml's own requests.

    azure-core's default is ten attempts, and it would sleep for an hour if Azure asks for that.
    """
    from azure.core.pipeline.policies import RetryPolicy

    class Bounded(RetryPolicy):  # type: ignore[misc]  # azure-core is not imported by the type checker
        def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
            end = settings.setdefault("end", time.monotonic() + PATIENCE)
            in_time = time.monotonic() + (self.get_retry_after(response) or 0) < end
            return in_time and bool(super().is_retry(settings, response))

    return Bounded(retry_total=ATTEMPTS - 1, retry_backoff_factor=BACKOFF, retry_backoff_max=10)


def no_redirects() -> Any:
    """For azure-ai-ml's own requests: does not follow redirects with the login."""
    from azure.core.pipeline.policies import RedirectPolicy

    return RedirectPolicy.no_redirects()


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait after an error; None if a retry would not help."""
    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

    backoff = min(BACKOFF * 2 ** (attempt - 1), 5) * random.uniform(0.8, 1.2)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return None if never_heals(error) else backoff
    if isinstance(error, HttpResponseError) and error.status_code in _TRANSIENT:
        asked = _retry_after(error)
        return backoff if asked is None else asked
    return None


def never_heals(error: BaseException) -> bool:
    """Whether a connection failed for a permanent reason: a certificate, or a name that does not exist."""
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


@contextmanager
def _without_reports() -> Iterator[None]:
    """Without logging set up, Python would print azure-identity's long report about every login that it tried."""
    logger, quiet = logging.getLogger("azure.identity"), logging.NullHandler()
    logger.addHandler(quiet)
    try:
        yield
    finally:
        logger.removeHandler(quiet)
