"""Why a connection to Azure failed, from the messages of Python's HTTP packages."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

_SIGNS = re.compile(
    r"HTTPS?Connection|Max retries exceeded|certificate.verify.failed|Unable to connect to proxy"
    r"|Tunnel connection failed|Connection aborted|Connection reset|Failed to resolve|Failed to establish"
    r"|Name or service not known|getaddrinfo",
    re.IGNORECASE,
)
"""Matches texts that are about a connection and not about an answer."""
_UNKNOWN_NAME = ("resolve", "name or service not known", "nodename nor servname", "getaddrinfo")


class Trouble(NamedTuple):
    """What is wrong with the connection, and what to do."""

    message: str
    hint: str


def speaks_of_a_connection(text: str) -> bool:
    """Whether a text, such as that of a failed login, is about a connection."""
    return _SIGNS.search(text) is not None


def trouble(text: str, place: str) -> Trouble:
    """The cause of a failed connection to `place`, or to the host that the text names."""
    low = " ".join(text.lower().split())
    proxy = _proxy()
    hosts = [host for host in re.findall(r"host='([^']+)'", text) if host != (urlsplit(f"//{proxy}").hostname or "")]
    place = hosts[0] if hosts else place
    if "certificate" in low or "ssl" in low:
        return _of_certificate(low, place)
    if "tunnel connection failed: 407" in low:
        return Trouble("the proxy requires a login", "add it to HTTPS_PROXY: http://USER:PASSWORD@HOST")
    if proxy and "proxy" in low:
        if "tunnel connection failed" in low:
            return Trouble(
                f"the proxy in HTTPS_PROXY blocks {place}",
                f"ask for access to {place}, or add it to NO_PROXY if it can be reached without the proxy",
            )
        if any(words in low for words in (*_UNKNOWN_NAME, "refused", "timed out", "unreachable", "no route")):
            return Trouble(
                f"the proxy in HTTPS_PROXY, {proxy}, cannot be reached", "check HTTPS_PROXY and NO_PROXY, or unset them"
            )
    if any(words in low for words in _UNKNOWN_NAME):
        return Trouble(
            f"the host name {place} was not found (DNS)",
            "are you online? The name of a private workspace exists only inside its network",
        )
    if "timed out" in low or "timeout" in low:
        return Trouble(f"{place} does not answer", "a firewall may block it; set HTTPS_PROXY if you need a proxy")
    if "unreachable" in low or "no route" in low:
        return Trouble(f"no network connection to {place}", "are you online? Is the VPN up?")
    if "refused" in low:
        return Trouble(f"{place} refuses connections", "a firewall or an entry in the hosts file may be the reason")
    return Trouble(
        f"the connection to {place} broke repeatedly",
        "try again; a proxy or firewall may be closing connections",
    )


def _of_certificate(low: str, place: str) -> Trouble:
    if "expired" in low or "not yet valid" in low:
        now = datetime.now(timezone.utc)
        return Trouble(
            f"the certificate of {place} is not valid at this machine's time, {now:%Y-%m-%d %H:%M} UTC",
            "set the clock if it is wrong; otherwise a proxy has an outdated certificate",
        )
    return Trouble(
        f"the certificate of {place} is not trusted",
        "behind a proxy that inspects TLS, set REQUESTS_CA_BUNDLE to the file with its root certificate",
    )


def _proxy() -> str:
    """Host and port of the https proxy, without a login; empty if there is none."""
    address = getproxies().get("https") or getproxies().get("all") or ""
    return urlsplit(address if "//" in address else f"//{address}").netloc.rpartition("@")[2]
