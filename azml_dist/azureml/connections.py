"""Connections to Azure for many threads. Proxy and certificate settings are read only once."""

from __future__ import annotations

import os
from typing import Any

from azml_dist.errors import SubmitError

TIMEOUTS = {"connection_timeout": 10, "read_timeout": 60}
"""Seconds, for requests to the storage."""


def session(url: str, at_a_time: int = 10) -> Any:
    """A `requests.Session` for one host that keeps a connection for each thread.

    requests itself would read the environment for every request and the file of root certificates for every
    connection, which takes 22 ms of CPU time for certifi's.
    """
    import requests

    made = requests.Session()
    made.trust_env = False
    made.proxies = requests.utils.get_environ_proxies(url)
    made.mount("https://", _adapter(at_a_time))
    return made


def transport(url: str, at_a_time: int = 10) -> Any:
    """The same as an azure-core transport."""
    from azure.core.pipeline.transport import RequestsTransport

    return RequestsTransport(session=session(url, at_a_time), session_owner=False)


def _adapter(at_a_time: int) -> Any:
    from requests.adapters import HTTPAdapter

    context = _trusting()

    class OneContext(HTTPAdapter):
        """All connections share one TLS context."""

        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **options)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=context, **options)

        def cert_verify(self, *_: Any) -> None:
            """The context has the certificates already; requests would read them again for each connection."""

    return OneContext(pool_maxsize=at_a_time)


def _trusting() -> Any:
    """A TLS context that trusts the same certificates as requests."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH
    from urllib3.util import create_urllib3_context

    context = create_urllib3_context()
    variable = next((name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)), "")
    authorities = os.environ.get(variable) or DEFAULT_CA_BUNDLE_PATH
    try:
        context.load_verify_locations(**{"capath" if os.path.isdir(authorities) else "cafile": authorities})
    except OSError as error:
        raise SubmitError(
            f"cannot read root certificates from {authorities}: {error.strerror or error}",
            hint=f"this path is set in {variable}" if variable else "`pip install --force-reinstall certifi`",
        ) from error
    return context
